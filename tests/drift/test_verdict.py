"""The verdict: counted from the rows, compared with the alarms beside them, and told in words."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.drift.verdict import market_days, signals, verdicts
from stock_assets.lake.schemas import Drift
from stock_assets.settings import Settings

DAY = dt.date(2024, 6, 27)
MARKET = Settings(
    partitions={"first_day": DAY},
    universe=[
        {"ticker": "A", "source": "s", "sector": "oil"},
        {"ticker": "B", "source": "s", "sector": "oil"},
        {"ticker": "C", "source": "s", "sector": "banks"},
        {"ticker": "N", "source": "s", "exchange": "XNYS"},
    ],
    sources={"s": {"kind": "simulated"}},
)


def measured(
    values: dict[tuple[str, str], float | None],
    day: dt.date = DAY,
    *,
    kind: str = "data",
    ticker: float | None = 0.5,
    sector: float | None = None,
    market: float | None = 0.5,
    usual: tuple[int | None, int | None] = (None, None),
) -> pl.DataFrame:
    """Rows of `drift` from distances by (ticker, feature); drifted above 1; alarms as given.

    `usual`: tickers that the market, and the sector, has had lately.
    """
    rows = [
        (DAY, name, kind, feature, distance, 1.0, distance is not None and distance > 1, 250, 20,
         ticker, sector, market, *usual)
        for (name, feature), distance in values.items()
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=Drift.create_empty().schema, orient="row")
    return frame.with_columns(pl.lit(day).alias("day"))


def test_pairs_share_and_reasons_are_counted_from_the_rows_of_each_exchange():
    verdict, = verdicts(
        measured(
            {
                ("A", "ret_1d"): 1.5, ("B", "ret_1d"): 2.5, ("C", "ret_1d"): 0.5,
                ("A", "gap_1d"): 3.0, ("B", "gap_1d"): 0.1, ("C", "gap_1d"): None,
                ("A", "range_1d"): 0.2, ("B", "range_1d"): 0.2, ("N", "range_1d"): 2.0,
            }
        ),
        MARKET,
    )  # fmt: skip

    new_york, weekdays = verdict.markets
    assert (weekdays.exchange, weekdays.pairs, weekdays.drifted) == ("weekdays", 7, 3)
    assert (new_york.exchange, new_york.share, new_york.tickers) == ("XNYS", 1, ("N",))
    assert weekdays.share == 3 / 7
    assert weekdays.tickers == ("A", "B", "C")
    assert (weekdays.moved, new_york.moved, verdict.moved) == (False, True, True)
    assert [(r.feature, r.share, r.median_distance) for r in weekdays.reasons] == [
        ("ret_1d", 2 / 3, 1.5),
        ("gap_1d", 1 / 2, pytest.approx(1.55)),
    ]


@pytest.mark.parametrize(("drifted", "moved"), [(1, False), (2, False), (3, True)])
def test_a_market_has_moved_above_its_share(drifted, moved):
    values = {("A", f"f{n}"): 2.0 if n < drifted else 0.1 for n in range(4)}

    verdict, = verdicts(measured(values), MARKET)  # fmt: skip

    assert verdict.moved is moved
    assert ("has moved" in verdict.sentence) is moved
    assert ("has not moved" in verdict.sentence) is not moved


@pytest.mark.parametrize(("rises", "moved"), [((0.9, 0.9), False), ((0.2, 2.0), True)])
def test_a_market_has_moved_when_its_volatility_rose_on_average(rises, moved):
    rows = measured(
        {(name, "log_variance_1d"): value for name, value in zip("AB", rises, strict=True)},
        kind="target", market=1.0,
    )  # fmt: skip
    quiet = measured({("A", "ret_1d"): 0.1, ("B", "ret_1d"): 0.1})

    verdict, = verdicts(pl.concat([quiet, rows]), MARKET)  # fmt: skip

    assert verdict.moved is moved
    assert ("volatility rose by 1.10 on average" in verdict.sentence) is moved


def test_a_sector_has_moved_when_it_exceeds_the_market_by_more_than_it_may():
    """Both of oil's pairs drifted, neither of the banks'; that is 1/2 of the market."""
    values = {
        ("A", "ret_1d"): 2.0, ("B", "ret_1d"): 2.0, ("C", "ret_1d"): 0.1, ("C", "gap_1d"): 0.1,
    }  # fmt: skip
    for allowed, moved in ((0.4, True), (0.5, False), (None, False)):
        verdict, = verdicts(measured(values, sector=allowed, market=0.9), MARKET)  # fmt: skip

        assert verdict.moved is moved
        assert ("sector oil: 100% of pairs drifted (alarm above 90%)" in verdict.sentence) is moved


def test_an_alarm_that_is_not_known_is_none():
    rows = measured({("A", "ret_1d"): 9.0}, market=None, ticker=None)

    verdict, = verdicts(rows, MARKET)  # fmt: skip

    assert not verdict.moved
    assert verdict.drifted_tickers == ()
    assert "alarm not known yet" in verdict.sentence


def test_the_sentence_says_day_counts_share_alarm_and_reasons():
    values = {("A", "ret_1d"): 2.0, ("B", "ret_1d"): 0.5, ("A", "gap_1d"): 0.1}

    verdict, = verdicts(measured(values), MARKET)  # fmt: skip

    for words in ("2024-06-27", "weekdays", "1 of 3", "33.3%", "alarm above 50%", "2 ticker(s)",
                  "ret_1d in 50% of tickers (median 1.25)"):  # fmt: skip
        assert words in verdict.sentence


def test_a_ticker_moves_by_itself_and_the_furthest_comes_first():
    rows = pl.concat([
        measured({("A", "ret_1d"): 1.4, ("A", "gap_1d"): 1.2, ("A", "range_1d"): 0.1}),
        measured({("B", "ret_1d"): 0.4, ("B", "gap_1d"): 0.4}),
        measured({("B", "log_variance_1d"): 3.0}, kind="target", ticker=1.0),
        measured({("C", "ret_1d"): 1.1, ("C", "gap_1d"): 0.2}),
    ])  # fmt: skip

    verdict, = verdicts(rows, MARKET)  # fmt: skip

    assert [item.ticker for item in verdict.drifted_tickers] == ["B", "A"]
    assert verdict.drifted_tickers[0].sentence == (
        "B: volatility rose by 3.00 in log variance (alarm above 1.00); "
        "most: log_variance_1d 3.00 (usual up to 1.00)"
    )
    assert verdict.drifted_tickers[1].sentence.startswith(
        "A: 67% of features drifted (alarm above 50%); most: ret_1d 1.40 (usual up to 1.00), gap"
    )


def test_faults_are_told_and_are_no_drift():
    rows = measured({("A", "price_level"): 4.6, ("B", "late"): 2.0, ("C", "late"): 0.0},
                    kind="quality", ticker=None, market=None)  # fmt: skip

    verdict, = verdicts(rows, MARKET)  # fmt: skip

    assert verdict.markets == ()
    assert verdict.tickers == ()
    assert not verdict.moved
    assert [(fault.ticker, fault.blocks) for fault in verdict.faults] == [("A", True), ("B", False)]
    assert "99.5 times" in verdict.faults[0].sentence
    assert "no candle on 2 session(s)" in verdict.faults[1].sentence


def test_each_day_has_its_own_verdict_in_order_whatever_the_order_of_rows():
    days = [DAY - dt.timedelta(2), DAY - dt.timedelta(1), DAY]
    parts = [
        measured({("A", "ret_1d"): 1.0 + n, ("B", "ret_1d"): 1.0 + n}, day)
        for n, day in enumerate(days)
    ]

    found = verdicts(pl.concat(reversed(parts)), MARKET)

    assert [verdict.day for verdict in found] == days
    assert [verdict.markets[0].share for verdict in found] == [0, 1, 1]
    assert [verdicts(part, MARKET)[0] for part in parts] == found


def test_a_day_without_measured_pairs_has_no_verdict():
    assert verdicts(measured({("A", "ret_1d"): None}), MARKET) == []
    assert verdicts(measured({}), MARKET) == []
    assert signals(measured({}), MARKET) == {}
    assert market_days(measured({}), MARKET).is_empty()


PAIRS = st.dictionaries(
    st.tuples(st.sampled_from("ABCN"), st.sampled_from(["ret_1d", "gap_1d", "range_1d"])),
    st.none() | st.floats(0, 3),
    max_size=8,
)


@settings(deadline=None)
@given(values=PAIRS, alarm=st.none() | st.floats(0, 1))
def test_shares_and_alarms_are_those_of_a_plain_count(values, alarm):
    found = verdicts(measured(values, market=alarm), MARKET)

    exchange = {item.ticker: item.exchange for item in MARKET.universe}
    there: dict[str, list[float]] = {}
    for (ticker, _), distance in values.items():
        if distance is not None:
            there.setdefault(exchange[ticker], []).append(distance)
    assert len(found) == bool(there)
    for verdict in found:
        assert {market.exchange for market in verdict.markets} == set(there)
        for market in verdict.markets:
            own = there[market.exchange]
            share = sum(distance > 1 for distance in own) / len(own)
            assert market.share == share
            assert market.moved == (alarm is not None and share > alarm)


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=4), st.none() | st.floats(0, 1))
def test_what_decides_about_trainings_is_what_the_verdicts_say(days, alarm):
    drift = pl.concat(
        [
            measured({}),
            *(measured(v, DAY + dt.timedelta(n), market=alarm) for n, v in enumerate(days)),
        ]
    )
    found = signals(drift, MARKET)

    told = {verdict.day: verdict for verdict in verdicts(drift, MARKET)}
    assert set(found) == set(told)
    for day, signal in found.items():
        assert bool(signal.alarm) == told[day].moved
        moved = [market for market in told[day].markets if market.moved]
        assert signal.share in {market.share for market in moved or told[day].markets}
        for market in moved:
            assert f"{market.exchange}: {market.causes[0]}" in signal.alarm
