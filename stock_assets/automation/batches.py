"""The runs that bring files of the inbox to the lake: asking for them, and finding them again.

A batch says which runs it needs (`sources/inbox.py` keeps it); what has become of them is asked of
Dagster each time. Which files make a batch, and what follows from its end, is in `inbox.py`.
"""

from dataclasses import dataclass

import dagster as dg

from stock_assets.automation.downstream import Cell
from stock_assets.automation.jobs import makes, slice_of_run
from stock_assets.errors import SliceError
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.slices import WHY_TAG, Slice
from stock_assets.sources.inbox import Batch

BATCH_TAG = "stock_assets/inbox"
ATTEMPT_TAG = "stock_assets/attempt"
"""Run tags with the batch and the attempt at it, by which its runs are found again."""

_RUNS_READ = 1_000


@dataclass(frozen=True)
class BatchRuns:
    """The runs of an instance, as batches see them."""

    instance: dg.DagsterInstance
    grid: Grid

    def left(self, batch: Batch) -> tuple[set[tuple[str, str]], tuple[str, ...]]:
        """Ranges of a batch that no run has worked off yet, and the runs, anybody's, that have.

        None are left where the settings have no such cells any more: nobody can run them.
        """
        wanted = {}
        for first, last in batch.ranges:
            try:
                wanted[first, last] = self.grid.slice_of_range(first, last)
            except SliceError:
                continue
        good = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], created_after=batch.asked)
        done = {run.run_id: run for run in self.instance.get_runs(good, limit=_RUNS_READ)}
        # Its own by their tag too: the database of the runs may have a clock of its own.
        done |= {run.run_id: run for run in self.own(batch) if run.is_success}
        used = []
        for run in done.values():
            if not (makes(run, "candles") and makes(run, "features")):
                continue
            area = self.slice(run)
            worked_off = [key for key, own in wanted.items() if area and _holds(area, own)]
            if worked_off:
                used.append(run.run_id)
            for key in worked_off:
                del wanted[key]
        return set(wanted), tuple(used)

    def days_and_tickers(self, batch: Batch) -> set[Cell]:
        """Cells of the first and the last days of what a batch asks for."""
        found: set[Cell] = set()
        for first, last in batch.ranges:
            try:
                area = self.grid.slice_of_range(first, last)
            except SliceError:
                continue
            days = self.grid.days_of(area)
            found |= {(day, ticker) for day in (days[0], days[-1]) for ticker in area.tickers}
        return found

    def own(self, batch: Batch, attempt: int | None = None) -> list[dg.DagsterRun]:
        """The runs that were asked for, in the last attempt or in all, the newest first."""
        tags = {BATCH_TAG: batch.name}
        if attempt is not None:
            tags[ATTEMPT_TAG] = str(attempt)
        return list(self.instance.get_runs(dg.RunsFilter(tags=tags)))

    def slice(self, run: dg.DagsterRun) -> Slice | None:
        """The slice of a run; None where the settings no longer have its cells."""
        try:
            return slice_of_run(run, self.grid)
        except SliceError:
            return None

    def requests(self, batch: Batch) -> list[dg.RunRequest]:
        """Runs that the batch's attempt still lacks: none while it waits after a failure."""
        if batch.failed is not None:
            return []
        left, _ = self.left(batch)
        left -= set(map(range_of, self.own(batch, batch.attempt)))
        return [
            dg.RunRequest(
                # A tick whose requests were lost asks with the same key: nothing runs twice.
                run_key=":".join((batch.name, str(batch.attempt), first, last)),
                tags={
                    RANGE_START_TAG: first,
                    RANGE_END_TAG: last,
                    BATCH_TAG: batch.name,
                    ATTEMPT_TAG: str(batch.attempt),
                    WHY_TAG: batch.why,
                },
            )
            for first, last in batch.ranges
            if (first, last) in left
        ]


def range_of(run: dg.DagsterRun) -> tuple[str, str]:
    """First and last cell of a run."""
    return run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]


def _holds(area: Slice, part: Slice) -> bool:
    """Whether all cells of `part` are cells of `area`."""
    begins = area.first_date is None or (
        part.first_date is not None and part.first_date >= area.first_date
    )
    ends = part.last_date <= area.last_date
    return begins and ends and set(part.tickers).issubset(area.tickers)
