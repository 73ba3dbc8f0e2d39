"""Declared splits: reading them, and the factor that makes prices comparable over time.

The factor of a day is the product of after / before of all splits up to that day, so that a later
split never changes an earlier day (docs/adr/0002). It is applied in `dbt/models/bars.sql`; splits
that nobody declared are looked for in `undeclared.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from stock_assets.errors import SourceError
from stock_assets.lake.declared import read_declared

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

_COLUMNS = ("before", "after")


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

    See `read_declared`; the columns are before and after. One to one is no split: it says that
    the day's move was the market's, however much it looks like one. Raises `SourceError` naming
    file and row.
    """
    return tuple(
        Split(
            row.ticker,
            row.day,
            *(
                _shares(row.where, column, text)
                for column, text in zip(_COLUMNS, row.cells, strict=True)
            ),
        )
        for row in read_declared(path, "splits", _COLUMNS)
    )


def split_factors(splits: tuple[Split, ...]) -> tuple[SplitFactor, ...]:
    """The cumulative factor in force from each split day on; 1 before a ticker's first split."""
    factors = []
    cumulative: dict[str, Fraction] = {}
    for split in sorted(splits):
        product = cumulative.get(split.ticker, Fraction(1)) * split.after / split.before
        cumulative[split.ticker] = product
        factors.append(SplitFactor(split.ticker, split.day, float(product)))
    return tuple(factors)


def declaration(path: Path | None, ticker: str, day: dt.date, before: int, after: int) -> str:
    """What to write where, so that a move that looks like a split is known for what it is."""
    cell = f"{day}" if path is not None and path.is_dir() else f"{ticker},{day}"
    if path is None:
        where = "set lake.splits to a CSV with ticker,date,before,after and write into it"
    elif path.is_dir():
        where = f"add to {path / ticker}.csv (date,before,after)"
    else:
        where = f"add to {path}"
    return (
        f"{ticker} on {day} looks like a split of {before} old shares into {after} new ones: "
        f"{where} {cell},{before},{after}, or {cell},1,1 if the market did that"
    )


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
