"""What forecasts are made from, read from the lake in one way: by the graph, and by a replay.

What is made of it is `forecasting/forecasts.py`'s; which versions a connection sees was decided
when it was opened.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.drift.quality import BLOCKING, fault_words
from stock_assets.drift.watched import QUALITY
from stock_assets.forecasting.baseline import lookback_start
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.holding import first_good_day, held, standing
from stock_assets.forecasting.labels import HORIZONS
from stock_assets.lake.schemas import Forecasts
from stock_assets.lake.views import latest_before, rows, versions_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import duckdb

    from stock_assets.forecasting.registry import Registry

FORECAST_TABLES = ("bars", "features", "models", "orders", "drift")
"""The tables that forecasts are made from."""


@dataclass(frozen=True)
class ForecastInputs:
    """All that forecasts of some days are made from, models apart."""

    bars: pl.DataFrame
    features: pl.DataFrame
    models: pl.DataFrame
    orders: pl.DataFrame
    blocked: pl.DataFrame
    """day, ticker, why of the cells whose prices cannot be right, and of those before them."""
    versions: LakeVersions

    def forecasts(
        self,
        cells: pl.DataFrame,
        registry: Registry,
        horizons: Sequence[int],
        *,
        unfit: Collection[str],
    ) -> pl.DataFrame:
        """Forecasts of `cells` (see `make_forecasts`), which lie within the days that were read.

        Of a blocked cell: what the last good session forecasts, as far as it reaches.
        """
        stands = standing(cells, self.bars, self.blocked)
        own = cells.join(self.blocked, on=["day", "ticker"], how="anti")
        made = self._made(own, registry, horizons, unfit)
        if stands.is_empty():
            return made
        good = stands.select(pl.col("held_from").alias("day"), "ticker").unique()
        earlier = self._made(good, registry, HORIZONS, unfit)
        return pl.concat([made, held(earlier, stands, horizons)]).sort(Forecasts.primary_key())

    def _made(
        self,
        cells: pl.DataFrame,
        registry: Registry,
        horizons: Sequence[int],
        unfit: Collection[str],
    ) -> pl.DataFrame:
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
    good = first_good_day(exchanges, first)
    blocked = blocked_cells(connection, good, last)
    if blocked.filter(pl.col("day") >= first).height:
        # What stands for them is forecast from what was known on an earlier day.
        first = good
    begin = lookback_start(exchanges, first)
    seen = versions_of(connection)
    return ForecastInputs(
        bars=rows(connection, "bars", begin, last),
        features=rows(connection, "features", begin, last),
        models=known_models(connection, first, last),
        orders=all_orders(connection),
        blocked=blocked,
        versions=LakeVersions(
            seen.get("bars", 0), seen.get("features", 0), seen.get("models"), seen.get("drift")
        ),
    )


def blocked_cells(
    connection: duckdb.DuckDBPyConnection,
    first: dt.date,
    last: dt.date,
    tickers: Sequence[str] | None = None,
) -> pl.DataFrame:
    """day, ticker and why (in words) of the cells whose prices cannot be right, sorted.

    Read from a connection that sees `drift`, with a filter: few rows ever come back.
    """
    marks = ", ".join("?" * len(BLOCKING))
    query = (
        "select day, ticker, feature, distance, threshold from drift where day between ? and ? "  # noqa: S608
        f"and kind = ? and drifted and feature in ({marks}) order by day, ticker, feature"
    )
    found = connection.execute(query, [first, last, QUALITY, *sorted(BLOCKING)]).fetchall()
    words = [
        (day, ticker, fault_words(*fault))
        for day, ticker, *fault in found
        if tickers is None or ticker in tickers
    ]
    schema = {"day": pl.Date, "ticker": pl.String, "why": pl.String}
    return (
        pl.DataFrame(words, schema=schema, orient="row")
        .group_by("day", "ticker", maintain_order=True)
        .agg(pl.col("why").str.join("; "))
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
