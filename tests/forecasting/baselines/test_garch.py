"""GARCH against `arch` itself, which filters and forecasts by its own code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.baseline import LOOKBACK_SESSIONS, lookback_start
from stock_assets.forecasting.baselines.garch import (
    FILTER_SESSIONS,
    RESIDUAL_SESSIONS,
    Garch,
    GarchScale,
    Parameters,
    filtered,
)
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.quantiles import GAUSSIAN
from stock_assets.forecasting.volatility import MIN_VOLATILITY

TRUE = Parameters(omega=4e-6, alpha=0.1, beta=0.88, start=2e-4)


def simulate(count: int, seed: int, own: Parameters = TRUE) -> np.ndarray:
    """Returns of a GARCH(1,1) process, normal innovations."""
    rng = np.random.default_rng(seed)
    variance, returns = own.start, []
    for shock in rng.standard_normal(count):
        returns.append(math.sqrt(variance) * shock)
        variance = own.omega + own.alpha * returns[-1] ** 2 + own.beta * variance
    return np.array(returns)


def features_of(returns: np.ndarray, ticker: str = "A") -> pl.DataFrame:
    """As much of `Features` as the method looks at."""
    days = get_calendar(WEEKDAYS).sessions[2000 : 2000 + len(returns)]
    ewma = pl.Series(returns).pow(2).ewm_mean(alpha=0.06).sqrt()
    return pl.DataFrame(
        {"day": days, "ticker": ticker, "exchange": WEEKDAYS, "ret_1d": returns, "vol_ewma": ewma},
        schema_overrides={"day": pl.Date},
    ).with_columns(market_vol_ewma="vol_ewma")


def by_arch(returns: np.ndarray, own: Parameters) -> Any:
    """The result of `arch` itself with our parameters; its variances are of returns in per cent."""
    from arch import arch_model

    model = arch_model(100 * returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    return model.fix([own.omega * 1e4, own.alpha, own.beta])


@pytest.mark.parametrize("count", [40, FILTER_SESSIONS])
def test_the_filter_is_archs_recursion(count) -> None:
    returns = simulate(count, 1)
    oracle = by_arch(returns, TRUE)
    variances = oracle.conditional_volatility**2 / 1e4
    # Begun where arch begins, each day's variance is arch's of the session after it.
    rows = features_of(returns).with_columns(
        omega=pl.lit(TRUE.omega),
        alpha=pl.lit(TRUE.alpha),
        beta=pl.lit(TRUE.beta),
        start=pl.lit(variances[0]),
    )
    assert filtered(rows)[:-1] == pytest.approx(variances[1:], rel=1e-12)


def test_horizons_are_sums_of_archs_forecasts() -> None:
    # On a long history the 250 sessions that are filtered say what all of it says.
    returns = simulate(900, 2)
    ahead = by_arch(returns, TRUE).forecast(horizon=5).variance.iloc[-1].to_numpy() / 1e4
    scale = GarchScale({"A": TRUE}, {})
    found = scale.sigmas(features_of(returns), [1, 3, 5]).filter(
        pl.col("day") == pl.col("day").max()
    )
    assert found["horizon"].to_list() == [1, 3, 5]
    expected = [math.sqrt(ahead[:horizon].sum()) for horizon in (1, 3, 5)]
    assert found["sigma"].to_list() == pytest.approx(expected, rel=1e-9)


def test_the_fit_finds_the_truth() -> None:
    features = features_of(simulate(2500, 3))
    fitted = Garch().fit(Known(features, pl.DataFrame()), features["day"].max()).scale
    own = fitted.parameters["A"]
    assert own.alpha == pytest.approx(TRUE.alpha, abs=0.04)
    assert own.alpha + own.beta == pytest.approx(0.98, abs=0.02)
    assert own.start == pytest.approx(features["ret_1d"].pow(2).mean(), rel=1e-12)


def test_tickers_that_cannot_be_fitted_are_named_with_the_reason() -> None:
    rng = np.random.default_rng(4)
    features = pl.concat(
        [
            features_of(simulate(800, 5), "GOOD"),
            features_of(simulate(100, 6), "NEW"),
            features_of(np.full(800, 1e-7), "STUCK"),
            features_of(rng.standard_normal(800) * 0.01, "CALM"),
        ]
    )
    scale = Garch().fit(Known(features, pl.DataFrame()), features["day"].max()).scale
    assert list(scale.parameters) == ["GOOD"]
    reasons = scale.not_fitted
    assert "100 returns" in reasons["NEW"]
    assert "hardly ever moves" in reasons["STUCK"]
    assert "no clustering" in reasons["CALM"]


def test_a_missing_return_counts_as_expected_and_a_long_halt_is_forgotten() -> None:
    returns = simulate(600, 7)
    features = features_of(returns).with_columns(
        pl.when(pl.int_range(pl.len()) == 599).then(None).otherwise("ret_1d").alias("ret_1d")
    )
    scale = GarchScale({"A": TRUE}, {})
    last, after = scale.sigmas(features, [1])["sigma"].to_list()[-2:]
    expected = TRUE.omega + (TRUE.alpha + TRUE.beta) * last**2
    assert after**2 == pytest.approx(expected, rel=1e-12)
    # Bars of more than 250 sessions ago are not looked at: only the start and the day itself are.
    halted = features_of(returns)[[0, 1, 2, 599]]
    found = scale.sigmas(halted, [1])["sigma"].to_list()[-1]
    own = TRUE.omega + TRUE.alpha * returns[599] ** 2 + TRUE.beta * TRUE.start
    assert found**2 == pytest.approx(own, rel=1e-12)


def test_filter_and_residuals_look_back_as_far_as_the_baseline_and_no_further() -> None:
    features = pl.concat([features_of(simulate(1100, seed), f"T{seed}") for seed in range(3)])
    close = pl.col("ret_1d").cum_sum().exp().over("ticker").alias("close")
    bars = features.with_columns(close).with_columns(
        open="close",
        high=pl.col("close") * 1.01,
        low=pl.col("close") * 0.99,
        realised_variance=pl.lit(None, pl.Float64),
        suspected_split=pl.lit(None, pl.Float64),
    )
    day = features["day"].max()
    recent = pl.col("day") >= lookback_start([WEEKDAYS], day)
    forecaster = Garch().fit(Known(features, labels(bars)), day)
    assert len(forecaster.scale.parameters) == 3
    cells = features.filter(pl.col("day") == day)
    together, cut = (
        forecaster.forecast(cells, Known(features.filter(some), labels(bars.filter(some))), [1, 5])
        for some in (pl.lit(True), recent)
    )
    assert_frame_equal(together, cut, check_exact=True)
    # Few residuals decide a quantile: the oldest one's filter must be whole all the same.
    assert RESIDUAL_SESSIONS + FILTER_SESSIONS <= LOOKBACK_SESSIONS
    assert together["return_q05"].to_list() != (together["sigma"] * GAUSSIAN[0]).to_list()


def test_a_stuck_price_never_gets_a_zero_sigma(known, sessions) -> None:
    day = sessions[400]
    stuck = known.features.with_columns(
        pl.when(pl.col("day") > sessions[340]).then(0.0).otherwise("ret_1d").alias("ret_1d"),
        pl.when(pl.col("day") > sessions[340]).then(1e-9).otherwise("vol_ewma").alias("vol_ewma"),
    )
    cells = stuck.filter(pl.col("day") == day)
    there = Known(stuck, known.labelled)
    made = Garch().fit(there, sessions[330]).forecast(cells, there, [1])
    assert made["sigma"].unique().to_list() == [MIN_VOLATILITY]
