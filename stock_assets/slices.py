"""`Slice`: the days x tickers that one run works on, and what it means for a table's rows.

Plain dates and names: how a slice is spelled as Dagster partitions and run tags is in
`partitions.py`; how its rows are read and written is in `lake/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

CELLS_PER_RUN = 100_000
"""Days x tickers above which a run is cut, where the settings do not say otherwise."""

WHY_TAG = "stock_assets/why"
"""Run tag that says, in the UI's list of runs, why there is this run."""


@dataclass(frozen=True)
class Slice:
    """The rows of `tickers` dated `first_date` to `last_date`, both included.

    `first_date` is None when the slice holds the first day of the partitions, which carries
    everything up to and including it. Days between two partition days (a weekend) belong to the
    later one, so that consecutive slices leave no date out.
    """

    first_date: dt.date | None
    last_date: dt.date
    tickers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tickers:
            raise ValueError("a slice needs at least one ticker")
        if self.first_date is not None and self.first_date > self.last_date:
            raise ValueError(f"slice ends {self.last_date} before it starts {self.first_date}")

    @property
    def has_history(self) -> bool:
        """Whether the slice carries all that lies before the partitions' first day."""
        return self.first_date is None

    def contains(self, day: dt.date) -> bool:
        """Whether rows of `day` belong to the slice."""
        return day <= self.last_date and (self.first_date is None or day >= self.first_date)

    def __str__(self) -> str:
        days = f"{self.first_date or 'the beginning'} to {self.last_date}"
        if self.first_date == self.last_date:
            days = str(self.last_date)
        names = ", ".join(self.tickers[:3]) + (", ..." if len(self.tickers) > 3 else "")  # noqa: PLR2004
        plural = "" if len(self.tickers) == 1 else "s"
        return f"{days} x {len(self.tickers)} ticker{plural} ({names})"


def day_pieces(days: int, tickers: int, cells: int) -> list[range]:
    """Cut `days` consecutive days of `tickers` cells each into runs of at most `cells` cells.

    Returns the positions of each run's days, in order. A day is never divided: one that holds more
    than `cells` is a run of its own.
    """
    step = max(1, cells // tickers)
    return [range(first, min(first + step, days)) for first in range(0, days, step)]


def why_part(number: int, of: int) -> dict[str, str]:
    """The tag of one of the runs that were cut because all of it has more cells than a run may."""
    return {WHY_TAG: f"part {number} of {of} (partitions.cells_per_run)"}
