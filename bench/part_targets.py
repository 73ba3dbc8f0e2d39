"""The targets beside what was measured. Which they are is decided here, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import part_backfill
import part_chain
import part_event_log
import part_next_day
from measuring import middle
from tables import markdown_table, section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from results import Found

_Line = tuple[str, str, str, bool]
"""What, the target, what was measured, whether it is met."""

_CPU_MS, _BYTES, _TIMES_LESS = 0.4, 2_000, 50
_BACKFILL_SECONDS, _NEXT_DAY_SECONDS, _QUERY_SECONDS = 480, 25, 2
_GROWTH = 1.10
_QUERY_CELLS = 65_000
_YEAR_CELLS, _YEAR_SECONDS = 12_500, 2
"""50 tickers, a year of forecasts."""


def report(found: Mapping[str, Found]) -> str:
    """One line a target of which something was measured, by part."""
    lines = [
        *_event_log(found["event-log"]),
        *_forecasts(found["graph"]),
        *_backfill(found["backfill"]),
        *_next_day(found["next-day"]),
        *_pages(found["pages"]),
    ]
    if not lines:
        return ""
    rows = [
        (what, target, measured, "yes" if met else "**no**")
        for what, target, measured, met in lines
    ]
    return section("Targets", markdown_table(["", "target", "measured", "met"], rows))


def _event_log(found: Found) -> Iterator[_Line]:
    """Where it was measured with the most cells."""
    cpu, size = (dict(part_event_log.points(found, "ours", what)) for what in ("cpu", "bytes"))
    if not cpu:
        return
    cells = max(cpu)
    where = f"event log at {cells:,.0f} cells"
    each = 1e3 * cpu[cells] / cells
    yield f"{where}: CPU a cell and asset", f"{_CPU_MS} ms", f"{each:.2f} ms", each <= _CPU_MS
    each = size[cells] / cells
    yield f"{where}: bytes a cell and asset", f"{_BYTES:,}", f"{each:,.0f}", each <= _BYTES
    stock = dict(part_event_log.points(found, "stock", "cpu"))
    if cells in stock:
        less = stock[cells] / cpu[cells]
        yield f"{where}: CPU, stock / ours", f"{_TIMES_LESS}", f"{less:.0f}", less >= _TIMES_LESS


def _forecasts(found: Found) -> Iterator[_Line]:
    """The size nearest to a year of 50 tickers."""
    points = part_chain.predictions(found)
    if points:
        cells, wall = min(points, key=lambda point: abs(point[0] - _YEAR_CELLS))
        met = wall <= _YEAR_SECONDS
        yield (
            f"forecasts of {cells:,} cells, made alone",
            f"{_YEAR_SECONDS} s",
            f"{wall:.1f} s",
            met,
        )


def _backfill(found: Found) -> Iterator[_Line]:
    """The largest of ours."""
    ours = [item for item in found.values() if item["storage"] == part_backfill.OURS]
    if ours:
        item = max(ours, key=lambda item: item["cells"])
        yield (
            f"{item['tickers']} x {item['days']:,} from the UI, empty to forecasts",
            f"{_BACKFILL_SECONDS} s, 1 run",
            f"{item['wall']:.0f} s, {item['runs']} run(s)",
            item["wall"] <= _BACKFILL_SECONDS and item["runs"] == 1,
        )


def _next_day(found: Found) -> Iterator[_Line]:
    """The longest history, by itself and beside the shortest."""
    walls = {
        item["years"]: [
            turn["wall"] for turn in part_next_day.turns(found, f"{item['years']} years")
        ]
        for item in found.values()
        if item["what"] == "history"
    }
    if not walls or not all(walls.values()):
        return
    longest, shortest = middle(walls[max(walls)]), middle(walls[min(walls)])
    where = f"next day after {max(walls)} years"
    met = longest <= _NEXT_DAY_SECONDS
    yield f"{where}: wall", f"{_NEXT_DAY_SECONDS} s", f"{longest:.1f} s", met
    grown = longest / shortest
    beside = f"{where} / after {min(walls)}"
    yield f"{beside}: wall", f"{_GROWTH:.2f}", f"{grown:.2f}", grown <= _GROWTH


def _pages(found: Found) -> Iterator[_Line]:
    """The partition-status query with our storage, at the size nearest to the target's."""
    queries = found.get("pages", {}).get("query", {})
    if queries:
        cells = min(queries, key=lambda cells: abs(int(cells) - _QUERY_CELLS))
        warm = queries[cells]["ours"]["warm"]
        where = f"partition-status query, {int(cells):,} partitions, warm"
        yield where, f"{_QUERY_SECONDS} s", f"{warm:.2f} s", warm <= _QUERY_SECONDS
