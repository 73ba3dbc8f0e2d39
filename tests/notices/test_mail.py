"""E-mail on a real server: what arrives, how it is protected, and what is said of troubles."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from smtp_server import Rules, SmtpServer

from stock_assets.notices import mail
from stock_assets.notices.channels import ChannelDownError, MessageRefusedError
from stock_assets.notices.delivery import deliver
from stock_assets.notices.mail import Mail
from stock_assets.settings import EmailSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stock_assets.notices.journal import Journal
    from stock_assets.notices.notice import Notice

PASSWORD = "s3cr3t-PLANTED-passw0rd"


def channel(server: SmtpServer, **changed: Any) -> Mail:
    values = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "from": "lake@example.org",
        "to": ("one@example.org", "two@example.org"),
    }
    return Mail(EmailSettings(**(values | changed)))


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1, which this machine trusts by SSL_CERT_FILE."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(tz=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(1))
        .not_valid_after(now + dt.timedelta(1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server.pem").write_bytes(private + made.public_bytes(pem))
    (tmp_path / "root.pem").write_bytes(made.public_bytes(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    return context


def test_a_mail_says_it_all_and_has_the_same_name_in_every_copy(
    make: Callable[..., Notice],
) -> None:
    notice = make(what="Прогон упал\nBcc: thief@example.org", why="цена < 5")
    with SmtpServer() as server:
        assert "one@example.org" in channel(server).send([notice], again=False)
        channel(server).send([notice], again=True)
    first, second = server.mails
    assert first["Subject"] == "[Stock Assets] Прогон упал Bcc: thief@example.org"
    assert first["Bcc"] is None
    assert first["To"] == "one@example.org, two@example.org"
    assert (
        first["Message-ID"]
        == second["Message-ID"]
        == (f"<{notice.id}@notices.stock-assets.invalid>")
    )
    body = first.get_content()
    for part in ("цена < 5", "1. Open the run.", "   stock-assets run --from", notice.link):
        assert part in body
    assert "may have arrived before" in second.get_content()
    assert "may have arrived before" not in body


def test_many_notices_are_one_mail(make: Callable[..., Notice]) -> None:
    notices = [make(f"{place}") for place in range(150)]
    with SmtpServer() as server:
        channel(server).send(notices, again=False)
    (got,) = server.mails
    assert got["Subject"] == "[Stock Assets] 150 notices"
    assert "... and 50 more" in got.get_content()


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_user_and_password_go_over_tls_only(
    make: Callable[..., Notice], tls: ssl.SSLContext, security: str
) -> None:
    kind = "starttls" if security == "starttls" else "always_tls"
    with SmtpServer(Rules("lake", PASSWORD, **{kind: tls})) as server:
        own = channel(server, security=security, user="lake", password=PASSWORD)
        own.send([make()], again=False)
    assert server.encrypted == [True]
    assert any(line.startswith("AUTH PLAIN") for line in server.said)


def test_a_certificate_that_nobody_knows_ends_it_before_the_password(
    make: Callable[..., Notice], tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with SmtpServer(Rules("lake", PASSWORD, starttls=tls)) as server:
        own = channel(server, security="starttls", user="lake", password=PASSWORD)
        with pytest.raises(ChannelDownError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            own.send([make()], again=False)
    assert not any(line.startswith("AUTH") for line in server.said)


def test_a_server_without_starttls_gets_nothing(make: Callable[..., Notice]) -> None:
    with (
        SmtpServer(Rules("lake", PASSWORD)) as server,
        pytest.raises(ChannelDownError, match=r"notices.email.security"),
    ):
        channel(server, security="starttls", user="lake", password=PASSWORD).send(
            [make()], again=False
        )
    assert not server.mails
    assert not any(line.startswith("AUTH") for line in server.said)


@pytest.mark.parametrize(
    ("verb", "answer", "kind", "words"),
    [
        ("MAIL", b"550 who are you", ChannelDownError, "notices.email.from"),
        ("RCPT", b"550 no such user", ChannelDownError, "notices.email.to"),
        ("BODY", b"554 looks like spam", MessageRefusedError, "554 looks like spam"),
        ("BODY", b"451 later", ChannelDownError, "tried again"),
    ],
)
def test_what_a_server_refuses_is_named_with_the_fix(
    make: Callable[..., Notice], verb: str, answer: bytes, kind: type[Exception], words: str
) -> None:
    with (
        SmtpServer(Rules(answers={verb: answer})) as server,
        pytest.raises(kind, match=words),
    ):
        channel(server).send([make()], again=False)


def test_a_refused_password_is_named_but_not_said(
    make: Callable[..., Notice],
    journal: Journal,
    now: dt.datetime,
    tls: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    with SmtpServer(Rules("lake", "another", starttls=tls)) as server:
        own = channel(server, security="starttls", user="lake", password=PASSWORD)
        journal.add([make()], ["email"], now)
        assert deliver(journal, [own], now)
    written = "".join(file.read_text() for file in journal.folder.iterdir())
    assert "STOCK_ASSETS_NOTICES__EMAIL__PASSWORD" in written
    assert "535 no: AUTH PLAIN [secret]" in written, "the server repeated what it was sent"
    said = capfd.readouterr()
    everything = written + caplog.text + said.out + said.err + repr(own) + repr(own._own)
    for form in (PASSWORD, f"\0lake\0{PASSWORD}"):
        assert form not in everything
        assert base64.b64encode(form.encode()).decode() not in everything


def test_a_connection_lost_after_the_message_may_have_been_enough(
    make: Callable[..., Notice],
) -> None:
    with (
        SmtpServer(Rules(hang_up_after_body=True)) as server,
        pytest.raises(ChannelDownError) as caught,
    ):
        channel(server).send([make()], again=False)
    assert caught.value.may_have_arrived
    with (
        SmtpServer(Rules(answers={"MAIL": b"550 no"})) as server,
        pytest.raises(ChannelDownError) as caught,
    ):
        channel(server).send([make()], again=False)
    assert not caught.value.may_have_arrived


def test_a_server_that_says_nothing_is_left(
    make: Callable[..., Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "TIMEOUT", 30)
    monkeypatch.setattr(mail, "WHOLE", 0.3)
    with SmtpServer(Rules(hang=threading.Event())) as server:
        began = time.monotonic()
        with pytest.raises(ChannelDownError, match=r"notices.email.host"):
            channel(server).send([make()], again=False)
        assert time.monotonic() - began < 5
