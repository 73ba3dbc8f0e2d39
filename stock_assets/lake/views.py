"""The SQL view of the lake: every table by its name in an in-memory DuckDB.

A connection sees one consistent version of each table, fixed when it was made: the latest, or one
that is asked for (`history.py` knows which were the latest at a past moment). Filters on day and
ticker reach the Parquet files (file pruning by Delta's statistics, row groups by Parquet's).
`stock-assets sql`, the assets and the checks all query through here. Where `forecasts` is seen, so
are the macros that ask a forecast for more than its quantiles (`macros.sql`).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from stock_assets.lake.history import open_version
from stock_assets.lake.schemas import ALL_TABLES
from stock_assets.lake.store import dataset

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from deltalake import DeltaTable

    from stock_assets.lake.store import Lake


VERSIONS = "lake_versions"
"""A view beside the tables: which version of each of them the connection reads."""


def register_views(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    tables: Collection[str] | None = None,
    *,
    versions: Mapping[str, int | None] | None = None,
) -> dict[str, int]:
    """Make `tables` (all without them) of `lake` queryable by name; return their versions.

    `versions` says which of them is read (None: the table was not there), the latest where it
    names none. A table that was never written is an empty view with the right columns, and has no
    version. Raises `LakeError` for a version that is no longer kept.
    """
    wanted = versions or {}
    seen: dict[str, int] = {}
    for name, schema in ALL_TABLES.items():
        if tables is not None and name not in tables:
            continue
        found = _opened(lake, name, wanted[name]) if name in wanted else lake.open(name)
        backing = f"{name}__delta"
        if found is None:
            connection.register(backing, schema.create_empty().to_arrow())
        else:
            seen[name] = found.version()
            connection.register(backing, dataset(name, found))
        # By name: the physical year stays hidden.
        columns = ", ".join(f'"{column}"' for column in schema.column_names())
        connection.execute(f"create or replace view {name} as select {columns} from {backing}")  # noqa: S608
    connection.register(
        f"{VERSIONS}__arrow",
        pl.DataFrame(
            list(seen.items()),
            schema={"table_name": pl.String, "version": pl.Int64},
            orient="row",
        ).to_arrow(),
    )
    connection.execute(f"create or replace view {VERSIONS} as from {VERSIONS}__arrow")
    if tables is None or "forecasts" in tables:
        connection.execute(macros())
    return seen


def _opened(lake: Lake, table: str, version: int | None) -> DeltaTable | None:
    return None if version is None else open_version(lake, table, version)


def macros() -> str:
    """SQL that makes the forecasts' macros in any DuckDB: probability_above and its kin."""
    return Path(__file__).with_name("macros.sql").read_text(encoding="utf-8")


def versions_of(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """The version of each table that the connection's views read; none for an unwritten table."""
    return dict(connection.sql(f"select table_name, version from {VERSIONS}").fetchall())  # noqa: S608


def connect(
    lake: Lake, *, versions: Mapping[str, int | None] | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake's views: offline, nothing installed or stored.

    `versions` are those of `register_views`. Rows come back in UTC whatever the machine's zone is.
    """
    connection = duckdb.connect(":memory:")
    prepare(connection)
    register_views(connection, lake, versions=versions)
    return connection


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Settings every connection of ours has: no downloads, UTC."""
    connection.execute("set autoinstall_known_extensions = false")
    connection.execute("set autoload_known_extensions = false")
    try:
        connection.execute("set timezone = 'UTC'")
    except duckdb.Error:
        # The icu extension is not built in: timestamps are UTC already then.
        return


def rows(  # noqa: PLR0913
    connection: duckdb.DuckDBPyConnection,
    table: str,
    first: dt.date | None,
    last: dt.date,
    *,
    tickers: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Rows of a view from `first` (None: the beginning) to `last`, sorted by the table's key.

    With the schema's own column types, whatever DuckDB makes of them. `tickers` None means all.
    """
    schema = ALL_TABLES[table]
    wanted = list(columns or schema.column_names())
    terms: list[str] = ["day <= ?"]
    values: list[dt.date | str] = [last]
    if first is not None:
        terms.append("day >= ?")
        values.append(first)
    if tickers is not None:
        terms.append(f"ticker in ({', '.join('?' * len(tickers))})")
        values += tickers
    chosen = ", ".join(f'"{column}"' for column in wanted)
    query = f"select {chosen} from {table} where {' and '.join(terms)}"  # noqa: S608
    found = pl.from_arrow(connection.sql(query, params=values).to_arrow_table())
    assert isinstance(found, pl.DataFrame)
    types = schema.create_empty().select(wanted).schema
    return found.cast(types).sort([key for key in schema.primary_key() if key in wanted])


_RECENT = dt.timedelta(days=400)


def latest_before(connection: duckdb.DuckDBPyConnection, table: str, day: dt.date) -> pl.DataFrame:
    """Each ticker's newest rows of `table` dated before `day`, sorted by the table's key.

    Looks at the year before first, so that a long history costs nothing; a ticker that has been
    silent longer is found only when none has spoken since.
    """
    for first in (day - _RECENT, None):
        found = rows(connection, table, first, day - dt.timedelta(1))
        if found.height:
            break
    return found.filter(pl.col("day") == pl.col("day").max().over("ticker"))
