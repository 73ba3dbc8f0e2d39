"""What a run costs, measured: `make bench`, or `python bench/bench.py --quick` for a small one.

Prints Markdown to stdout: the graph from empty and the next day, each step's seconds, the size of
what is stored, how the forecasts did, the same work as a plain script, and the event log beside
Dagster's own. Everything is run as a user runs it, by `stock-assets`, on a lake of its own in a
temporary folder. Targets are told beside the figures; nothing fails when one is missed.

How a command is measured is in `measuring.py`, how a run is divided into steps in `steps.py`, the
input in `market.py`; the plain script is `plain.py`, the event log's run `event_log.py`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from market import Market, get_market, write_settings
from measuring import Usage, measured, middle
from steps import CHECKS, END, START_UP, Cost, costs_of_steps

from stock_assets.forecasting.scoring import summarise
from stock_assets.lake.dbt_project import DBT_PROJECT_DIR, dbt_executable
from stock_assets.lake.dbt_request import REQUEST_VARIABLE, build_request, requested
from stock_assets.lake.maintenance import table_sizes
from stock_assets.lake.schemas import QUANTILE_NAMES, TABLES
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STEPS = ("ingest", "transform", "drift", "model", "forecasts", "scores")
ASSETS = 8
LAST, NEXT = dt.date(2026, 6, 29), dt.date(2026, 6, 30)

_HERE = Path(__file__).resolve().parent
# What drift's windows and the EWMA look back on, with room.
_START_UP_HISTORY = dt.timedelta(days=500)
_START_UP_FIRST_DAY = dt.date(2026, 6, 22)
_UPSTREAM = "candles,quarantine,bars,features,drift"
_MB, _GB = 1e6, 1e9


@dataclass(frozen=True)
class Scale:
    """How much is measured, and how often."""

    tickers: int | None
    begin: dt.date | None
    first_day: dt.date
    repeats: int
    event_log_cells: tuple[int, ...]


FULL = Scale(None, None, dt.date(2025, 7, 1), 3, (1_000, 10_000))
QUICK = Scale(5, dt.date(2023, 1, 1), dt.date(2026, 6, 1), 1, (200,))


@dataclass
class Run:
    """One measured `stock-assets run`."""

    usage: Usage
    steps: dict[str, Cost]

    @property
    def work(self) -> Cost:
        """The six assets' own work."""
        return sum((self.steps[name] for name in STEPS), Cost())


