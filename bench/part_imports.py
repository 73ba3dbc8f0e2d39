"""What a process pays before it works: each import that runs need, in the order a run meets them.

One fresh Python for each turn loads them one after the other, so that what two packages share is
the first one's. What a run then does with them is in the next day's table, "start-up only".
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from measuring import measured, middle
from product import clean_environment
from tables import markdown_table, section

if TYPE_CHECKING:
    from pathlib import Path

    from results import Found, Results
    from scales import Scale

_STAGES = {
    "the command line": "import stock_assets.cli",
    "Dagster": "import dagster",
    "definitions: graph, partitions, checks, the parsed dbt manifest": (
        "from stock_assets.graph import build_definitions\n"
        "from stock_assets.settings import load_settings\n"
        "build_definitions(load_settings()).resolve_implicit_global_asset_job_def()"
    ),
    "dbt and its DuckDB adapter": "import dbt.cli.main, dbt.adapters.duckdb",
    "Evidently": "from evidently import Dataset, Report\nimport evidently.presets",
    "MLflow": "from mlflow import MlflowClient\nMlflowClient(tracking_uri='sqlite:///mlflow.db')",
    "CatBoost": "import catboost",
}
_NEEDED_BY = {
    "dbt and its DuckDB adapter": "runs of bars or features",
    "Evidently": "runs of drift",
    "MLflow": "runs of model, and of forecasts once there is one",
    "CatBoost": "the same",
}
_CLOCK = """
import json, time
costs, wall, cpu = {}, time.perf_counter(), 0.0
def told(name):
    global wall, cpu
    costs[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    wall, cpu = time.perf_counter(), time.process_time()
told("Python")
"""


def measure(scale: Scale, folder: Path, results: Results) -> None:
    """One process a turn; a turn before them makes what is kept in files."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = "\n".join(f"{code}\ntold({name!r})" for name, code in _STAGES.items())
    program = f"{_CLOCK}{stages}\nprint(json.dumps(costs))"
    for turn in range(scale.repeats + 1):
        name = f"turn {turn}" if turn else "turn before"
        results.of(name, lambda: _turn(program, folder))


def _turn(program: str, folder: Path) -> dict[str, Any]:
    usage = measured([sys.executable, "-c", program], clean_environment(), folder)
    costs: dict[str, Any] = json.loads(usage.stdout.splitlines()[-1])
    return costs


def report(found: Found) -> str:
    """One row a stage, medians."""
    turns = [costs for name, costs in found.items() if name != "turn before"]
    if not turns:
        return ""
    rows = [
        (
            f"{name} ({_NEEDED_BY[name]})" if name in _NEEDED_BY else name,
            *[f"{middle([costs[name][what] for costs in turns]):.2f}" for what in ("wall", "cpu")],
        )
        for name in turns[0]
    ]
    return section(
        "What a process pays before it works",
        markdown_table(["loaded, in this order", "wall s", "CPU s"], rows),
        f"Medians of {len(turns)} processes; each row is what it adds to those above it.",
    )
