"""Keeping secrets out of what is written: answers that repeat them, messages, libraries' logs.

Where a secret comes from and which header carries it is its source's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = "[secret]"

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
"""Those that tell of requests. By name: a filter of `httpcore` does not see its children's."""


class Mask(logging.Filter):
    """Puts `HIDDEN` in the place of each secret. As a filter of loggers it lets all records by."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def body(self, body: bytes) -> bytes:
        """The bytes of an answer without secrets."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), HIDDEN.encode())
        return body

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record: the headers of an answer are logged as they came."""
        said = record.getMessage()
        masked = self.text(said)
        if masked != said:
            record.msg, record.args = masked, ()
        return True

    def cover_logs(self) -> None:
        """Mask what the HTTP libraries log from now on."""
        for name in _LOGGERS if self._secrets else ():
            logging.getLogger(name).addFilter(self)

    def uncover_logs(self) -> None:
        """Leave the libraries' logs alone again."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)
