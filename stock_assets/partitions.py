"""Day x ticker partitions, and how a `Slice` is spelled as partition keys and run tags.

The days are the sessions of any exchange in the universe. Their clock is a fixed UTC offset chosen
so that a day becomes a partition just before the first of those exchanges closes: the schedule of
that evening can already ask for it (docs/adr/0004). What a slice means for rows is in `slices.py`.
"""

import bisect
import datetime as dt
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from stock_assets.calendars import get_calendar, union_sessions
from stock_assets.errors import SliceError
from stock_assets.settings import Settings
from stock_assets.slices import Slice, day_pieces

DAY, TICKER = "day", "ticker"

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

_EASTERNMOST = 14
_HOURS = 24


def cell_key(day: dt.date, ticker: str) -> str:
    """The text of one partition key."""
    return f"{day.isoformat()}|{ticker}"


def day_clock(settings: Settings) -> str:
    """The fixed-offset zone in which the partitions' days begin and end.

    A day ends there no later than the earliest close of the universe's exchanges, in winter and
    in summer; for exchanges further east than any zone allows (Tokyo, Sydney) it ends at 10:00 UTC,
    and their schedules wait for it.
    """
    earliest = float(_HOURS)
    for name in settings.exchanges:
        calendar = get_calendar(name)
        for day in calendar.sessions[-260:]:
            midnight = dt.datetime.combine(day, dt.time(0), tzinfo=dt.UTC)
            earliest = min(earliest, (calendar.closes_at(day) - midnight).total_seconds() / 3600)
    offset = min(_EASTERNMOST, max(0, math.ceil(_HOURS - earliest)))
    # The sign of Etc/GMT zones is the other way round: Etc/GMT-9 is nine hours east.
    return f"Etc/GMT-{offset}" if offset else "Etc/GMT"


