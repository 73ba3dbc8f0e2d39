"""A day of which only some tickers have come: nothing is said of a market until most of them have.

A market of fourteen tickers in two sectors, all of which move at once before the last day: whoever
is asked alarms, but who is asked too early.
"""

from __future__ import annotations

import datetime as dt
import statistics
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import get_calendar
from stock_assets.drift.distances import distances
from stock_assets.drift.verdict import MOST, market_days, signals, verdicts
from stock_assets.drift.watched import PANEL_FEATURES
from stock_assets.settings import Settings
from stock_assets.slices import Slice

LAST = dt.date(2024, 6, 28)
DAYS = get_calendar("XMOS").between(dt.date(2023, 9, 1), LAST)
CURRENT = 10
TICKERS = tuple(f"T{number:02}" for number in range(14))
OIL = TICKERS[:6]


def settings_of(*tickers: str, **drift: object) -> Settings:
    return Settings(
        partitions={"first_day": LAST},
        universe=[
            {
                "ticker": ticker,
                "source": "s",
                "exchange": "XMOS",
                "sector": "oil" if ticker in OIL else "banks",
            }
            for ticker in tickers
        ],
        sources={"s": {"kind": "simulated"}},
        drift={"reference": 60, "current": CURRENT, "history": 60, **drift},
    )


MARKET = settings_of(*TICKERS)
CERTAIN = pl.col("kind") == "data"


def features_of(tickers: tuple[str, ...], *, moved: bool = True) -> pl.DataFrame:
    random = np.random.default_rng(7)
    parts = []
    for ticker in tickers:
        values = random.normal(size=(len(DAYS), len(PANEL_FEATURES)))
        if moved:
            values[-8:] += 4
        parts.append(
            pl.DataFrame(values, schema=list(PANEL_FEATURES)).with_columns(
                pl.Series("day", DAYS), ticker=pl.lit(ticker)
            )
        )
    return pl.concat(parts)


FEATURES = features_of(TICKERS)


def of(*tickers: str) -> pl.Expr:
    return pl.col("ticker").is_in(list(tickers))


def run(known: pl.DataFrame, asked: tuple[str, ...] = TICKERS) -> pl.DataFrame:
    """Rows of `drift` of LAST, as a run writes them that finds these features."""
    return distances(known, Slice(LAST, LAST, asked), MARKET)


def come(*tickers: str) -> pl.DataFrame:
    """All features, of LAST only those of `tickers`."""
    return FEATURES.filter((pl.col("day") < LAST) | of(*tickers))


subsets = st.lists(st.sampled_from(TICKERS), min_size=1, unique=True).map(sorted)


@settings(deadline=None, max_examples=20)
@given(here=subsets)
def test_a_market_says_nothing_until_most_of_its_tickers_have_come_and_then_it_does(here):
    drift = run(come(*here))

    (verdict,) = verdicts(drift, MARKET)
    (market,) = verdict.markets
    signal = signals(drift, MARKET)[LAST]

    whole = len(here) >= Fraction(2, 3) * len(TICKERS)
    assert market.judged is verdict.moved is bool(signal.alarm) is whole
    assert (signal.share is not None) is whole
    words = f"not judged yet: {len(here)} of {len(TICKERS)} tickers have come"
    assert (words in verdict.sentence) is not whole
    assert verdict.waiting == (() if whole else ("XMOS",))
    # What a ticker did is its own affair.
    assert [ticker.ticker for ticker in verdict.tickers] == here


@settings(deadline=None, max_examples=15)
@given(first=subsets, both=st.booleans())
def test_the_rest_completes_the_day_whoever_came_first(first, both):
    """Its own run may find the others' rows in `drift`, or write them again."""
    rest = tuple(sorted(set(TICKERS) - set(first)))
    early, whole = run(come(*first)), run(FEATURES)

    asked = TICKERS if both else rest
    late = run(FEATURES, asked) if asked else early.clear()
    stored = pl.concat([early.filter(~of(*asked)), late]).sort("day", "ticker", "feature")

    assert stored.equals(whole), "which tickers had come is no part of a number"
    assert verdicts(stored, MARKET) == verdicts(whole, MARKET)
    assert verdicts(stored, MARKET)[0].moved


