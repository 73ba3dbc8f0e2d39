"""Asking an API: what is tried again, what is not, how long, and what the errors say."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

import pytest
from api_server import EACH_FAULT, ApiServer, Fault
from werkzeug.wrappers import Request, Response

from stock_assets.errors import SourceError
from stock_assets.settings import MoexSettings
from stock_assets.sources.http import Answer, Client, PassingTroubleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "Bearer t.very-secret"


def read(answer: Answer) -> list[int]:
    if answer.content_type != "application/json":
        raise PassingTroubleError(f"it answered {answer.content_type}")
    try:
        found: list[int] = json.loads(answer.body)
    except ValueError:
        raise PassingTroubleError("its JSON was cut off") from None
    return found


def numbers(request: Request) -> Response:
    if request.path == "/missing":
        return Response('{"why": "no such thing"}', 404, content_type="application/json")
    return Response(json.dumps(list(range(50))), content_type="application/json")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(numbers) as serving:
        yield serving


@pytest.fixture
def client(server: ApiServer, tmp_path: Path) -> Iterator[Client]:
    own = MoexSettings(kind="moex", requests_per_second=50, first_wait=0.02, timeout=1, attempts=4)
    with Client("mine", own, server.url, tmp_path, headers={"Authorization": SECRET}) as made:
        yield made


@pytest.mark.parametrize("fault", EACH_FAULT, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_passing_trouble_is_tried_again(server: ApiServer, client: Client, fault: Fault) -> None:
    server.fail_next(fault)
    assert len(client.send("GET", "/x", read)) == 50
    assert [item.fault for item in server.seen] == [fault.kind, ""]


@pytest.mark.parametrize(
    "fault", [Fault("slow", seconds=1.5), Fault("trickle", seconds=0.05)], ids=lambda it: it.kind
)
def test_an_answer_that_takes_too_long_is_tried_again(
    server: ApiServer, client: Client, fault: Fault
) -> None:
    server.fail_next(fault)
    began = time.monotonic()
    assert len(client.send("GET", "/x", read)) == 50
    assert time.monotonic() - began < 4


def test_trouble_that_does_not_pass_names_source_address_and_last_trouble(
    server: ApiServer, client: Client
) -> None:
    server.fail_next(*[Fault("html")] * 3, Fault("status", 503, body="later"))
    with pytest.raises(SourceError, match=r"source mine: GET .*/x was tried 4 times.*503 \(later"):
        client.send("GET", "/x", read)
    assert len(server.seen) == 4


def test_an_error_that_will_not_pass_is_asked_for_once(server: ApiServer, client: Client) -> None:
    with pytest.raises(SourceError, match=r"/missing answered 404 \(.*no such thing"):
        client.send("GET", "/missing", read)
    assert len(server.seen) == 1


def test_the_source_s_own_words_for_a_refusal_win(server: ApiServer, client: Client) -> None:
    def refuse(answer: Answer) -> None:
        if answer.status == 404:
            raise SourceError("ticker ABC is unknown there")

    with pytest.raises(SourceError, match="ticker ABC is unknown there"):
        client.send("GET", "/missing", read, refuse=refuse)
    assert len(server.seen) == 1


def test_a_host_that_says_when_is_left_alone_until_then(server: ApiServer, client: Client) -> None:
    server.fail_next(Fault("status", 429, headers=(("Retry-After", "0.7"),)))
    client.send("GET", "/x", read)
    first, second = server.seen
    assert second.moment - first.moment >= 0.6


def test_many_requests_keep_their_order_their_limit_and_few_connections(
    server: ApiServer, tmp_path: Path
) -> None:
    server.fail_at_random(0.2, *EACH_FAULT)
    # With four tries one of sixty requests would have bad luck each time in a tenth of all storms.
    own = MoexSettings(kind="moex", requests_per_second=50, first_wait=0.02, timeout=1, attempts=15)
    with Client("mine", own, server.url, tmp_path) as client:
        found = client.map(
            lambda item: (item, len(client.send("GET", f"/{item}", read))),
            range(60), what="things", name=str,
        )  # fmt: skip
    assert found == [(item, 50) for item in range(60)]
    assert server.most_beyond(50) <= 1 + own.connections


def test_one_failure_lets_the_others_finish_and_is_named(client: Client) -> None:
    done = []

    def work(name: str) -> None:
        client.send("GET", f"/{name}", read)
        done.append(name)

    with pytest.raises(SourceError, match=r"2 of 12 tickers failed \(missing\).*404"):
        client.map(
            work, [*"abcdef", "missing", *"ghij", "missing"],
            what="tickers", name=lambda item: item,
        )  # fmt: skip
    assert sorted(done) == list("abcdefghij")


def test_a_host_that_is_not_there_is_named(tmp_path: Path) -> None:
    own = MoexSettings(kind="moex", first_wait=0.01, attempts=2)
    with Client("mine", own, "http://127.0.0.1:9", tmp_path) as client:  # noqa: SIM117
        with pytest.raises(SourceError, match=r"127.0.0.1:9/x was tried 2 times.*no connection"):
            client.send("GET", "/x", read)


def test_the_client_says_who_it_is_and_never_what_it_knows(
    server: ApiServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail_next(*EACH_FAULT[:3], Fault("status", 503))
    with pytest.raises(SourceError) as caught:
        client.send("GET", "/x", read, params={"from": "2026-01-01"})
    assert server.seen[0].headers["authorization"] == SECRET
    assert "stock-assets" in server.seen[0].headers["user-agent"]
    assert "very-secret" not in caplog.text
    assert "very-secret" not in str(caught.value) + repr(client)


def test_an_answer_without_end_is_not_read_to_the_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_assets.sources.http._LARGEST_ANSWER", 100)
    with pytest.raises(SourceError, match="answers without end"):
        client.send("GET", "/x", read)


def test_of_a_host_that_is_down_only_the_first_requests_are_waited_for(tmp_path: Path) -> None:
    own = MoexSettings(
        kind="moex", first_wait=0.01, attempts=2, requests_per_second=50, connections=2
    )
    tried = []

    def work(client: Client, item: int) -> None:
        tried.append(item)
        client.send("GET", f"/{item}", read)

    with Client("mine", own, "http://127.0.0.1:9", tmp_path) as client:  # noqa: SIM117
        with pytest.raises(SourceError, match=r"500 of 500 things failed.*no connection"):
            client.map(lambda item: work(client, item), range(500), what="things", name=str)
    assert 8 <= len(tried) <= 10


def test_failures_between_successes_are_no_host_that_is_down(
    server: ApiServer, client: Client
) -> None:
    def work(item: int) -> int:
        if item % 2:
            server.fail_next(*[Fault("status", 503)] * 4)
        return len(client.send("GET", f"/{item}", read))

    for item in range(24):
        if item % 2:
            with pytest.raises(SourceError, match="was tried 4 times"):
                client.map(work, [item], what="things", name=str)
        else:
            assert client.map(work, [item], what="things", name=str) == [50]


def test_who_has_no_time_is_told_soon(server: ApiServer, client: Client) -> None:
    """For looks, which must end within a schedule's tick."""
    began = time.monotonic()
    client.finish_by = began + 0.8
    server.fail_next(Fault("status", status=503), Fault("slow", seconds=3))
    with pytest.raises(SourceError, match=r"tried 2 times|no time left"):
        client.send("GET", "/x", read)
    assert time.monotonic() - began < 10
    sent = len(server.seen)
    with pytest.raises(SourceError, match=r"source mine: there was no time left to ask http"):
        client.send("GET", "/x", read)
    assert len(server.seen) == sent


def test_who_would_wait_for_the_host_longer_than_there_is_time_does_not_wait(
    server: ApiServer, client: Client
) -> None:
    client.finish_by = time.monotonic() + 5
    began = time.monotonic()
    server.fail_next(Fault("status", status=503, headers=(("Retry-After", "60"),)))
    with pytest.raises(SourceError, match="tried 1 times"):
        client.send("GET", "/x", read)
    with pytest.raises(SourceError, match="busy with runs"):
        client.send("GET", "/x", read)
    assert time.monotonic() - began < 20
    assert len(server.seen) == 1
