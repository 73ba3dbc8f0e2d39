"""HAR against least squares written out in numpy, from bars."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.baselines.har import Har
from stock_assets.forecasting.baselines.scale import NothingFitted
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.volatility import MAX_LOG_RATIO


def by_numpy(bars, day, *, ranges: bool):
    """Coefficients and factor of the regression, ticker by ticker and row by row."""
    rows = []
    for _, own in bars.sort("day").group_by("ticker", maintain_order=True):
        closes = np.log(own["close"].to_numpy())
        returns = np.concatenate([[np.nan], np.diff(closes)])
        if ranges:
            spread = np.log(own["high"].to_numpy() / own["low"].to_numpy())
            daily = spread**2 / (4 * math.log(2))
        else:
            daily = returns**2
        days = own["day"].to_list()
        for i in range(21, len(days) - 5):
            if days[i + 5] > day:
                break
            variance = [daily[i], daily[i - 4 : i + 1].mean(), daily[i - 20 : i + 1].mean()]
            month = math.log(variance[2])
            logs = [
                month + np.clip(math.log(max(item, 1e-300)) - month, -MAX_LOG_RATIO, MAX_LOG_RATIO)
                for item in variance
            ]
            realised = (returns[i + 1 : i + 6] ** 2).mean()
            rows.append((*logs, realised, i))
    table = np.array(rows)
    logs, realised = table[:, :3], table[:, 3]
    target = logs[:, 2] + np.clip(np.log(realised) - logs[:, 2], -MAX_LOG_RATIO, MAX_LOG_RATIO)
    design = np.column_stack([np.ones(len(logs)), logs])
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return solution, float(np.mean(realised / np.exp(design @ solution)))


@pytest.mark.parametrize("ranges", [True, False])
def test_the_regression_is_least_squares(known, bars, sessions, ranges) -> None:
    day = sessions[330]
    # The features of the first month have windows that are not full: begin where they are.
    full = Known(known.features.filter(pl.col("day") > sessions[20]), known.labelled)
    scale = Har().fit(full, day).scale
    fitted = scale.ranges if ranges else scale.closes
    solution, factor = by_numpy(bars, day, ranges=ranges)
    assert [fitted.intercept, *fitted.coefficients] == pytest.approx(solution, rel=1e-6)
    assert fitted.factor == pytest.approx(factor, rel=1e-6)


def test_a_forecast_is_the_regression_times_the_horizon(known, sessions) -> None:
    forecaster = Har().fit(known, sessions[330])
    own = forecaster.scale.ranges
    cells = known.features.filter(pl.col("day") == sessions[400]).sort("ticker")
    made = forecaster.forecast(cells, known, [1, 5])
    logs = [
        np.log(cells["range_1d"].to_numpy() ** 2 / (4 * math.log(2))),
        2 * np.log(cells["vol_parkinson_5"].to_numpy()),
        2 * np.log(cells["vol_parkinson_21"].to_numpy()),
    ]
    total = own.intercept + sum(c * x for c, x in zip(own.coefficients, logs, strict=True))
    variance = own.factor * np.exp(total)
    for horizon in (1, 5):
        sigma = made.filter(pl.col("horizon") == horizon)["sigma"].to_numpy()
        assert sigma == pytest.approx(np.sqrt(horizon * variance), rel=1e-9)


def test_variance_is_right_on_average_in_sample(known, sessions) -> None:
    scale = Har().fit(known, sessions[330]).scale
    sigmas = scale.sigmas(known.features, [5])
    ended = known.labelled.filter(pl.col("label_end") <= sessions[330])
    joined = sigmas.join(ended, on=["day", "ticker"])
    # Rows of the first twelve sessions have no EWMA and were not fitted on.
    fitted = joined.filter(pl.col("day") > sessions[30])
    ratio = (fitted["realised_variance"] / fitted["sigma"] ** 2).mean()
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_a_single_price_series_is_forecast_from_its_closes(bars, features_of, sessions) -> None:
    flat = bars.with_columns(
        pl.when(pl.col("ticker") == "B").then("close").otherwise(name).alias(name)
        for name in ("open", "high", "low")
    )
    known = Known(features_of(flat), labels(flat))
    scale = Har().fit(known, sessions[330]).scale
    row = known.features.filter((pl.col("day") == sessions[400]) & (pl.col("ticker") == "B"))
    expected = row.select(scale.closes.volatility()).item()
    assert scale.sigmas(row, [1])["sigma"].item() == expected
    other = known.features.filter((pl.col("day") == sessions[400]) & (pl.col("ticker") == "A"))
    expected = other.select(scale.ranges.volatility()).item()
    assert scale.sigmas(other, [1])["sigma"].item() == expected


def test_a_market_without_ranges_has_no_regression_on_them(bars, features_of, sessions) -> None:
    flat = bars.with_columns(pl.col("close").alias(name) for name in ("open", "high", "low"))
    known = Known(features_of(flat), labels(flat))
    scale = Har().fit(known, sessions[330]).scale
    assert scale.ranges is None
    assert scale.sigmas(known.features.tail(6), [1])["sigma"].is_not_null().sum() == 6
    assert isinstance(Har().fit(known, sessions[20]).scale, NothingFitted)
