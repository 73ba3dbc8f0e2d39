"""What forecasts are made from, read from the lake in one way: by the graph, and by a replay.

What is made of it is `forecasting/forecasts.py`'s; which versions a connection sees was decided
when it was opened.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.baseline import lookback_start
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.lake.views import latest_before, rows, versions_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import duckdb

    from stock_assets.forecasting.registry import Registry

FORECAST_TABLES = ("bars", "features", "models", "orders")
"""The tables that forecasts are made from."""


@dataclass(frozen=True)
class ForecastInputs:
    """All that forecasts of some days are made from, models apart."""

    bars: pl.DataFrame
    features: pl.DataFrame
    models: pl.DataFrame
    orders: pl.DataFrame
    versions: LakeVersions

    def forecasts(
        self,
        cells: pl.DataFrame,
        registry: Registry,
        horizons: Sequence[int],
        *,
        unfit: Collection[str],
    ) -> pl.DataFrame:
        """Forecasts of `cells` (see `make_forecasts`), which lie within the days that were read."""
        return make_forecasts(
            cells,
            self.bars,
            self.features,
            self.models,
            registry.load,
            horizons,
            self.versions,
            orders=self.orders,
            unfit=unfit,
        )


def read_inputs(
    connection: duckdb.DuckDBPyConnection, exchanges: Sequence[str], first: dt.date, last: dt.date
) -> ForecastInputs:
    """Inputs for the days from `first` to `last` from a connection that sees `FORECAST_TABLES`."""
    begin = lookback_start(exchanges, first)
    seen = versions_of(connection)
    return ForecastInputs(
        bars=rows(connection, "bars", begin, last),
        features=rows(connection, "features", begin, last),
        models=known_models(connection, first, last),
        orders=all_orders(connection),
        versions=LakeVersions(seen.get("bars", 0), seen.get("features", 0), seen.get("models")),
    )


def known_models(
    connection: duckdb.DuckDBPyConnection, first: dt.date, last: dt.date
) -> pl.DataFrame:
    """Each ticker's latest decision before the days, and all decisions within them."""
    within = rows(connection, "models", first, last)
    return pl.concat([latest_before(connection, "models", first), within])


def all_orders(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """All that was ever ordered: a row or two a year."""
    return rows(connection, "orders", None, dt.date.max)
