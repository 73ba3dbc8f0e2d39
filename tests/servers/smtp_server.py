"""A mail server on loopback, with its faults: enough SMTP for Python's own client, and TLS.

It keeps what it was sent, and answers as it is told to.
"""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from email.message import EmailMessage


@dataclass
class Rules:
    """What the server does."""

    user: str = ""
    password: str = ""
    starttls: ssl.SSLContext | None = None
    always_tls: ssl.SSLContext | None = None
    answers: dict[str, bytes] = field(default_factory=dict)
    """Verb -> what is answered instead; `BODY` is the end of the message."""
    hang: threading.Event | None = None
    """Say nothing at all until it is set."""
    hang_up_after_body: bool = False


class SmtpServer:
    """Takes mails on a free port of 127.0.0.1 until it is left; use it with `with`."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.mails: list[EmailMessage] = []
        self.said: list[str] = []
        """Lines of clients as they came, decrypted."""
        self.encrypted: list[bool] = []
        """Of each mail, whether it came encrypted."""
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.talk(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.rules.hang is not None:
            self.rules.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def talk(self, handler: socketserver.StreamRequestHandler) -> None:
        """One conversation."""
        try:
            self._talk(handler)
        except (OSError, ValueError):
            return

    def _talk(  # noqa: C901, PLR0912 - a conversation reads best in one piece
        self, handler: socketserver.StreamRequestHandler
    ) -> None:
        rules, link = self.rules, handler.connection
        if rules.hang is not None:
            rules.hang.wait(30)
            return
        if rules.always_tls is not None:
            link = rules.always_tls.wrap_socket(link, server_side=True)
        stream = link.makefile("rwb")

        def say(line: bytes) -> None:
            stream.write(line + b"\r\n")
            stream.flush()

        say(b"220 here")
        while line := stream.readline().decode().rstrip("\r\n"):
            self.said.append(line)
            verb = line.partition(" ")[0].upper()
            if verb in rules.answers:
                say(rules.answers[verb])
            elif verb == "EHLO":
                say(b"250-here")
                if rules.starttls is not None and not isinstance(link, ssl.SSLSocket):
                    say(b"250-STARTTLS")
                if rules.user:
                    say(b"250-AUTH PLAIN")
                say(b"250 8BITMIME")
            elif verb == "STARTTLS":
                assert rules.starttls is not None
                say(b"220 go on")
                link = rules.starttls.wrap_socket(link, server_side=True)
                stream = link.makefile("rwb")
            elif verb == "AUTH":
                known = base64.b64encode(f"\0{rules.user}\0{rules.password}".encode()).decode()
                # A server that repeats what it was sent.
                right = line.endswith(known)
                say(b"235 welcome" if right else f"535 no: {line}".encode())
            elif verb == "DATA":
                say(b"354 go on")
                lines = []
                while (part := stream.readline()) != b".\r\n":
                    lines.append(part.removeprefix(b".") if part.startswith(b"..") else part)
                if "BODY" in rules.answers:
                    say(rules.answers["BODY"])
                    continue
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                self.mails.append(cast("EmailMessage", mail))
                self.encrypted.append(isinstance(link, ssl.SSLSocket))
                if rules.hang_up_after_body:
                    return
                say(b"250 taken")
            elif verb == "QUIT":
                say(b"221 bye")
                return
            else:
                say(b"250 fine")
