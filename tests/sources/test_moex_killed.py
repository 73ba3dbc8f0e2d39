"""The client of MOEX ISS when the run is killed."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from ingest_run import ingest, ingested
from moex_server import Iss, Listing, Row, candle, moex_settings

from stock_assets.calendars import get_calendar
from stock_assets.lake.store import Lake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api_server import ApiServer

    from stock_assets.settings import Settings

pytestmark = pytest.mark.slow

TICKERS = ("AFLT", "GAZP", "LKOH", "NVTK", "SBER")
# All but the last day is history of the first cells, which is fetched with them.
FIRST, LAST = dt.date(2022, 4, 1), dt.date(2024, 3, 29)
DAYS = get_calendar("XMOS").between(FIRST, LAST)

INGESTS = """
import sys
from pathlib import Path
import dagster as dg
from ingest_run import ingest
from test_moex_killed import LAST, settings
with dg.DagsterInstance.ephemeral() as instance:
    ingest(settings(Path(sys.argv[1]), sys.argv[2], rate=15.0), instance, LAST, LAST)
sys.exit("should have been killed by now")
"""


def rows_of(place: int, days: Sequence[dt.date] = DAYS) -> list[Row]:
    """A candle a day, of ten minutes, other ones for each ticker."""
    return [
        candle(f"{day} 1{place}:00:00", 100.0 * place + number + 10, minutes=10)
        for number, day in enumerate(days)
    ]


def market(days: Sequence[dt.date] = DAYS) -> Iss:
    return Iss(
        {
            ticker: [
                Listing("TQBR", {10: rows_of(place, days)}, is_primary=1, history_from="2013-03-25")
            ]
            for place, ticker in enumerate(TICKERS)
        }
    )


def settings(lake: Path, url: str, *, rate: float = 50.0, attempts: int = 20) -> Settings:
    universe = [{"ticker": ticker, "source": "moex"} for ticker in TICKERS]
    return moex_settings(
        lake, url, universe, first_day=LAST, interval="10m", begin=FIRST,
        requests_per_second=rate, attempts=attempts, first_wait=0.002,
    )  # fmt: skip


def test_a_killed_ingest_goes_on_where_it_was_and_ends_in_the_same_lake(tmp_path: Path) -> None:
    with market().serve() as server, dg.DagsterInstance.ephemeral() as instance:
        calm, killed = (settings(tmp_path / name, server.url) for name in ("calm", "killed"))
        assert ingest(calm, instance, LAST, LAST).success
        finished = killed_in_the_middle(tmp_path / "killed", server)
        assert Lake(killed.lake_dir).version("candles") is None
        before = len(server.seen)
        assert ingest(killed, instance, LAST, LAST).success
        after = {
            f"{item.path.split('/')[-2]}/candles 10m {item.query['from']}..{item.query['till']}"
            for item in server.seen[before:]
            if item.path.endswith("/candles.json")
        }
    assert after
    assert not after & {name.partition(" of ")[0] for name in finished}
    wanted, found = ingested(calm), ingested(killed)
    assert wanted["candles"].height == len(TICKERS) * len(DAYS)
    for name, rows in wanted.items():
        assert found[name].equals(rows), name


def killed_in_the_middle(lake: Path, server: ApiServer) -> set[str]:
    """What the killed run had finished, by the names of its pieces."""
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent / "servers"), *sys.path]
    run = subprocess.Popen(
        [sys.executable, "-c", INGESTS, str(lake), server.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    folder = lake / "fetched" / "moex"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.zip"))) < 10:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = set()
    for file in folder.glob("*.zip"):
        with zipfile.ZipFile(file) as piece:
            finished.add(json.loads(piece.read("about.json"))["asked"])
    assert len(finished) < 13 * len(TICKERS)
    return finished
