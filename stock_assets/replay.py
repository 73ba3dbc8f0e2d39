"""A stored forecast made again from what its row names: `stock-assets forecast TICKER --replay`.

The versions of the tables, and the model, are those of the row; which orders counted is read from
the ledger as it is now, for an order never counts for days that were forecast before it
(docs/adr/0014). What a past day's forecast is made from and how is where the graph has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from stock_assets.errors import ModelError
from stock_assets.forecast_inputs import FORECAST_TABLES, read_inputs
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import Forecasts
from stock_assets.lake.views import prepare, register_views

if TYPE_CHECKING:
    import datetime as dt

    import polars as pl

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings

_VERSIONS = ("bars", "features", "models", "drift")


@dataclass(frozen=True)
class Difference:
    """A value of the stored forecast that came out otherwise; None where there is no row."""

    horizon: int
    column: str
    stored: Any
    again: Any


@dataclass(frozen=True)
class Replayed:
    """What became of a forecast that was made again."""

    ticker: str
    day: dt.date
    horizons: tuple[int, ...]
    model: str
    model_version: int | None
    bars_version: int
    features_version: int
    models_version: int | None
    drift_version: int | None
    differences: tuple[Difference, ...]
    """Empty where it is equal to the last bit."""


def replay(lake: Lake, settings: Settings, stored: pl.DataFrame) -> Replayed:
    """Make the forecast of one ticker and day again; `stored` are its rows, one a horizon.

    Raises `LakeError` when a version that they name is not kept any more, and `ModelError` when
    the model is gone, changed, or of other code.
    """
    made = stored.row(0, named=True)
    model, number = made["model"], made["model_version"]
    registry = Registry(settings.mlflow_dir)
    if number is not None:
        _refuse_another(registry, model, number)
    versions = {name: made[f"{name}_version"] for name in _VERSIONS}
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, lake, FORECAST_TABLES, versions=versions)
        inputs = read_inputs(connection, settings.exchanges, made["day"], made["day"])
    again = inputs.forecasts(
        stored.select("day", "ticker").unique(),
        registry,
        stored["horizon"].to_list(),
        # A model that answered then is asked again, or the reason is said why it cannot be.
        unfit=registry.unfit() if model == BASELINE else (),
    )
    return Replayed(
        ticker=made["ticker"],
        day=made["day"],
        horizons=tuple(stored["horizon"]),
        model=model,
        model_version=number,
        bars_version=versions["bars"],
        features_version=versions["features"],
        models_version=versions["models"],
        drift_version=versions["drift"],
        differences=tuple(_differences(stored, again)),
    )


def _refuse_another(registry: Registry, model: str, number: int) -> None:
    """Raises `ModelError` where that version in the registry is not the model of that name."""
    found = registry.resolve(str(number)).record.model_id
    if found != model:
        message = (
            f"version {number} in the registry {registry.folder} is {found}, and the forecast is "
            f"by {model}: the registry was made anew since; restore the folder as it was then"
        )
        raise ModelError(message)


def _differences(stored: pl.DataFrame, again: pl.DataFrame) -> list[Difference]:
    by_horizon = {row["horizon"]: row for row in again.iter_rows(named=True)}
    found = []
    for row in stored.iter_rows(named=True):
        other = by_horizon.get(row["horizon"], dict.fromkeys(row))
        found += [
            Difference(row["horizon"], name, row[name], other[name])
            for name in Forecasts.column_names()
            if _bits(row[name]) != _bits(other[name])
        ]
    return found


def _bits(value: Any) -> Any:
    """What tells two values apart that compare as equal: -0.0 is not 0.0."""
    return value.hex() if isinstance(value, float) else value
