"""A CSV of 200 MB is read whole, within the memory of a laptop."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc"),
]

ROWS = 3_250_000
READ = """
import datetime as dt, json, sys
from pathlib import Path
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice

settings = Settings(
    partitions={"first_day": dt.date(2024, 1, 2)},
    universe=[{"ticker": "BIG", "source": "mine", "exchange": "24/7"}],
    sources={"mine": {"kind": "files", "path": Path(sys.argv[1])}},
)
found = fetch_slice(settings, Slice(None, dt.date(2026, 1, 1), ("BIG",)))
# Not getrusage's ru_maxrss: that begins with what the process had that started this one.
status = Path("/proc/self/status").read_text().split()
peak = int(status[status.index("VmHWM:") + 1]) * 1024
print(json.dumps([found.candles.height, found.quarantine.height, found.held_back, peak]))
"""


def test_every_row_of_200_mb_arrives_within_two_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "BIG.csv"
    stamps = pl.datetime_range(
        pl.datetime(2015, 1, 1), pl.datetime(2022, 1, 1), interval="1m", eager=True
    ).head(ROWS)
    price = 100 + (pl.int_range(ROWS, eager=True) % 977) / 100
    pl.DataFrame(
        {
            "timestamp": stamps,
            "open": price,
            "high": price + 0.25,
            "low": price - 0.25,
            "close": price + 0.125,
            "volume": pl.int_range(ROWS, eager=True) % 5_000 + 1_000_000,
        }
    ).write_csv(file, datetime_format="%Y-%m-%d %H:%M:%S")
    assert file.stat().st_size > 180e6
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    candles, quarantined, held_back, peak = json.loads(done.stdout)
    assert candles + quarantined + held_back == ROWS
    assert candles == ROWS
    assert peak < 2e9