@settings(deadline=None, max_examples=15)
@given(masks=st.tuples(*[st.just(0) | st.integers(0, 2 ** len(TICKERS) - 1)] * CURRENT))
def test_what_is_usual_is_the_median_of_the_earlier_sessions_with_any_ticker(masks):
    kept = {
        day: [name for number, name in enumerate(TICKERS) if mask >> number & 1]
        for day, mask in zip(DAYS[-CURRENT:], masks, strict=True)
    }
    kept[LAST] = [*{"T00", *kept[LAST]}]
    known = pl.concat(
        [
            FEATURES.filter(pl.col("day") < DAYS[-CURRENT]),
            *(FEATURES.filter((pl.col("day") == day) & of(*names)) for day, names in kept.items()),
        ]
    )

    rows = run(known).select("ticker", "market_tickers", "sector_tickers").unique()

    def usual(among: tuple[str, ...]) -> int | None:
        counts = [len({*names} & {*among}) for day, names in kept.items() if day < LAST]
        return statistics.median_low([count for count in counts if count] or [-1])

    for ticker, market, sector in rows.iter_rows():
        own = OIL if ticker in OIL else TICKERS[len(OIL) :]
        assert (market or -1, sector or -1) == (usual(TICKERS), usual(own))
    assert set(rows["ticker"]) == set(kept[LAST])


def test_a_market_without_those_that_have_left_and_those_still_to_be_listed_is_judged():
    gone, young = TICKERS[:2], TICKERS[-2:]
    left = FEATURES.filter(~of(*gone) | (pl.col("day") < DAYS[-4]))
    left = left.filter(~of(*young) | (pl.col("day") >= DAYS[-2]))

    (verdict,) = verdicts(run(left), MARKET)

    assert verdict.moved
    assert verdict.markets[0].come == len(TICKERS) - len(gone)


def test_half_of_a_market_that_stopped_is_the_market_after_half_a_window():
    stopped = TICKERS[:8]
    for sessions, judged in ((3, False), (CURRENT - 3, True)):
        left = FEATURES.filter(~of(*stopped) | (pl.col("day") <= DAYS[-1 - sessions]))
        assert verdicts(run(left), MARKET)[0].markets[0].judged is judged


def test_a_sector_is_judged_when_most_of_it_has_come():
    """Only oil has moved; with a third of it there the rest of the market has come all the same."""
    calm = features_of(TICKERS, moved=False)
    drift = run(pl.concat([FEATURES.filter(of(*OIL)), calm.filter(~of(*OIL))])).with_columns(
        sector_alarm=pl.when(CERTAIN).then(0.1), market_alarm=pl.lit(9.0)
    )
    for there, judged in ((3, False), (4, True), (6, True)):
        part = drift.filter(~of(*OIL) | of(*OIL[:there]))
        (market,) = verdicts(part, MARKET)[0].markets
        assert market.judged
        assert ("sector oil" in "; ".join(market.causes)) is judged


def test_a_market_that_waits_does_not_silence_another():
    two = Settings(
        **{
            **MARKET.model_dump(include={"partitions", "sources", "drift"}),
            "universe": [
                {"tickers": list(TICKERS), "source": "s", "exchange": "XMOS"},
                {"tickers": ["N"], "source": "s", "exchange": "XNYS"},
            ],
        }
    )
    early = run(come("T00"))
    other = early.with_columns(ticker=pl.lit("N"), market_tickers=pl.lit(1, pl.Int32))
    drift = pl.concat([early, other])

    (verdict,) = verdicts(drift, two)

    assert [(market.exchange, market.moved) for market in verdict.markets] == [
        ("XMOS", False),
        ("XNYS", True),
    ]
    assert verdict.sentence.startswith(f"{LAST}: XNYS has moved")
    assert "XMOS is not judged yet: 1 of 14 tickers have come" in verdict.sentence
    signal = signals(drift, two)[LAST]
    assert signal.alarm.startswith("XNYS: ")
    assert signal.share == verdict.markets[1].share


def test_rows_from_before_tickers_were_counted_are_judged_as_they_were():
    old = run(come("T00")).with_columns(
        pl.lit(None, pl.Int32).alias(name) for name in ("market_tickers", "sector_tickers")
    )
    assert market_days(old, MARKET)["judged"].to_list() == [True]
    assert verdicts(old, MARKET)[0].moved


@pytest.mark.parametrize("tickers", [1, 3, 14])
def test_a_young_market_is_begun_with_one_of_the_size_of_its_history(tickers):
    """A universe may name tickers whose candles never came: they are none of its history."""
    own = TICKERS[:tickers]
    known = FEATURES.filter(of(*own))
    area = Slice(LAST, LAST, own)
    alone, named = settings_of(*own), settings_of(*TICKERS, *(f"X{n}" for n in range(60)))

    small, large = (distances(known, area, market) for market in (alone, named))

    limits = ["threshold", "ticker_alarm", "market_alarm", "market_tickers"]
    assert large.select(limits).equals(small.select(limits))


def test_most_is_two_thirds_whatever_the_size():
    for usual in range(1, 500):
        assert [come >= MOST * usual for come in range(usual + 1)] == [
            3 * come >= 2 * usual for come in range(usual + 1)
        ]
