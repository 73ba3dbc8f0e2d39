"""A lake in a temporary folder, and rows to put there."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from stock_assets.lake.schemas import Drift
from stock_assets.lake.store import Lake

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def drift_rows():
    """Rows of `drift`: one a (day, ticker), all with the given distance."""

    def drift_rows(days, tickers, distance: float = 1.0) -> pl.DataFrame:
        cells = [(day, ticker) for day in days for ticker in tickers]
        frame = pl.DataFrame(
            {
                "day": [day for day, _ in cells],
                "ticker": [ticker for _, ticker in cells],
                "feature": ["ret_1d"] * len(cells),
                "distance": [float(distance)] * len(cells),
                "threshold": [1.0] * len(cells),
                "drifted": [distance > 1] * len(cells),
                "kind": ["data"] * len(cells),
                **{name: [0.5] * len(cells) for name in ("ticker_alarm", "market_alarm")},
                "sector_alarm": [None] * len(cells),
                **{name: [None] * len(cells) for name in ("market_tickers", "sector_tickers")},
                "reference_rows": [250] * len(cells),
                "current_rows": [20] * len(cells),
            },
            schema_overrides={"day": pl.Date, "ticker": pl.String},
        )
        return Drift.validate(frame, cast=True).sort("day", "ticker")

    return drift_rows


@pytest.fixture
def day():
    """The n-th day from 2024-12-20 on: two years within a few."""

    def day(number: int) -> dt.date:
        return dt.date(2024, 12, 20) + dt.timedelta(number)

    return day


@pytest.fixture
def start():
    """Start a Python program of the test beside it; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
