"""What must be run again when candles change: the cells that are built on them.

A bar comes from the candles of its day alone; features look back over the days before them, and
those that span the market are of all tickers of the exchange. So new candles of a day count for
that day and all later ones, of the whole exchange. Who finds out that candles came or changed
(`gaps.py` after a close, `inbox.py` in a dropped file) asks here what follows.
"""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

Cell = tuple[dt.date, str]


@dataclass(frozen=True)
class Rectangle:
    """Days, both included, of neighbouring tickers of one exchange."""

    first: dt.date
    last: dt.date
    tickers: tuple[str, ...]


def days_from(changed: Collection[dt.date], built: Collection[dt.date]) -> tuple[dt.date, dt.date]:
    """First and last day to run for an exchange on whose days `changed` there are new candles.

    `built` are days that it has already been run for.
    """
    return min(changed), max({*changed, *built})


def built_on(
    changed: Collection[Cell], built: Collection[Cell], tickers: Sequence[str]
) -> Rectangle:
    """What to run when the candles of cells of one exchange change.

    `tickers` are the exchange's, in the order of the partitions; `built` its cells that have been
    run, from the first of the changed days on. Where nothing else has been built yet, nothing else
    depends: the cells themselves, and no more than makes them one rectangle, for what spans
    tickers must see all of them.
    """
    if set(built) - set(changed):
        first, last = days_from({day for day, _ in changed}, {day for day, _ in built})
        return Rectangle(first, last, tuple(tickers))
    return around(changed, tickers)


def around(cells: Collection[Cell], tickers: Sequence[str]) -> Rectangle:
    """The smallest rectangle that holds the cells."""
    days = {day for day, _ in cells}
    named = {ticker for _, ticker in cells}
    places = [place for place, ticker in enumerate(tickers) if ticker in named]
    return Rectangle(min(days), max(days), tuple(tickers[places[0] : places[-1] + 1]))
