"""What looks like a split that nobody declared, and what does not."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import get_calendar
from stock_assets.lake.splits import read_splits
from stock_assets.lake.undeclared import PLAIN_RATIOS, before_and_after, suspected_splits

if TYPE_CHECKING:
    from fractions import Fraction

SESSIONS, JUMP = 80, 50
BEGIN = dt.date(2020, 1, 6)
BOTH_WAYS = sorted({*PLAIN_RATIOS, *(1 / ratio for ratio in PLAIN_RATIOS)})
PRICES = ("open", "high", "low", "close")


def market(tickers: str = "ABCDE", *, seed: int = 1, daily: float = 0.01) -> pl.DataFrame:
    """Bars of tickers that move by `daily` a session, gaps and range included."""
    rng = np.random.default_rng(seed)
    parts = []
    for name in tickers:
        close = 100 * np.exp(np.cumsum(daily * rng.standard_normal(SESSIONS)))
        opened = np.concatenate([close[:1], close[:-1]]) * np.exp(
            daily / 3 * rng.standard_normal(SESSIONS)
        )
        ends = np.stack([opened, close])
        parts.append(
            pl.DataFrame(
                {
                    "day": [BEGIN + dt.timedelta(n) for n in range(SESSIONS)],
                    "ticker": name,
                    "exchange": "X",
                    "session": np.arange(SESSIONS, dtype=np.int32),
                    "open": opened,
                    "high": ends.max(0) * (1 + daily / 4),
                    "low": ends.min(0) * (1 - daily / 4),
                    "close": close,
                    "volume": 1e6 * np.exp(0.3 * rng.standard_normal(SESSIONS)),
                }
            )
        )
    return pl.concat(parts)


def split(bars: pl.DataFrame, ticker: str, ratio: float, session: int = JUMP) -> pl.DataFrame:
    """The bars as traded when each of the ticker's shares becomes `ratio` from a session on."""
    later = (pl.col("ticker") == ticker) & (pl.col("session") >= session)
    return bars.with_columns(
        *(pl.when(later).then(pl.col(name) / ratio).otherwise(name).alias(name) for name in PRICES),
        pl.when(later).then(pl.col("volume") * ratio).otherwise("volume").alias("volume"),
    )


def suspected(
    bars: pl.DataFrame, among: pl.DataFrame | None = None
) -> dict[tuple[str, int], float]:
    """Ratios by ticker and session."""
    others = bars if among is None else among

    def of_session(exchange: str, session: int) -> pl.DataFrame:
        near = pl.col("session").is_between(session - 30, session)
        return others.filter((pl.col("exchange") == exchange) & near)

    found = suspected_splits(bars, of_session)
    assert found.columns == ["day", "ticker", "exchange", "suspected_split"]
    return {
        (ticker, (day - BEGIN).days): ratio
        for day, ticker, _, ratio in found.sort("day", "ticker").iter_rows()
    }


@pytest.mark.parametrize("ratio", BOTH_WAYS, ids=str)
def test_a_plain_ratio_is_found_and_named(ratio: Fraction) -> None:
    bars = split(market(), "B", float(ratio))
    assert suspected(bars) == {("B", JUMP): pytest.approx(float(ratio))}
    without_volume = bars.with_columns(pl.lit(None, pl.Float64).alias("volume"))
    assert suspected(without_volume) == suspected(bars)


@pytest.mark.parametrize("ratio", BOTH_WAYS, ids=str)
def test_the_ratio_is_told_as_it_is_declared(ratio: Fraction) -> None:
    assert before_and_after(float(ratio)) == (ratio.denominator, ratio.numerator)


def test_a_market_without_splits_is_not_suspected() -> None:
    for seed in range(20):
        assert suspected(market(seed=seed, daily=0.03)) == {}


@pytest.mark.parametrize("fall", [0.75, 0.6, 0.5, 0.35])
def test_a_crash_within_the_session_is_a_return(fall: float) -> None:
    bars = market().with_columns(
        *(
            pl.when((pl.col("ticker") == "B") & (pl.col("session") >= JUMP + (name == "open")))
            .then(pl.col(name) * fall)
            .otherwise(name)
            .alias(name)
            for name in ("open", "low", "close")
        ),
        pl.when((pl.col("ticker") == "B") & (pl.col("session") > JUMP))
        .then(pl.col("high") * fall)
        .otherwise("high")
        .alias("high"),
    )
    assert suspected(bars) == {}


def test_a_fall_that_goes_on_after_the_open_or_swings_through_the_session_is_a_return() -> None:
    bars = split(market(), "B", 1.5)
    here = (pl.col("ticker") == "B") & (pl.col("session") == JUMP)
    higher = pl.max_horizontal("high", pl.col("close") * 1.11)
    for change in (
        # It opens a quarter lower, and closes a third lower.
        {"open": pl.col("close") * 1.11, "high": higher},
        # It opens and closes a third lower, and was back in between.
        {"high": pl.col("high") * 1.3},
    ):
        changed = [
            pl.when(here).then(of).otherwise(name).alias(name) for name, of in change.items()
        ]
        assert suspected(bars.with_columns(changed)) == {}


def test_what_is_usual_is_that_of_the_sessions_before() -> None:
    swing = 1 + 0.12 * (pl.col("session") % 2)

    def swinging(when: pl.Expr) -> pl.DataFrame:
        wild = (pl.col("ticker") == "B") & when
        made = market().with_columns(
            pl.when(wild).then(pl.col(name) * swing).otherwise(name).alias(name) for name in PRICES
        )
        return split(made, "B", 1.5, late)

    late = 70
    assert ("B", late) in suspected(swinging(pl.col("session") < late - 30))
    assert ("B", late) not in suspected(swinging(pl.col("session") < late - 1))
    # A ticker too new to know what is usual of it does not learn it from what came after.
    young = (pl.col("ticker") != "B") | (pl.col("session") >= late - 4)
    assert ("B", late) in suspected(swinging(pl.col("session") > late).filter(young))


