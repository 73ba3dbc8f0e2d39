"""What is kept is not measured again, and what is projected follows from what was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import part_backfill
import part_event_log
import part_growth
import part_pages
import part_targets
import pytest
from results import Results
from tables import markdown_table, times

if TYPE_CHECKING:
    from pathlib import Path


NOTHING: dict[str, dict[str, object]] = {
    part: {} for part in ("event-log", "graph", "backfill", "next-day", "pages")
}


def never() -> dict[str, float]:
    raise AssertionError("measured again")


def test_what_was_measured_is_kept_for_the_next_bench(tmp_path: Path) -> None:
    first = Results(tmp_path, "graph", "full")
    assert first.of("a", lambda: {"cpu": 1.5}) == {"cpu": 1.5}
    assert Results(tmp_path, "graph", "full").of("a", never) == {"cpu": 1.5}


def test_an_interruption_loses_only_what_was_under_way(tmp_path: Path) -> None:
    results = Results(tmp_path, "graph", "full")
    results.of("a", lambda: {"cpu": 1.5})
    with pytest.raises(AssertionError, match="measured again"):
        results.of("b", never)
    assert Results(tmp_path, "graph", "full").found == {"a": {"cpu": 1.5}}
    assert json.loads((tmp_path / "graph.json").read_text())["scale"] == "full"


def test_results_of_another_scale_are_refused(tmp_path: Path) -> None:
    Results(tmp_path, "graph", "quick").of("a", lambda: {"cpu": 1.5})
    with pytest.raises(SystemExit, match="quick bench"):
        Results(tmp_path, "graph", "full")


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [("x", "1")]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.314, "0.31 x"), (4.21, "4.2 x"), (53.4, "53 x"), (1234.0, "1,234 x")]
)
def test_a_ratio_shows_two_or_three_digits(value: float, text: str) -> None:
    assert times(value) == text


def ends(*walls: float) -> list[dict[str, float]]:
    return [
        {"runs": place + 1, "wall": wall, "cpu": 2 * wall, "log_bytes": 7 * (place + 1)}
        for place, wall in enumerate(walls)
    ]


def test_the_wait_for_the_first_run_is_projected_once() -> None:
    whole = part_backfill.projected({"tickers": 50, "ends": ends(100, 120, 140)})
    assert whole == {"wall": 1080.0, "cpu": 2160.0, "log_bytes": 350.0}


def test_from_one_run_all_are_projected() -> None:
    whole = part_backfill.projected({"tickers": 50, "ends": ends(100)})
    assert whole == {"wall": 5000.0, "cpu": 10_000.0, "log_bytes": 350.0}


def log_run(storage: str, cells: int, cpu: float) -> dict[str, object]:
    return {
        "storage": storage, "cells": cells, "cpu": cpu, "wall": cpu, "bytes": cells, "peak_bytes": 9
    }  # fmt: skip


def test_the_event_log_is_reported_by_medians_and_ratios() -> None:
    found = {
        "stock": log_run("stock", 1000, 20.0),
        "one": log_run("ours", 1000, 0.4),
        "two": log_run("ours", 1000, 0.3),
        "three": log_run("ours", 1000, 9.0),
    }
    text = part_event_log.report(found)
    assert "| 1,000 cells, ours | 0.40 |" in text
    assert "| 1,000 cells, stock / ours | 50 x |" in text
    assert part_growth.report(found, {}) == ""
    found["larger"] = log_run("ours", 10_000, 4.0)
    assert "| event log, ours: CPU | 1,000, 10,000 | 1.00 | 1.00 |" in part_growth.report(found, {})


@pytest.mark.parametrize(
    ("cpu", "verdict"), [(26.0, "| 0.40 ms | yes |"), (33.0, "| 0.51 ms | **no** |")]
)
def test_a_target_is_met_or_not(cpu: float, verdict: str) -> None:
    log = {"one": log_run("ours", 65_000, cpu), "two": log_run("ours", 1_000, 9.0)}
    assert verdict in part_targets.report({**NOTHING, "event-log": log})


def test_a_year_of_forecasts_is_held_to_its_target() -> None:
    graph = {
        str(cells): {
            "what": "forecasts alone", "cells": cells, "horizons": 5, "peak_bytes": 7e8,
            "reading": {"wall": 1.0}, "loading": {"wall": 2.0},
            "predictions": [{"wall": wall, "cpu": 2 * wall} for wall in (spent, 9.0, 0.1)],
        }
        for cells, spent in [(2_500, 0.5), (12_500, 1.5), (65_250, 8.0)]
    }  # fmt: skip
    targets = part_targets.report({**NOTHING, "graph": graph})
    assert "| forecasts of 12,500 cells, made alone | 2 s | 1.5 s | yes |" in targets


def test_growth_with_history_is_a_target_missed() -> None:
    found = {
        "short": {"what": "history", "years": 1},
        "long": {"what": "history", "years": 13},
        "a": {"what": "next day", "lake": "1 years", "wall": 20.0},
        "b": {"what": "next day", "lake": "13 years", "wall": 24.0},
    }
    text = part_targets.report({**NOTHING, "next-day": found})
    assert "| 25 s | 24.0 s | yes |" in text
    assert "| 1.10 | 1.20 | **no** |" in text


def test_several_runs_from_the_ui_miss_the_target_however_fast() -> None:
    run = {"storage": "ours", "days": 1305, "tickers": 50, "cells": 65250, "wall": 9.0, "runs": 2}
    found = {**NOTHING, "backfill": {"one": run}}
    assert "| 9 s, 2 run(s) | **no** |" in part_targets.report(found)


def test_every_timing_of_the_pages_is_a_line() -> None:
    pages = {"graph": {"cold": 9.0, "warm": 1.25}}
    query = {"65000": {"ours": {"cold": 7.0, "warm": 2.5}}}
    content = {"partitions": 100_000, "assets": 8, "pages": pages, "query": query}
    text = part_pages.report({"pages": content})
    assert "| pages, graph | 9.00 | 1.25 |" in text
    assert "| query, 65000, ours | 7.00 | 2.50 |" in text
    targets = part_targets.report({**NOTHING, "pages": {"pages": content}})
    assert "| 2 s | 2.50 s | **no** |" in targets
