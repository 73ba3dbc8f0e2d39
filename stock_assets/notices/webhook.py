"""The webhook: Slack's JSON, posted to an address that is itself the secret.

The address is in no message, error or log: whatever libraries say of it is masked first.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from stock_assets.notices.channels import ChannelDownError, MessageRefusedError
from stock_assets.notices.notice import message_id
from stock_assets.notices.slack import message
from stock_assets.sources.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx
    from pydantic import SecretStr

    from stock_assets.notices.notice import Notice

TIMEOUT = 5.0
"""Seconds for each step of a post; the tick that it is part of has a minute for everything."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_OF_THE_MESSAGE = frozenset({400, 413, 422})
_GOOD = range(200, 300)
_SHOWN = 200
_READ = 4096
_TELLING = 8
"""Length from which a part of the address is taken for a secret."""

_VARIABLE = "STOCK_ASSETS_NOTICES__WEBHOOK"


class Webhook:
    """Posts messages to one address."""

    name = "webhook"

    def __init__(self, address: SecretStr) -> None:
        self._address = address.get_secret_value()
        self._mask = Mask(secrets_of(self._address))

    def send(self, notices: Sequence[Notice], *, again: bool) -> str:
        """Post one message. Slack ignores the key that names it; other receivers may use it."""
        import httpx  # noqa: PLC0415

        self._mask.cover_logs()
        try:
            with httpx.stream(
                "POST",
                self._address,
                json=message(notices, again=again),
                headers={"Idempotency-Key": message_id(notices)},
                timeout=TIMEOUT,
                follow_redirects=False,
            ) as answer:
                status, headers = answer.status_code, answer.headers
                said = self._excerpt(_beginning(answer))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # Connected, it may have been sent whole before the answer was lost.
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise ChannelDownError(self._no_answer(error), may_have_arrived=sent) from None
        finally:
            self._mask.uncover_logs()
        if status in _GOOD:
            return f"answered {status} {said}".rstrip()
        words = f"the webhook answered {status} ({said or 'without a word'})"
        if status in _OF_THE_MESSAGE:
            raise MessageRefusedError(f"{words}: it does not take this message")
        if status in _PASSING:
            raise ChannelDownError(f"{words}; it is tried again", _seconds(headers))
        raise ChannelDownError(
            f"{words}: the address is no longer good. Make a new one where this one came from (in "
            f"Slack: Incoming Webhooks), set {_VARIABLE} and start the daemon again"
        )

    def _no_answer(self, error: Exception) -> str:
        """What kept the message from being posted, and what to look at."""
        words = self._mask.text(str(error)) or type(error).__name__
        advice = "is there a connection to its host, and need HTTPS_PROXY be set?"
        if "CERTIFICATE_VERIFY_FAILED" in words:
            advice = "name the authority's PEM file in the environment variable SSL_CERT_FILE"
        return f"the webhook could not be reached ({words[:_SHOWN]}): {advice}"

    def _excerpt(self, body: bytes) -> str:
        text = self._mask.text(body.decode("utf-8", "replace"))
        return " ".join(text.split())[:_SHOWN]


def secrets_of(address: str) -> tuple[str, ...]:
    """The address and all parts of it that give it away, longest first."""
    found = {address}
    with contextlib.suppress(ValueError):
        parts = urlsplit(address)
        own = [parts.path + (f"?{parts.query}" if parts.query else ""), parts.path, parts.query]
        own += re.split(r"[/&=?]", parts.path + "?" + parts.query)
        own += [parts.username or "", parts.password or ""]
        found |= {item for part in own for item in (part, unquote(part)) if len(item) >= _TELLING}
    return tuple(sorted(found, key=len, reverse=True))


def _beginning(answer: httpx.Response) -> bytes:
    """No more of an answer than a message shows, however long it goes on."""
    body = b""
    deadline = time.monotonic() + TIMEOUT
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) >= _READ or time.monotonic() > deadline:
            break
    return body[:_READ]


def _seconds(headers: httpx.Headers) -> float:
    text = headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,6}", text) else 0.0
