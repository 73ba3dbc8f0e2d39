"""Thresholds: what blocks of history say, and how rarely an unchanged series exceeds them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stock_assets.drift.calibration import (
    alarm_level,
    begun_with,
    block_maxima,
    stationary,
    upper_quantile,
)
from stock_assets.drift.watched import DRIFT_FEATURES

SERIES = hnp.arrays(
    np.float64,
    st.integers(0, 40),
    elements=st.floats(0, 10, allow_subnormal=False) | st.just(math.nan),
)


def plain_quantile(values, share: float) -> float:
    """Weibull's plotting position by hand."""
    there = sorted(value for value in values if not math.isnan(value))
    if not there:
        return math.nan
    place = (1 - share) * (len(there) + 1) - 1
    if place >= len(there) - 1:
        return there[-1]
    if place <= 0:
        return there[0]
    low = math.floor(place)
    return there[low] + (place - low) * (there[low + 1] - there[low])


@pytest.mark.slow
@settings(deadline=None)
@given(values=SERIES, share=st.floats(0.001, 0.999))
def test_the_quantile_is_the_plain_one(values, share):
    found = upper_quantile(values[None, :], share) if len(values) else [math.nan]

    assert found[0] == pytest.approx(plain_quantile(values, share), nan_ok=True)


@settings(deadline=None)
@given(values=SERIES, length=st.integers(1, 7))
def test_block_maxima_are_those_of_plain_blocks_counted_from_the_end(values, length):
    blocks = [values[end - length : end] for end in range(len(values), length - 1, -length)]
    wanted = [
        max((value for value in block if not math.isnan(value)), default=math.nan)
        for block in reversed(blocks)
    ]

    np.testing.assert_array_equal(block_maxima(values[None, :], length)[0], wanted)


def test_a_new_value_exceeds_the_quantile_as_often_as_it_may():
    random = np.random.default_rng(1)
    drawn = random.exponential(size=(20_000, 61))

    exceeded = drawn[:, 60] > upper_quantile(drawn[:, :60], 0.05)

    # Three standard errors of a share of 20,000.
    assert exceeded.mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 20_000))


def test_a_rate_that_few_blocks_cannot_keep_is_that_of_the_largest():
    drawn = np.random.default_rng(1).exponential(size=(20_000, 11))

    exceeded = drawn[:, 10] > upper_quantile(drawn[:, :10], 0.01)

    assert exceeded.mean() == pytest.approx(1 / 11, abs=0.01)


def test_one_crash_does_not_hide_the_next():
    quiet = np.random.default_rng(3).uniform(0.5, 1.0, (1, 30))
    crashed = quiet.copy()
    crashed[0, 12] = 5.0

    level = alarm_level(np.array([]), crashed, 0.05)

    np.testing.assert_allclose(level, alarm_level(np.array([]), np.delete(crashed, 12, 1), 0.05))
    assert level[0] <= 1.0


def test_a_market_of_many_crashes_has_them_as_usual():
    wild = np.random.default_rng(3).uniform(0.5, 1.0, (1, 30))
    wild[0, ::5] = 5.0

    assert alarm_level(np.array([]), wild, 0.05)[0] == 5.0


def test_without_any_history_the_simulated_market_answers():
    prior = np.array([1.0, 2.0, 3.0])
    nothing = np.full((2, 4), np.nan)

    np.testing.assert_allclose(alarm_level(prior, nothing, 0.25), [3.0, 3.0])
    assert np.isnan(alarm_level(np.array([]), nothing, 0.25)).all()
    assert begun_with(prior, nothing).shape == (2, 7)


def test_the_package_comes_with_a_simulated_market_for_every_feature_and_size():
    known = stationary()

    for name in DRIFT_FEATURES:
        values = known.distances_of(name)
        assert len(values) == 40
        assert (np.diff(values) >= 0).all()
        assert values[0] > 0
    for statistic in ("share", "rise"):
        one, many = known.blocks_of(statistic, 1), known.blocks_of(statistic, 50)
        assert len(one) == len(many) == 24
        # Many tickers even each other out.
        assert one[-1] > many[-1]
    assert (known.blocks_of("share", 50) <= 1).all()
    np.testing.assert_array_equal(known.blocks_of("share", 70), known.blocks_of("share", 60))
