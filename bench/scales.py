"""How much is measured: the full bench, and a small one by which the bench itself is tested."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

LAST, NEXT = dt.date(2026, 6, 29), dt.date(2026, 6, 30)
"""The last session before "the next day", and that day."""


@dataclass(frozen=True)
class Scale:
    """How much is measured, and how often. Days are sessions up to `LAST`."""

    name: str
    tickers: int | None
    """The market's first so many; all of them when None."""
    begin: dt.date | None
    """First day of the candles; all there are when None."""
    repeats: int
    """Of what takes less than a minute or two."""
    event_log_cells: tuple[int, ...]
    """Multiples of 50."""
    chain_days: tuple[int, ...]
    """The real chain from empty, beside the plain script."""
    backfill_days: int
    """Launched from the UI, ours and stock."""
    target_days: int
    """Launched from the UI, ours alone."""
    stock_runs: int | None
    """Stock makes a run a ticker when there are more days than tickers: so many are waited for.

    All of them when None."""
    history_years: tuple[int, ...]
    """Behind the next day."""
    turns: int
    """So often the next day is run behind each: what differs is less than what a turn varies."""
    rest: float
    """Seconds between the copying of such a lake and the run.

    Gigabytes just copied cost the next command half a second of CPU in its imports alone, while the
    system writes and clears memory: a lake of years is not copied before its day is run.
    """
    recent_days: int
    """Of that history, the last sessions: recorded by a run of the whole chain."""
    page_days: int
    """Times 50 tickers: the partitions of an asset behind the UI's pages."""
    query_days: int
    """The same of the partition-status query alone."""


FULL = Scale(
    name="full",
    tickers=None,
    begin=None,
    repeats=3,
    event_log_cells=(1_000, 10_000, 65_000),
    chain_days=(50, 250, 1_305),
    backfill_days=250,
    target_days=1_305,
    stock_runs=3,
    history_years=(1, 5, 13),
    turns=5,
    rest=15.0,
    recent_days=250,
    page_days=2_000,
    query_days=1_300,
)

QUICK = Scale(
    name="quick",
    tickers=5,
    begin=dt.date(2023, 1, 1),
    repeats=1,
    event_log_cells=(100, 400),
    chain_days=(5, 20),
    backfill_days=6,
    target_days=8,
    stock_runs=1,
    history_years=(1, 2),
    turns=1,
    rest=0.0,
    recent_days=5,
    page_days=20,
    query_days=10,
)
