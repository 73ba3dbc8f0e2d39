"""Large CSV files in little memory: 200 MB read whole, 1 GB looked at in the inbox."""

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


def write_candles(file: Path, rows: int, year: int) -> None:
    """So many candles of a minute from a year on, a little less than 60 bytes each."""
    stamps = pl.datetime_range(
        pl.datetime(year, 1, 1), pl.datetime(2022, 1, 1), interval="1m", eager=True
    ).head(rows)
    price = 100 + (pl.int_range(rows, eager=True) % 977) / 100
    pl.DataFrame(
        {
            "timestamp": stamps,
            "open": price,
            "high": price + 0.25,
            "low": price - 0.25,
            "close": price + 0.125,
            "volume": pl.int_range(rows, eager=True) % 5_000 + 1_000_000,
        }
    ).write_csv(file, datetime_format="%Y-%m-%d %H:%M:%S")


def test_every_row_of_200_mb_arrives_within_two_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "BIG.csv"
    write_candles(file, ROWS, 2012)
    assert file.stat().st_size > 180e6
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    candles, quarantined, held_back, peak = json.loads(done.stdout)
    assert candles + quarantined + held_back == ROWS
    assert candles == ROWS
    assert peak < 2e9


LOOK = """
import datetime as dt, json, os, sys
from pathlib import Path
from stock_assets.settings import Settings
from stock_assets.sources.arrivals import look
from stock_assets.sources.inbox import Inbox, State

lake = Path(sys.argv[1])
settings = Settings(
    lake={"path": lake},
    partitions={"first_day": dt.date(2024, 1, 2)},
    universe=[{"ticker": "BIG", "source": "mine", "exchange": "24/7"}],
    sources={"mine": {"kind": "files", "path": lake / "inbox"}},
)
os.utime(lake / "inbox" / "BIG.csv", (1, 1))
state = State()
for _ in range(2):
    state, said = look(Inbox(settings.inbox_dir), settings, state, dt.datetime.now(tz=dt.UTC))
own = state.notes["BIG.csv"].arrived.sources["mine"]
status = Path("/proc/self/status").read_text().split()
peak = int(status[status.index("VmHWM:") + 1]) * 1024
print(json.dumps([own.rows, str(own.first), str(own.last), peak]))
"""


def test_a_look_at_a_gigabyte_in_the_inbox_takes_less_than_three_times_its_size(
    tmp_path: Path,
) -> None:
    file = tmp_path / "inbox" / "BIG.csv"
    file.parent.mkdir()
    rows = 17_700_000
    write_candles(file, rows, 1985)
    assert file.stat().st_size > 1e9
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, first, last, peak = json.loads(done.stdout)
    assert (found, first, last) == (rows, "1985-01-01", "2018-08-27")
    assert peak < 3 * file.stat().st_size