@dataclass(frozen=True)
class Grid:
    """The partitions of all assets: days (dates) x tickers, in the order of the keys."""

    definition: dg.MultiPartitionsDefinition
    sessions: tuple[dt.date, ...]
    """All days that are or will be partitions, sorted."""
    tickers: tuple[str, ...]
    cells_per_run: int
    """Days x tickers above which a run is cut along its days."""

    @classmethod
    def of(cls, settings: Settings) -> "Grid":
        """The grid of the universe. Raises `SettingsError` for an unknown exchange."""
        first = settings.partitions.first_day
        sessions = tuple(day for day in union_sessions(settings.exchanges) if day >= first)
        open_days = set(sessions)
        span = (sessions[-1] - first).days + 1
        closed = [
            dt.datetime.combine(day, dt.time(0))
            for day in (first + dt.timedelta(n) for n in range(span))
            if day not in open_days
        ]
        days = dg.TimeWindowPartitionsDefinition(
            start=first.isoformat(),
            fmt="%Y-%m-%d",
            cron_schedule="0 0 * * *",
            timezone=day_clock(settings),
            exclusions=closed or None,
        )
        tickers = dg.StaticPartitionsDefinition(list(settings.tickers))
        definition = dg.MultiPartitionsDefinition({DAY: days, TICKER: tickers})
        return cls(definition, sessions, settings.tickers, settings.partitions.cells_per_run)

    def days(self) -> tuple[dt.date, ...]:
        """Days that are partitions by now."""
        days = self.definition.get_partitions_def_for_dimension(DAY)
        assert isinstance(days, dg.TimeWindowPartitionsDefinition)
        # Dagster would list all of them, day by day.
        last = days.get_last_partition_window()
        count = 0 if last is None else bisect.bisect_right(self.sessions, last.start.date())
        return self.sessions[:count]

    def partition_day(self, day: dt.date) -> dt.date:
        """The partition that carries the rows of `day`: itself, or the next one."""
        return self.sessions[bisect.bisect_left(self.sessions, day)]

    def days_of(self, area: Slice) -> tuple[dt.date, ...]:
        """The partition days of a slice."""
        first = bisect.bisect_left(self.sessions, area.first_date) if area.first_date else 0
        return self.sessions[first : bisect.bisect_right(self.sessions, area.last_date)]

    def slice(self, first: dt.date, last: dt.date, tickers: Sequence[str]) -> Slice:
        """The slice of all partition days from `first` to `last`; dates need not be sessions.

        Raises `SliceError` when no partition lies there or a ticker is not in the universe.
        """
        unknown = sorted(set(tickers) - set(self.tickers))
        if unknown:
            message = (
                f"ticker(s) {', '.join(unknown)} are not in the universe; "
                f"add them under [[universe]] or use {', '.join(self.tickers[:8])}"
                + (", ..." if len(self.tickers) > 8 else "")  # noqa: PLR2004
            )
            raise SliceError(message)
        known = self.days()
        if not known:
            message = f"no day is a partition yet: the first is {self.sessions[0]}"
            raise SliceError(message)
        inside = [day for day in known if first <= day <= last]
        if not inside:
            message = (
                f"no trading day between {first} and {last}: partitions run from {known[0]} to "
                f"{known[-1]} (partitions.first_day in the settings; history before it belongs to "
                "the first day)"
            )
            raise SliceError(message)
        return self._slice_of(inside[0], inside[-1], tickers)

    def _slice_of(self, first: dt.date, last: dt.date, tickers: Iterable[str]) -> Slice:
        wanted = set(tickers)
        position = self.sessions.index(first)
        start = None if position == 0 else self.sessions[position - 1] + dt.timedelta(1)
        return Slice(start, last, tuple(name for name in self.tickers if name in wanted))

    def slice_of_range(self, first: str, last: str) -> Slice:
        """The slice that a run's range of partition keys means: every day x ticker in between.

        Dagster's range tags are the product of both ranges, so any range is a rectangle.
        Raises `SliceError` for a key that is no cell.
        """
        (first_day, first_ticker), (last_day, last_ticker) = self._cell(first), self._cell(last)
        start, end = self.tickers.index(first_ticker), self.tickers.index(last_ticker)
        if first_day > last_day or start > end:
            raise SliceError(f"the range from {first} to {last} is empty: swap its ends")
        return self._slice_of(first_day, last_day, self.tickers[start : end + 1])

    def _cell(self, key: str) -> tuple[dt.date, str]:
        day, _, ticker = str(key).partition("|")
        if ticker not in self.tickers or dt.date.fromisoformat(day) not in self.sessions:
            raise SliceError(f"{key} is not a cell of the partitions of these settings")
        return dt.date.fromisoformat(day), ticker

    def blocks(self, tickers: Sequence[str]) -> list[tuple[str, ...]]:
        """`tickers` as runs of neighbours in the partitions' order: one run each."""
        wanted = set(tickers)
        blocks: list[list[str]] = []
        previous = None
        for position, name in enumerate(self.tickers):
            if name not in wanted:
                continue
            if previous is not None and position == previous + 1:
                blocks[-1].append(name)
            else:
                blocks.append([name])
            previous = position
        return [tuple(block) for block in blocks]

    def runs(self, area: Slice) -> list[Slice]:
        """The slices of the runs that work `area` off, in the order of their days.

        One for each block of neighbouring tickers, and more where the block has more cells than
        a run is to have: those are cut between days, as backfills are.
        """
        days = self.days_of(area)
        runs = [
            self._slice_of(days[piece[0]], days[piece[-1]], block)
            for block in self.blocks(area.tickers)
            for piece in day_pieces(len(days), len(block), self.cells_per_run)
        ]
        place = {name: position for position, name in enumerate(self.tickers)}
        return sorted(runs, key=lambda run: (self.days_of(run)[0], place[run.tickers[0]]))

    def tags(self, area: Slice) -> dict[str, str]:
        """Run tags that make one Dagster run of the slice (its tickers must be neighbours)."""
        days = self.days_of(area)
        return {
            RANGE_START_TAG: cell_key(days[0], area.tickers[0]),
            RANGE_END_TAG: cell_key(days[-1], area.tickers[-1]),
        }