class Product:
    """`stock-assets` on one lake, measured."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settings: Settings = load_settings(file)
        self.lake = Lake(self.settings.lake_dir)

    def run(self, first: dt.date, last: dt.date, assets: str | None = None) -> Run:
        """Materialize the days."""
        options = ["--from", f"{first}", "--to", f"{last}", "--json"]
        usage = self.command("run", *options, *(["--assets", assets] if assets else []))
        (outcome,) = json.loads(usage.stdout)
        shard = self.settings.dagster_home / "history" / "runs" / f"{outcome['run_id']}.db"
        return Run(usage, costs_of_steps(shard, usage, STEPS))

    def command(self, name: str, *options: str) -> Usage:
        """Run one command of the command line."""
        program = str(Path(sys.executable).parent / "stock-assets")
        command = [program, name, "--settings", str(self.file), *options]
        return measured(command, _environment(), self.file.parent)

    def save(self) -> Path:
        """Keep a copy of all that the lake's folder holds."""
        copy = self.settings.lake.path.with_name("saved")
        shutil.copytree(self.settings.lake.path, copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Put the copy back in the lake's place."""
        shutil.rmtree(self.settings.lake.path)
        shutil.copytree(copy, self.settings.lake.path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a run costs, measured.")
    parser.add_argument("--quick", action="store_true", help="a small market, each figure once")
    parser.add_argument("--folder", type=Path, help="work here and leave everything there")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="stock-assets-bench-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(_machine("Load when it began"))
        bench_graph(scale, folder / "graph")
        bench_event_log(scale, folder / "event_log")
        print(_machine("Load when it ended"))


def bench_graph(scale: Scale, folder: Path) -> None:
    """The graph from empty, the next day, and the same as a plain script."""
    market = get_market(folder, tickers=scale.tickers, begin=scale.begin)
    product = Product(write_settings(market, folder, scale.first_day))
    _say("the graph from empty")
    whole = product.run(scale.first_day, LAST)
    log_bytes = _bytes_below(product.settings.dagster_home / "history")
    days = product.lake.read("models", columns=["day"])["day"].n_unique()
    cells = days * len(product.settings.tickers)

    starter = _start_up_lake(product, market, folder / "start_up")
    copies = product.save(), starter.save()
    following, start_up = [], []
    # Turn by turn, so that both see the same moods of the machine.
    for turn in range(scale.repeats):
        _say(f"the next day and start-up only, turn {turn + 1} of {scale.repeats}")
        product.restore(copies[0])
        following.append(product.run(NEXT, NEXT))
        starter.restore(copies[1])
        start_up.append(starter.run(NEXT, NEXT))
    for copy in copies:
        shutil.rmtree(copy)

    plain = _bench_plain(product, folder, scale)
    print(_report_runs(market, product, whole, following, start_up, cells, plain))
    print(_report_steps(whole, following, plain))
    print(_report_storage(product, market, log_bytes, cells))
    print(_report_rows(product, plain))


def _start_up_lake(product: Product, market: Market, folder: Path) -> Product:
    """A lake on which a run does everything once and next to nothing: see `_START_UP`."""
    ticker = market.candles["ticker"].max()
    begin = LAST - _START_UP_HISTORY
    folder.mkdir(parents=True)
    own = market.candles.filter(
        (pl.col("ticker") == ticker) & (pl.col("timestamp").dt.date() >= begin)
    )
    file = folder / "candles.parquet"
    own.write_parquet(file)
    starter = Product(
        write_settings(Market(market.about, file, market.splits, own), folder, _START_UP_FIRST_DAY)
    )
    _say("the start-up lake")
    starter.run(_START_UP_FIRST_DAY, LAST, _UPSTREAM)
    # The decision and the model of the whole lake, so that the day carries on with them.
    decided = product.lake.read("models", Slice(LAST, LAST, (str(ticker),)))
    starter.lake.write("models", decided, Slice(LAST, LAST, (str(ticker),)))
    if product.settings.mlflow_dir.exists():
        shutil.copytree(product.settings.mlflow_dir, starter.settings.mlflow_dir)
    return starter


_START_UP = (
    "Start-up only is the same command for the same day on a lake of one ticker with 500 days of "
    "history, where a model is in force: one candle in, the same imports, definitions, dbt, "
    "Evidently page, model loaded from MLflow, all checks, and one cell an asset."
)


@dataclass
class PlainRuns:
    """The plain script, run several times."""

    usages: list[Usage]
    parts: dict[str, Cost]
    dbt: Usage
    """What `dbt compile` of the same models costs: dbt without a query run."""
    trainings: int
    largest_difference: float

    @property
    def work(self) -> Cost:
        """All its parts."""
        return sum(self.parts.values(), Cost())


def _bench_plain(product: Product, folder: Path, scale: Scale) -> PlainRuns:
    queries, dbt = _compile(product.settings, folder / "compiled")
    usages, found = [], []
    for turn in range(min(2, scale.repeats)):
        _say(f"the plain script, turn {turn + 1}")
        out = folder / "plain"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        command = [str(_HERE / "plain.py"), str(product.file), f"{LAST}", str(queries), str(out)]
        usages.append(measured([sys.executable, *command], _environment(), folder))
        found.append(json.loads(usages[-1].stdout))
    parts = {}
    for name in STEPS:
        wall = middle([item["parts"][name]["wall"] for item in found])
        cpu = middle([item["parts"][name]["cpu"] for item in found])
        parts[name] = Cost(wall, cpu, wall, cpu)
    same = _largest_difference(product, folder / "plain")
    return PlainRuns(usages, parts, dbt, found[-1]["trainings"], same)


def _compile(settings: Settings, target: Path) -> tuple[Path, Usage]:
    """The folder of the SQL that dbt compiles from our models for a slice of all history.

    And what dbt cost for it, which is what dbt costs before it runs anything.
    """
    target.mkdir(parents=True)
    # dbt starts from what it parsed last, as in the graph's runs.
    shutil.copy(DBT_PROJECT_DIR / "target" / "partial_parse.msgpack", target)
    places = {
        "--project-dir": DBT_PROJECT_DIR,
        "--profiles-dir": DBT_PROJECT_DIR,
        "--target-path": target,
        "--log-path": target,
    }
    options = [str(part) for pair in places.items() for part in pair]
    command = [str(dbt_executable()), "--quiet", "compile", *options]
    with requested(build_request(settings, Slice(None, LAST, settings.tickers))) as request:
        environment = {**_environment(), REQUEST_VARIABLE: str(request)}
        usage = measured(command, environment, target)
    return target / "compiled" / "stock_assets" / "models", usage


def _largest_difference(product: Product, plain: Path) -> float:
    """Largest difference of a forecast return between the lake and the plain script's tables."""
    names = [f"return_{name}" for name in QUANTILE_NAMES]
    key = ["day", "ticker", "horizon"]
    area = Slice(product.settings.partitions.first_day, LAST, product.settings.tickers)
    ours = product.lake.read("forecasts", area, columns=[*key, *names])
    theirs = Lake(plain).read("forecasts", columns=[*key, *names])
    if ours.height != theirs.height:
        return float("inf")
    both = ours.join(theirs, on=key, suffix="_plain")
    gaps = [(pl.col(name) - pl.col(f"{name}_plain")).abs().max() for name in names]
    return float(both.select(pl.max_horizontal(gaps)).item())


def bench_event_log(scale: Scale, folder: Path) -> None:
    """Dagster's own SQLite event log beside ours."""
    rows = []
    for cells in scale.event_log_cells:
        for storage in ("stock", "ours"):
            _say(f"event log: {storage}, {cells} cells")
            # Stock takes minutes where ours takes seconds: ours is repeated, stock is not.
            turns = [
                _event_log(storage, cells, folder / f"{storage}-{cells}-{turn}")
                for turn in range(scale.repeats if storage == "ours" else 1)
            ]
            wall, cpu, size = (
                middle([turn[name] for turn in turns]) / cells for name in ("wall", "cpu", "bytes")
            )
            rows.append(
                (f"{cells:,}", storage, f"{1e3 * wall:.2f}", f"{1e3 * cpu:.2f}", f"{size:,.0f}")
            )
    print(
        "## The event log: an asset that does nothing, in one run\n\n"
        + _table(["cells", "storage", "ms wall a cell", "ms CPU a cell", "bytes a cell"], rows)
    )


def _event_log(storage: str, cells: int, home: Path) -> dict[str, float]:
    home.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(_HERE / "event_log.py"), storage, str(cells), str(home)]
    found: dict[str, float] = json.loads(measured(command, _environment(), home.parent).stdout)
    shutil.rmtree(home)
    return found


# What is printed.


def _report_runs(  # noqa: PLR0913, PLR0917
    market: Market,
    product: Product,
    whole: Run,
    following: Sequence[Run],
    start_up: Sequence[Run],
    cells: int,
    plain: PlainRuns,
) -> str:
    next_wall = middle([run.usage.wall for run in following])
    start_wall = middle([run.usage.wall for run in start_up])
    next_cpu = middle([run.usage.cpu for run in following])
    start_cpu = middle([run.usage.cpu for run in start_up])
    rows = [
        _line(f"from empty to {LAST}", [whole.usage], "300 s, 3 GB"),
        _line(f"{NEXT} alone", [run.usage for run in following], "40 s"),
        _line("start-up only", [run.usage for run in start_up], ""),
        _line("the plain script, from empty", plain.usages, ""),
        _line("`dbt compile`", [plain.dbt], ""),
    ]
    work, own = whole.work, plain.work
    ratios = [
        (
            "next day / start-up only",
            f"{next_wall / start_wall:.2f}",
            f"{next_cpu / start_cpu:.2f}",
            "1.5",
        ),
        (
            "work inside the assets / plain script",
            f"{work.work_wall / own.work_wall:.2f}",
            f"{work.work_cpu / own.work_cpu:.2f}",
            "1.5",
        ),
        (
            "the same, had the script called dbt (+ one `dbt compile`)",
            f"{work.work_wall / (own.work_wall + plain.dbt.wall):.2f}",
            f"{work.work_cpu / (own.work_cpu + plain.dbt.cpu):.2f}",
            "1.5",
        ),
    ]
    candles = product.lake.read("candles", columns=["day"]).height
    return (
        f"## The graph on {market.about}\n\n"
        f"{len(product.settings.tickers)} tickers, {candles:,} candles, {cells:,} cells an asset "
        f"from {product.settings.partitions.first_day} to {LAST}. Medians of {len(following)} "
        f"(from empty: once). {_START_UP}\n\n"
        + _table(["run", "wall s", "CPU s", "peak MB (sum of processes)", "target"], rows)
        + "\n\n"
        + _table(["ratio", "wall", "CPU", "target"], ratios)
        + "\n"
    )


def _line(name: str, usages: Sequence[Usage], target: str) -> tuple[str, ...]:
    return (
        name,
        f"{middle([usage.wall for usage in usages]):.1f}",
        f"{middle([usage.cpu for usage in usages]):.1f}",
        f"{max(usage.peak_bytes for usage in usages) / _MB:,.0f}",
        target,
    )


def _report_steps(whole: Run, following: Sequence[Run], plain: PlainRuns) -> str:
    rows = []
    for name in (START_UP, *STEPS, CHECKS, END):
        cost = whole.steps[name]
        own = plain.parts.get(name)
        work = [f"{cost.work_wall:.1f}", f"{cost.work_cpu:.1f}"] if own else ["", ""]
        rows.append(
            (
                name,
                f"{cost.wall:.1f}",
                f"{cost.cpu:.1f}",
                *work,
                f"{own.wall:.1f}" if own else "",
                f"{own.cpu:.1f}" if own else "",
                f"{middle([run.steps[name].wall for run in following]):.1f}",
                f"{middle([run.steps[name].cpu for run in following]):.1f}",
            )
        )
    head = ["step", "wall s", "CPU s", "work wall", "work CPU", "plain wall", "plain CPU"]
    return (
        "## By step\n\n"
        "Wall from the event log, CPU from the processes at 20 Hz. Work is what the asset itself "
        "does, without Dagster's recording of cells; dbt is work throughout.\n\n"
        + _table([*head, "next day wall", "next day CPU"], rows)
        + "\n"
    )


def _report_storage(product: Product, market: Market, log_bytes: int, cells: int) -> str:
    before = {name: sum(table_sizes(product.lake, name)) for name in TABLES}
    _say("maintain")
    product.command("maintain")
    rows = []
    for name in TABLES:
        held = product.lake.read(name, columns=["day"]).height
        if held:
            after = sum(table_sizes(product.lake, name))
            rows.append((name, f"{held:,}", f"{before[name] / held:.1f}", f"{after / held:.1f}"))
    text = market.candles.write_csv().encode()
    return (
        "## Size\n\n"
        + _table(["table", "rows", "bytes a row", "after `stock-assets maintain`"], rows)
        + f"\n\nThe same candles as CSV: {len(text) / market.candles.height:.1f} bytes a row "
        f"(target for `candles`: 24). Event log: {log_bytes / _MB:,.0f} MB, "
        f"{log_bytes / cells / ASSETS:,.0f} bytes a cell and asset.\n"
    )


def _report_rows(product: Product, plain: PlainRuns) -> str:
    reasons = (
        product.lake.read("quarantine")
        .with_columns(pl.col("reason").str.replace_all(r"-?\d+(\.\d+)?", "N"))["reason"]
        .value_counts(sort=True)
        .head(10)
    )
    aside = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.iter_rows())
    found = summarise(product.lake.read("scores"))
    total = found.total
    t = "" if total.pinball_t is None else f" (t {total.pinball_t:.1f})"
    decisions = product.lake.read("models").filter(pl.col("challenger").is_not_null())
    trainings = decisions.select("day", "challenger").n_unique()
    return (
        "## Rows and forecasts\n\n"
        f"- Quarantined: {aside or 'nothing'}.\n"
        f"- Pinball skill {total.pinball_skill:+.2f} % over the baseline{t} on "
        f"{total.forecasts:,} forecasts of {total.days} days; coverage of the 80 % interval "
        f"{total.coverage_80:.1%} (baseline {total.baseline_coverage_80:.1%}), of the 90 % "
        f"interval {total.coverage_90:.1%} (baseline {total.baseline_coverage_90:.1%}).\n"
        f"- {trainings} trainings; the plain script {plain.trainings}. Largest difference between "
        f"a forecast return of the graph and of the plain script: "
        f"{plain.largest_difference:.1e}.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machine(words: str) -> str:
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    moment = dt.datetime.now(tz=dt.UTC)
    return f"{words}: {loads} on {os.cpu_count()} processors, {moment:%Y-%m-%d %H:%M} UTC.\n"


def _environment() -> dict[str, str]:
    """The environment without a developer's own settings, which would change what is run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


_OURS = ("STOCK_ASSETS_", "DAGSTER_")


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _say(text: str) -> None:
    print(f"bench: {text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
