"""Telling through channels: each notice once, none lost, whatever channels and processes do."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.notices.channels import ChannelDownError, MessageRefusedError
from stock_assets.notices.delivery import LONGEST_WAIT, ONE_BY_ONE, PATIENCE, REFUSALS, deliver
from stock_assets.notices.journal import BusyJournalError, Journal
from stock_assets.notices.notice import Kind, Level, Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SECONDS = dt.timedelta(seconds=1)


class Killed(BaseException):
    """The process is gone: nothing after it happens."""


class Fake:
    """A channel that does what it is told to, and keeps what it was sent."""

    def __init__(self, name: str = "webhook") -> None:
        self.name = name
        self.sent: list[tuple[str, ...]] = []
        self.again: list[bool] = []
        self.tried = 0
        self.trouble: BaseException | None = None
        self.dies_after = False
        self.refuses: set[str] = set()

    def send(self, notices: Sequence[Notice], *, again: bool) -> str:
        self.tried += 1
        if self.trouble is not None:
            raise self.trouble
        if {item.key for item in notices} & self.refuses:
            raise MessageRefusedError("400 invalid_payload")
        self.sent.append(tuple(item.key for item in notices))
        self.again.append(again)
        if self.dies_after:
            raise Killed
        return "ok"


def tell(journal: Journal, channels: list[Fake], now: dt.datetime, *notices: Notice) -> bool:
    """What a tick does."""
    with journal.lock():
        journal.add(notices, [channel.name for channel in channels], now)
        return deliver(journal, channels, now)


def test_a_notice_is_told_once_through_each_channel(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channels = [Fake("webhook"), Fake("email")]
    assert not tell(journal, channels, now, make("a"), make("b"))
    assert not tell(Journal(journal.folder), channels, now + SECONDS, make("a"), make("b"))
    assert not tell(journal, channels, now + dt.timedelta(days=50), make("a"))
    for channel in channels:
        assert channel.sent == [("a",), ("b",)]


def test_who_dies_before_it_is_noted_tells_it_again_and_says_so(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel, other = Fake("webhook"), Fake("email")
    channel.dies_after = True
    with pytest.raises(Killed):
        tell(journal, [channel, other], now, make("a"))
    channel.dies_after = False
    assert not tell(Journal(journal.folder), [channel, other], now + SECONDS, make("a"))
    assert not tell(Journal(journal.folder), [channel, other], now + 2 * SECONDS, make("a"))
    assert channel.sent == [("a",), ("a",)]
    assert channel.again == [False, True]
    assert other.sent == [("a",)]
    assert other.again == [False]


@settings(max_examples=25)
@given(st.integers(1, 400))
def test_a_write_that_was_cut_off_anywhere_loses_and_repeats_nothing_but_itself(
    tmp_path_factory: pytest.TempPathFactory, left: int
) -> None:
    folder = tmp_path_factory.mktemp("notices")
    now = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    journal, channel = Journal(folder), Fake()
    values = {
        "kind": Kind.DRIFT,
        "level": Level.INFO,
        "when": now,
        "what": "я",
        "why": "",
        "next": (),
    }
    tell(journal, [channel], now, Notice(key="a", **values))
    (file,) = folder.glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[: -min(left, len(whole) - 1)])
    for _ in range(2):
        tell(Journal(folder), [channel], now + SECONDS, Notice(key="a", **values))
    assert 1 <= len(channel.sent) <= 2
    assert not journal.state(now).anything_waits
    assert len([line for line in journal.lines(now) if line["event"] == "notice"]) == 1


def test_a_channel_that_is_down_blocks_no_other_and_gets_all_later(
    journal: Journal,
    make: Callable[..., Notice],
    now: dt.datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    down, up = Fake("webhook"), Fake("email")
    down.trouble = ChannelDownError("the webhook answered 503")
    assert tell(journal, [down, up], now, make("a"), make("b"))
    assert up.sent == [("a",), ("b",)]
    assert down.tried == 1, "the second would have been lost the same way"
    assert "2 notices wait: the webhook answered 503. Tried again in 30 s" in caplog.text
    assert tell(journal, [down, up], now + SECONDS), "it waits"
    assert down.tried == 1
    down.trouble = None
    assert not tell(journal, [down, up], now + 31 * SECONDS)
    assert down.sent == [("a",), ("b",)]
    assert not any(down.again), "it never arrived"
    assert up.sent == [("a",), ("b",)]


def test_a_channel_that_stays_down_is_tried_ever_less_and_given_up_in_the_end(
    journal: Journal,
    make: Callable[..., Notice],
    now: dt.datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    down = Fake()
    down.trouble = ChannelDownError("the webhook answered 404")
    end = now + PATIENCE + dt.timedelta(hours=2)
    moment, left = now, True
    tell(journal, [down], now, make("a"))
    while left and moment < end:
        moment += dt.timedelta(minutes=5)
        left = tell(journal, [down], moment)
    assert not left
    hours = PATIENCE / LONGEST_WAIT
    assert hours <= down.tried <= hours + 12
    (given_up,) = [line for line in journal.lines(now) if line["event"] == "given up"]
    assert given_up["why"] == "not told in 3 days: the webhook answered 404"
    assert "is not told by webhook: not told in 3 days" in caplog.text


def test_the_other_side_may_ask_for_a_pause(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    channel.trouble = ChannelDownError("429", pause=300)
    tell(journal, [channel], now, make("a"))
    channel.trouble = None
    assert tell(journal, [channel], now + 299 * SECONDS)
    assert not tell(journal, [channel], now + 300 * SECONDS)
    assert channel.sent == [("a",)]


def test_a_message_without_an_answer_says_that_it_may_come_twice(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    channel.trouble = ChannelDownError("no answer", may_have_arrived=True)
    tell(journal, [channel], now, make("a"))
    channel.trouble = None
    tell(journal, [channel], now + 31 * SECONDS)
    assert channel.again == [True]


def test_a_message_that_is_refused_keeps_no_other_from_arriving(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    channel.refuses = {"bad"}
    assert tell(journal, [channel], now, make("bad"), make("good"))
    assert channel.sent == [("good",)]
    for place in range(REFUSALS + 1):
        left = tell(journal, [channel], now + place * SECONDS)
    assert not left
    assert channel.tried == 1 + REFUSALS


def test_a_storm_is_one_message_that_lists_all(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    keys = [f"{place}" for place in range(ONE_BY_ONE + 90)]
    assert not tell(journal, [channel], now, *map(make, keys))
    assert channel.sent == [tuple(keys)]
    assert not tell(journal, [channel], now + SECONDS, *map(make, keys))
    assert len(channel.sent) == 1


def test_one_bad_notice_does_not_take_its_list_with_it(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    channel.refuses = {"3"}
    keys = [f"{place}" for place in range(ONE_BY_ONE + 1)]
    for place in range(REFUSALS + 2):
        left = tell(journal, [channel], now + place * SECONDS, *map(make, keys))
    assert not left
    assert sorted(key for sent in channel.sent for key in sent) == sorted(set(keys) - {"3"})


def test_a_channel_that_comes_later_is_not_told_what_was_before_it(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    assert not tell(journal, [], now, make("a"))
    channel = Fake()
    assert not tell(journal, [channel], now + SECONDS, make("a"), make("b"))
    assert channel.sent == [("b",)]


def test_a_channel_that_is_taken_away_leaves_nothing_waiting(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    channel = Fake()
    channel.trouble = ChannelDownError("503")
    assert tell(journal, [channel], now, make("a"))
    assert not tell(journal, [], now + SECONDS)


def test_the_log_has_one_line_a_notice_with_all_of_it(
    journal: Journal,
    make: Callable[..., Notice],
    now: dt.datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stock_assets.notices")
    notice = make("a", why="Цена < 5", level=Level.WARNING)
    for _ in range(2):
        tell(journal, [], now, notice)
    (line,) = [
        json.loads(text) for text in (journal.folder / "2026-11.jsonl").read_text().splitlines()
    ]
    assert Notice.from_json(line) == notice
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.notice["id"] == notice.id
    assert record.getMessage() == "Run failed (a). Цена < 5"


def test_two_do_not_tell_at_once(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "n"), Journal(tmp_path / "n")
    with one.lock(), pytest.raises(BusyJournalError), other.lock():
        pass
    with other.lock():
        pass


def test_a_journal_of_months_is_read_from_what_may_still_matter(
    journal: Journal, make: Callable[..., Notice], now: dt.datetime
) -> None:
    tell(journal, [], now - dt.timedelta(days=200), make("old"))
    tell(journal, [], now - dt.timedelta(days=40), make("young"))
    assert [item.notice.key for item in journal.state(now).told.values()] == ["young"]
    since = journal.state(now, since=now - dt.timedelta(days=300))
    assert [item.notice.key for item in since.told.values()] == ["old", "young"]
