"""The verdict on the universe: counted from the rows, and told in words."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.drift.verdict import drifted_shares, universe_verdict
from stock_assets.lake.schemas import Drift
from stock_assets.settings import Settings

DAY = dt.date(2024, 6, 27)
MARKET = Settings(
    partitions={"first_day": DAY},
    universe=[{"tickers": ["A", "B", "C"], "source": "s"}],
    sources={"s": {"kind": "simulated"}},
    drift={"universe_share": 0.5},
)


def measured(values: dict[tuple[str, str], float | None], day: dt.date = DAY) -> pl.DataFrame:
    """Rows of `drift` from distances by (ticker, feature); drifted from 1 on."""
    rows = [
        (day, ticker, feature, distance, 1.0, distance is not None and distance >= 1, 250, 20)
        for (ticker, feature), distance in values.items()
    ]
    return pl.DataFrame(rows, schema=Drift.create_empty().schema, orient="row")


def test_pairs_share_and_reasons_are_counted_from_the_rows():
    verdict, = universe_verdict(
        measured(
            {
                ("A", "ret_1d"): 1.5, ("B", "ret_1d"): 2.5, ("C", "ret_1d"): 0.5,
                ("A", "gap_1d"): 3.0, ("B", "gap_1d"): 0.1, ("C", "gap_1d"): None,
                ("A", "range_1d"): 0.2, ("B", "range_1d"): 0.2, ("C", "range_1d"): 0.2,
            }
        ),
        MARKET,
    )  # fmt: skip

    assert (verdict.pairs, verdict.drifted, verdict.share) == (8, 3, 3 / 8)
    assert verdict.tickers == ("A", "B", "C")
    assert not verdict.moved
    assert [(r.feature, r.share, r.median_distance) for r in verdict.reasons] == [
        ("ret_1d", 2 / 3, 1.5),
        ("gap_1d", 1 / 2, pytest.approx(1.55)),
    ]


@pytest.mark.parametrize(("drifted", "moved"), [(1, False), (2, True), (3, True)])
def test_the_universe_has_moved_from_the_share_on(drifted, moved):
    values = {(t, "ret_1d"): 2.0 if n < drifted else 0.1 for n, t in enumerate("ABCD")}

    verdict, = universe_verdict(measured(values), MARKET)  # fmt: skip

    assert verdict.moved is moved
    assert ("has moved" in verdict.sentence) is moved
    assert ("has not moved" in verdict.sentence) is not moved


def test_the_sentence_says_day_counts_share_threshold_and_reasons():
    values = {("A", "ret_1d"): 2.0, ("B", "ret_1d"): 0.5, ("A", "gap_1d"): 0.1}

    verdict, = universe_verdict(measured(values), MARKET)  # fmt: skip

    for words in ("2024-06-27", "1 of 3", "33.3%", "alarm from 50%", "2 ticker(s)",
                  "ret_1d in 50% of tickers (median 1.25)"):  # fmt: skip
        assert words in verdict.sentence


def test_each_day_has_its_own_verdict_in_order_whatever_the_order_of_rows():
    days = [DAY - dt.timedelta(2), DAY - dt.timedelta(1), DAY]
    parts = [
        measured({("A", "ret_1d"): float(n), ("B", "ret_1d"): float(n)}, day)
        for n, day in enumerate(days)
    ]

    verdicts = universe_verdict(pl.concat(reversed(parts)), MARKET)

    assert [verdict.day for verdict in verdicts] == days
    assert [verdict.share for verdict in verdicts] == [0, 1, 1]
    assert [universe_verdict(part, MARKET)[0] for part in parts] == verdicts


def test_a_day_without_measured_pairs_has_no_verdict():
    assert universe_verdict(measured({("A", "ret_1d"): None}), MARKET) == []
    assert universe_verdict(measured({}), MARKET) == []


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("ABCDE"), st.sampled_from(["ret_1d", "gap_1d", "range_1d"])),
        st.none() | st.floats(0, 3),
        min_size=1,
    )
)
def test_the_share_is_that_of_a_plain_count(values):
    there = [distance for distance in values.values() if distance is not None]

    verdicts = universe_verdict(measured(values), MARKET)

    assert len(verdicts) == bool(there)
    for verdict in verdicts:
        assert verdict.share == sum(d >= 1 for d in there) / len(there)
        assert verdict.tickers == tuple(
            sorted({ticker for (ticker, _), d in values.items() if d is not None})
        )
        assert {reason.feature for reason in verdict.reasons} == {
            feature for (_, feature), d in values.items() if d is not None and d >= 1
        }


PAIRS = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["ret_1d", "gap_1d"])),
    st.none() | st.floats(0, 3),
    max_size=6,
)


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=4))
def test_shares_of_many_days_are_those_of_the_verdicts(days):
    drift = pl.concat(
        [measured({}), *(measured(v, DAY + dt.timedelta(n)) for n, v in enumerate(days))]
    )
    assert drifted_shares(drift) == {v.day: v.share for v in universe_verdict(drift, MARKET)}
