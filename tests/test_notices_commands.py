"""`stock-assets notices`, and its settings: secrets from the environment, and shown nowhere."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
from api_server import ApiServer, Fault
from smtp_server import SmtpServer
from typer.testing import CliRunner
from werkzeug.wrappers import Response

from stock_assets.cli import app
from stock_assets.errors import SettingsError
from stock_assets.notices.delivery import deliver
from stock_assets.notices.journal import Journal
from stock_assets.notices.notice import Kind, Level, Notice
from stock_assets.settings import (
    SAMPLE_SETTINGS,
    EmailSettings,
    NoticeSettings,
    load_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

WEBHOOK, PASSWORD = "STOCK_ASSETS_NOTICES__WEBHOOK", "STOCK_ASSETS_NOTICES__EMAIL__PASSWORD"
SECRET = "T0PLANTED/B0PLANTED/zzzzSECRETzzzz"
MARKET = """
[[universe]]
ticker = "AAA"
source = "made"
[sources.made]
kind = "simulated"
"""
EMAIL = """
[notices.email]
host = "127.0.0.1"
port = {port}
security = "none"
from = "lake@example.org"
to = ["one@example.org"]
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(more: str = "") -> Path:
        file = tmp_path / "market.toml"
        file.write_text(MARKET + more)
        return file

    return write


