"""A session's variance is one thing, whether SQL or Polars says it."""

from __future__ import annotations

import math

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import Template

from stock_assets.forecasting.volatility import MIN_SESSION_VARIANCE, session_variance
from stock_assets.lake.dbt_project import DBT_PROJECT_DIR

SCHEMA = dict.fromkeys(
    ("open", "high", "low", "close", "previous_close", "realised_variance"), pl.Float64
)
TOLERANCE = 1e-9

price = st.floats(1e-3, 1e6)


@st.composite
def bar(draw: st.DrawFn) -> tuple[float | None, ...]:
    """One bar: with and without a range, a bar before it, and intraday candles."""
    first = draw(price)
    if draw(st.booleans()):
        first, last, low, high = (first,) * 4
    else:
        reach = st.floats(-0.2, 0.2)
        last, *others = (first * math.exp(draw(reach)) for _ in range(3))
        low, high = min(first, last, *others), max(first, last, *others)
    previous = draw(st.none() | st.just(first) | st.floats(0.5 * first, 2 * first))
    realised = draw(st.none() | st.just(0.0) | st.floats(0, 1))
    return first, high, low, last, previous, realised


def by_sql(bars: pl.DataFrame) -> pl.Series:
    macro = (DBT_PROJECT_DIR / "macros" / "session_variance.sql").read_text(encoding="utf-8")
    expression = Template(macro + "{{ session_variance() }}").render()
    with duckdb.connect() as connection:
        connection.register("bars", bars.with_row_index().to_arrow())
        found = connection.sql(f"select {expression} as variance from bars order by index")  # noqa: S608
        return pl.Series(pl.from_arrow(found.to_arrow_table())["variance"])


def assert_agree(one: pl.Series, other: pl.Series) -> None:
    assert one.is_null().equals(other.is_null())
    assert ((one / other).log().abs().max() or 0.0) < TOLERANCE


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(bar(), min_size=1, max_size=30))
@example(
    [
        (10.0, 10.0, 10.0, 10.0, 10.0, None),  # nothing moved at all
        (10.0, 10.0, 10.0, 10.0, 9.0, None),  # a single price
        (10.0, 10.0, 10.0, 10.0, 9.0, 0.0),  # the same in intraday candles
        (10.0, 11.0, 10.0, 11.0, 10.0, None),  # closed at the far end of its range
        (10.0, 11.0, 9.0, 10.0, 9.5, 0.02),
        (10.0, 11.0, 9.0, 10.0, None, 0.02),
    ]
)
def test_sql_and_polars_agree(rows: list[tuple[float | None, ...]]) -> None:
    bars = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    variance = bars.select(session_variance(pl.col("previous_close"))).to_series()
    assert_agree(by_sql(bars), variance)
    assert variance.is_null().equals(bars["previous_close"].is_null())
    assert (variance.drop_nulls() >= MIN_SESSION_VARIANCE).all()


def test_features_hold_what_polars_makes_of_the_bars(whole) -> None:
    features = whole.table("features").select("day", "ticker", "days_since_bar", "log_variance_1d")
    bars = whole.table("bars").join(features, on=["day", "ticker"]).sort("ticker", "day")
    previous = pl.col("close").shift(1).over("ticker")
    # After a long halt a ticker starts anew, as after a suspected split: no bar before it.
    compared = pl.col("days_since_bar").is_not_null() & pl.col("suspected_split").is_null()
    previous = pl.when(compared).then(previous)
    found = bars.with_columns(variance=session_variance(previous))

    assert_agree(found["log_variance_1d"].exp(), found["variance"])
    kinds = {
        "intraday": pl.col("realised_variance").is_not_null(),
        "a single price": pl.col("high") == pl.col("low"),
        "no bar before": pl.col("variance").is_null(),
    }
    counts = found.select(kind.sum().alias(name) for name, kind in kinds.items()).row(0, named=True)
    assert all(counts.values()), f"nothing was compared of: {counts}"


def test_a_range_says_more_than_its_ends() -> None:
    """What both agree on, by hand: a gap of 10 %, a range of 20 % and back to the open."""
    bars = pl.DataFrame(
        [(1.0, math.exp(0.1), math.exp(-0.1), 1.0, math.exp(-0.1), None)],
        schema=SCHEMA,
        orient="row",
    )
    assert by_sql(bars).item() == pytest.approx(0.1**2 + 0.2**2 / 2)
