"""The event log alone: an asset that does nothing, recorded by Dagster's own storage and by ours.

`event_log.py` is the run; here it is repeated and compared.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import measured, middle
from product import clean_environment
from tables import markdown_table, megabytes, section, times

if TYPE_CHECKING:
    from growth import Point
    from results import Found, Results
    from scales import Scale

STORAGES = ("stock", "ours")
_SCRIPT = Path(__file__).with_name("event_log.py")


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """Both storages at each number of cells, side by side; ours repeated, as it takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    for cells in scale.event_log_cells:
        for turn in range(scale.repeats):
            for storage in STORAGES if turn == 0 else STORAGES[1:]:
                name = f"{storage}, {cells:,} cells, turn {turn + 1}"
                results.of(name, lambda: _event_log(storage, cells, folder / "home"))  # noqa: B023


def _event_log(storage: str, cells: int, home: Path) -> dict[str, Any]:
    shutil.rmtree(home, ignore_errors=True)
    command = [sys.executable, str(_SCRIPT), storage, str(cells), str(home)]
    called = f"{storage}, {cells:,} cells"
    usage = measured(command, clean_environment(), home.parent, name=called)
    shutil.rmtree(home)
    # The seconds are the run's own, without the imports before it.
    inside = json.loads(usage.stdout)
    return {"storage": storage, "cells": cells, "peak_bytes": usage.peak_bytes, **inside}


def points(found: Found, storage: str, what: str) -> list[Point]:
    """(cells, median cost) of a storage: what is wall, cpu, bytes or peak_bytes."""
    turns: dict[int, list[float]] = {}
    for turn in found.values():
        if turn["storage"] == storage:
            turns.setdefault(turn["cells"], []).append(turn[what])
    return [(cells, middle(costs)) for cells, costs in sorted(turns.items())]


def report(found: Found) -> str:
    """Costs a cell, and how many times less ours are."""
    rows = []
    ours, stock = (
        {what: dict(points(found, storage, what)) for what in ("wall", "cpu", "bytes")}
        for storage in reversed(STORAGES)
    )
    for storage in STORAGES:
        for cells, peak in points(found, storage, "peak_bytes"):
            wall, cpu, size = (
                dict(points(found, storage, what))[cells] for what in ("wall", "cpu", "bytes")
            )
            rows.append(
                (
                    cells,
                    f"{cells:,.0f} cells, {storage}",
                    f"{1e3 * cpu / cells:.2f}",
                    f"{1e3 * wall / cells:.2f}",
                    f"{size / cells:,.0f}",
                    megabytes(peak),
                )
            )
    ratios = [
        (
            cells,
            f"{cells:,.0f} cells, stock / ours",
            *[times(stock[what][cells] / ours[what][cells]) for what in ("cpu", "wall", "bytes")],
            "",
        )
        for cells in ours["cpu"]
        if cells in stock["cpu"]
    ]
    lines = [line[1:] for line in sorted([*rows, *ratios], key=lambda line: line[0])]
    return section(
        "The event log: an asset that does nothing, in one run",
        markdown_table(
            ["", "ms of CPU a cell", "ms of wall a cell", "bytes a cell", "peak MB"], lines
        ),
        "Medians of ours; stock once.",
    )
