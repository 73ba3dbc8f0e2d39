"""Faults of prices: planted ones are found, and quiet markets, thin tickers and pegs stay quiet."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.drift.quality import (
    BLOCKING,
    CANDLES,
    LATE,
    LEVEL,
    LONGEST_LATE,
    LONGEST_STUCK,
    STUCK,
    VOLUME,
    episodes,
    fault_words,
    faults,
    first_bar_needed,
    first_fault_needed,
)
from stock_assets.lake.schemas import Drift
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from tests.proofs.markets import MEAN_REVERTING, simulate

if TYPE_CHECKING:
    from pathlib import Path

PRICES = ["open", "high", "low", "close"]
SESSIONS, TICKERS = 560, 4
SPOT = 430
"""The session on which faults are planted: more than a year of quiet before it."""

AFTER = range(SESSIONS - SPOT)
"""From SPOT to the end."""

CALENDAR = get_calendar(WEEKDAYS)


@pytest.fixture(scope="module")
def quiet() -> pl.DataFrame:
    return simulate(MEAN_REVERTING, TICKERS, SESSIONS, seed=3).drop("following")


@pytest.fixture(scope="module")
def days(quiet) -> list[dt.date]:
    return quiet["day"].unique().sort().to_list()


def settings_of(bars: pl.DataFrame, exchange: str = WEEKDAYS, **given: object) -> Settings:
    return Settings(
        partitions={"first_day": bars["day"].min()},
        universe=[
            {"ticker": name, "source": "s", "exchange": exchange, **given}
            for name in bars["ticker"].unique().sort()
        ],
        sources={"s": {"kind": "simulated"}},
    )


def found(bars: pl.DataFrame, last: dt.date | None = None, **given: object) -> pl.DataFrame:
    """All numbers of all days."""
    settings = settings_of(bars, **given)  # type: ignore[arg-type]
    rows = faults(bars, Slice(None, last or bars["day"].max(), settings.tickers), settings)  # type: ignore[arg-type]
    return Drift.validate(rows)


def alarms(bars: pl.DataFrame, feature: str, **given: object) -> list[tuple[int, str]]:
    """(session relative to SPOT, ticker) of a detector's alarms, by ticker."""
    rows = found(bars, **given).filter(pl.col("drifted") & (pl.col("feature") == feature))
    spot = CALENDAR.index(bars["day"].unique().sort()[0]) + SPOT
    return [
        (CALENDAR.index(day) - spot, ticker)
        for day, ticker in rows.sort("ticker", "day").select("day", "ticker").iter_rows()
    ]


def planted(
    bars: pl.DataFrame, days: list[dt.date], at: range, ticker: str = "T00", **new: pl.Expr
) -> pl.DataFrame:
    """The bars with other values of one ticker on the sessions `at`, relative to SPOT."""
    chosen = [days[SPOT + step] for step in at]
    here = pl.col("day").is_in(chosen) & (pl.col("ticker") == ticker)
    return bars.with_columns(
        pl.when(here).then(value).otherwise(pl.col(name)).alias(name) for name, value in new.items()
    )


def times(factor: float, *names: str) -> dict[str, pl.Expr]:
    return {name: pl.col(name) * factor for name in names or PRICES}


def test_the_quiet_market_is_quiet(quiet) -> None:
    rows = found(quiet)
    assert rows.filter(pl.col("drifted") & (pl.col("feature") != VOLUME)).is_empty()
    measured = dict(rows["feature"].value_counts().iter_rows())
    for name in (LEVEL, STUCK, LATE, VOLUME):
        assert measured[name] > 0.9 * quiet.height
    # Daily candles are one a day: their number says nothing.
    assert CANDLES not in measured


@pytest.mark.parametrize(
    "wrong",
    [
        times(100), times(0.01), times(10), times(0.1), times(100, "high"), times(0.01, "low"),
        times(100, "high", "close"), times(0.01, "low", "close"), times(100, "high", "open"),
    ],
    ids=["x100", "/100", "x10", "/10", "high", "low", "close", "close/100", "open"],
)  # fmt: skip
def test_a_wrong_unit_is_a_fault_that_day_and_the_right_price_after_it_is_none(
    quiet, days, wrong
) -> None:
    assert alarms(planted(quiet, days, range(1), **wrong), LEVEL) == [(0, "T00")]


def test_a_new_level_is_a_fault_for_three_sessions_and_then_the_level(quiet, days) -> None:
    for factor in (100, 0.01):
        bars = planted(quiet, days, AFTER, **times(factor))
        assert alarms(bars, LEVEL) == [(0, "T00"), (1, "T00"), (2, "T00")]


