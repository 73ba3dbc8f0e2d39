"""Reading and writing Delta tables: the one way a slice is written, and a ledger added to.

A write replaces exactly the rows of its slice in one atomic commit, or makes none when the table
already says the same. A ledger's rows belong to no slice: they are only ever added. What the
columns are is in `schemas.py`; querying with SQL is in `views.py`.

Tables are split physically by year (a hidden column), so that a write touches at most the files
of the years it covers, and files carry day ranges that readers prune by (docs/adr/0003).

A table may be older than a column of its schema: the column reads as nulls, and the next write adds
it to the table. That is why a column that joins a schema must be nullable.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dataframely as dy
import polars as pl
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from stock_assets.errors import LakeError
from stock_assets.lake.schemas import ALL_TABLES, LEDGERS, TABLES, lineage_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.dataset as pds

    from stock_assets.slices import Slice

YEAR = "year"
"""The hidden physical partition column."""

_ATTEMPTS = 20
_MAX_PAUSE_SECONDS = 2.0
# Candles are sorted by ticker within a year, so a row group of this size holds few tickers and
# its statistics prune by ticker.
ROW_GROUP = 16_384

KEEP_LOG = {"delta.enableExpiredLogCleanup": "false"}
"""Property of every table. Without it delta-rs removes the log of versions older than 30 days when
it writes a checkpoint or compacts: they could not be asked for any more (docs/adr/0022)."""

HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)
"""The same for a commit to a table that an older version made without `KEEP_LOG`."""


@dataclass(frozen=True)
class Written:
    """What one write did. `version` is the table's version that holds the slice."""

    table: str
    version: int
    rows: int
    changed: bool


