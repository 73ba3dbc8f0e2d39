"""Which symbol to ask for over which days: an instrument's names over time, cut into requests.

Former symbols, listing and delisting days are the instrument's (`source_settings.py`); how long a
window may be is each API's.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stock_assets.source_settings import Instrument

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """Days, both included, over which a ticker is asked for under one symbol.

    `first` is None where the source's own beginning is the beginning.
    """

    ticker: str
    symbol: str
    first: dt.date | None
    last: dt.date

    def cut(self, days: int) -> Iterator[Window]:
        """Windows of at most so many days, aligned to fixed dates.

        Aligned, so that a resumed run asks for the same windows even if its own first day moved.
        `first` must be known.
        """
        if self.first is None:
            raise ValueError("a window without a first day cannot be cut")
        start = self.first
        while start <= self.last:
            end = dt.date.fromordinal((start.toordinal() // days + 1) * days - 1)
            yield Window(self.ticker, self.symbol, start, min(end, self.last))
            start = end + _DAY


def windows_of(instrument: Instrument, first: dt.date | None, last: dt.date) -> list[Window]:
    """The symbols that `instrument` had from `first` to `last`, each over its own days, in order.

    Days before it was listed or after it was delisted are in none: a symbol that was another's
    before, or became another's after, brings nothing of that stranger.
    """
    bounds = [day for day in (first, instrument.listed) if day is not None]
    start = max(bounds) if bounds else None
    end = min(last, instrument.delisted) if instrument.delisted else last
    found: list[Window] = []
    names = [(item.symbol, item.until) for item in instrument.formerly]
    for symbol, until in [*names, (instrument.source_symbol, dt.date.max)]:
        stop = min(until, end)
        if start is None or start <= stop:
            found.append(Window(instrument.ticker, symbol, start, stop))
            if stop == end:
                break
            start = stop + _DAY
    return found
