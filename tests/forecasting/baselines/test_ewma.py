"""The two EWMA bands: the product's own baseline, and the one of the textbook."""

from __future__ import annotations

import math
from statistics import NormalDist

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.baselines import METHODS
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES


def test_ewma_is_the_products_baseline(known, sessions) -> None:
    cells = known.features.filter(pl.col("day") > sessions[400])
    made = METHODS["ewma"].fit(known, sessions[400]).forecast(cells, known, [1, 4])
    expected = baseline_forecasts(cells, known.features, known.labelled, [1, 4])
    assert_frame_equal(made, expected, check_exact=True)


def test_the_gaussian_band_is_normal_quantiles_of_the_ewma(known, sessions) -> None:
    cells = known.features.filter(pl.col("day") == sessions[410])
    made = METHODS["ewma-gaussian"].fit(known, sessions[400]).forecast(cells, known, [3])
    for row, own in zip(
        made.iter_rows(named=True), cells.sort("ticker").iter_rows(named=True), strict=True
    ):
        assert row["ticker"] == own["ticker"]
        normal = NormalDist(0.0, own["vol_ewma"] * math.sqrt(3))
        for name, level in zip(QUANTILE_NAMES, QUANTILES, strict=True):
            expected = pytest.approx(normal.inv_cdf(level), abs=1e-15)
            assert row[f"return_{name}"] == expected
