"""A session's variance is what the literature says of its bar, by hand."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.forecasting.volatility import (
    MIN_SESSION_VARIANCE,
    MIN_VOLATILITY,
    guarded_volatility,
    is_measured,
    session_variance,
)

PRICES = st.floats(1.0, 1e4)


def variance(
    previous: float | None,
    prices: tuple[float, float, float, float],
    realised: float | None = None,
) -> float | None:
    """Of one bar: open, high, low, close after a close of `previous`."""
    row = dict(zip(("open", "high", "low", "close"), prices, strict=True))
    frame = pl.DataFrame(
        [row | {"realised_variance": realised, "previous": previous}],
        schema=dict.fromkeys([*row, "realised_variance", "previous"], pl.Float64),
    )
    return frame.select(session_variance(pl.col("previous"))).item()


@pytest.mark.parametrize(
    ("name", "previous", "prices", "realised", "expected"),
    [
        ("no close before", None, (100, 110, 90, 105), None, None),
        ("a range, back where it began", 100, (100, 110, 100, 100), None, 0.5 * 0.0953101798**2),
        (
            "Garman and Klass",
            100,
            (100, 110, 100, 105),
            None,
            0.5 * 0.0953101798**2 - 0.3862943611 * 0.0487901642**2,
        ),
        ("and the gap", 100, (105, 110, 105, 105), None, 0.0487901642**2 + 0.5 * 0.0465200156**2),
        # One way all session: Garman and Klass say 0.114 of the square, Parkinson's tenth 0.036.
        ("one way", 100, (100, 110, 100, 110), None, (0.5 - 0.3862943611) * 0.0953101798**2),
        ("candles are believed", 100, (105, 110, 90, 100), 4e-4, 0.0487901642**2 + 4e-4),
        ("candles that stood still", 100, (100, 110, 90, 100), 0.0, MIN_SESSION_VARIANCE),
        ("a price without a range", 100, (105, 105, 105, 105), None, 0.0487901642**2),
        ("one price a day, of which the open is late", 100, (100, 100, 100, 100), None, 1e-8),
    ],
)
def test_a_sessions_variance_by_hand(name, previous, prices, realised, expected) -> None:
    found = variance(previous, prices, realised)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-8)), name


def test_a_bar_that_contradicts_its_range_has_parkinsons_tenth() -> None:
    """Rounded or adjusted prices may close beyond the high; a variance is not negative."""
    found = variance(100, (100, 101, 100, 120))
    assert found == pytest.approx(math.log(1.01) ** 2 / (4 * math.log(2)) / 10)


@given(PRICES, st.lists(PRICES, min_size=4, max_size=4))
def test_a_sessions_variance_is_never_below_a_stuck_prices(
    previous: float, prices: list[float]
) -> None:
    low, first, last, high = sorted(prices)
    found = variance(previous, (first, high, low, last))
    assert found is not None
    assert found >= MIN_SESSION_VARIANCE
    # Not more than the gap and the whole of half the range, to and fro.
    ceiling = math.log(first / previous) ** 2 + math.log(high / low) ** 2
    assert found <= max(ceiling * (1 + 1e-9), MIN_SESSION_VARIANCE)


def test_what_is_measured_and_what_stands_in_for_it() -> None:
    frame = pl.DataFrame(
        {
            "vol_ewma": [0.02, MIN_VOLATILITY, 0.0, None, None],
            "market_vol_ewma": [0.01, 0.01, 0.01, 0.01, None],
        }
    )
    found = frame.select(is_measured().alias("measured"), guarded_volatility())
    assert found["measured"].to_list() == [True, True, False, False, False]
    assert found["volatility"].to_list() == [0.02, MIN_VOLATILITY, MIN_VOLATILITY, 0.01, 0.01]
