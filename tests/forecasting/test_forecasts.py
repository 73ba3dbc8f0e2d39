"""There is always a forecast, it says who made it, and no future reaches it."""

import time
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.baseline import lookback_start
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.model import VolatilityModel, fit, trainable
from stock_assets.lake.schemas import QUANTILE_NAMES, Forecasts, Models

VERSIONS = LakeVersions(bars=3, features=4, models=5)
HORIZONS = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def model(features, labelled, sessions) -> VolatilityModel:
    first = sessions[250]
    return fit(trainable(features, labelled).filter(pl.col("label_end") <= first), first)


@pytest.fixture(scope="module")
def cells(bars, sessions) -> pl.DataFrame:
    return bars.filter(pl.col("day") >= sessions[370]).select("day", "ticker")


@pytest.fixture(scope="module")
def models(sessions) -> pl.DataFrame:
    """The baseline until a model was trained on one day."""
    row = {"ticker": "A", "model": "m", "model_version": 9}
    trained = {"day": sessions[390], "trained_day": sessions[390], "attempted_day": sessions[390]}
    return pl.DataFrame([row | trained], schema=Models.create_empty().schema)


@pytest.fixture(scope="module")
def forecast(bars, features, models, model) -> Callable[..., pl.DataFrame]:
    """Forecast cells by "m"; other frames than the usual ones by name."""
    usual = {"bars": bars, "features": features, "models": models}

    def made(cells: pl.DataFrame, **other: pl.DataFrame) -> pl.DataFrame:
        frames = usual | other
        return make_forecasts(
            cells, **frames, load_model={"m": model}.get, horizons=HORIZONS, versions=VERSIONS
        )

    return made


@pytest.fixture(scope="module")
def made(cells, forecast) -> pl.DataFrame:
    return forecast(cells)


def test_every_cell_with_a_bar_has_every_horizon(made, cells) -> None:
    Forecasts.validate(made)
    assert made.height == 5 * cells.height
    assert made["ticker"].n_unique() == 6


def test_price_and_return_quantiles_agree_and_rise(made) -> None:
    for name in QUANTILE_NAMES:
        back = (made[f"price_{name}"] / made["last_price"]).log().to_numpy()
        assert back == pytest.approx(made[f"return_{name}"].to_numpy(), abs=1e-12)
    for prefix in ("price_", "return_", "baseline_return_"):
        values = made.select(prefix + name for name in QUANTILE_NAMES).to_numpy()
        assert (np.diff(values, axis=1) >= 0).all()


def test_the_baselines_median_is_the_last_price_and_the_models_drifts(made) -> None:
    baseline = pl.col("model") == "baseline"
    assert made.filter(baseline & (pl.col("price_q50") != pl.col("last_price"))).is_empty()
    by_model = made.filter(~baseline)
    assert (by_model["price_q50"] != by_model["last_price"]).any()
    # A drift of the day's market, in sigmas: no ticker's own.
    drift = by_model.with_columns((pl.col("return_q50") / pl.col("sigma")).alias("drift"))
    spread = drift.group_by("day", "horizon").agg(pl.col("drift").max() - pl.col("drift").min())
    assert spread["drift"].max() < 1e-12


def test_the_forecast_says_who_made_it(made, sessions) -> None:
    before, after = (
        made.filter(pl.col("day") < sessions[390]),
        made.filter(pl.col("day") >= sessions[390]),
    )
    assert before["model"].unique().to_list() == ["baseline"]
    assert before["model_version"].is_null().all()
    assert before["sigma"].equals(before["baseline_sigma"])
    assert after["model"].unique().to_list() == ["m"]
    assert after["model_version"].unique().to_list() == [9]
    assert not after["sigma"].equals(after["baseline_sigma"])
    assert made.select("bars_version", "features_version", "models_version").unique().row(0) == (
        3, 4, 5,
    )  # fmt: skip


def test_the_target_is_the_calendars_next_session(made) -> None:
    calendar = get_calendar(WEEKDAYS)
    for day, horizon, target in made.select("day", "horizon", "target_day").unique().iter_rows():
        assert target == calendar.after(day, horizon)[-1]


@pytest.mark.slow
def test_one_day_at_a_time_without_the_future_equals_the_range(
    cells, forecast, bars, features, models
) -> None:
    single = []
    for day in cells["day"].unique().sort():
        seen = pl.col("day").is_between(lookback_start([WEEKDAYS], day), day)
        single.append(
            forecast(
                cells.filter(pl.col("day") == day),
                bars=bars.filter(seen),
                features=features.filter(seen),
                models=models.filter(pl.col("day") <= day),
            )
        )
    assert_frame_equal(forecast(cells), pl.concat(single), check_exact=True)


def test_some_tickers_get_what_all_get(made, cells, forecast) -> None:
    few = pl.col("ticker").is_in(["B", "E"])
    assert_frame_equal(forecast(cells.filter(few)), made.filter(few), check_exact=True)


def test_a_new_ticker_and_a_stuck_price_get_the_baseline(
    cells, forecast, features, sessions
) -> None:
    late = pl.col("day") >= sessions[390]
    new, stuck = pl.col("ticker") == "A", pl.col("ticker") == "B"
    odd = features.filter(~(new & (pl.col("day") == sessions[395]))).with_columns(
        pl.when(late & new).then(None).when(late & stuck).then(0.0).otherwise("vol_ewma")
        .alias("vol_ewma")
    )  # fmt: skip
    made = forecast(cells, features=odd)
    Forecasts.validate(made)
    assert made.height == 5 * cells.height
    served = made.filter(late).group_by("ticker").agg(pl.col("model").unique()).sort("ticker")
    assert served["model"].to_list() == [["baseline"]] * 2 + [["m"]] * 4


def test_a_split_keeps_prices_in_the_shares_of_the_day(
    made, cells, forecast, bars, sessions
) -> None:
    after = pl.col("day") >= sessions[400]
    halved = bars.with_columns(
        pl.when(after).then(pl.col("raw_close") / 2).otherwise("raw_close").alias("raw_close")
    )
    other = forecast(cells, bars=halved)
    assert other["return_q05"].equals(made["return_q05"])
    half = pl.when(after).then(0.5).otherwise(1.0)
    expected = made.select(pl.col("price_q95") * half)["price_q95"].to_numpy()
    assert other["price_q95"].to_numpy() == pytest.approx(expected)


def test_without_bars_there_is_nothing_to_forecast(cells, forecast) -> None:
    found = forecast(cells.with_columns(pl.lit("Z").alias("ticker")))
    assert found.is_empty()
    assert found.columns == Forecasts.column_names()


def test_a_year_of_fifty_tickers_takes_seconds(make_bars, features_of, forecast) -> None:
    bars = make_bars([f"T{n:02}" for n in range(50)], 760)
    features = features_of(bars)
    cells = bars.filter(pl.col("day") >= bars["day"].unique().sort()[510]).select("day", "ticker")
    began = time.process_time()
    made = forecast(cells, bars=bars, features=features)
    # Two seconds on a quiet machine; processor time, so that a busy one does not fail it.
    assert time.process_time() - began < 8
    assert made.height == 250 * 50 * 5
