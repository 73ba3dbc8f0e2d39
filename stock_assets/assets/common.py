"""What all assets share: their specs, and how a run's outcome becomes metadata.

Metadata is repeated in the event of every cell of a run, so a cell carries its row count and
nothing else; what describes the whole run is on the slice's last cell, where one looks for it, and
on the cell reported last, which the UI shows as the asset's latest.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import dagster as dg
import dataframely as dy
import polars as pl

from stock_assets.instance.cell_metadata import add_cell_metadata, last_reported_cell
from stock_assets.lake.schemas import TABLES
from stock_assets.partitions import Grid, cell_key
from stock_assets.slices import Slice

OWNER = "team:forecasting"

GROUPS = {
    "candles": "ingest",
    "quarantine": "ingest",
    "bars": "transform",
    "features": "transform",
    "drift": "forecasting",
    "model": "forecasting",
    "forecasts": "forecasting",
    "scores": "forecasting",
}

KINDS = {
    "candles": {"polars", "deltalake"},
    "quarantine": {"polars", "deltalake"},
    "bars": {"dbt", "duckdb", "deltalake"},
    "features": {"dbt", "duckdb", "deltalake"},
    "drift": {"evidently", "deltalake"},
    "model": {"catboost", "mlflow", "deltalake"},
    "forecasts": {"catboost", "deltalake"},
    "scores": {"polars", "deltalake"},
}

TABLE_OF = {name: ("models" if name == "model" else name) for name in GROUPS}
"""The lake table that each asset writes."""

ROW_COUNT = "dagster/partition_row_count"

# A long weekend with a holiday on both sides passes without new sessions.
FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=dt.timedelta(days=6), warn_window=dt.timedelta(days=4)
)

BACKFILL = dg.BackfillPolicy.single_run()


def spec(name: str, grid: Grid, *, deps: tuple[str, ...] = (), **overrides: Any) -> dg.AssetSpec:
    """The spec of asset `name`: everything that is not what it computes."""
    table = TABLE_OF[name]
    return dg.AssetSpec(
        name,
        deps=list(deps),
        description=(TABLES[table].__doc__ or "").strip(),
        group_name=GROUPS[name],
        kinds=KINDS[name],
        owners=[OWNER],
        partitions_def=grid.definition,
        # A model is carried for weeks by design: how old it may be is the cadence's affair.
        freshness_policy=None if name == "model" else FRESHNESS,
        metadata={
            "dagster/column_schema": column_schema(TABLES[table]),
            "dagster/table_name": table,
        },
        **overrides,
    )


def column_schema(schema: type[dy.Schema]) -> dg.TableSchema:
    """The columns as the UI shows them, from the table's one class."""
    types = schema.create_empty().schema
    key = set(schema.primary_key())
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                type=_type_name(types[name]),
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable,
                    other=["key"] if name in key else [],
                ),
            )
            for name, column in schema.columns().items()
        ],
        constraints=dg.TableConstraints(other=[describe_key(schema)]),
    )


def _type_name(kind: pl.DataType) -> str:
    return f"Datetime ({kind.time_zone})" if isinstance(kind, pl.Datetime) else str(kind)


def describe_key(schema: type[dy.Schema]) -> str:
    """What one row of the table stands for."""
    return f"one row per {', '.join(schema.primary_key())}"


def slice_of(context: Any, grid: Grid) -> Slice:
    """The slice of a run, for assets and checks alike."""
    span = context.partition_key_range
    return grid.slice_of_range(span.start, span.end)


def rows_per_cell(rows: pl.DataFrame, area: Slice, grid: Grid) -> dict[tuple[dt.date, str], int]:
    """Number of rows in each cell of the slice, zero where there are none.

    Rows dated between two partition days count to the later one, history to the first.
    """
    days = grid.days_of(area)
    counts = {(day, ticker): 0 for day in days for ticker in area.tickers}
    for day, ticker, count in rows.group_by("day", "ticker").len().iter_rows():
        counts[grid.partition_day(max(day, days[0])), ticker] += count
    return counts


def report(  # noqa: PLR0913, PLR0917
    context: dg.AssetExecutionContext,
    name: str,
    rows: pl.DataFrame,
    area: Slice,
    grid: Grid,
    summary: Mapping[str, Any],
) -> None:
    """Row counts on every cell, and `summary` on the slice's last one and on the latest event."""
    cells: dict[str, dict[str, Any]] = {
        cell_key(day, ticker): {ROW_COUNT: count}
        for (day, ticker), count in rows_per_cell(rows, area, grid).items()
    }
    last = cell_key(grid.days_of(area)[-1], area.tickers[-1])
    for cell in {last, last_reported_cell(context, grid.definition)}:
        cells[cell] |= {**summary, "slice": str(area)}
    add_cell_metadata(context, name, cells)
