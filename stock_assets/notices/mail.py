"""E-mail: notices as plain text, through a mail server of the user's.

A message has the same Message-ID in every copy, so that mail programs show one of them. The
password is in no error: what a server says is masked, also where it repeats what it was sent.
"""

from __future__ import annotations

import base64
import smtplib
import ssl
import threading
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

from stock_assets.notices.channels import ChannelDownError, MessageRefusedError
from stock_assets.notices.notice import Notice, message_id
from stock_assets.sources.masking import Mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stock_assets.settings import EmailSettings

TIMEOUT = 5.0
"""Seconds for each step with the server."""

WHOLE = 15.0
"""Seconds for all steps: a server that answers a byte at a time is hung up on."""

LISTED = 100
"""Notices that one message lists."""

_SUBJECT = 150
_SHOWN = 200
_PERMANENT = 500
_PASSWORD = "STOCK_ASSETS_NOTICES__EMAIL__PASSWORD"  # noqa: S105 - the variable's name

_ADVICE: dict[type[Exception], tuple[str, str]] = {
    smtplib.SMTPAuthenticationError: (
        "it refused the user",
        f"check notices.email.user and {_PASSWORD}",
    ),
    smtplib.SMTPNotSupportedError: (
        "it does not offer that",
        'set notices.email.security to what it does: "starttls", or "ssl" with port 465',
    ),
    smtplib.SMTPSenderRefused: ("it refused the sender", "check notices.email.from"),
    smtplib.SMTPRecipientsRefused: ("it refused all addresses", "check notices.email.to"),
    ssl.SSLCertVerificationError: (
        "its certificate is not trusted",
        "name the authority's PEM file in the environment variable SSL_CERT_FILE",
    ),
    ssl.SSLError: (
        "it does not speak TLS there",
        "check notices.email.security and port",
    ),
}
"""What an error means, and what to mend; the first kind that fits counts."""


class Mail:
    """Sends messages from one address to a few, through one server."""

    name = "email"

    def __init__(self, own: EmailSettings) -> None:
        self._own = own
        self._mask = Mask(_secrets(own))

    def send(self, notices: Sequence[Notice], *, again: bool) -> str:
        """Connect, send one message to all addresses, and leave."""
        text = message(notices, self._own, again=again)
        begun = False
        try:
            with self._connected() as server:
                begun = True
                refused = server.send_message(text)
        except smtplib.SMTPDataError as error:
            words = f"{self._place} refused the message ({self._said(error)})"
            if error.smtp_code >= _PERMANENT:
                raise MessageRefusedError(words) from None
            raise ChannelDownError(f"{words}; it is tried again") from None
        except (smtplib.SMTPException, OSError) as error:
            # The connection was lost while the message went out: it may be there.
            cut = isinstance(error, smtplib.SMTPServerDisconnected)
            lost = begun and (cut or not isinstance(error, smtplib.SMTPException))
            words = f"{self._place}: {self._advice(error)}"
            raise ChannelDownError(words, may_have_arrived=lost) from None
        if refused:
            return f"sent, but {self._place} refused {', '.join(sorted(refused))}"
        return f"sent to {', '.join(self._own.to)}"

    @property
    def _place(self) -> str:
        return f"the mail server {self._own.host}:{self._own.port}"

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A conversation that is encrypted and introduced as the settings say."""
        context = ssl.create_default_context()
        if self._own.security == "ssl":
            server: smtplib.SMTP = smtplib.SMTP_SSL(timeout=TIMEOUT, context=context)
        else:
            server = smtplib.SMTP(timeout=TIMEOUT)
        # Certificates are checked against the name, which the constructor leaves to `connect`.
        server._host = self._own.host  # type: ignore[attr-defined]  # noqa: SLF001
        end = threading.Timer(WHOLE, _hang_up, [server])
        end.daemon = True
        end.start()
        try:
            server.connect(self._own.host, self._own.port)
            if self._own.security == "starttls":
                server.starttls(context=context)
            if self._own.user:
                server.login(self._own.user, self._own.password.get_secret_value())
            yield server
            # It has the message: how it says goodbye changes nothing.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            end.cancel()
            server.close()

    def _advice(self, error: Exception) -> str:
        """What went wrong, and what to mend."""
        said = self._said(error)
        for kind, words in _ADVICE.items():
            if isinstance(error, kind):
                return f"{words[0]} ({said}); {words[1]}"
        return f"it could not be reached ({said}); check notices.email.host, port and security"

    def _said(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        if isinstance(error, smtplib.SMTPResponseException):
            words = error.smtp_error
            said = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
            text = f"{error.smtp_code} {said}"
        return " ".join(self._mask.text(text).split())[:_SHOWN]


def message(notices: Sequence[Notice], own: EmailSettings, *, again: bool = False) -> EmailMessage:
    """The mail of one notice, or the list of several. `again`: it may have arrived before."""
    first = notices[0]
    if len(notices) == 1:
        subject, body = first.what, _whole(first)
    else:
        subject = f"{len(notices)} notices"
        body = "\n".join(f"- {_line(item)}" for item in notices[:LISTED])
        if len(notices) > LISTED:
            body += f"\n... and {len(notices) - LISTED} more"
        body += "\n\nEach with what to do next:\n  stock-assets notices list\n"
    if again:
        body += "\nThis may have arrived before: it was sent, and what came of it is not known.\n"
    text = EmailMessage()
    # A line break in a header would begin another one.
    text["Subject"] = " ".join(f"[Stock Assets] {subject}".split())[:_SUBJECT]
    text["From"] = own.sender
    text["To"] = ", ".join(own.to)
    text["Date"] = format_datetime(first.when)
    text["Message-ID"] = f"<{message_id(notices)}@notices.stock-assets.invalid>"
    text["Auto-Submitted"] = "auto-generated"
    text.set_content(body)
    return text


def _whole(notice: Notice) -> str:
    steps = [f"{place}. {step}" for place, step in enumerate(notice.next, 1)]
    parts = [
        notice.what,
        notice.why,
        "\n".join(
            ["What to do next:", *steps, *([f"   {notice.command}"] if notice.command else [])]
        )
        if steps
        else "",
        notice.link,
        f"{notice.kind}, {notice.when:%Y-%m-%d %H:%M} UTC, {notice.id}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(notice: Notice) -> str:
    return f"{notice.level}: {notice.what}" + (f"\n  {notice.link}" if notice.link else "")


def _hang_up(server: smtplib.SMTP) -> None:
    """End the conversation from another thread: who waits for an answer gets an error."""
    import socket  # noqa: PLC0415

    if server.sock is not None:
        with suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)


def _secrets(own: EmailSettings) -> list[str]:
    """The password, and the forms in which it is sent, the longest first."""
    password = own.password.get_secret_value()
    if not password:
        return []
    sent = [f"\0{own.user}\0{password}", password]
    return [*(base64.b64encode(item.encode()).decode() for item in sent), password]