class Lake:
    """The Delta tables under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, table: str) -> str:
        """Where the table is: the address that deltalake and DuckDB take."""
        return str(self.root / table)

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The table as of now (or of `version`); None when it has never been written.

        Whether an earlier version's files are still there is `history.py`'s to say.
        """
        _known(table)
        if self.root.exists() and not self.root.is_dir():
            message = f"{self.root} is a file where the lake should be; move it or set lake.path"
            raise LakeError(message)
        try:
            return DeltaTable(self.uri(table), version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise _failure("read", table, self.uri(table), error) from error

    def version(self, table: str) -> int | None:
        """Latest version number; None when the table has never been written."""
        found = self.open(table)
        return None if found is None else found.version()

    def read(
        self, table: str, area: Slice | None = None, *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Rows of `area` (all without one) with the schema's columns, sorted by its key.

        An unwritten table reads as an empty one.
        """
        schema = ALL_TABLES[table]
        wanted = list(columns or schema.column_names())
        found = self.open(table)
        if found is None:
            return schema.create_empty().select(wanted)
        try:
            frame = _scan(table, found, area, wanted)
        except (DeltaError, OSError) as error:
            raise _failure("read", table, self.uri(table), error) from error
        return frame.sort([key for key in schema.primary_key() if key in wanted])

    def write(
        self, table: str, frame: pl.DataFrame, area: Slice, *, note: Mapping[str, str] | None = None
    ) -> Written:
        """Make `frame` the rows of `area`, in one commit; none when they are that already.

        `note` goes into the commit's metadata (run id, versions read). Raises `LakeError` when the
        frame breaks the table's schema, has rows outside the slice, or cannot be written.
        """
        schema = TABLES[table]
        rows = _validated(table, schema, frame)
        _refuse_rows_outside(table, rows, area)
        return self._until_committed(
            table, lambda: self._write_once(table, schema, rows, area, dict(note or {}))
        )

    def append(self, table: str, frame: pl.DataFrame) -> Written:
        """Add the rows of `frame` to a ledger, in one commit, whoever else adds at the same time.

        Raises `LakeError` when the frame breaks the table's schema or cannot be written.
        """
        rows = _validated(table, LEDGERS[table], frame)
        return self._until_committed(table, lambda: self._append_once(table, rows))

    def _until_committed(self, table: str, write_once: Callable[[], Written]) -> Written:
        for attempt in range(_ATTEMPTS):
            try:
                return write_once()
            except CommitFailedError as error:
                # Another run committed first: look at the table again and write anew.
                if attempt == _ATTEMPTS - 1:
                    raise _failure("write", table, self.uri(table), error) from error
                time.sleep(random.uniform(0, min(_MAX_PAUSE_SECONDS, 0.05 * 2**attempt)))  # noqa: S311
            except (DeltaError, OSError) as error:
                raise _failure("write", table, self.uri(table), error) from error
        raise AssertionError("unreachable")

    def _write_once(
        self,
        table: str,
        schema: type[dy.Schema],
        rows: pl.DataFrame,
        area: Slice,
        note: dict[str, str],
    ) -> Written:
        found = self.open(table)
        if found is not None and _holds(table, found, schema, rows, area):
            return Written(table, found.version(), rows.height, changed=False)
        arrow = _physical(rows, schema)
        settings: dict[str, Any] = {
            "post_commithook_properties": HOOKS,
            # No retries inside delta-rs: it would add a commit that another run has overtaken, and
            # two runs that create a table at once would both leave their rows in it. A commit
            # that comes second fails, and `write` looks at the table again.
            "commit_properties": CommitProperties(
                custom_metadata={"slice": str(area), **note}, max_commit_retries=0
            ),
            "writer_properties": WriterProperties(
                compression="ZSTD", compression_level=5, max_row_group_size=ROW_GROUP
            ),
        }
        if found is None:
            self._create(table, arrow, settings, partition_by=[YEAR])
            return Written(table, 0, rows.height, changed=True)
        if _missing(table, found):
            settings["schema_mode"] = "merge"
        write_deltalake(found, arrow, mode="overwrite", predicate=predicate(area), **settings)
        return Written(table, found.version(), rows.height, changed=True)

    def _append_once(self, table: str, rows: pl.DataFrame) -> Written:
        found = self.open(table)
        # As for slices, a commit that was overtaken is not retried inside delta-rs.
        settings: dict[str, Any] = {
            "post_commithook_properties": HOOKS,
            "commit_properties": CommitProperties(max_commit_retries=0),
        }
        if found is None:
            self._create(table, rows.to_arrow(), settings, partition_by=None)
            return Written(table, 0, rows.height, changed=True)
        if _missing(table, found):
            settings["schema_mode"] = "merge"
        write_deltalake(found, rows.to_arrow(), mode="append", **settings)
        return Written(table, found.version(), rows.height, changed=True)

    def _create(
        self,
        table: str,
        arrow: pa.Table,
        settings: dict[str, Any],
        *,
        partition_by: list[str] | None,
    ) -> None:
        """First write of a table; `CommitFailedError` when another run was first."""
        uri = self.uri(table)
        Path(uri).mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(
                uri,
                arrow,
                mode="error",
                partition_by=partition_by,
                configuration=KEEP_LOG,
                **settings,
            )
        except DeltaError as error:
            if self.version(table) is None:
                raise
            raise CommitFailedError(f"another run created {uri} first") from error


def predicate(area: Slice) -> str:
    """The slice as a Delta predicate over day, ticker and the hidden year."""
    names = ", ".join("'" + ticker.replace("'", "''") + "'" for ticker in area.tickers)
    terms = [f"{YEAR} <= {area.last_date.year}", f"day <= '{area.last_date}'"]
    if area.first_date is not None:
        terms += [f"{YEAR} >= {area.first_date.year}", f"day >= '{area.first_date}'"]
    return " AND ".join([*terms, f"ticker IN ({names})"])


def dataset_filter(area: Slice) -> Any:
    """The slice as a pyarrow dataset filter: prunes files by year and day, row groups by all."""
    import pyarrow.dataset as pds  # noqa: PLC0415

    day, year = pds.field("day"), pds.field(YEAR)
    expression = (day <= area.last_date) & (year <= area.last_date.year)
    if area.first_date is not None:
        expression &= (day >= area.first_date) & (year >= area.first_date.year)
    return expression & pds.field("ticker").isin(list(area.tickers))


def dataset(table: str, found: DeltaTable) -> pds.Dataset:
    """The table's rows with all columns of its schema: nulls in those it is too old to have.

    Made once for each version that this process reads: a run asks some fifty times, and what it
    costs grows with the files. Raises `LakeError` where such a column must not be null.
    """
    from pyarrow.fs import FileSystem  # noqa: PLC0415

    folder = FileSystem.from_uri(found.table_uri)[1]
    commit = Path(folder, "_delta_log", f"{found.version():020}.json")
    try:
        committed = commit.stat().st_mtime_ns
    except OSError:
        # Its log was cleaned up, by a tool of somebody's own.
        return _dataset(table, found)
    of = _Version(table, folder, str(found.metadata().id), found.version(), committed, found)
    return _kept_dataset(of)


@dataclass(frozen=True)
class _Version:
    """What a version of a table is known by; where a copy was put in its place, not the same."""

    table: str
    folder: str
    table_id: str
    version: int
    committed: int
    """Nanoseconds."""
    found: DeltaTable = field(compare=False)


@lru_cache(maxsize=32)
def _kept_dataset(of: _Version) -> pds.Dataset:
    return _dataset(of.table, of.found)


def _dataset(table: str, found: DeltaTable) -> pds.Dataset:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow.fs import FileSystem, SubTreeFileSystem  # noqa: PLC0415

    # Arrow's own reading of files, not delta-rs' through Python: threads that close such files
    # while the interpreter ends abort the process, rarely (apache/arrow 39862, 34314).
    native, path = FileSystem.from_uri(found.table_uri)
    files = SubTreeFileSystem(path, native)
    missing = _missing(table, found)
    if not missing:
        return found.to_pyarrow_dataset(filesystem=files)
    required = [name for name in missing if not ALL_TABLES[table].columns()[name].nullable]
    if required:
        message = f"table {table}: {found.table_uri} lacks the column(s) {required}, which no row "
        raise LakeError(message + "is without; move it away and make it anew")
    added = ALL_TABLES[table].create_empty().select(missing).to_arrow().schema
    schema = pa.schema([*pa.schema(found.schema()), *added])
    return found.to_pyarrow_dataset(filesystem=files, schema=schema)


def _missing(table: str, found: DeltaTable) -> list[str]:
    """Columns of the schema that the table lacks: it was last written before they were added."""
    present = {field.name for field in found.schema().fields}
    return [name for name in ALL_TABLES[table].column_names() if name not in present]


def _scan(table: str, found: DeltaTable, area: Slice | None, columns: list[str]) -> pl.DataFrame:
    wanted = dataset_filter(area) if area else None
    frame = pl.from_arrow(dataset(table, found).to_table(columns=columns, filter=wanted))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _validated(table: str, schema: type[dy.Schema], frame: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in schema.column_names() if name not in frame.columns]
    if missing:
        raise LakeError(f"table {table}: the rows to write lack the column(s) {missing}")
    try:
        valid = schema.validate(frame.select(schema.column_names()), cast=True)
    except (dy.exc.ValidationError, dy.exc.SchemaError, pl.exceptions.PolarsError) as error:
        message = f"table {table}: the rows to write break its schema, so nothing was written: "
        raise LakeError(message + str(error)) from error
    return valid.sort(schema.primary_key())


def _refuse_rows_outside(table: str, rows: pl.DataFrame, area: Slice) -> None:
    # Delta refuses rows outside the predicate too, but not on a table's first write.
    inside = (pl.col("day") <= area.last_date) & pl.col("ticker").is_in(list(area.tickers))
    if area.first_date is not None:
        inside &= pl.col("day") >= area.first_date
    outside = rows.filter(~inside)
    if outside.height:
        cell = outside.select("day", "ticker").row(0)
        message = f"table {table}: {outside.height} rows lie outside the slice {area}, first {cell}"
        raise LakeError(message)


def _holds(
    table: str, found: DeltaTable, schema: type[dy.Schema], rows: pl.DataFrame, area: Slice
) -> bool:
    """Whether the table already says exactly this for the slice (lineage aside)."""
    lineage = set(lineage_columns(schema))
    columns = [name for name in schema.column_names() if name not in lineage]
    if _missing(table, found):
        return False
    stored = _scan(table, found, area, columns)
    if stored.height != rows.height:
        return False
    return stored.sort(schema.primary_key()).equals(rows.select(columns), null_equal=True)


def _physical(rows: pl.DataFrame, schema: type[dy.Schema]) -> pa.Table:
    """Rows as they lie on disk: with the year, each year sorted by ticker, then the rest."""
    key = [name for name in schema.primary_key() if name not in ("day", "ticker")]
    dated = rows.with_columns(pl.col("day").dt.year().cast(pl.Int32).alias(YEAR))
    return dated.sort([YEAR, "ticker", "day", *key]).to_arrow()


def _known(table: str) -> None:
    if table not in ALL_TABLES:
        raise LakeError(f"there is no table {table!r}; the lake's tables are {list(ALL_TABLES)}")


def _failure(verb: str, table: str, place: str, error: Exception) -> LakeError:
    text = str(error)
    lowered = text.lower()
    if "no space left" in lowered or "os error 28" in lowered:
        advice = "the disk is full; free space and run the slice again"
    elif any(sign in lowered for sign in ("permission denied", "read-only", "os error 13")):
        advice = "the folder is not writable for this user; change its owner or lake.path"
    elif "not a directory" in lowered or "file exists" in lowered:
        advice = "a file stands where the lake's folder should be; move it or change lake.path"
    else:
        advice = "the table is as it was before; run the slice again"
    return LakeError(f"table {table}: cannot {verb} {place}: {advice} ({text.splitlines()[0]})")
