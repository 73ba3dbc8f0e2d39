"""The webhook on a real server: what it is sent, what it may answer, where its address shows."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from api_server import ApiServer, Fault
from pydantic import SecretStr
from werkzeug.wrappers import Request, Response

from stock_assets.notices import webhook
from stock_assets.notices.channels import ChannelDownError, MessageRefusedError
from stock_assets.notices.delivery import deliver
from stock_assets.notices.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stock_assets.notices.journal import Journal
    from stock_assets.notices.notice import Notice

SECRET = "B0PLANTED/x9YkSECRETSECRETq7"
PATH = f"/services/T0AAAAAAA/{SECRET}"


def repeats(request: Request) -> Response:
    """What a host may say: its own path, and all that it was sent."""
    if request.path != PATH:
        return Response("no_service", 404)
    return Response("ok")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(repeats) as found:
        yield found


def hook(server: ApiServer) -> Webhook:
    return Webhook(SecretStr(server.url + PATH))


def test_a_post_is_slacks_json_with_the_notices_id(
    server: ApiServer, make: Callable[..., Notice]
) -> None:
    notice = make()
    assert hook(server).send([notice], again=False) == "answered 200 ok"
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", PATH)
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["idempotency-key"] == notice.id
    sent = json.loads(seen.body)
    assert sent["text"] == "Run failed (run failed: 1)"
    assert sent["blocks"][0]["type"] == "header"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_not_now_is_tried_again(
    server: ApiServer, make: Callable[..., Notice], status: int
) -> None:
    server.fail_next(Fault("status", status, headers=(("Retry-After", "17"),)))
    with pytest.raises(ChannelDownError, match=f"answered {status}.*it is tried again") as caught:
        hook(server).send([make()], again=False)
    assert caught.value.pause == 17
    assert len(server.seen) == 1, "the tick has no time to wait"


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 410])
def test_an_address_that_is_no_longer_good_says_what_to_do(
    server: ApiServer, make: Callable[..., Notice], status: int
) -> None:
    elsewhere = (("Location", server.url + "/elsewhere"),)
    server.fail_next(Fault("status", status, body="no_service", headers=elsewhere))
    with pytest.raises(ChannelDownError, match=r"Make a new one.*STOCK_ASSETS_NOTICES__WEBHOOK"):
        hook(server).send([make()], again=False)
    assert len(server.seen) == 1, "a secret is not sent to wherever a redirect leads"


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_message_is_told_from_a_channel_that_is_down(
    server: ApiServer, make: Callable[..., Notice], status: int
) -> None:
    server.fail_next(Fault("status", status, body="invalid_payload"))
    with pytest.raises(MessageRefusedError, match=f"answered {status} .invalid_payload"):
        hook(server).send([make()], again=False)


def test_an_answer_that_does_not_come_may_have_been_a_yes(
    server: ApiServer, make: Callable[..., Notice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT", 0.2)
    server.fail_next(Fault("slow", seconds=0.6))
    with pytest.raises(ChannelDownError, match="could not be reached") as caught:
        hook(server).send([make()], again=False)
    assert caught.value.may_have_arrived


def test_a_host_that_is_not_there_cannot_have_it(make: Callable[..., Notice]) -> None:
    with ApiServer(repeats) as gone:
        address = gone.url + PATH
    with pytest.raises(ChannelDownError, match="is there a connection to its host") as caught:
        Webhook(SecretStr(address)).send([make()], again=False)
    assert not caught.value.may_have_arrived


def test_down_then_up_each_notice_arrives_once(
    server: ApiServer, journal: Journal, make: Callable[..., Notice], now
) -> None:
    server.fail_next(Fault("status", 503), Fault("drop"), Fault("status", 500))
    moment = now
    journal.add([make("a"), make("b")], ["webhook"], now)
    while deliver(journal, [hook(server)], moment):
        moment += timedelta(seconds=30)
    titles = [json.loads(seen.body)["text"] for seen in server.seen if not seen.fault]
    assert titles == ["(again) Run failed (a)", "Run failed (b)"], "half an answer came for `a`"


@pytest.mark.parametrize("trouble", ["none", "503", "404", "400", "echo", "drop", "gone"])
def test_the_address_is_in_no_log_error_or_journal(
    journal: Journal,
    make: Callable[..., Notice],
    now,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    # At the libraries' most talkative.
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore.connection", "httpcore.http11"):
        logging.getLogger(name).setLevel(logging.DEBUG)

    def echo(request: Request) -> Response:
        status = int(trouble) if trouble.isdecimal() else 502 if trouble == "echo" else 200
        headers = {"Location": request.url, "X-Path": request.path}
        return Response(f"no: {request.url} {request.path}", status, headers)

    with ApiServer(echo) as server:
        if trouble == "drop":
            server.fail_next(Fault("drop"))
        channel = hook(server)
        if trouble != "gone":
            journal.add([make()], ["webhook"], now)
            deliver(journal, [channel], now)
    if trouble == "gone":
        journal.add([make()], ["webhook"], now)
        deliver(journal, [channel], now)
    written = "".join(file.read_text() for file in journal.folder.iterdir())
    said = capfd.readouterr()
    everything = written + caplog.text + said.out + said.err + repr(channel)
    assert '"trying"' in written
    for part in (SECRET, *SECRET.split("/"), "T0AAAAAAA"):
        assert part not in everything
