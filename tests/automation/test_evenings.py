"""Evenings of a live market, look by look: each day's slice once, what came late, no storm."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stock_assets.automation.schedules import LOOKS
from stock_assets.calendars import get_calendar
from stock_assets.slices import WHY_TAG, Slice
from stock_assets.sources.fetching import fetch_slice

from .market import MOSCOW, TICKERS, Market, date, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Market(tmp_path / "market", instance)


def test_an_ordinary_evening_is_one_run_at_the_first_look(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    assert market.evening("06-04") == [[("06-04", "06-04", "on time")], [], [], []]


def test_before_the_close_nothing_is_due(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    found = market.look(MOSCOW.closes_at(date("06-04")) - dt.timedelta(minutes=1))
    assert found == "XMOS is forecast up to its last closed session, 2026-06-03"


def test_a_day_that_the_source_does_not_have_yet_is_looked_for_until_it_comes(
    market: Market,
) -> None:
    market.hold_until("06-03")
    close = MOSCOW.closes_at(date("06-04"))
    assert "late: no source has a candle of XMOS" in str(market.look(close + LOOKS[0]))
    assert market.serve(market.look(close + LOOKS[1])) == []
    market.publish("06-04")
    assert market.serve(market.look(close + LOOKS[2])) == [("06-04", "06-04", "late")]
    assert market.serve(market.look(close + LOOKS[3])) == []


def test_a_ticker_that_comes_later_that_evening_asks_for_the_whole_day_again(
    market: Market,
) -> None:
    market.hold_until("06-03")
    market.publish("06-04", "AAA", "CCC")
    close = MOSCOW.closes_at(date("06-04"))
    assert market.serve(market.look(close + LOOKS[0])) == [
        ("06-04", "06-04", "on time, 1 of the tickers without a candle yet")
    ]
    found = market.look(close + LOOKS[1])
    assert "but for BBB: no source has a candle of theirs yet" in str(found)
    market.publish("06-04", "BBB")
    request = market.look(close + LOOKS[2])
    assert isinstance(request, list)
    assert market.area(request[0]).tickers == TICKERS
    assert market.serve(request) == [("06-04", "06-04", "completing: late candles of BBB")]
    assert market.serve(market.look(close + LOOKS[3])) == []


def test_a_halted_ticker_costs_no_run_beyond_the_one_of_each_day(market: Market) -> None:
    market.hold_until("06-03")
    days = MOSCOW.between(date("06-04"), date("07-08"))

    def evening(day: dt.date) -> None:
        market.publish(day, "AAA", "CCC")
        asked = market.evening(f"{day:%m-%d}")
        assert [len(look) for look in asked] == [1, 0, 0, 0]
        assert asked[0][0][:2] == (f"{day:%m-%d}", f"{day:%m-%d}")

    evening(days[0])
    evening(days[1])
    # Until the halt is as old as is looked back: as evenings would have left it.
    for day in days[2:-2]:
        market.publish(day, "AAA", "CCC")
    market.now = MOSCOW.closes_at(days[-3]) + LOOKS[0]
    market.run(days[2], days[-3])
    evening(days[-2])
    evening(days[-1])


def test_candles_two_days_late_ask_for_their_day_and_those_that_build_on_it(
    market: Market,
) -> None:
    market.hold_until("06-03")
    for day in ("06-04", "06-05"):
        market.publish(day, "AAA", "CCC")
        market.evening(day)
    market.publish("06-08", "AAA", "CCC")
    close = MOSCOW.closes_at(date("06-08"))
    market.serve(market.look(close + LOOKS[0]))
    market.publish("06-04", "BBB")
    assert market.serve(market.look(close + LOOKS[1])) == [
        ("06-04", "06-08", "completing: late candles of BBB")
    ]
    assert market.serve(market.look(close + LOOKS[2])) == []


def test_a_week_off_is_caught_up_in_one_run_though_five_ticks_come_at_once(
    market: Market,
) -> None:
    market.hold_until("06-03")
    for day in MOSCOW.between(date("06-04"), date("06-11")):
        market.publish(day)
    now = MOSCOW.closes_at(date("06-11")) + LOOKS[0]
    (request,) = market.look(now)
    run = market.start(request, dg.DagsterRunStatus.STARTING)
    for _ in range(4):
        assert "what is due is being run already" in str(market.look(now))
    market.instance.delete_run(run.run_id)
    assert market.serve([request]) == [
        ("06-04", "06-11", "catching up: sessions missed since 2026-06-04")
    ]
    assert market.serve(market.look(now)) == []


def test_off_for_longer_than_is_looked_back_misses_nothing(market: Market) -> None:
    market.hold_until("06-03")
    for day in MOSCOW.between(date("06-04"), date("08-28")):
        market.publish(day)
    looks = market.evening("08-28")
    assert (
        looks == [[("06-04", "08-28", "catching up: sessions missed since 2026-06-04")]] + [[]] * 3
    )


def test_a_failed_run_is_asked_for_again_at_each_look_and_no_more(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    looks = market.evening("06-04", fails=True)
    assert [len(look) for look in looks] == [1, 1, 1, 1]
    assert looks[1] == [("06-04", "06-04", "late; again: the run before failed")]
    market.publish("06-05")
    assert [look and look[0][:2] for look in market.evening("06-05")] == [
        ("06-04", "06-05"), [], [], [],
    ]  # fmt: skip


def _by_hand(market: Market, day: str, *assets: str, tickers: tuple[str, ...] = TICKERS) -> None:
    """A person's successful run over a day; of the whole graph unless told."""
    tags = market.grid.tags(market.grid.slice(date(day), date(day), tickers))
    market.instance.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            run_id=str(uuid.uuid4()),
            tags=tags,
            status=dg.DagsterRunStatus.SUCCESS,
            asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
        )
    )


