"""Files in which people declare what befell a share: a CSV of all tickers, or one CSV a ticker.

What the numbers of a row mean is in `splits.py` and `dividends.py`.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class DeclaredRow:
    """One row: `cells` are the texts of the columns beside ticker and date."""

    where: str
    """File and row, to begin a complaint with."""
    ticker: str
    day: dt.date
    cells: tuple[str, ...]


def read_declared(path: Path | None, what: str, columns: Sequence[str]) -> list[DeclaredRow]:
    """The rows of `path`, sorted by ticker and day; none without a path.

    `path` is a CSV with ticker, date and `columns`, or a folder of CSVs with date and `columns`,
    each named by its ticker; further columns are ignored. `what` (splits, dividends) is the name
    of the setting under `lake`. Raises `SourceError` naming file and row.
    """
    if path is None:
        return []
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        rows = [row for file in files for row in _read(file, what, columns, file.stem)]
    else:
        rows = list(_read(path, what, columns, None))
    rows.sort(key=lambda row: (row.ticker, row.day))
    for earlier, later in itertools.pairwise(rows):
        if (earlier.ticker, earlier.day) == (later.ticker, later.day):
            message = (
                f"{what} {path}: {later.ticker} has two {what} on {later.day}; keep one row for "
                "both together"
            )
            raise SourceError(message)
    return rows


def _read(
    file: Path, what: str, columns: Sequence[str], ticker: str | None
) -> Iterator[DeclaredRow]:
    wanted = ["date", *columns] if ticker else ["ticker", "date", *columns]
    try:
        frame = pl.read_csv(file, infer_schema=False)
    except FileNotFoundError:
        message = f"{what} {file}: there is no such file or folder; correct or remove lake.{what}"
        raise SourceError(message) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{what} {file}: not a readable CSV file ({reason})") from error
    if missing := [name for name in wanted if name not in frame.columns]:
        message = (
            f"{what} {file}: column(s) {', '.join(missing)} missing; the header must name "
            f"{', '.join(wanted)}"
        )
        raise SourceError(message)
    for number, row in enumerate(frame.select(wanted).iter_rows(named=True), start=1):
        cells = {name: (text or "").strip() for name, text in row.items()}
        where = f"{what} {file}, row {number}"
        name = ticker or cells["ticker"]
        if not name:
            raise SourceError(f"{where}: ticker is empty; name it")
        try:
            day = dt.date.fromisoformat(cells["date"])
        except ValueError:
            message = f"{where}: date {cells['date']!r} is not a date; write it as YYYY-MM-DD"
            raise SourceError(message) from None
        yield DeclaredRow(where, name, day, tuple(cells[column] for column in columns))
