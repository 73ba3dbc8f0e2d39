"""Declared splits: which there are, and the factor that makes prices comparable over time.

People declare them in a file (`lake.splits`), sources beside their candles; what a source said is
kept in the table `splits`, with when the lake heard of it.

The factor of a day is the product of after / before of all splits up to that day, so that a later
split never changes an earlier day (docs/adr/0002). It is applied in `dbt/models/bars.sql`; splits
that nobody declared are looked for in `undeclared.py`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError
from stock_assets.lake.declared import read_declared
from stock_assets.lake.schemas import Splits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings

_COLUMNS = ("before", "after")


@dataclass(frozen=True, order=True)
class Split:
    """On `day`, the first day at the new price, `before` old shares became `after` new ones."""

    ticker: str
    day: dt.date
    before: Fraction
    after: Fraction

    def __str__(self) -> str:
        """'split of VTBR on 2024-07-15, 5000 old shares for 1 new'."""
        return (
            f"split of {self.ticker} on {self.day}, {self.before} old shares for {self.after} new"
        )


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


NEIGHBOURS = dt.timedelta(days=10)
"""A split of the file and one of a source that are no further apart are the same event."""


def splits_in_force(
    settings: Settings, lake: Lake, news: Mapping[str, Sequence[Split]] | None = None
) -> tuple[Split, ...]:
    """All splits that count, sorted: the file's, and the sources' beside them.

    `news` (of `unheard`) counts as heard.

    Where both speak of one event, the file has the word, on another day too: a source that is wrong
    can be contradicted. A row of one to one speaks of its day alone. What was heard of a source
    whose candles are taken as they are does not count. Raises `SourceError` for a file that cannot
    be read.
    """
    declared = read_splits(settings.lake.splits)
    silent = {
        name for name, own in settings.sources.items() if getattr(own, "as_traded", True) is False
    }
    said = _heard(lake)
    for source, items in (news or {}).items():
        said |= {(item.ticker, item.day): (source, item) for item in items}
    heard = [
        item
        for source, item in said.values()
        if item.before != item.after
        if source not in silent and not any(_contradicts(row, item) for row in declared)
    ]
    return tuple(sorted([*declared, *heard]))


def _contradicts(row: Split, heard: Split) -> bool:
    reach = dt.timedelta(0) if row.before == row.after else NEIGHBOURS
    return row.ticker == heard.ticker and abs(row.day - heard.day) <= reach


def unheard(
    lake: Lake, declared: Mapping[str, Sequence[Split]], tickers: Collection[str]
) -> dict[str, list[Split]]:
    """What the lake has not heard yet, or heard otherwise (source -> splits).

    `declared` is all that the sources say of `tickers` now. A split that its source no longer
    lists beside others is taken back, as one of one to one; an empty list takes nothing back, for
    it is more often a fault than a truth.
    """
    if not any(declared.values()):
        return {}
    heard = _heard(lake)
    new: dict[str, list[Split]] = {}
    for source, splits in declared.items():
        listed = {(item.ticker, item.day) for item in splits}
        changed = [item for item in splits if heard.get((item.ticker, item.day)) != (source, item)]
        withdrawn = [
            Split(item.ticker, item.day, Fraction(1), Fraction(1))
            for said_by, item in heard.values()
            if splits and said_by == source and item.ticker in tickers
            if (item.ticker, item.day) not in listed
        ]
        if changed or withdrawn:
            new[source] = sorted([*changed, *withdrawn])
    return new


def keep(lake: Lake, new: Mapping[str, Sequence[Split]], known_at: dt.datetime) -> None:
    """Add what sources declared (source -> splits) to the table `splits`, heard at `known_at`."""
    rows = [
        (item.day, item.ticker, known_at, source, float(item.before), float(item.after))
        for source, splits in new.items()
        for item in splits
    ]
    lake.append("splits", pl.DataFrame(rows, schema=Splits.create_empty().schema, orient="row"))


def _heard(lake: Lake) -> dict[tuple[str, dt.date], tuple[str, Split]]:
    """What the sources said last of each ticker and day, and have not taken back."""
    rows = lake.read("splits").sort("known_at")
    found = {
        (row["ticker"], row["day"]): (
            row["source"],
            Split(
                row["ticker"],
                row["day"],
                # The shortest number that is stored so: 1.1 and not its neighbour in binary.
                Fraction(str(row["before"])),
                Fraction(str(row["after"])),
            ),
        )
        for row in rows.iter_rows(named=True)
    }
    return {key: said for key, said in found.items() if said[1].before != said[1].after}


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
        f"{where} {cell},{before},{after}, or {cell},1,1 if the market did that; where the prices "
        "are wrong (another unit), correct the candles instead"
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
