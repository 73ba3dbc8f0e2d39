"""The next day's slice behind histories of several lengths: it must cost the same.

The run is the schedule's: all but `model`, which the automation asks for when it is due. What the
histories hold is in `history.py`. Beside them the same run on a lake of next to nothing, which is
what any run pays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from history import make_history, open_history
from measuring import middle
from scales import NEXT
from start_up import make_start_up, open_start_up
from tables import markdown_table, megabytes, seconds, section

from stock_assets.automation.jobs import DAILY_ASSETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from product import Product
    from results import Found, Results
    from scales import Scale

_START_UP = "start-up only"


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """Make the histories, then run the next day on each of them, turn by turn."""
    lakes: dict[str, Product] = {}
    for years in scale.history_years:
        own = folder / f"{years}-years"
        results.of(f"history of {years} years", lambda: _saved(scale, years, own))  # noqa: B023
        lakes[f"{years} years"] = open_history(years, own)
    richest = lakes[f"{scale.history_years[0]} years"]
    own = folder / "start-up"
    results.of("start-up lake", lambda: make_start_up(richest, own))
    lakes[_START_UP] = open_start_up(own)
    for turn in range(scale.turns):
        # Every other turn the other way round: a shared machine becomes slower or faster.
        order = list(lakes.items()) if turn % 2 == 0 else list(lakes.items())[::-1]
        for name, product in order:
            results.of(f"{name}, turn {turn + 1}", lambda: _next_day(name, product, scale.rest))  # noqa: B023


def _saved(scale: Scale, years: int, folder: Path) -> dict[str, Any]:
    found = make_history(scale, years, folder)
    open_history(years, folder).save()
    return found


def _next_day(lake: str, product: Product, rest: float) -> dict[str, Any]:
    product.restore()
    time.sleep(rest)
    run = product.run(NEXT, NEXT, DAILY_ASSETS)
    return {"what": "next day", "lake": lake, **run.cost}


def turns(found: Found, lake: str) -> list[dict[str, Any]]:
    """All runs of the next day on a lake."""
    return [item for item in found.values() if item.get("lake") == lake]


def report(found: Found) -> str:
    """Medians, beside the shortest history."""
    histories = [item for item in found.values() if item["what"] == "history"]
    if not histories:
        return ""
    names = [f"{item['years']} years" for item in histories]
    base = turns(found, names[0])
    rows = []
    for item, name in zip(histories, names, strict=True):
        rows.append(
            (
                f"{item['years']} years",
                f"{item['cells']:,}",
                f"{item['rows']['candles']:,}",
                f"{item['rows']['forecasts']:,}",
                megabytes(item["log_bytes"]),
                *_figures(turns(found, name), base),
            )
        )
    rows.append((_START_UP, "", "", "", "", *_figures(turns(found, _START_UP), base)))
    log = (
        "of all cells (those before the recent run by assets that do nothing)"
        if histories[0]["log_filled"]
        else "of the recent run alone"
    )
    return section(
        f"The next day ({NEXT}) behind histories of several lengths",
        markdown_table(
            [
                "history", "cells an asset", "candles", "forecasts", "log MB",
                "wall s", "CPU s", "peak MB", "wall / shortest", "CPU / shortest",
            ],
            rows,
        ),
        "What varies: the first day of the partitions; candles, bars and features from 500 days "
        "before it where there are any; drift, models, forecasts and scores, whose earlier rows "
        f"are those of the recent run moved back by whole years; and the event log, {log}. "
        f"Medians of {len(base)}, turn by turn, every other one backwards, each on a "
        "fresh copy of the lake, after a rest.",
        "Start-up only is the same command on a lake of one ticker with 500 days: the same imports,"
        " definitions, dbt, Evidently page, model loaded, checks, and one cell an asset. Where its "
        "time goes, and where that of the longest history does:",
        _steps(turns(found, _START_UP), turns(found, names[-1])),
    )  # fmt: skip


def _steps(start_up: Sequence[dict[str, Any]], longest: Sequence[dict[str, Any]]) -> str:
    """Wall and CPU of each step that ran, medians; empty while one of both is missing."""
    if not (start_up and longest):
        return ""
    rows = []
    for name, cost in start_up[0]["steps"].items():
        if cost["wall"]:
            figures = [
                seconds(middle([turn["steps"][name][what] for turn in both]))
                for both in (start_up, longest)
                for what in ("wall", "cpu")
            ]
            rows.append((name, *figures))
    head = ["step", "start-up: wall s", "CPU s", "longest history: wall s", "CPU s"]
    return markdown_table(head, rows)


def _figures(own: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> list[str]:
    if not own:
        return [""] * 5
    wall, cpu = (middle([turn[what] for turn in own]) for what in ("wall", "cpu"))
    return [
        seconds(wall),
        seconds(cpu),
        megabytes(max(turn["peak_bytes"] for turn in own)),
        f"{wall / middle([turn['wall'] for turn in base]):.2f}",
        f"{cpu / middle([turn['cpu'] for turn in base]):.2f}",
    ]