def test_a_test_goes_through_every_channel(write, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(lambda _: Response("ok")) as server, SmtpServer() as mails:
        monkeypatch.setenv(WEBHOOK, f"{server.url}/services/{SECRET}")
        file = write(EMAIL.format(port=mails.port))
        done = CliRunner().invoke(app, ["notices", "test", "--settings", str(file)])
    assert done.exit_code == 0, done.output
    assert "webhook: answered 200 ok" in done.output
    assert "email: sent to one@example.org" in done.output
    assert json.loads(server.seen[0].body)["text"] == "Notices of Stock Assets arrive here"
    assert f"--settings {file}" in mails.mails[0].get_content()


def test_a_channel_that_fails_is_told_with_the_fix_and_does_not_stop_the_other(
    write, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer(lambda _: Response("ok")) as server, SmtpServer() as mails:
        server.fail_next(Fault("status", 404, body="no_service"))
        monkeypatch.setenv(WEBHOOK, f"{server.url}/services/{SECRET}")
        file = write(EMAIL.format(port=mails.port))
        done = CliRunner().invoke(app, ["notices", "test", "--settings", str(file)])
    assert done.exit_code == 6
    assert "404 (no_service)" in done.output
    assert f"set {WEBHOOK}" in done.output
    assert "email: sent" in done.output
    assert SECRET not in done.output


def test_without_a_channel_a_test_says_how_to_have_one(write) -> None:
    done = CliRunner().invoke(app, ["notices", "test", "--settings", str(write())])
    assert done.exit_code == 0
    assert WEBHOOK in done.output
    assert "[notices.email]" in done.output


def test_the_list_shows_what_was_told_what_to_do_and_what_waits(write) -> None:
    file = write()
    journal = Journal(load_settings(file).notices_dir)
    now = dt.datetime.now(tz=dt.UTC)
    with journal.lock():
        for age, key in ((40, "old"), (1, "new")):
            when = now - dt.timedelta(age)
            notice = Notice(
                key, Kind.STALE, Level.ERROR, when, f"what {key}", "why", ("do this",), "a command"
            )
            journal.add([notice], ["webhook"], when)
            if key == "old":
                deliver(journal, [], now)
    done = CliRunner().invoke(app, ["notices", "list", "--settings", str(file)])
    for part in ("ERROR  what new", "1. do this", "a command", "webhook: waiting: not tried yet"):
        assert part in done.output
    assert "what old" not in done.output
    since = str((now - dt.timedelta(50)).date())
    command = ["notices", "list", "--since", since, "--json", "--settings", str(file)]
    found = json.loads(CliRunner().invoke(app, command).stdout)
    assert [item["what"] for item in found] == ["what old", "what new"]
    assert found[0]["channels"]["webhook"].startswith("given up: not told in 3 days")


def test_nothing_told_is_said(write) -> None:
    done = CliRunner().invoke(app, ["notices", "list", "--settings", str(write())])
    assert done.exit_code == 0
    assert "nothing was told since" in done.output


# Settings.


@pytest.mark.parametrize(
    ("more", "variable"),
    [
        (f'[notices]\nwebhook = "https://hooks.example.org/{SECRET}"', WEBHOOK),
        (EMAIL.format(port=25) + f'user = "lake"\npassword = "{SECRET}"', PASSWORD),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(write, more: str, variable: str) -> None:
    with pytest.raises(SettingsError, match=f"must not stand in a file.*{variable}") as caught:
        load_settings(write(more))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (WEBHOOK, f"http://hooks.example.org/{SECRET}"),
        (WEBHOOK, SECRET),
        (WEBHOOK, f"https://[{SECRET}"),
        (WEBHOOK, f"ftp://127.0.0.1/{SECRET}"),
        ("STOCK_ASSETS_NOTICES__WEBHOK", SECRET),
        ("STOCK_ASSETS_NOTICES", f'"{SECRET}"'),
        ("STOCK_ASSETS_NOTICES", SECRET),
        ("STOCK_ASSETS_NOTICES", f'{{"webhook": ["{SECRET}"]}}'),
        ("STOCK_ASSETS_NOTICES__EMAIL", f'"{SECRET}"'),
        (PASSWORD, SECRET),
    ],
)
def test_a_secret_that_is_wrong_is_named_and_not_repeated(
    write, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(write())
    assert "notices" in str(caught.value).lower()
    assert SECRET not in str(caught.value)
    done = CliRunner().invoke(app, ["notices", "list", "--settings", str(write())])
    assert isinstance(done.exception, SettingsError)


def test_secrets_are_not_shown_with_the_settings(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, f"https://hooks.example.org/{SECRET}")
    monkeypatch.setenv(PASSWORD, SECRET)
    more = EMAIL.format(port=465).replace('"none"', '"ssl"') + 'user = "lake"'
    found = load_settings(write(more))
    assert found.notices.webhook.get_secret_value().endswith(SECRET)
    assert found.notices.email.password.get_secret_value() == SECRET
    assert SECRET not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"


def test_all_of_email_may_stand_in_the_environment(write, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"HOST": "mail.example.org", "FROM": "a@example.org", "TO": '["b@example.org"]'}
    for name, value in values.items():
        monkeypatch.setenv(f"STOCK_ASSETS_NOTICES__EMAIL__{name}", value)
    own = load_settings(write()).notices.email
    assert (own.host, own.sender, own.to) == (
        "mail.example.org",
        "a@example.org",
        ("b@example.org",),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("one@example.org", "one"), "'one' is not an address"),
        (("one@example.org", "one@example.org\\nBcc: x@y"), "is not an address"),
        (("lake@", "lake"), "notices.email.from"),
        (('host = "127.0.0.1"', ""), "notices.email.host: is missing"),
        (('"none"', '"tls"'), "notices.email.security"),
    ],
)
def test_a_wrong_mail_setting_is_named(write, change: tuple[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(write(EMAIL.format(port=25).replace(*change)))


def test_a_password_is_not_sent_readable_over_the_net(
    write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, SECRET)
    here = EMAIL.format(port=25) + 'user = "lake"'
    assert load_settings(write(here)).notices.email.user == "lake"
    with pytest.raises(SettingsError, match="use starttls") as caught:
        load_settings(write(here.replace("127.0.0.1", "mail.example.org")))
    assert SECRET not in str(caught.value)


def test_the_sample_markets_comments_are_good_settings(write) -> None:
    lines = SAMPLE_SETTINGS.read_text().splitlines()
    section = lines[lines.index("# [notices]") :]
    own = load_settings(write("\n".join(line.removeprefix("# ") for line in section))).notices
    assert own.model_fields_set == {"days", "stale_sessions", "ui", "reports", "email"}
    assert own.email.model_fields_set == EmailSettings.model_fields.keys() - {"password"}
    assert (own.days, own.stale_sessions) == (
        NoticeSettings().days,
        NoticeSettings().stale_sessions,
    )
