"""Rows of `forecasts`: the model in force, or the baseline, for every cell that has a bar.

Puts together what others compute: the distribution is the model's (`model.py`) or the baseline's
(`baseline.py`), which of them answers is in `in_force.py`, and the target day is the calendar's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.baseline import BASELINE, baseline_forecasts
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.in_force import models_in_force
from stock_assets.forecasting.labels import LABEL_SESSIONS, labels, target_days
from stock_assets.forecasting.volatility import is_measured
from stock_assets.lake.schemas import QUANTILE_NAMES, Forecasts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from stock_assets.forecasting.model import VolatilityModel

_RETURNS = [f"return_{name}" for name in QUANTILE_NAMES]
_KEY = ["day", "ticker", "horizon"]


@dataclass(frozen=True)
class LakeVersions:
    """Versions of the tables that forecasts are made from; None: the table was never written."""

    bars: int
    features: int
    models: int | None
    drift: int | None = None


def make_forecasts(  # noqa: PLR0913, PLR0917
    cells: pl.DataFrame,
    bars: pl.DataFrame,
    features: pl.DataFrame,
    models: pl.DataFrame,
    load_model: Callable[[str], VolatilityModel],
    horizons: Sequence[int],
    versions: LakeVersions,
    *,
    orders: pl.DataFrame | None = None,
    unfit: Collection[str] = (),
) -> pl.DataFrame:
    """Forecasts of each (day, ticker) of `cells` that has a bar, for each horizon, sorted by key.

    `bars` and `features` hold all tickers of the cells' exchanges from `lookback_start` of the
    first day on; `models`, `orders` and `unfit` what `models_in_force` asks for; `load_model` gives
    a model by its name. Where no model is in force, or a ticker's volatility is not yet measured
    so that a model has nothing to go by, the baseline answers and `model` says so.
    """
    there = bars.join(cells.select("day", "ticker").unique(), on=["day", "ticker"], how="semi")
    if there.is_empty():
        return Forecasts.create_empty()
    labelled = labels(bars)
    base = baseline_forecasts(there, features, labelled, horizons)
    served = _served(features, models_in_force(there, models, orders, unfit))
    by_model = _by_model(served, there, Known(features, labelled), load_model, horizons)
    own = [*_KEY, "sigma", *_RETURNS]
    chosen = pl.concat([by_model.select(own), base.join(by_model, on=_KEY, how="anti").select(own)])
    beside = base.rename({name: f"baseline_{name}" for name in ["sigma", *_RETURNS]})
    return (
        chosen.join(beside, on=_KEY)
        .join(served, on=["day", "ticker"])
        .join(_targets(there), on=_KEY)
        .join(
            there.select("day", "ticker", "currency", pl.col("raw_close").alias("last_price")),
            on=["day", "ticker"],
        )
        .with_columns(
            *(
                (pl.col("last_price") * pl.col(f"return_{name}").exp()).alias(f"price_{name}")
                for name in QUANTILE_NAMES
            ),
            pl.lit(versions.bars, pl.Int64).alias("bars_version"),
            pl.lit(versions.features, pl.Int64).alias("features_version"),
            pl.lit(versions.models, pl.Int64).alias("models_version"),
            pl.lit(versions.drift, pl.Int64).alias("drift_version"),
            # A forecast of the day's own prices; `holding.py` is about the others.
            pl.lit(None, pl.Date).alias("held_from"),
            pl.lit(None, pl.String).alias("note"),
        )
        .select(Forecasts.column_names())
        .sort(Forecasts.primary_key())
    )


def _served(features: pl.DataFrame, in_force: pl.DataFrame) -> pl.DataFrame:
    """day, ticker, model, model_version: who answers each cell."""
    measured = features.filter(is_measured()).select(
        "day", "ticker", pl.lit(value=True).alias("measured")
    )
    return in_force.join(measured, on=["day", "ticker"], how="left").select(
        "day",
        "ticker",
        pl.when("measured").then("model").otherwise(pl.lit(BASELINE)).alias("model"),
        pl.when("measured").then("model_version").alias("model_version"),
    )


def _by_model(
    served: pl.DataFrame,
    there: pl.DataFrame,
    known: Known,
    load_model: Callable[[str], VolatilityModel],
    horizons: Sequence[int],
) -> pl.DataFrame:
    """What the models say of the cells they serve, one batch a model."""
    cells = served.filter(pl.col("model") != BASELINE)
    names: list[str] = cells["model"].unique().sort().to_list()
    parts = []
    for name in names:
        mine = cells.filter(pl.col("model") == name)
        own = there.join(mine, on=["day", "ticker"], how="semi")
        parts.append(load_model(name).forecast(own, known, horizons))
    empty = Forecasts.create_empty().select([*_KEY, "sigma", *_RETURNS])
    return pl.concat([empty, *parts])


def _targets(there: pl.DataFrame) -> pl.DataFrame:
    """day, ticker, horizon, target_day for each cell, by its exchange's calendar."""
    ahead = target_days(there).unpivot(
        [f"target{step}" for step in range(1, LABEL_SESSIONS + 1)],
        index=["exchange", "day"],
        variable_name="horizon",
        value_name="target_day",
    )
    ahead = ahead.with_columns(pl.col("horizon").str.strip_prefix("target").cast(pl.Int32))
    return (
        there.select("day", "ticker", "exchange")
        .join(ahead, on=["exchange", "day"])
        .drop("exchange")
    )
