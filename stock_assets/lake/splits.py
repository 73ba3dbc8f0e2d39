"""Declared splits: reading them, and the factor that makes prices comparable over time.

The factor of a day is the product of after / before of all splits up to that day, so that a later
split never changes an earlier day (docs/adr/0002). It is applied in `dbt/models/bars.sql`; finding
splits that nobody declared is not done here.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("date", "before", "after")


@dataclass(frozen=True, order=True)
class Split:
    """On `day`, the first day at the new price, `before` old shares became `after` new ones."""

    ticker: str
    day: dt.date
    before: Fraction
    after: Fraction


@dataclass(frozen=True, order=True)
class SplitFactor:
    """Adjusted price / traded price of `ticker` from `day` on, until its next split."""

    ticker: str
    day: dt.date
    factor: float


def read_splits(path: Path | None) -> tuple[Split, ...]:
    """Splits declared in `path`, sorted by ticker and day; none without a path.

    `path` is a CSV with ticker,date,before,after, or a folder of CSVs with date,before,after, each
    named by its ticker; further columns are ignored. Raises `SourceError` naming file and row.
    """
    if path is None:
        return ()
    if path.is_dir():
        splits = [
            split
            for file in sorted(path.glob("*.csv"))
            for split in _read_file(file, ticker=file.stem)
        ]
    else:
        splits = _read_file(path, ticker=None)
    splits.sort()
    for earlier, later in itertools.pairwise(splits):
        if (earlier.ticker, earlier.day) == (later.ticker, later.day):
            message = (
                f"splits {path}: {later.ticker} has two splits on {later.day}; keep one row with "
                "both ratios multiplied"
            )
            raise SourceError(message)
    return tuple(splits)


def split_factors(splits: tuple[Split, ...]) -> tuple[SplitFactor, ...]:
    """The cumulative factor in force from each split day on; 1 before a ticker's first split."""
    factors = []
    cumulative: dict[str, Fraction] = {}
    for split in sorted(splits):
        product = cumulative.get(split.ticker, Fraction(1)) * split.after / split.before
        cumulative[split.ticker] = product
        factors.append(SplitFactor(split.ticker, split.day, float(product)))
    return tuple(factors)


def _read_file(file: Path, *, ticker: str | None) -> list[Split]:
    wanted = _COLUMNS if ticker else ("ticker", *_COLUMNS)
    try:
        frame = pl.read_csv(file, infer_schema=False)
    except FileNotFoundError:
        message = f"splits {file}: there is no such file or folder; correct or remove lake.splits"
        raise SourceError(message) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"splits {file}: not a readable CSV file ({reason})") from error
    if missing := [name for name in wanted if name not in frame.columns]:
        message = (
            f"splits {file}: column(s) {', '.join(missing)} missing; the header must name "
            f"{', '.join(wanted)}"
        )
        raise SourceError(message)
    rows = frame.select(wanted).iter_rows(named=True)
    return [_split(file, number, ticker, row) for number, row in enumerate(rows, start=1)]


def _split(file: Path, number: int, ticker: str | None, row: dict[str, str | None]) -> Split:
    def cell(name: str) -> str:
        return (row[name] or "").strip()

    where = f"splits {file}, row {number}"
    name = ticker or cell("ticker")
    if not name:
        raise SourceError(f"{where}: ticker is empty; name it")
    try:
        day = dt.date.fromisoformat(cell("date"))
    except ValueError:
        message = f"{where}: date {cell('date')!r} is not a date; write it as YYYY-MM-DD"
        raise SourceError(message) from None
    before, after = (_shares(where, column, cell(column)) for column in ("before", "after"))
    return Split(name, day, before, after)


def _shares(where: str, column: str, text: str) -> Fraction:
    try:
        shares = Fraction(text)
    except (ValueError, ZeroDivisionError):
        shares = Fraction(0)
    if shares <= 0:
        message = (
            f"{where}: {column} {text!r} is not a positive number of shares; 1 before and 100 "
            "after is a split of one share into a hundred"
        )
        raise SourceError(message)
    return shares