@pytest.mark.parametrize("wrong", [2, 5, 12])
def test_after_a_few_wrong_candles_the_right_price_is_no_fault(quiet, days, wrong: int) -> None:
    bars = planted(quiet, days, range(wrong), **times(100))
    assert alarms(bars, LEVEL) == [(step, "T00") for step in range(min(wrong, 3))]


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 4])
def test_a_crash_is_no_fault(quiet, days, factor: float) -> None:
    """To a fourth within one session, with a low far below: further than any in the real data."""
    bars = planted(quiet, days, AFTER, **times(factor))
    bars = planted(bars, days, range(1), low=pl.col("low") * 0.85)
    assert not alarms(bars, LEVEL)


def test_a_long_halt_ends_at_whatever_price(quiet, days) -> None:
    halted = pl.col("day").is_between(days[SPOT - 31], days[SPOT - 1]) & (pl.col("ticker") == "T00")
    bars = planted(quiet.filter(~halted), days, AFTER, **times(0.1))
    assert not alarms(bars, LEVEL)


def test_a_young_ticker_has_a_level_after_three_bars(quiet, days) -> None:
    young = quiet.filter(pl.col("day") >= days[SPOT - 3])
    bars = planted(young, days, range(1), **times(100))
    assert [ticker for _, ticker in alarms(bars, LEVEL)] == ["T00"]
    younger = quiet.filter(pl.col("day") >= days[SPOT - 2])
    assert not alarms(planted(younger, days, range(1), **times(100)), LEVEL)


def last_bar(quiet: pl.DataFrame, days: list[dt.date]) -> dict[str, float]:
    return quiet.row(
        by_predicate=(pl.col("day") == days[SPOT - 1]) & (pl.col("ticker") == "T00"), named=True
    )


@pytest.mark.parametrize("volume", [None, 0.0, "same", "its own"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "repeated"])
def test_a_stuck_price_is_a_fault_from_its_second_session_until_it_moves(
    quiet, days, volume, flat
) -> None:
    before = last_bar(quiet, days)
    stuck = {name: pl.lit(before["close" if flat else name]) for name in PRICES}
    if volume != "its own":
        stuck["volume"] = pl.lit(before["volume"] if volume == "same" else volume, pl.Float64)
    bars = planted(quiet, days, range(6), **stuck)
    assert alarms(bars, STUCK) == [(step, "T00") for step in range(1, 6)]


def test_a_run_does_not_excuse_itself_but_is_told_no_longer_than_said(quiet, days) -> None:
    bars = planted(quiet, days, AFTER, **dict.fromkeys(PRICES, pl.lit(50.0)))
    assert alarms(bars, STUCK) == [(step, "T00") for step in range(2, LONGEST_STUCK + 1)]


def test_a_thin_ticker_may_stand_still_as_long_as_it_does(quiet, days) -> None:
    """Every fifth week it does not trade for three sessions: bars at the last close."""
    idle = [day for number, day in enumerate(days) if number % 25 in {10, 11, 12}]
    own = quiet.filter(pl.col("ticker") == "T00").sort("day")
    resting = own.with_columns(
        pl.when(pl.col("day").is_in(idle)).then(None).otherwise(pl.col(name)).alias(name)
        for name in PRICES
    ).with_columns(pl.col("close").forward_fill())
    thin = resting.with_columns(pl.col(name).fill_null(pl.col("close")) for name in PRICES)
    first_year = pl.col("day") < days[60]
    assert (
        found(thin)
        .filter(pl.col("drifted") & (pl.col("feature") == STUCK) & ~first_year)
        .is_empty()
    )
    # SPOT is the sixth of its 25: four sessions are one more than ever, five are too many.
    at = range(5)
    before = thin.filter(pl.col("day") == days[SPOT - 1])["close"][0]
    assert alarms(planted(thin, days, at, **dict.fromkeys(PRICES, pl.lit(before))), STUCK) == [
        (4, "T00")
    ]


def test_a_missing_candle_is_late_until_it_comes_and_for_a_week_at_most(quiet, days) -> None:
    def without(first: int, last: int) -> pl.DataFrame:
        gone = pl.col("day").is_between(days[SPOT + first], days[SPOT + last])
        return quiet.filter(~(gone & (pl.col("ticker") == "T00")))

    assert alarms(without(0, 1), LATE) == [(0, "T00"), (1, "T00")]
    week = [(step, "T00") for step in range(LONGEST_LATE)]
    assert alarms(without(0, 40), LATE) == week
    # Nobody else is late when the last bar is the newest there is.
    assert alarms(without(0, SESSIONS - SPOT - 1), LATE) == week


