"""What each step of a run cost: Dagster's event log laid over the samples of its process.

Reads the run's own shard of the event log as plain SQLite, so that reading costs nothing of what
is measured.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from measuring import Usage

START_UP, END = "before the first step", "after the last step"

_RECORDED = {"ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "HANDLED_OUTPUT"}
"""Events by which Dagster keeps the books of what a step has just yielded."""


@dataclass
class Cost:
    """Seconds of a part of a run: all of it, and of that the asset's own work.

    Work is what the step's function does, its asset's checks included, up to each output that it
    yields; what Dagster then records of the output (an event a cell) is not. dbt runs inside the
    step's process and is a part of that. The CPU of processes that a step starts, if any, counts
    as work throughout.
    """

    wall: float = 0.0
    cpu: float = 0.0
    work_wall: float = 0.0
    work_cpu: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.wall + other.wall,
            self.cpu + other.cpu,
            self.work_wall + other.work_wall,
            self.work_cpu + other.work_cpu,
        )


def costs_of_steps(shard: Path, usage: Usage, assets: tuple[str, ...]) -> dict[str, Cost]:
    """The cost of each step of `assets`, and of what is before and after them."""
    found = {START_UP: Cost(), **{name: Cost() for name in assets}, END: Cost()}
    first, last = usage.ended, usage.began
    for step, events in _events(shard).items():
        begin, end = events[0][0], events[-1][0]
        first, last = min(first, begin), max(last, end)
        cost = _cost(usage, begin, end)
        for start, stop in _working(events):
            cost.work_wall += stop - start
            cost.work_cpu += usage.cpu_between(start, stop)[0]
        cost.work_cpu += usage.cpu_between(begin, end)[1]
        found[step] += cost
    found[START_UP] = _cost(usage, usage.began, first)
    found[END] = _cost(usage, last, usage.ended)
    # What the samples missed at the very end (the last glance is up to 50 ms old).
    found[END].cpu += max(0.0, usage.cpu - sum(usage.cpu_between(usage.began, usage.ended)))
    return found


def _cost(usage: Usage, begin: float, end: float) -> Cost:
    return Cost(wall=end - begin, cpu=sum(usage.cpu_between(begin, end)))


def _events(shard: Path) -> dict[str, list[tuple[float, str | None]]]:
    """(moment, type) of the events of each step from its start to its end, in order."""
    query = "select timestamp, dagster_event_type, step_key from event_logs order by id"
    found: dict[str, list[tuple[float, str | None]]] = {}
    with closing(sqlite3.connect(shard)) as connection:
        for stamp, kind, step in connection.execute(query):
            if kind == "STEP_START" or step in found:
                moment = dt.datetime.fromisoformat(stamp).replace(tzinfo=dt.UTC).timestamp()
                found.setdefault(step, []).append((moment, kind))
    return found


def _working(events: list[tuple[float, str | None]]) -> list[tuple[float, float]]:
    """Spans in which the step's own function ran.

    From its start, or from the last record of an output, to the next output or log message.
    """
    spans = []
    begin = events[0][0]
    for moment, kind in events[1:]:
        if kind in _RECORDED:
            begin = moment
        elif kind in ("STEP_OUTPUT", None):
            spans.append((begin, moment))
            begin = moment
    return spans
