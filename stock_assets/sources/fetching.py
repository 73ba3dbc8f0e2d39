"""One slice of candles from the configured source of each ticker, judged.

How rows are got is each source's, how they are judged is in `rules.py`, and storing them is the
lake's.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.lake.schemas import Candles, Quarantine
from stock_assets.sources.base import make_source
from stock_assets.sources.rules import Judged, judge

if TYPE_CHECKING:
    from stock_assets.settings import Instrument, Settings
    from stock_assets.slices import Slice


def fetch_slice(settings: Settings, area: Slice, *, now: dt.datetime | None = None) -> Judged:
    """All rows that the sources have for `area`: candles, quarantine, and how many wait.

    `now` (UTC, default: the clock) decides which sessions are over. Raises `SourceError` when a
    source cannot be read.
    """
    moment = now or dt.datetime.now(tz=dt.UTC)
    by_source: dict[str, list[Instrument]] = {}
    for ticker in area.tickers:
        instrument = settings.instrument(ticker)
        by_source.setdefault(instrument.source, []).append(instrument)
    parts = []
    for name, instruments in by_source.items():
        source = make_source(name, settings)
        # Not kept in a name: `judge` lets go of the raw rows as soon as it can.
        parts.append(
            judge(
                source.fetch(instruments, area),
                instruments,
                area,
                now=moment,
                quote=source.quote,
            )
        )
    if len(parts) == 1:
        return parts[0]
    return Judged(
        candles=pl.concat([part.candles for part in parts]).sort(Candles.primary_key()),
        quarantine=pl.concat([part.quarantine for part in parts]).sort(Quarantine.primary_key()),
        held_back=sum(part.held_back for part in parts),
    )