def test_a_gap_is_no_longer_late_than_the_longest_of_the_year(quiet, days) -> None:
    holidays = [days[SPOT + step] for step in (-250, -249, -60, 0, 1, 2)]
    bars = quiet.filter(~(pl.col("day").is_in(holidays) & (pl.col("ticker") == "T00")))
    assert [step for step, _ in alarms(bars, LATE) if step > -200] == [2]


def test_nothing_is_expected_before_the_first_bar_nor_after_the_delisting(quiet, days) -> None:
    listed = quiet.filter(pl.col("day") >= days[200])
    assert found(listed).filter(pl.col("day") < days[200]).is_empty()
    assert not alarms(listed, LATE)
    ended = quiet.filter((pl.col("day") <= days[SPOT]) | (pl.col("ticker") == "T01"))
    names = [name for name in sorted(quiet["ticker"].unique()) if name != "T01"]
    assert alarms(ended, LATE) == [
        (step, name) for name in names for step in range(1, LONGEST_LATE + 1)
    ]
    assert not alarms(ended, LATE, delisted=days[SPOT])


@pytest.mark.parametrize("volume", [pl.lit(0.0), pl.lit(None, pl.Float64), pl.lit(100.0)])
def test_a_volume_that_collapses_is_a_fault_that_blocks_nothing(quiet, days, volume) -> None:
    calm = quiet.with_columns(volume=pl.lit(20_000.0))
    assert not alarms(calm, VOLUME)
    assert alarms(planted(calm, days, range(2), volume=volume), VOLUME) == [(0, "T00"), (1, "T00")]
    assert not alarms(planted(calm, days, range(1), volume=pl.lit(2_000.0)), VOLUME)
    assert {LEVEL, STUCK} == BLOCKING


def test_a_session_with_less_than_half_of_its_candles_is_a_fault(quiet, days) -> None:
    minutes = quiet.with_columns(candles=pl.lit(100, pl.Int64))
    assert not alarms(minutes, CANDLES)
    for candles, expected in ((49, [(0, "T00")]), (1, [(0, "T00")]), (51, [])):
        bars = planted(minutes, days, range(1), candles=pl.lit(candles, pl.Int64))
        assert alarms(bars, CANDLES) == expected


def test_single_prices_without_volume_are_quiet_and_their_faults_are_found(quiet, days) -> None:
    single = quiet.with_columns(
        *(pl.col("close").alias(name) for name in PRICES), volume=pl.lit(None, pl.Float64)
    )
    assert found(single).filter("drifted").is_empty()
    assert VOLUME not in found(single)["feature"]
    assert alarms(planted(single, days, range(1), **times(100)), LEVEL) == [(0, "T00")]


@pytest.fixture(scope="module")
def rough(quiet, days) -> pl.DataFrame:
    """One of each fault, a ticker of which a third of the bars is missing, and a long halt."""
    random = np.random.default_rng(5)
    bars = planted(quiet, days, range(1), **times(100))
    bars = planted(bars, days, range(20, 45), **times(0.01))
    bars = planted(bars, days, range(-300, -225), "T01", **dict.fromkeys(PRICES, pl.lit(70.0)))
    bars = planted(bars, days, range(5, 15), "T01", **dict.fromkeys(PRICES, pl.lit(80.0)))
    bars = planted(bars, days, range(60, 70), "T01", volume=pl.lit(1.0))
    missing = pl.Series(random.random(bars.height) < 0.35)
    bars = bars.filter(~((pl.col("ticker") == "T02") & missing))
    halt = pl.col("day").is_between(days[SPOT - 345], days[SPOT - 280])
    bars = bars.filter(~((pl.col("ticker") == "T03") & (halt | pl.col("day").is_in([days[SPOT]]))))
    return bars.with_columns(candles=pl.Series(random.integers(60, 100, bars.height)))


@pytest.mark.slow
def test_day_by_day_is_the_whole_range_bit_for_bit(rough, days) -> None:
    settings = settings_of(rough)
    whole = found(rough)
    assert whole.filter("drifted")["feature"].n_unique() == 4
    for day in [*days[360:460:6], *days[SPOT - 2 : SPOT + 3], *days[-30:]]:
        seen = rough.filter(pl.col("day") >= first_bar_needed(day, settings))
        one = faults(seen, Slice(day, day, settings.tickers), settings)
        assert_frame_equal(one, whole.filter(pl.col("day") == day), check_exact=True)


