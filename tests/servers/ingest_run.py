"""Runs the asset that brings candles in, from a server into a lake, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from stock_assets.assets.ingest import build_ingest
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.lake.schemas import TABLES, lineage_columns
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    import polars as pl

    from stock_assets.settings import Settings

Tables = dict[str, "pl.DataFrame"]


def ingest(
    settings: Settings,
    instance: dg.DagsterInstance,
    first: dt.date,
    last: dt.date,
    tickers: Sequence[str] = (),
) -> dg.ExecuteInProcessResult:
    """A run of `candles` and `quarantine` over days of all tickers or some; it may fail."""
    grid = Grid.of(settings)
    area = grid.slice(first, last, tuple(tickers) or settings.tickers)
    lake = LakeResource(database=":memory:", root=str(settings.lake_dir))
    return dg.materialize(
        [build_ingest(settings, grid)],
        resources={"lake": lake},
        tags=grid.tags(area),
        instance=instance,
        raise_on_error=False,
    )


def ingested(settings: Settings) -> Tables:
    """What it wrote, without the columns that say of which run."""
    lake = Lake(settings.lake_dir)
    return {
        name: lake.read(name).drop(lineage_columns(TABLES[name]))
        for name in ("candles", "quarantine")
    }
