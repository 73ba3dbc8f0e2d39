"""A backfill launched as the UI launches it, from an empty lake to forecasts, ours and stock.

The webserver, the daemon and the runs are real; time counts from the UI's mutation to the end of
the last run. Stock makes a run a ticker: by default a few are waited for, the rest projected.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from market import get_market, write_settings
from measuring import say
from product import Product, first_of
from scales import LAST
from server import serving
from tables import markdown_table, megabytes, seconds, section

from stock_assets.graph import asset_names
from stock_assets.partitions import Grid, cell_key

if TYPE_CHECKING:
    from pathlib import Path

    from results import Found, Results
    from scales import Scale

OURS, STOCK = "ours", "stock"
_PROJECTED = ("wall", "cpu", "log_bytes")
_PAUSE = 1.0
_NEWS_EVERY = 60.0


@dataclass(frozen=True)
class _Rectangle:
    days: int
    storage: str
    enough_runs: int | None
    """Of stock's runs, so many are waited for; all of them when None."""


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """Ours and stock over the same rectangle, then ours over the target's."""
    market = get_market(folder, tickers=scale.tickers, begin=scale.begin)
    enough = scale.stock_runs
    for asked in (
        _Rectangle(scale.backfill_days, OURS, None),
        _Rectangle(scale.backfill_days, STOCK, enough),
        _Rectangle(scale.target_days, OURS, None),
    ):
        own = folder / f"{asked.storage}-{asked.days}"
        own.mkdir(exist_ok=True)
        product = Product(write_settings(market, own, first_of(asked.days, LAST)))
        runs = f", {asked.enough_runs} runs" if asked.enough_runs else ""
        name = f"{asked.storage}, {asked.days:,} days{runs}"
        results.of(name, lambda: _backfill(product, asked))  # noqa: B023


def _backfill(product: Product, asked: _Rectangle) -> dict[str, Any]:
    product.empty()
    settings = product.settings
    days = [day for day in Grid.of(settings).days() if day <= LAST]
    cells = [cell_key(day, ticker) for day in days for ticker in settings.tickers]
    with serving(settings, product.file, stock=asked.storage == STOCK) as server:
        server.watch.forget_peak()
        ends: list[dict[str, float]] = []
        began = told = time.time()
        backfill = server.launch_backfill(asset_names(), cells)
        over, ended = False, 0
        while not over and ended != asked.enough_runs:
            time.sleep(_PAUSE)
            over, runs = server.backfill_runs(backfill)
            done = [run["endTime"] for run in runs if run["status"] == "SUCCESS"]
            if len(done) > ended:
                ended = len(done)
                ends.append(
                    {
                        "runs": ended,
                        "wall": max(done) - began,
                        "cpu": server.watch.cpu_since(began),
                        "log_bytes": product.log_bytes,
                    }
                )
            if time.time() - told > _NEWS_EVERY:
                told = time.time()
                say(f"{told - began:.0f} s: {ended} runs done")
        first_started = min(run["startTime"] for run in runs if run["startTime"]) - began
        peak = server.watch.peak_bytes
    made = product.lake.read("models", columns=["day", "ticker"]).n_unique()
    if over and made != len(cells):
        raise RuntimeError(f"the backfill made {made} of {len(cells)} cells")
    return {
        "storage": asked.storage,
        "days": asked.days,
        "tickers": len(settings.tickers),
        "cells": len(cells),
        "over": over,
        "created": len(runs),
        "first_started": first_started,
        "peak_bytes": peak,
        "ends": ends,
        **ends[-1],
    }


def projected(found: dict[str, Any]) -> dict[str, float]:
    """What all of stock's runs, one a ticker, would cost in wall, cpu and log_bytes.

    As if each run to come cost what those after the first did. (The first is not counted twice: it
    waits for the daemon, which in its time writes down what the runs to come have planned.)
    """
    first, last = found["ends"][0], found["ends"][-1]
    measured, to_come = last["runs"] - first["runs"], found["tickers"] - last["runs"]
    if not measured:
        return {what: found["tickers"] * last[what] / last["runs"] for what in _PROJECTED}
    return {
        what: last[what] + to_come * (last[what] - first[what]) / measured for what in _PROJECTED
    }


def report(found: Found) -> str:
    """Each backfill, and where stock was cut short what it would come to."""
    rows = []
    for item in found.values():
        name = f"{item['tickers']} x {item['days']:,}, {item['storage']}"
        share = "" if item["over"] else f": {item['runs']} of {item['tickers']} runs"
        rows.append(
            (
                name + share,
                f"{item['runs']}",
                seconds(item["wall"]),
                seconds(item["cpu"]),
                seconds(item["first_started"]),
                megabytes(item["peak_bytes"]),
                megabytes(item["log_bytes"]),
            )
        )
        if not item["over"]:
            whole = projected(item)
            rows.append(
                (
                    f"{name}: *projected to {item['tickers']} runs*",
                    f"*{item['tickers']}*",
                    f"*{whole['wall']:,.0f}*",
                    f"*{whole['cpu']:,.0f}*",
                    "",
                    "",
                    f"*{megabytes(whole['log_bytes'])}*",
                )
            )
    head = ["tickers x days", "runs", "wall s", "CPU s", "of which until the first run starts"]
    return section(
        "A backfill from the UI, empty lake to forecasts and scores",
        markdown_table([*head, "peak MB", "log MB"], rows),
        "From `launchPartitionBackfill` to the end of the last run; CPU and memory of webserver, "
        "daemon, code server and runs together. Stock is the same definitions (executor, assets) "
        "with Dagster's own event log and `STOCK_ASSETS_ONE_RUN_BACKFILLS=0`. Projected figures "
        "are not measured: as if each run to come cost what those after the first did; but later "
        "runs train on more tickers.",
    )