def test_the_future_changes_nothing(rough, days) -> None:
    whole = found(rough)
    for day in (days[300], days[SPOT], days[SPOT + 22]):
        past = rough.filter(pl.col("day") <= day)
        later = rough.filter(pl.col("day") > day).with_columns(**times(7), volume=pl.lit(1.0))
        expected = whole.filter(pl.col("day") <= day)
        for bars in (past, pl.concat([past, later])):
            assert_frame_equal(found(bars, last=day), expected, check_exact=True)


def test_the_order_of_the_rows_changes_nothing(rough) -> None:
    assert_frame_equal(found(rough.sample(fraction=1, shuffle=True, seed=1)), found(rough))


def test_a_fault_is_said_in_words() -> None:
    assert fault_words(LEVEL, float(np.log(100)), float(np.log(5))).startswith(
        "a price 100.0 times that of the bars before, or as much lower (alarm above 5.0)"
    )
    assert fault_words(LATE, 2, 0) == "no candle on 2 session(s) in a row (alarm above 0)"


# Real candles ------------------------------------------------------------------------------------

REAL = {
    "moex_daily_dev_tqbr": "XMOS", "us_daily_dev": "XNYS", "us_daily_stocknet": "XNYS",
    "gold_cbr_daily": "CBR", "fx_cbr_usdrub_daily": "CBR",
}  # fmt: skip

SPLITS = {
    "GMKN": (dt.date(2024, 4, 8), 100), "TRNFP": (dt.date(2024, 2, 21), 100),
    "PLZL": (dt.date(2025, 3, 27), 10), "VTBR": (dt.date(2024, 7, 15), 1 / 5000),
    "USD_RUB_CBR": (dt.date(1998, 1, 1), 1000),
}  # fmt: skip


def real_bars(folder: Path, name: str) -> pl.DataFrame:
    """Daily bars in the shares of the beginning, as declared splits make them."""
    factor = pl.lit(1.0)
    for ticker, (day, times_) in SPLITS.items():
        since = (pl.col("ticker") == ticker) & (pl.col("day") >= day)
        factor = pl.when(since).then(float(times_)).otherwise(factor)
    return (
        pl.read_parquet(folder / f"{name}.parquet")
        .with_columns(day=pl.col("timestamp").dt.date(), candles=pl.lit(1))
        .filter(pl.all_horizontal((pl.col(price) > 0).fill_null(value=False) for price in PRICES))
        .filter(pl.all_horizontal(pl.col(price).is_finite() for price in PRICES))
        .with_columns(
            *(pl.col(price) * factor for price in PRICES),
            volume=pl.col("volume").cast(pl.Float64) / factor,
        )
    )


