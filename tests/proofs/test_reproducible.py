"""The same inputs give the same forecasts to the last bit: in any process, however it works.

Processes differ in the seed of Python's hashes, in how many threads Polars, DuckDB and OpenMP have,
and in the order in which rows reach them; through fitting, calibration, the gate and forecasts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from stock_assets.lake.dbt_project import DBT_PROJECT_DIR

from .chain import Links, Story, assert_same, honest, in_force, plant, tell
from .markets import MEAN_REVERTING, simulate

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]

TELL = """
import hashlib, json, sys
import polars as pl
from tests.forecasting.conftest import simulate_bars
from tests.proofs.chain import Links, forecast, in_force, tell

order = int(sys.argv[1])

def mixed(rows):
    return rows.sample(fraction=1.0, shuffle=True, seed=order) if order else rows

def models(cells, features, bars, *rest):
    return in_force(mixed(cells), mixed(features), mixed(bars), *rest)

def forecasts(cells, features, bars, models, registry):
    return forecast(mixed(cells), mixed(features), mixed(bars), mixed(models), registry)

bars = simulate_bars(list("ABCDEF"), 420)
days = bars["day"].unique().sort().to_list()[300:352]
told = tell(bars, days, links=Links(models=models, forecasts=forecasts))
digests = {
    name: hashlib.sha256(rows.write_ndjson().encode()).hexdigest() for name, rows in told.items()
}
by_model = told["forecasts"].filter(pl.col("model") != "baseline")["model"].n_unique()
print(json.dumps({"digests": digests, "models": by_model}))
"""

ONE = {
    "PYTHONHASHSEED": "1",
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
OTHER = dict.fromkeys(ONE, "7") | {"PYTHONHASHSEED": "4242"}


def told_by_a_process(environment: dict[str, str], order: int = 0) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(order)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def first() -> dict[str, object]:
    told = told_by_a_process(ONE)
    assert told["models"], "no model forecast anything"
    return told


@pytest.mark.parametrize(
    ("environment", "order"), [(ONE, 0), (OTHER, 0), (OTHER, 31)], ids=["again", "threads", "order"]
)
def test_another_process_says_the_same(first, environment, order) -> None:
    assert told_by_a_process(environment, order) == first


def test_a_mean_in_the_order_of_arrival_is_caught(market, monkeypatch) -> None:
    """The comparison sees a last bit: rows that are not put in order before they are summed."""
    product = honest("rows of a training")

    def in_order_of_arrival(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
        arrived = features.select("day", "ticker")
        rows = product(features, labelled)
        return arrived.join(rows, on=["day", "ticker"], maintain_order="left")

    def mixed(cells: pl.DataFrame, features: pl.DataFrame, *rest: object) -> pl.DataFrame:
        return in_force(cells, features.sample(fraction=1.0, shuffle=True, seed=31), *rest)

    days = market["day"].unique().sort().to_list()[300:303]
    assert_same(tell(market, days), tell(market, days, links=Links(models=mixed)))
    plant(monkeypatch, "rows of a training", in_order_of_arrival)
    with pytest.raises(AssertionError, match=r"^(models|forecasts) differs"):
        assert_same(tell(market, days), tell(market, days, links=Links(models=mixed)))


@pytest.mark.parametrize("threads", [1, 7])
def test_duckdbs_threads_make_no_difference_to_features(new_warehouse, tmp_path, threads) -> None:
    """Nor does the order of the candles: sums are of integers."""
    bars = simulate(MEAN_REVERTING, 4, 300, seed=6)
    start = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    candles = bars.select(
        "day", "ticker", "interval", start.alias("start"), "open", "high", "low", "close",
        "volume", pl.lit("made").alias("source"),
    )  # fmt: skip
    project = tmp_path / "dbt"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    profile = project / "profiles.yml"
    place = "      config_options:\n"
    assert place in profile.read_text()
    said = profile.read_text().replace(place, f"{place}        threads: {threads}\n")
    profile.write_text(said)
    stories: list[Story] = []
    for where in (DBT_PROJECT_DIR, project):
        warehouse = new_warehouse(
            dict.fromkeys(candles["ticker"].unique(), "weekdays"), None, where
        )
        warehouse.put(candles.sample(fraction=1.0, shuffle=True, seed=len(stories)))
        last = candles["day"].max()
        warehouse.build(None, last, None, "--select", "bars features")
        stories.append({name: warehouse.table(name, None, last) for name in ("bars", "features")})
    assert_same(*stories)
    assert stories[0]["features"].height == bars.height