def test_an_overnight_fall_of_the_whole_market_is_a_return() -> None:
    bars = market()
    for ticker, ratio in zip("ABCDE", (1.5, 1.3, 1.6, 1.35, 1.4), strict=True):
        bars = split(bars, ticker, ratio)
    quiet = bars.with_columns(pl.lit(None, pl.Float64).alias("volume"))
    assert suspected(quiet) == {}
    # ... which the ticker by itself does not know.
    alone = quiet.filter(pl.col("ticker") == "A")
    assert set(suspected(alone)) == {("A", JUMP)}
    assert suspected(alone, among=quiet) == {}


def test_both_classes_of_a_share_that_split_together_are_found() -> None:
    bars = split(split(market("AB"), "A", 10.0), "B", 10.0)
    assert set(suspected(bars)) == {("A", JUMP), ("B", JUMP)}


def test_an_overnight_fall_in_a_storm_of_volume_is_a_return() -> None:
    fallen = split(market(), "B", 1.5)
    storm = (pl.col("ticker") == "B") & (pl.col("session") == JUMP)
    stormy = pl.when(storm).then(pl.col("volume") * 12).otherwise("volume").alias("volume")
    assert set(suspected(fallen)) == {("B", JUMP)}
    assert suspected(fallen.with_columns(stormy)) == {}


def test_an_odd_ratio_or_a_ticker_that_often_jumps_is_no_split() -> None:
    assert suspected(split(market(), "B", 1.75)) == {}
    # Up and down by 6 % each session, but for that of the jump.
    swing = (pl.col("session") - (pl.col("session") >= JUMP)) % 2 * (pl.col("ticker") == "B")
    wild = market().with_columns(pl.col(name) * (1 + 0.06 * swing) for name in PRICES)
    assert set(suspected(split(wild, "B", 2.0))) == {("B", JUMP)}
    assert suspected(split(wild, "B", 1.5)) == {}


def test_a_halt_of_some_weeks_hides_no_split_and_a_longer_one_is_no_return_anyway() -> None:
    bars = split(market(), "B", 100.0)
    for halted, found in ((29, {("B", JUMP)}), (30, set())):
        gone = pl.col("session").is_between(JUMP - halted, JUMP - 1) & (pl.col("ticker") == "B")
        assert set(suspected(bars.filter(~gone))) == found


def test_a_split_declared_on_the_wrong_day_shows_on_both() -> None:
    bars = split(split(market(), "B", 0.01, JUMP - 1), "B", 100.0)
    assert suspected(bars) == {
        ("B", JUMP - 1): pytest.approx(0.01),
        ("B", JUMP): pytest.approx(100.0),
    }


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ABCDE"), st.sampled_from(BOTH_WAYS), st.integers(31, 79)),
        max_size=4,
    ),
    st.integers(31, 79),
    st.integers(0, 5),
)
def test_neither_the_future_nor_the_far_past_changes_a_suspicion(
    jumps: list[tuple[str, Fraction, int]], cut: int, seed: int
) -> None:
    bars = market(seed=seed)
    for ticker, ratio, session in jumps:
        bars = split(bars, ticker, float(ratio), session)
    whole = suspected(bars)
    so_far = bars.filter(pl.col("session") <= cut)
    assert suspected(so_far) == {cell: ratio for cell, ratio in whole.items() if cell[1] <= cut}
    recent = bars.filter(pl.col("session").is_between(cut - 30, cut))
    of_day = {cell: ratio for cell, ratio in whole.items() if cell[1] == cut}
    assert {cell: r for cell, r in suspected(recent).items() if cell[1] == cut} == of_day
    shuffled = bars.sample(fraction=1.0, shuffle=True, seed=seed)
    assert suspected(shuffled) == whole


@pytest.mark.parametrize(
    ("name", "exchange"),
    [("moex_daily_dev_tqbr", "XMOS"), ("us_daily_dev", "XNYS"), ("us_daily_stocknet", "XNYS")],
)
def test_real_splits_are_found_and_real_crashes_are_returns(
    shared_data, name: str, exchange: str
) -> None:
    calendar = get_calendar(exchange)
    days = calendar.between(dt.date(2012, 1, 1), dt.date(2026, 12, 31))
    numbered = pl.DataFrame(
        {"day": days, "session": range(len(days))}, schema={"day": pl.Date, "session": pl.Int32}
    )
    traded = (
        pl.read_parquet(shared_data / f"{name}.parquet")
        .with_columns(
            pl.col("timestamp").dt.date().alias("day"), pl.lit(exchange).alias("exchange")
        )
        .filter(pl.all_horizontal(pl.col(PRICES).is_finite()))
        .join(numbered, on="day")
    )
    here = traded["ticker"].unique()
    splits = [item for item in read_splits(shared_data / "splits") if item.ticker in here]
    assert (len(splits) == 4) == (exchange == "XMOS")

    def found(bars: pl.DataFrame) -> dict[tuple[str, dt.date], float]:
        def of_session(_: str, session: int) -> pl.DataFrame:
            return traded.filter(pl.col("session").is_between(session - 30, session))

        rows = suspected_splits(bars, of_session).iter_rows()
        return {(ticker, day): ratio for day, ticker, _, ratio in rows}

    assert found(traded) == {
        (item.ticker, item.day): pytest.approx(float(item.after / item.before)) for item in splits
    }
    declared = traded
    for item in splits:
        session = numbered.filter(pl.col("day") == item.day)["session"].item()
        declared = split(declared, item.ticker, float(item.before / item.after), session)
    assert found(declared) == {}
