"""The real chain from empty to scores beside a plain script with the same libraries.

Several numbers of days behind the same history, which the first day carries. The script is
`plain.py`; it and the chain take turns, so that both see the same moods of the machine. At the end
forecasts alone are made once more from the chain's lake (`predict.py`).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from market import Market, get_market, write_settings
from measuring import measured, middle
from product import Product, clean_environment, first_of
from scales import LAST
from steps import END, START_UP
from tables import markdown_table, megabytes, seconds, section, times

from stock_assets.forecasting.scoring import summarise
from stock_assets.graph import STEPS, asset_names
from stock_assets.lake.dbt_project import DBT_PROJECT_DIR, dbt_executable, ensure_manifest
from stock_assets.lake.dbt_request import REQUEST_VARIABLE, build_request, requested
from stock_assets.lake.maintenance import table_sizes
from stock_assets.lake.schemas import QUANTILE_NAMES, TABLES
from stock_assets.lake.store import Lake
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from growth import Point
    from results import Found, Results
    from scales import Scale

CHAIN, PLAIN, COMPILE, PREDICT = "chain", "plain script", "dbt compile", "forecasts alone"
_SCRIPT = Path(__file__).with_name("plain.py")
_PREDICTIONS = Path(__file__).with_name("predict.py")
_LONG_DAYS = 1_000
"""From so many days on, minutes a run: once is enough."""
_REASONS_SHOWN = 10


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """The chain and the script at each number of days, turn by turn; then what the lake holds."""
    market = get_market(folder, tickers=scale.tickers, begin=scale.begin)
    for days in scale.chain_days:
        own = folder / f"{days}-days"
        own.mkdir(exist_ok=True)
        product = Product(write_settings(market, own, first_of(days, LAST)))
        for turn in range(1 if days >= _LONG_DAYS else scale.repeats):
            end = f"{days:,} days, turn {turn + 1}"
            results.of(f"{CHAIN}, {end}", lambda: _chain(product, days))  # noqa: B023
            queries = own / "compiled"
            results.of(f"{COMPILE}, {end}", lambda: _compile(product, queries, days))  # noqa: B023
            results.of(f"{PLAIN}, {end}", lambda: _plain(product, queries, days))  # noqa: B023
        results.of(f"lake, {days:,} days", lambda: _lake(product, market, days))  # noqa: B023
        results.of(f"{PREDICT}, {days:,} days", lambda: _predict(product, days))  # noqa: B023


def _chain(product: Product, days: int) -> dict[str, Any]:
    product.empty()
    run = product.run(product.settings.partitions.first_day, LAST)
    made = product.lake.read("models", columns=["day"])["day"].n_unique()
    if made != days:
        raise RuntimeError(f"the chain made {made} of {days} days")
    cells = days * len(product.settings.tickers)
    return {**_about(CHAIN, days, cells), **run.cost, "log_bytes": product.log_bytes}


def _about(what: str, days: int, cells: int) -> dict[str, Any]:
    return {"what": what, "days": days, "cells": cells}


def _compile(product: Product, target: Path, days: int) -> dict[str, Any]:
    """The SQL that dbt compiles from our models for a slice of all history, into `target`.

    What dbt costs for it is what it costs before it runs anything.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    # dbt starts from what it parsed last, as in the chain's runs.
    shutil.copy(ensure_manifest().with_name("partial_parse.msgpack"), target)
    places = {
        "--project-dir": DBT_PROJECT_DIR,
        "--profiles-dir": DBT_PROJECT_DIR,
        "--target-path": target,
        "--log-path": target,
    }
    options = [str(part) for pair in places.items() for part in pair]
    command = [str(dbt_executable()), "--quiet", "compile", *options]
    tickers = product.settings.tickers
    area = Slice(None, LAST, tickers)
    with requested(build_request(product.settings, area)) as request:
        environment = {**clean_environment(), REQUEST_VARIABLE: str(request)}
        usage = measured(command, environment, target)
    return {**_about(COMPILE, days, days * len(tickers)), **usage.cost}


def _plain(product: Product, compiled: Path, days: int) -> dict[str, Any]:
    out = product.file.parent / "plain"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    queries = compiled / "compiled" / "stock_assets" / "models"
    command = [sys.executable, str(_SCRIPT), str(product.file), f"{LAST}", str(queries), str(out)]
    usage = measured(command, clean_environment(), out.parent, name=PLAIN)
    cells = days * len(product.settings.tickers)
    difference = _largest_difference(product, out)
    said = json.loads(usage.stdout)
    return {**_about(PLAIN, days, cells), **usage.cost, **said, "difference": difference}


