"""Opening CSV and Parquet files: what form a file has, and a lazy scan of its rows as they are.

Separators, quotes, byte order marks, compression and broken files are dealt with here; which
column means what is in `columns.py`, what the rows mean in `files.py`.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUFFIXES = (".csv", ".csv.gz", ".txt", ".parquet")
ROW = "__row__"
"""Column of a scan with the data row's number: from 1, headers not counted."""
SURPLUS = "__surplus__"
"""Column of a CSV scan with the first field beyond the header's, null in a sound row."""

_HEAD_BYTES = 65_536
_SURPLUS_QUOTED = 32
_SEPARATORS = (",", ";", "\t", "|")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """One file that can be scanned: its columns as they are called there, and its form."""

    path: Path
    label: str
    """How messages call it: the source and the file."""
    columns: tuple[str, ...]
    separator: str | None = None
    """Of a CSV; None for Parquet."""
    quoted: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a CSV, whose values are read as text."""
        return self.separator is not None

    def scan(self, *, surplus: int = 1) -> pl.LazyFrame:
        """All rows with `ROW` first; of a CSV as text, and without lines that hold nothing."""
        if self.separator is None:
            frame = pl.scan_parquet(self.path, row_index_name=ROW, row_index_offset=1, glob=False)
            return frame.with_columns(pl.col(ROW).cast(pl.Int64))
        extra = [SURPLUS, *(f"{SURPLUS}{number}" for number in range(2, surplus + 1))]
        frame = _scan_csv(
            self.path,
            self.separator,
            quoted=self.quoted,
            schema=dict.fromkeys([*self.columns, *extra], pl.String()),
            missing_columns="insert",
            row_index_name=ROW,
            row_index_offset=1,
        )
        frame = frame.filter(pl.any_horizontal(pl.col(*self.columns, SURPLUS).is_not_null()))
        return frame.with_columns(pl.col(ROW).cast(pl.Int64))

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """The rows of a query on `scan`. Raises `SourceError` when the file cannot be read."""
        try:
            return frame.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.label, error) from error


def has_suffix(path: Path) -> bool:
    """Whether the name says that it is a file of candles."""
    return path.name.lower().endswith(SUFFIXES)


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet; else it is text."""
    return path.name.lower().endswith(".parquet")


def is_gzip(path: Path) -> bool:
    """Whether the name says that it is packed text."""
    return path.name.lower().endswith(".gz")


def stem(path: Path) -> str:
    """The file's name without the suffix: BRK.B of BRK.B.csv.gz."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def open_table(path: Path, label: str, recognised: Callable[[list[str]], int]) -> Table:
    """What `path` is. `recognised` counts known names in a header: it settles the separator.

    Raises `SourceError` for a file that is empty, unreadable or neither CSV nor Parquet.
    """
    try:
        if path.stat().st_size == 0:
            message = f"{label} is empty (0 bytes); write it again or remove it"
            raise SourceError(message)
        if is_parquet(path):
            return Table(path, label, tuple(_parquet_columns(path)))
        head = _head(path)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(label, error) from error
    first_line = _first_line(head, label)
    separator = max(
        _SEPARATORS,
        key=lambda mark: (recognised(fields := _split(first_line, mark)), len(fields)),
    )
    quoted = _is_quoted(head)
    try:
        header = _scan_csv(path, separator, quoted=quoted, infer_schema=False, n_rows=0)
        return Table(path, label, tuple(header.collect_schema().names()), separator, quoted)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(label, error) from error


def quote_rows(table: Table, rows: pl.Series) -> pl.DataFrame:
    """`ROW` and `raw` (JSON, as read) of the rows with these numbers."""
    wanted = table.scan(surplus=_SURPLUS_QUOTED).filter(pl.col(ROW).is_in(rows.implode()))
    found = table.collect(wanted)
    surplus = [name for name in found.columns if name.startswith(SURPLUS)]
    empty = [name for name in surplus if found[name].null_count() == found.height]
    found = found.drop(empty)
    content = pl.struct(pl.exclude(ROW)).struct.json_encode().alias("raw")
    return found.select(ROW, content)


def _scan_csv(path: Path, separator: str, *, quoted: bool, **options: object) -> pl.LazyFrame:
    # Surplus fields must reach `SURPLUS` instead of failing the whole file; bytes that are no
    # UTF-8 must reach their row's fault.
    return pl.scan_csv(
        path,
        separator=separator,
        quote_char='"' if quoted else None,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        glob=False,  # a name may hold * and [
        **options,  # type: ignore[arg-type]
    )


def _parquet_columns(path: Path) -> list[str]:
    return pl.scan_parquet(path, glob=False).collect_schema().names()


def _head(path: Path) -> bytes:
    if is_gzip(path):
        with gzip.open(path) as file:
            return file.read(_HEAD_BYTES)
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _first_line(head: bytes, label: str) -> str:
    if head.startswith(_UTF16):
        raise SourceError(f"{label} is UTF-16 text; save it as UTF-8")
    if b"\x00" in head:
        message = f"{label} is not text, though its name says CSV; export it again or remove it"
        raise SourceError(message)
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    line = next((line for line in lines if line.strip()), None)
    if line is None:
        message = f"{label} has no header line; its first line must name the columns"
        raise SourceError(message)
    return line


def _is_quoted(head: bytes) -> bool:
    """Whether fields are quoted: most lines with quotes close them; a stray one is not that."""
    marks = [count for line in head.splitlines() if (count := line.count(b'"'))]
    return 2 * sum(count % 2 == 0 for count in marks) > len(marks)


def _split(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator))


def _unreadable(label: str, error: Exception) -> SourceError:
    what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SourceError(f"{label} cannot be read: {what}; export it again or remove it")
