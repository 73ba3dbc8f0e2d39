"""The baseline is pure, bounded in its look-back, honest in its coverage, and always there."""

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.baseline import baseline_forecasts, lookback_start
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.quantiles import GAUSSIAN, MIN_RESIDUALS
from stock_assets.forecasting.volatility import MIN_VOLATILITY, USUAL_VOLATILITY
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES


@pytest.fixture(scope="module")
def cells(features: pl.DataFrame, sessions: list[dt.date]) -> pl.DataFrame:
    late = features.filter(pl.col("day") >= sessions[380])
    return late.select("day", "ticker", "exchange")


@pytest.mark.slow
def test_one_day_at_a_time_equals_the_range(
    cells: pl.DataFrame, features: pl.DataFrame, bars: pl.DataFrame, labelled: pl.DataFrame
) -> None:
    together = baseline_forecasts(cells, features, labelled)
    single = []
    for day in cells["day"].unique().sort():
        # Each day from what was there on that day, no further back than it says it looks.
        seen = pl.col("day").is_between(lookback_start([WEEKDAYS], day), day)
        single.append(
            baseline_forecasts(
                cells.filter(pl.col("day") == day),
                features.filter(seen),
                labels(bars.filter(seen)),
            )
        )
    assert_frame_equal(together, pl.concat(single), check_exact=True)


def test_the_lookback_is_bounded(make_bars, features_of) -> None:
    bars = make_bars(["A", "B"], 700)
    features, days = features_of(bars), bars["day"].unique().sort()
    last = bars.filter(pl.col("day") == days[-1])
    recent = pl.col("day") >= lookback_start([WEEKDAYS], days[-1])
    assert features.filter(recent)["day"].n_unique() == 501
    assert_frame_equal(
        baseline_forecasts(last, features, labels(bars)),
        baseline_forecasts(last, features.filter(recent), labels(bars.filter(recent))),
        check_exact=True,
    )


def test_quantiles_are_those_of_the_known_residuals_around_their_median(
    cells: pl.DataFrame, features: pl.DataFrame, labelled: pl.DataFrame
) -> None:
    day = cells["day"].max()
    oldest = get_calendar(WEEKDAYS).back(day, 500)
    pool = [
        row["y3"] / (row["vol_ewma"] * math.sqrt(3))
        for row in labelled.join(features, on=["day", "ticker"]).iter_rows(named=True)
        if oldest <= row["day"] and row["label_end"] <= day and row["vol_ewma"] is not None
    ]
    expected = np.quantile(pool, QUANTILES) - np.median(pool)
    found = baseline_forecasts(cells, features, labelled).filter(
        (pl.col("day") == day) & (pl.col("horizon") == 3)
    )
    for name, quantile in zip(QUANTILE_NAMES, expected, strict=True):
        ratio = (found[f"return_{name}"] / found["sigma"]).to_numpy()
        assert ratio == pytest.approx(quantile, rel=1e-9, abs=1e-15)


def test_few_residuals_mean_a_normal_distribution(
    features: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> None:
    day = sessions[40]
    early = features.filter(pl.col("day") == day)
    pool = labelled.filter(pl.col("label_end") <= day)
    assert pool.height < MIN_RESIDUALS
    found = baseline_forecasts(early, features, labelled, [1])
    for name, quantile in zip(QUANTILE_NAMES, GAUSSIAN, strict=True):
        assert (found[f"return_{name}"] / found["sigma"]).to_list() == pytest.approx([quantile] * 6)


def test_coverage_is_what_it_says(features: pl.DataFrame, labelled: pl.DataFrame) -> None:
    made = baseline_forecasts(features.tail(6 * 200), features, labelled)
    came = made.join(returns_ahead(labelled), on=["day", "ticker", "horizon"])
    inside = came.select(
        pl.col("actual_return").is_between("return_q10", "return_q90").mean().alias("80"),
        pl.col("actual_return").is_between("return_q05", "return_q95").mean().alias("90"),
    )
    # 200 days of 6 tickers, neighbouring windows alike: about 240 independent weeks.
    assert inside["80"][0] == pytest.approx(0.8, abs=0.05)
    assert inside["90"][0] == pytest.approx(0.9, abs=0.04)


def test_there_is_always_a_forecast(features: pl.DataFrame, labelled: pl.DataFrame) -> None:
    rows = features.tail(6).with_columns(
        pl.Series("vol_ewma", [None, None, 0.0, 1e-9, 0.02, 0.02]),
        pl.Series("market_vol_ewma", [0.03, None, 0.03, None, 0.03, None]),
    )
    cells = rows.select("day", "ticker", "exchange")
    unknown = cells.head(1).with_columns(pl.lit("NEW").alias("ticker"))
    found = baseline_forecasts(pl.concat([cells, unknown]), rows, labelled, [1])
    levels = [0.03, USUAL_VOLATILITY, MIN_VOLATILITY, MIN_VOLATILITY, 0.02, 0.02, USUAL_VOLATILITY]
    assert found["sigma"].to_list() == levels
    assert not any(found[column].is_null().any() for column in found.columns)