def _predict(product: Product, days: int) -> dict[str, Any]:
    command = [sys.executable, str(_PREDICTIONS), str(product.file), "--days", str(days)]
    usage = measured(command, clean_environment(), product.file.parent, name=PREDICT)
    said: dict[str, Any] = json.loads(usage.stdout)
    cells = days * len(product.settings.tickers)
    return {**said, **_about(PREDICT, days, cells), "peak_bytes": usage.peak_bytes}


def _largest_difference(product: Product, plain: Path) -> float | None:
    """Largest difference of a forecast return between the lake and the plain script's tables.

    None when the rows are not the same.
    """
    names = [f"return_{name}" for name in QUANTILE_NAMES]
    key = ["day", "ticker", "horizon"]
    area = Slice(product.settings.partitions.first_day, LAST, product.settings.tickers)
    ours = product.lake.read("forecasts", area, columns=[*key, *names])
    theirs = Lake(plain).read("forecasts", columns=[*key, *names])
    both = ours.join(theirs, on=key, suffix="_plain")
    if not ours.height == theirs.height == both.height:
        return None
    gaps = [(pl.col(name) - pl.col(f"{name}_plain")).abs().max() for name in names]
    return float(both.select(pl.max_horizontal(gaps)).item())


def _lake(product: Product, market: Market, days: int) -> dict[str, Any]:
    """What is stored, before and after `maintain`, and how good the forecasts were."""
    lake = product.lake
    before = {name: sum(table_sizes(lake, name)) for name in TABLES}
    product.command("maintain")
    sizes = {
        name: {
            "rows": lake.read(name, columns=["day"]).height,
            "before": before[name],
            "after": sum(table_sizes(lake, name)),
        }
        for name in TABLES
    }
    reasons = (
        lake.read("quarantine")
        .with_columns(pl.col("reason").str.replace_all(r"-?\d+(\.\d+)?", "N"))["reason"]
        .value_counts(sort=True)
        .head(_REASONS_SHOWN)
    )
    total = summarise(lake.read("scores")).total
    decisions = lake.read("models").filter(pl.col("challenger").is_not_null())
    return {
        **_about("lake", days, days * len(product.settings.tickers)),
        "market": market.about,
        "tickers": len(product.settings.tickers),
        "csv_bytes": len(market.candles.write_csv().encode()),
        "csv_rows": market.candles.height,
        "sizes": sizes,
        "quarantined": dict(reasons.iter_rows()),
        "trainings": decisions.select("day", "challenger").n_unique(),
        "scores": {
            name: getattr(total, name)
            for name in (
                "forecasts", "days", "pinball_skill", "pinball_t", "coverage_80", "coverage_90",
                "baseline_coverage_80", "baseline_coverage_90",
            )
        },
    }  # fmt: skip


# What is printed.


def points(found: Found, what: str, cost: str) -> list[Point]:
    """(cells, median cost) of the chain or the script: wall, cpu, peak_bytes or log_bytes."""
    return [
        (cells, middle([turn[cost] for turn in turns]))
        for cells, turns in _turns(found, what).items()
    ]


def _turns(found: Found, what: str) -> dict[int, list[dict[str, Any]]]:
    """Cells -> the turns, by rising number of cells."""
    turns: dict[int, list[dict[str, Any]]] = {}
    for item in found.values():
        if item["what"] == what:
            turns.setdefault(item["cells"], []).append(item)
    return dict(sorted(turns.items()))


def report(found: Found) -> str:
    """All sizes beside the script; steps, storage and forecasts of the largest."""
    lakes = _turns(found, "lake")
    if not lakes:
        return ""
    ((largest, (lake,)),) = list(lakes.items())[-1:]
    chain, plain = _turns(found, CHAIN)[largest], _turns(found, PLAIN)[largest]
    return (
        section(
            f"The chain from empty: {lake['market']}",
            f"{lake['tickers']} tickers, {lake['sizes']['candles']['rows']:,} candles, carried by "
            f"the first day; days before {LAST}. Medians where repeated.",
            _runs(found),
            "Work is what the steps themselves do, their assets' checks included, without start-up "
            "and Dagster's recording of cells: the script has none of the three.",
        )
        + "\n"
        + section(
            f"By step, {largest:,} cells",
            "Wall from the event log, CPU from the processes at 20 Hz; steps have checks and dbt.",
            _steps(chain, plain),
        )
        + "\n"
        + section(f"Size, {largest:,} cells", _sizes(lake, chain))
        + "\n"
        + section(f"Rows and forecasts, {largest:,} cells", _rows(lake, plain))
        + _predictions(found)
    )


