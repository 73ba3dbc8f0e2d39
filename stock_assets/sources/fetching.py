"""One slice of candles from the configured source of each ticker, judged.

How rows are got is each source's, how they are judged is in `rules.py`, and storing them is the
lake's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.lake.schemas import Candles, Quarantine
from stock_assets.sources.api import ApiSource
from stock_assets.sources.files import FilesSource
from stock_assets.sources.journal import clear
from stock_assets.sources.making import make_source
from stock_assets.sources.rules import Judged, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stock_assets.settings import Instrument, Settings
    from stock_assets.slices import Slice
    from stock_assets.sources.base import Source


@contextlib.contextmanager
def fetched_slice(
    settings: Settings, area: Slice, *, now: dt.datetime | None = None
) -> Iterator[Judged]:
    """All rows that the sources have for `area`, to be stored within the block.

    What came over the network is kept until the block has ended well, so that a run that dies in
    between, or while it fetches, goes on where it stopped. `now` (UTC, default: the clock) decides
    which sessions are over. Raises `SourceError` when a source cannot be read.
    """
    sources = _sources(settings, area, resume=True)
    yield _judged(sources, area, now)
    for source in sources:
        if isinstance(source, ApiSource):
            clear(source.journal.pieces, source.raw_dir)


def fetch_slice(
    settings: Settings,
    area: Slice,
    *,
    now: dt.datetime | None = None,
    finish_by: float | None = None,
) -> Judged:
    """The same to look at: asked anew, and nothing of it is kept.

    An API that has not answered by `finish_by` (`time.monotonic`) counts as one that cannot be
    read.
    """
    sources = _sources(settings, area, resume=False)
    for source in sources:
        if isinstance(source, ApiSource):
            source.finish_by = finish_by
    return _judged(sources, area, now)


def _sources(settings: Settings, area: Slice, *, resume: bool) -> dict[Source, list[Instrument]]:
    """Each source that the slice needs, with its instruments."""
    by_name: dict[str, list[Instrument]] = {}
    for ticker in area.tickers:
        instrument = settings.instrument(ticker)
        by_name.setdefault(instrument.source, []).append(instrument)
    return {make_source(name, settings, resume=resume): own for name, own in by_name.items()}


def _judged(
    sources: dict[Source, list[Instrument]], area: Slice, now: dt.datetime | None
) -> Judged:
    moment = now or dt.datetime.now(tz=dt.UTC)
    # The raw rows are not kept in a name: `judge` lets go of them as soon as it can.
    parts = [
        judge(
            source.fetch(instruments, area),
            instruments,
            area,
            now=moment,
            quote=source.quote,
            settles_at=source.settles_at,
            later_files_revise=isinstance(source, FilesSource) and source.later_files_revise,
        )
        for source, instruments in sources.items()
    ]
    splits = {source.name: source.splits(instruments) for source, instruments in sources.items()}
    if len(parts) == 1:
        return replace(parts[0], splits=splits)
    return Judged(
        candles=pl.concat([part.candles for part in parts]).sort(Candles.primary_key()),
        quarantine=pl.concat([part.quarantine for part in parts]).sort(Quarantine.primary_key()),
        held_back=sum(part.held_back for part in parts),
        revised=sum(part.revised for part in parts),
        splits=splits,
    )
