"""What forecasts alone cost: `python bench/predict.py SETTINGS.toml [--days 250]`.

On a lake that has bars, features and models (a folder of `make bench`, or any of yours): forecasts
every cell of its last days as the asset `forecasts` does, without Dagster and without writing, and
prints a JSON object: cells, horizons, and wall and CPU seconds of reading the lake, of loading the
models and of each of three predictions. A run pays the first two whatever it predicts.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.baseline import BASELINE, lookback_start
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, latest_before, rows
from stock_assets.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _clocked() -> Iterator[dict[str, float]]:
    """What the block cost, in wall and CPU seconds of this process: there when it is over."""
    cost: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main() -> None:
    """Read, load the models, predict three times; the figures go to stdout."""
    parser = argparse.ArgumentParser(description="What forecasts alone cost.")
    parser.add_argument("settings", type=Path, help="settings of a lake with models")
    parser.add_argument("--days", type=int, default=250, help="last sessions that are forecast")
    options = parser.parse_args()
    settings = load_settings(options.settings)
    with _clocked() as reading, connect(Lake(settings.lake_dir)) as connection:
        days = connection.sql("select distinct day from models order by day desc").fetchall()
        first, last = days[: options.days][-1][0], days[0][0]
        start = lookback_start(settings.exchanges, first)
        bars = rows(connection, "bars", start, last)
        features = rows(connection, "features", start, last)
        within = rows(connection, "models", first, last)
        models = pl.concat([latest_before(connection, "models", first), within])
    registry = Registry(settings.mlflow_dir)
    with _clocked() as loading:
        known = [name for name in models["model"].unique().sort() if name != BASELINE]
        loaded = {name: registry.load(name) for name in known}
    cells = bars.filter(pl.col("day") >= first).select("day", "ticker")
    horizons, versions = settings.forecast.horizons, LakeVersions(0, 0, 0)
    predictions = []
    for _ in range(3):
        with _clocked() as predicting:
            make_forecasts(cells, bars, features, models, loaded.get, horizons, versions)
        predictions.append(predicting)
    found = {
        "cells": cells.height,
        "horizons": len(horizons),
        "reading": reading,
        "loading": loading,
        "predictions": predictions,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
