"""What a way of telling people is, and which of them are configured.

Each channel sends one message and says what came of it by what it raises; when and how often it is
asked to is in `delivery.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.notices.notice import Notice
    from stock_assets.settings import Settings


class Channel(Protocol):
    """A way to reach people."""

    @property
    def name(self) -> str:
        """As it stands in the journal."""
        ...

    def send(self, notices: Sequence[Notice], *, again: bool) -> str:
        """Tell one notice, or a list of them, in one message; return what was said to it.

        `again`: an earlier attempt may have arrived. Raises `ChannelDownError` or
        `MessageRefusedError`; neither says a secret.
        """
        ...


class ChannelDownError(Exception):
    """Nothing can be told this way now, whatever it is. The message says what to mend.

    `pause` is how many seconds the other side wants to be left alone, where it says so.
    `may_have_arrived`: the message was sent, and no answer came.
    """

    def __init__(self, what: str, pause: float = 0.0, *, may_have_arrived: bool = False) -> None:
        super().__init__(what)
        self.pause = pause
        self.may_have_arrived = may_have_arrived


class MessageRefusedError(Exception):
    """The message is not taken; others may be."""


def configured(settings: Settings) -> list[Channel]:
    """The channels of the settings. Nothing is connected or imported before one is used."""
    # Imported here: each knows the errors above.
    from stock_assets.notices.mail import Mail  # noqa: PLC0415
    from stock_assets.notices.webhook import Webhook  # noqa: PLC0415

    found: list[Channel] = []
    if settings.notices.webhook is not None:
        found.append(Webhook(settings.notices.webhook))
    if settings.notices.email is not None:
        found.append(Mail(settings.notices.email))
    return found