MOST_A_TICKER_YEAR = {
    # Late are bars that really are not there: halts, and tickers that were delisted.
    "moex_daily_dev_tqbr": {LEVEL: 0, STUCK: 0.005, LATE: 0.25, VOLUME: 0.15},
    "us_daily_dev": {LEVEL: 0, STUCK: 0, LATE: 0, VOLUME: 0.005},
    "us_daily_stocknet": {LEVEL: 0, STUCK: 0.005, LATE: 0.01, VOLUME: 0.05},
    # Holidays that the calendar of the rates does not know; the peg of 1997, a week of 1999.
    "gold_cbr_daily": {LEVEL: 0, STUCK: 0, LATE: 0.6},
    "fx_cbr_usdrub_daily": {LEVEL: 0, STUCK: 0.25, LATE: 0.55},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_candles_alarm_rarely(shared_data, name) -> None:
    bars = real_bars(shared_data, name)
    rows = found(bars, exchange=REAL[name])
    counted = dict(rows.filter("drifted")["feature"].value_counts().iter_rows())
    years = bars.height / 250
    rates = {feature: counted.pop(feature, 0) / years for feature in MOST_A_TICKER_YEAR[name]}
    assert not counted
    for feature, rate in rates.items():
        assert rate <= MOST_A_TICKER_YEAR[name][feature], feature


@pytest.mark.slow
def test_faults_planted_into_real_candles_are_found_within_three_sessions(shared_data) -> None:
    bars = real_bars(shared_data, "moex_daily_dev_tqbr")
    random = np.random.default_rng(1)
    parts: list[pl.DataFrame] = []
    spots: dict[str, list[dt.date]] = {}
    for (ticker,), rows in bars.sort("day").group_by("ticker", maintain_order=True):
        own = rows.sort("day")
        for number in random.integers(300, own.height - 5, 1).tolist():
            days = own["day"][number : number + 3].to_list()
            here, first = pl.col("day").is_in(days), pl.col("day") == days[0]
            before = own.row(number - 1, named=True)
            kinds = {
                "x100": [
                    pl.when(first).then(pl.col(p) * 100).otherwise(p).alias(p) for p in PRICES
                ],
                "under100": [
                    pl.when(first).then(pl.col(p) / 100).otherwise(p).alias(p) for p in PRICES
                ],
                "flat": [pl.when(here).then(before["close"]).otherwise(p).alias(p) for p in PRICES],
                "same": [pl.when(here).then(before[p]).otherwise(p).alias(p) for p in PRICES],
            }
            near = own[max(0, number - 420) : number + 4]
            for kind, change in kinds.items():
                name = f"{kind}-{ticker}-{number}"
                parts.append(near.with_columns(*change, ticker=pl.lit(name)))
                spots[name] = days
    rows = found(pl.concat(parts), exchange="XMOS").filter("drifted")
    hit: dict[str, list[bool]] = {}
    for name, days in spots.items():
        kind = name.split("-")[0]
        wanted = LEVEL if "100" in kind else STUCK
        mine = rows.filter((pl.col("ticker") == name) & (pl.col("feature") == wanted))
        hit.setdefault(kind, []).append(mine["day"].is_in(days).any())
    for item in hit.values():
        assert np.mean(item) >= 0.95


def rows_of(*told: tuple[int, str, str, bool]) -> pl.DataFrame:
    """Rows of `drift` of kind quality by (session, ticker, fault, drifted)."""
    return pl.DataFrame(
        [
            {
                **dict.fromkeys(Drift.column_names()),
                "day": CALENDAR.sessions[session], "ticker": ticker, "feature": fault,
                "kind": "quality", "distance": 2.0 + session, "threshold": 1.0, "drifted": drifted,
            }
            for session, ticker, fault, drifted in told
        ],
        schema=Drift.create_empty().schema,
    )  # fmt: skip


def test_a_fault_is_one_episode_until_its_detector_finds_nothing():
    """Sessions without a number (a halt) do not end it; another ticker and kind are others."""
    found = episodes(
        rows_of(
            (9, "A", STUCK, True), (10, "A", STUCK, True), (14, "A", STUCK, True),
            (15, "A", STUCK, False), (16, "A", STUCK, True),
            (10, "A", LEVEL, True), (10, "B", STUCK, True), (11, "B", STUCK, False),
            (10, "B", LATE, True), (11, "C", LEVEL, False),
        ).sample(fraction=1, shuffle=True, seed=2)
    )  # fmt: skip

    day = CALENDAR.sessions
    assert [(item.ticker, item.fault, item.first, item.last) for item in found] == [
        ("A", STUCK, day[16], day[16]),
        ("A", STUCK, day[9], day[14]),
        ("A", LEVEL, day[10], day[10]),
        ("B", STUCK, day[10], day[10]),
    ]
    assert found[1].words == fault_words(STUCK, 16.0, 1.0), "as it was last"
    assert episodes(rows_of()) == []


def test_a_price_that_stands_still_is_one_episode_for_as_long_as_it_is_told(quiet, days):
    """From planted bars, whichever days are asked: the first day is always the same."""
    (ticker, *_) = quiet["ticker"].unique().sort()
    own = quiet.filter(pl.col("ticker") == ticker).sort("day")
    still = own["close"][SPOT]
    here = pl.col("day").is_between(days[SPOT], days[SPOT + 90])
    bars = own.with_columns(
        pl.when(here).then(still).otherwise(pl.col(name)).alias(name) for name in PRICES
    )
    settings = settings_of(bars)
    drift = faults(bars, Slice(None, days[-1], (ticker,)), settings)

    (whole,) = episodes(drift)
    told = drift.filter((pl.col("feature") == STUCK) & pl.col("drifted"))["day"]

    assert (whole.first, whole.last) == (told.min(), told.max())
    assert 50 < len(told) <= LONGEST_STUCK
    for day in told:
        since = first_fault_needed(day, settings)
        (known,) = episodes(drift.filter(pl.col("day").is_between(since, day)))
        assert (known.first, known.last) == (whole.first, day)
