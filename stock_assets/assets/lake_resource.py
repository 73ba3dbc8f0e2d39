"""The resource through which assets and checks see the lake: DuckDB views to query, and writing.

The views are those that `stock-assets sql` serves. What a write does is in `lake/store.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
from dagster_duckdb import DuckDBResource

from stock_assets.lake.store import Lake, Written
from stock_assets.lake.views import prepare, register_views
from stock_assets.slices import Slice


class LakeResource(DuckDBResource):
    """An in-memory DuckDB whose connections see every table of the lake by its name."""

    root: str
    """Folder of the Delta tables."""

    @property
    def lake(self) -> Lake:
        """The tables themselves."""
        return Lake(Path(self.root))

    @contextmanager
    def get_connection(self, *tables: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views of `tables` (all without any), at this moment's versions.

        Opening a table replays its log: name those that the queries use.
        """
        with super().get_connection() as connection:
            prepare(connection)
            register_views(connection, self.lake, tables or None)
            yield connection

    def write(
        self, context: dg.AssetExecutionContext, table: str, rows: pl.DataFrame, area: Slice
    ) -> Written:
        """Make `rows` the slice's rows of `table`; the commit names the run that made it."""
        written = self.lake.write(table, rows, area, note={"dagster_run": context.run.run_id})
        verb = "wrote" if written.changed else "already held"
        context.log.info(
            "%s %s %d rows of %s in version %d", table, verb, written.rows, area, written.version
        )
        return written
