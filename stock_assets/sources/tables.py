"""Opening CSV and Parquet files: what form a file has, and a lazy scan of its rows as they are.

Separators, quotes, byte order marks, compression, headers of several lines and broken files are
dealt with here; which column means what is in `columns.py`, what the rows mean in `files.py`.
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
class Beside:
    """A header of three lines, as pandas writes what yfinance downloads.

    One names the values (Close, High, ...), one the ticker of each, the third the index: Date.
    """

    width: int
    """Fields of a line."""
    tickers: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    """Each ticker with the names of its values and the places of their fields."""


TICKER = "Ticker"
"""What the column of tickers is called that stood beside each other."""


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
    beside: Beside | None = None
    """Of a CSV that has its tickers beside each other: `columns` are then those of one ticker."""

    @property
    def is_text(self) -> bool:
        """Whether it is a CSV, whose values are read as text."""
        return self.separator is not None

    def scan(self, *, surplus: int = 1) -> pl.LazyFrame:
        """All rows with `ROW` first; of a CSV as text, and without lines that hold nothing."""
        if self.separator is None:
            frame = pl.scan_parquet(self.path, row_index_name=ROW, row_index_offset=1, glob=False)
            return frame.with_columns(pl.col(ROW).cast(pl.Int64))
        if self.beside is not None:
            return _scan_beside(self, self.beside)
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
    beside = _beside(head, separator, recognised)
    if beside is not None:
        index, found = beside
        values = dict.fromkeys(name for _, own in found.tickers for name, _ in own)
        return Table(path, label, (index, TICKER, *values), separator, quoted, found)
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


_HEADER_LINES = 3


def _beside(
    head: bytes, separator: str, recognised: Callable[[list[str]], int]
) -> tuple[str, Beside] | None:
    """The index's name and the header of a file that has tickers beside each other, else None."""
    lines = head.decode("utf-8-sig", errors="replace").splitlines()[:_HEADER_LINES]
    if len(lines) < _HEADER_LINES:
        return None
    fields = [[text.strip() for text in _split(line, separator)] for line in lines if line.strip()]
    if len({len(line) for line in fields}) != 1 or len(fields) < _HEADER_LINES:
        return None
    index = fields[2][0]
    if not index or any(fields[2][1:]) or not all(fields[0][1:]) or not all(fields[1][1:]):
        return None
    values, tickers = fields[:2]
    if recognised(tickers[1:]) > recognised(values[1:]):  # yfinance's group_by="ticker"
        values, tickers = tickers, values
    if not recognised(values[1:]):
        return None
    own: dict[str, dict[str, int]] = {}
    for place, (ticker, value) in enumerate(zip(tickers[1:], values[1:], strict=True), start=1):
        own.setdefault(ticker, {})[value] = place
    found = tuple((ticker, tuple(places.items())) for ticker, places in own.items())
    return index, Beside(len(values), found)


def _scan_beside(table: Table, beside: Beside) -> pl.LazyFrame:
    """The rows of each ticker below each other; a ticker without any value on a line has none.

    Rows are numbered line by line, and on a line as tickers stand.
    """
    assert table.separator is not None
    index, _, *values = table.columns
    lines = _scan_csv(
        table.path,
        table.separator,
        quoted=table.quoted,
        schema={str(place): pl.String() for place in range(beside.width)},
        missing_columns="insert",
        has_header=False,
        skip_rows=_HEADER_LINES,
        row_index_name=ROW,
    )
    count = len(beside.tickers)
    parts = []
    for place, (ticker, own) in enumerate(beside.tickers):
        fields = dict(own)
        nothing = pl.lit(None, pl.String)
        columns = [
            (pl.col(str(fields[name])) if name in fields else nothing).alias(name)
            for name in values
        ]
        rows = lines.select(
            (pl.col(ROW).cast(pl.Int64) * count + place + 1).alias(ROW),
            pl.col("0").alias(index),
            pl.lit(ticker).alias(TICKER),
            *columns,
            nothing.alias(SURPLUS),
        )
        parts.append(rows.filter(pl.any_horizontal(pl.col(*values).is_not_null())))
    return pl.concat(parts).sort(ROW)


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