def _runs(found: Found) -> str:
    rows = []
    chains, plains, compiles = (_turns(found, what) for what in (CHAIN, PLAIN, COMPILE))
    for cells, chain in chains.items():
        if cells not in plains:
            continue  # interrupted in between
        plain = plains[cells]
        for name, turns in (("the chain", chain), ("plain script", plain)):
            rows.append(
                (
                    f"{cells:,} cells, {name}",
                    *[seconds(_middle(turns, what)) for what in ("wall", "cpu")],
                    megabytes(max(turn["peak_bytes"] for turn in turns)),
                )
            )
        rows.append(
            (
                f"{cells:,} cells, chain / script",
                *[times(_middle(chain, what) / _middle(plain, what)) for what in ("wall", "cpu")],
                times(_middle(chain, "peak_bytes") / _middle(plain, "peak_bytes")),
            )
        )
        own = {
            what: sum(middle([turn["parts"][name][what] for turn in plain]) for name in STEPS)
            for what in ("wall", "cpu")
        }
        for words, extra in (("script", None), ("script and one `dbt compile`", compiles[cells])):
            ratios = [
                middle([turn["work"][f"work_{what}"] for turn in chain])
                / (own[what] + (_middle(extra, what) if extra else 0.0))
                for what in ("wall", "cpu")
            ]
            rows.append((f"{cells:,} cells, work / {words}", *map(times, ratios), ""))
    return markdown_table(["", "wall s", "CPU s", "peak MB (sum of processes)"], rows)


def predictions(found: Found) -> list[Point]:
    """(cells, median wall seconds) of forecasts alone."""
    return [
        (cells, middle([cost["wall"] for cost in item["predictions"]]))
        for cells, (item,) in _turns(found, PREDICT).items()
    ]


def _predictions(found: Found) -> str:
    rows = [
        (
            f"{cells:,} cells x {item['horizons']} horizons",
            *[
                seconds(middle([cost[what] for cost in item["predictions"]]))
                for what in ("wall", "cpu")
            ],
            seconds(item["reading"]["wall"]),
            seconds(item["loading"]["wall"]),
            megabytes(item["peak_bytes"]),
        )
        for cells, (item,) in _turns(found, PREDICT).items()
    ]
    if not rows:
        return ""
    heads = ["", "wall s", "CPU s", "reading the lake, wall", "loading the models", "peak MB"]
    return "\n" + section("Forecasts alone", markdown_table(heads, rows))


def _middle(turns: list[dict[str, Any]], what: str) -> float:
    return middle([turn[what] for turn in turns])


def _steps(chain: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    rows = []
    for name in (START_UP, *STEPS, END):
        costs = {
            what: seconds(middle([turn["steps"][name][what] for turn in chain]))
            for what in ("wall", "cpu", "work_wall", "work_cpu")
        }
        own = ["", ""]
        if name in STEPS:
            own = [
                seconds(middle([turn["parts"][name][what] for turn in plain]))
                for what in ("wall", "cpu")
            ]
        else:
            costs |= {"work_wall": "", "work_cpu": ""}
        rows.append((name, *costs.values(), *own))
    head = ["step", "wall s", "CPU s", "work wall", "work CPU", "script wall", "script CPU"]
    return markdown_table(head, rows)


def _sizes(lake: dict[str, Any], chain: list[dict[str, Any]]) -> str:
    rows = [
        (
            name,
            f"{size['rows']:,}",
            f"{size['before'] / size['rows']:.1f}",
            f"{size['after'] / size['rows']:.1f}",
        )
        for name, size in lake["sizes"].items()
        if size["rows"]
    ]
    log = _middle(chain, "log_bytes")
    each = log / lake["cells"] / len(asset_names())
    return (
        markdown_table(["table", "rows", "bytes a row", "after `stock-assets maintain`"], rows)
        + f"\n\nThe same candles as CSV: {lake['csv_bytes'] / lake['csv_rows']:.1f} bytes a row. "
        f"Event log: {megabytes(log)} MB, {each:,.0f} bytes a cell and asset."
    )


def _rows(lake: dict[str, Any], plain: list[dict[str, Any]]) -> str:
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in lake["quarantined"].items())
    score = lake["scores"]
    t = "" if score["pinball_t"] is None else f" (t {score['pinball_t']:.1f})"
    gap = plain[-1]["difference"]
    return (
        f"- Quarantined: {reasons or 'nothing'}.\n"
        f"- Pinball skill {score['pinball_skill']:+.2f} % over the baseline{t} on "
        f"{score['forecasts']:,} forecasts of {score['days']} days; coverage of the 80 % interval "
        f"{score['coverage_80']:.1%} (baseline {score['baseline_coverage_80']:.1%}), of the 90 % "
        f"interval {score['coverage_90']:.1%} (baseline {score['baseline_coverage_90']:.1%}).\n"
        f"- {lake['trainings']} trainings; the script {plain[-1]['trainings']}. Largest difference "
        "between a forecast return of the chain and of the script: "
        + ("not the same rows." if gap is None else f"{gap:.1e}.")
    )