def test_a_failure_that_a_person_has_mended_is_not_asked_for_again(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    close = MOSCOW.closes_at(date("06-04"))
    market.serve(market.look(close + LOOKS[0]), fails=True)
    market.run(date("06-04"), date("06-04"))
    _by_hand(market, "06-04", tickers=("AAA", "BBB"))
    assert isinstance(market.look(close + LOOKS[1]), list), "CCC failed and is still to be run"
    _by_hand(market, "06-04", tickers=("CCC",))
    assert "is forecast up to" in str(market.look(close + LOOKS[1]))


def test_a_canceled_run_is_not_a_failure(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    close = MOSCOW.closes_at(date("06-04"))
    (request,) = market.look(close + LOOKS[0])
    market.run(date("06-04"), date("06-04"))
    market.lake.write(
        "forecasts", rows_of("forecasts", []), Slice(date("06-04"), date("06-04"), TICKERS)
    )
    market.start(request, dg.DagsterRunStatus.FAILURE)
    assert isinstance(market.look(close + LOOKS[1]), list)
    market.start(request, dg.DagsterRunStatus.CANCELED)
    assert "is forecast up to" in str(market.look(close + LOOKS[1]))


def test_candles_that_a_person_adds_alone_become_bars(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04", "AAA", "BBB")
    market.evening("06-04")
    market.publish("06-04", "CCC")
    day = Slice(date("06-04"), date("06-04"), TICKERS)
    market.lake.write("candles", fetch_slice(market.settings, day, now=market.now).candles, day)
    _by_hand(market, "06-04", "candles", tickers=("CCC",))
    assert market.evening("06-04") == [[("06-04", "06-04", "again: never finished")], [], [], []]


def test_a_failed_part_of_a_long_catch_up_is_asked_for_though_later_parts_succeeded(
    market: Market,
) -> None:
    market.hold_until("06-03")
    for day in MOSCOW.between(date("06-04"), date("07-30")):
        market.publish(day)
    close = MOSCOW.closes_at(date("07-30"))
    (request,) = market.look(close + LOOKS[0])
    parts = ("06-04", "06-10"), ("06-11", "07-30")
    (lost, kept) = (
        request._replace(
            tags={
                **request.tags,
                **market.grid.tags(market.grid.slice(date(first), date(last), TICKERS)),
            }
        )
        for first, last in parts
    )
    market.serve([lost], fails=True)
    market.serve([kept])
    assert market.serve(market.look(close + LOOKS[1])) == [
        ("06-04", "07-30", "again: the run before failed")
    ]
    assert market.serve(market.look(close + LOOKS[2])) == []


def test_a_week_of_failures_is_one_run_a_look(market: Market) -> None:
    market.hold_until("06-03")
    runs = 0
    for day in MOSCOW.between(date("06-04"), date("06-11")):
        market.publish(day)
        looks = market.evening(f"{day:%m-%d}", fails=True)
        assert all(len(look) <= 1 for look in looks)
        runs += sum(map(len, looks))
    assert runs == len(LOOKS) * len(MOSCOW.between(date("06-04"), date("06-11")))


def test_nothing_is_asked_for_twice_while_it_is_queued_or_running(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    close = MOSCOW.closes_at(date("06-04"))
    (request,) = market.look(close + LOOKS[0])
    for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
        run = market.start(request, status)
        assert "being run already" in str(market.look(close + LOOKS[1]))
        market.instance.delete_run(run.run_id)
    assert isinstance(market.look(close + LOOKS[1]), list)


def test_a_training_in_progress_does_not_hold_the_day_back(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    close = MOSCOW.closes_at(date("06-04"))
    (request,) = market.look(close + LOOKS[0])
    market.instance.add_run(
        dg.DagsterRun(
            job_name="retrain",
            run_id=str(uuid.uuid4()),
            tags=dict(request.tags),
            status=dg.DagsterRunStatus.STARTED,
        )
    )
    assert isinstance(market.look(close + LOOKS[0]), list)


def test_a_run_that_died_before_the_forecasts_asks_for_its_day_and_where_it_is_scored(
    market: Market,
) -> None:
    market.hold_until("06-22")
    hole = Slice(date("06-04"), date("06-04"), TICKERS)
    market.lake.write("forecasts", rows_of("forecasts", []), hole)
    looks = market.evening("06-22")
    assert looks == [[("06-04", "06-11", "again: never finished")], [], [], []]


def test_a_day_without_scores_is_asked_for_alone(market: Market) -> None:
    market.hold_until("06-11")
    market.lake.write("scores", rows_of("scores", []), Slice(date("06-08"), date("06-08"), TICKERS))
    assert market.evening("06-11")[0] == [("06-08", "06-08", "again: never finished")]


def test_what_a_successful_run_left_open_is_not_asked_for_again(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04")
    market.evening("06-04")
    day = Slice(date("06-04"), date("06-04"), TICKERS)
    for table in ("scores", "forecasts", "bars"):
        market.lake.write(table, rows_of(table, []), day)
        assert market.evening("06-04") == [[], [], [], []]


def test_a_missed_day_in_the_middle_is_asked_for_with_the_days_that_build_on_it(
    market: Market,
) -> None:
    market.hold_until("06-11")
    day = Slice(date("06-04"), date("06-04"), TICKERS)
    for table in ("candles", "bars", "forecasts", "scores"):
        market.lake.write(table, market.lake.read(table, day).clear(), day)
    assert market.evening("06-11") == [
        [("06-04", "06-11", "late: 2026-06-04 came after later sessions")], [], [], [],
    ]  # fmt: skip


def test_holidays_weekends_and_a_market_that_stays_shut_ask_for_nothing(market: Market) -> None:
    market.hold_until("06-11")
    # 12 June is a holiday; from then on the source has nothing, whatever the calendar says.
    for day in (date("06-12") + dt.timedelta(n) for n in range(32)):
        delay = LOOKS[day.day % len(LOOKS)]
        assert market.serve(market.look(MOSCOW.closes_at(day) + delay)) == []


def test_rows_that_would_be_set_aside_are_fetched_once(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-04", "AAA", "BBB")
    file = market.folder / "CCC.csv"
    file.write_text(file.read_text() + "2026-06-04,1,0.1,5,1.5,7\n")
    (request,) = market.look(MOSCOW.closes_at(date("06-04")) + LOOKS[0])
    assert "without a candle" not in request.tags[WHY_TAG]
    day = market.area(request)
    rejected = fetch_slice(market.settings, day, now=market.now).quarantine
    assert set(rejected["ticker"]) == {"CCC"}
    market.lake.write("quarantine", rejected, day)
    market.serve([request])
    assert market.evening("06-04") == [[], [], [], []]


def test_exchanges_are_asked_for_each_after_its_own_close(market: Market) -> None:
    market.hold_until("06-03")
    market.publish("06-03", "USA")
    york = get_calendar("XNYS")
    market.now = york.closes_at(date("06-03"))
    market.run(date("06-03"), date("06-03"), ("USA",))
    market.publish("06-04")
    market.publish("06-04", "USA")
    at = MOSCOW.closes_at(date("06-04")) + LOOKS[0]
    assert "last closed session, 2026-06-03" in str(market.look(at, "XNYS"))
    assert len(market.serve(market.look(at))) == 1
    (request,) = market.look(york.closes_at(date("06-04")) + LOOKS[0], "XNYS")
    assert market.area(request) == Slice(date("06-04"), date("06-04"), ("USA",))


def test_an_empty_lake_is_no_reason_to_fetch_history_unasked(market: Market) -> None:
    market.publish("06-04")
    found = market.look(MOSCOW.closes_at(date("06-04")) + LOOKS[0])
    assert "materialize a first range" in str(found)


def test_a_new_ticker_is_taken_up_from_its_next_session_on(market: Market) -> None:
    for day in MOSCOW.between(date("06-01"), date("06-10")):
        market.publish(day, "AAA", "BBB")
    market.now = MOSCOW.closes_at(date("06-10")) + LOOKS[0]
    market.run(date("06-01"), date("06-10"), ("AAA", "BBB"))
    for day in MOSCOW.between(date("06-01"), date("06-11")):
        market.publish(day)
    assert market.evening("06-11")[0] == [("06-11", "06-11", "on time")]


DAYS = MOSCOW.between(date("06-04"), date("06-11"))
ARRIVALS = st.fixed_dictionaries(
    {(day, name): st.integers(0, 3 * len(LOOKS)) for day in DAYS for name in TICKERS}
)
"""For each cell, how many looks after its first one its candle comes."""


@given(ARRIVALS, st.sets(st.integers(0, len(LOOKS) * len(DAYS) - 1), max_size=6))
@hypothesis_settings(
    # The first is always that nothing is late and nothing fails; the second is any.
    max_examples=2,
    deadline=None,
    # A week takes seconds: shrinking one would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_week_ends_complete_with_at_most_a_run_for_each_look_with_news(
    tmp_path_factory: pytest.TempPathFactory,
    delays: dict[tuple[dt.date, str], int],
    failing: set[int],
) -> None:
    looks = [(day, delay) for day in DAYS for delay in LOOKS]
    first_look = {day: place * len(LOOKS) for place, day in enumerate(DAYS)}
    with dg.DagsterInstance.ephemeral() as instance:
        market = Market(tmp_path_factory.mktemp("week") / "market", instance)
        market.hold_until("06-03")
        stale = False
        for place in range(len(looks) + 3 * len(LOOKS)):
            news = [cell for cell, late in delays.items() if first_look[cell[0]] + late == place]
            for day, ticker in news:
                market.publish(day, ticker)
            after = (len(looks) - 1, place - len(looks) + 1)
            day, delay = looks[min(place, after[0])]
            at = MOSCOW.closes_at(day) + delay + dt.timedelta(minutes=max(0, after[1]))
            asked = market.serve(market.look(at), fails=place in failing)
            # One request where something came, or where the run before had failed; else none.
            assert len(asked) == int(bool(news) or stale)
            stale = bool(asked) and place in failing
        held = market.lake.read("candles").filter(pl.col("day") >= DAYS[0])
        assert set(held.select("day", "ticker").iter_rows()) == set(delays)
