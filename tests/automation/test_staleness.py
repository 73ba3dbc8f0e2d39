"""Late candles: told when the evening's looks are over, once, and once more when they have come."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._utils.error import SerializableErrorInfo

from stock_assets.automation import staleness
from stock_assets.automation.schedules import LOOKS, schedule_name
from stock_assets.automation.staleness import GRACE, Known, Watch, look_at
from stock_assets.notices.notice import Kind, Level, Notice
from stock_assets.notices.wording import Places
from stock_assets.partitions import day_clock

from .market import MOSCOW, TICKERS, Market, date

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LAST_ERROR = staleness._last_error


class Watcher:
    """The looks of the sensor at Moscow, from evening to evening."""

    def __init__(self, market: Market) -> None:
        self.market = market
        settings = market.settings
        places = Places("http://ui", settings.tickers)
        self.watch = Watch(settings, market.grid, places, day_clock(settings))
        self.known = Known()

    def look(self, day: str, after: dt.timedelta) -> list[Notice]:
        """So long after the close of a day; as often as the sensor would within the grace."""
        found = []
        begin = MOSCOW.closes_at(date(day)) + after
        for now in (begin, begin + GRACE / 2, begin + GRACE, begin + GRACE):
            known, told = look_at("XMOS", self.known, self.watch, self.market.instance, now)
            # As the cursor keeps it.
            self.known = Known.model_validate_json(known.model_dump_json())
            found += told
        return found

    def night(self, day: str) -> list[Notice]:
        """After the last look of the evening."""
        return self.look(day, LOOKS[-1])

    def live(self, day: str, *silent: str) -> None:
        """A day that is run, with candles of all but these."""
        there = [name for name in TICKERS if name not in silent]
        if there:
            self.market.publish(day, *there)
        # What is not over is held back.
        self.market.now = MOSCOW.closes_at(date(day)) + dt.timedelta(days=1)
        self.market.run(date(day), date(day))


@pytest.fixture
def watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    with dg.DagsterInstance.ephemeral() as instance:
        # An ephemeral one has no place for what becomes of schedules.
        monkeypatch.setattr(staleness, "_last_error", lambda *_: "")
        market = Market(tmp_path / "market", instance)
        market.hold_until("06-03")
        yield Watcher(market)


@pytest.mark.slow
def test_an_exchange_without_candles_is_told_after_the_last_look_and_when_they_came(
    watcher: Watcher,
) -> None:
    assert watcher.night("06-03") == []
    for look in LOOKS[:-1]:
        assert watcher.look("06-04", look) == [], "the schedule still looks"
    (notice,) = watcher.night("06-04")
    assert (notice.kind, notice.level) == (Kind.STALE, Level.ERROR)
    assert notice.what == "No candles of XMOS for 2026-06-04 from mine"
    assert notice.command == "stock-assets sources check mine"
    assert watcher.look("06-04", dt.timedelta(hours=8)) == []
    watcher.live("06-04")
    (notice,) = watcher.look("06-04", dt.timedelta(hours=9))
    assert notice.kind == Kind.WHOLE
    assert watcher.look("06-04", dt.timedelta(hours=10)) == []
    watcher.live("06-05")
    assert watcher.night("06-05") == []


@pytest.mark.slow
def test_an_outage_of_days_is_told_each_session_and_its_end_once(watcher: Watcher) -> None:
    days = ("06-04", "06-05", "06-08")
    told = [notice for day in days for notice in watcher.night(day)]
    assert [notice.key for notice in told] == [f"stale: XMOS 2026-{day}" for day in days]
    watcher.live("06-09")
    (notice,) = watcher.night("06-09")
    assert notice.kind == Kind.WHOLE


@pytest.mark.slow
def test_a_silent_ticker_is_told_after_some_sessions_and_once(watcher: Watcher) -> None:
    found = []
    for day in ("06-04", "06-05", "06-08", "06-09", "06-10"):
        watcher.live(day, "BBB")
        found.append([notice.what for notice in watcher.night(day)])
    told = "XMOS: 1 ticker without candles by 2026-06-08"
    assert found == [[], [], [told], [], []]
    watcher.live("06-11", "CCC")
    (notice,) = watcher.night("06-11")
    assert notice.kind == Kind.WHOLE


@pytest.mark.slow
def test_another_ticker_that_falls_silent_is_told_beside_the_first(watcher: Watcher) -> None:
    for day in ("06-04", "06-05", "06-08"):
        watcher.live(day, "BBB")
        watcher.night(day)
    found: list[Notice] = []
    for day in ("06-09", "06-10", "06-11"):
        watcher.live(day, "BBB", "CCC")
        found += watcher.night(day)
    (notice,) = found
    assert "BBB 6, CCC 3" in notice.why
    watcher.live("06-15", "CCC")
    assert watcher.night("06-15") == [], "one of two is back"
    watcher.live("06-16")
    assert [item.kind for item in watcher.night("06-16")] == [Kind.WHOLE]


@pytest.mark.slow
def test_a_machine_that_was_off_has_time_to_catch_up(watcher: Watcher) -> None:
    later = MOSCOW.closes_at(date("06-10")) + dt.timedelta(hours=9)
    market = watcher.market

    def look(now: dt.datetime) -> list[Notice]:
        watcher.known, told = look_at("XMOS", watcher.known, watcher.watch, market.instance, now)
        return told

    assert look(later) == []
    assert look(later + GRACE / 2) == []
    for day in ("06-04", "06-05", "06-08", "06-09", "06-10"):
        watcher.live(day)
    assert look(later + GRACE) == []
    assert look(later + 3 * GRACE) == []


def test_why_the_schedule_found_nothing_is_told(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, name = watcher.market.instance, schedule_name("XMOS")
    monkeypatch.setattr(staleness, "_last_error", LAST_ERROR)
    storage = SqliteScheduleStorage.from_local(str(tmp_path))
    storage.register_instance(instance)
    monkeypatch.setattr(instance, "_schedule_storage", storage)
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository")
    for place, said in enumerate([name, "another"]):
        origin = RemoteInstigatorOrigin(repository, said)
        state = InstigatorState(
            origin,
            InstigatorType.SCHEDULE,
            InstigatorStatus.DECLARED_IN_CODE,
            ScheduleInstigatorData("0 0 * * *", None),
        )
        instance.add_instigator_state(state)
        cause = SerializableErrorInfo(f"SourceError: {place} answered 503", [], "SourceError")
        error = SerializableErrorInfo("the tick failed", [], "Error", cause=cause)
        instance.create_tick(
            TickData(
                instigator_origin_id=origin.get_id(), instigator_name=said,
                instigator_type=InstigatorType.SCHEDULE, status=TickStatus.FAILURE,
                timestamp=1.0, selector_id=origin.get_selector().get_id(), error=error,
            )
        )  # fmt: skip
    (notice,) = watcher.night("06-04")
    assert "The schedule's last look failed: SourceError: 0 answered 503" in notice.why


def test_a_lake_that_nobody_has_begun_with_is_not_stale(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert Watcher(Market(tmp_path / "market", instance)).night("06-04") == []


def test_without_a_new_session_or_a_new_candle_the_lake_is_not_read(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.night("06-03")
    monkeypatch.setattr(staleness, "read_held", None)
    assert watcher.look("06-04", LOOKS[0]) == []
