"""The client of MOEX ISS when everything goes wrong at once, or the run is killed."""

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

import pytest
from api_server import EACH_FAULT, ApiServer
from moex_server import Iss, Listing, Row, candle, moex_settings

from stock_assets.calendars import get_calendar
from stock_assets.errors import SourceError
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice, fetched_slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from stock_assets.settings import Settings

pytestmark = pytest.mark.slow

TICKERS = ("AFLT", "GAZP", "LKOH", "NVTK", "SBER")
BEGIN, FIRST, LAST = dt.date(2014, 1, 6), dt.date(2022, 4, 1), dt.date(2024, 3, 29)
DAYS = get_calendar("XMOS").between(FIRST, LAST)
AREA = Slice(FIRST, LAST, TICKERS)

FETCHES = """
import sys
from pathlib import Path
from test_moex_storms import AREA, TICKERS, settings
from stock_assets.sources.fetching import fetched_slice
with fetched_slice(settings(Path(sys.argv[1]), sys.argv[2], rate=15.0), AREA):
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
        lake, url, universe, interval="10m", requests_per_second=rate, attempts=attempts,
        first_wait=0.002,
    )  # fmt: skip


def closes(candles: pl.DataFrame) -> dict[str, list[float]]:
    found = candles.sort("ticker", "start").group_by("ticker", maintain_order=True).agg("close")
    return dict(found.iter_rows())


WANTED = {ticker: [row[1] for row in rows_of(place)] for place, ticker in enumerate(TICKERS)}


def test_a_storm_of_faults_leaves_the_candles_as_they_are(tmp_path: Path) -> None:
    days = get_calendar("XMOS").between(BEGIN, LAST)
    with market(days).serve() as server:
        # That a request has bad luck twenty times in a row: 0.4^20 is 1e-8.
        server.fail_at_random(0.4, *EACH_FAULT)
        found = fetch_slice(settings(tmp_path, server.url), Slice(BEGIN, LAST, TICKERS))
        assert len(server.seen) > 1000
        faults = {item.fault for item in server.seen}
        assert server.busiest(2.0) <= 140, "100, and what a busy machine bunches"
    assert faults == {"", *(fault.kind for fault in EACH_FAULT)}
    assert found.quarantine.is_empty()
    wanted = {name: [row[1] for row in rows_of(at, days)] for at, name in enumerate(TICKERS)}
    assert closes(found.candles) == wanted


def test_a_storm_that_does_not_pass_is_an_error_that_names_tickers(tmp_path: Path) -> None:
    area = Slice(dt.date(2024, 1, 9), LAST, TICKERS)
    with market().serve() as server:
        server.fail_at_random(0.5, *EACH_FAULT)
        with pytest.raises(SourceError) as caught:
            fetch_slice(settings(tmp_path, server.url, attempts=1), area)
    assert any(ticker in str(caught.value) for ticker in TICKERS)


def test_a_killed_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    with market().serve() as server:
        finished = killed_in_the_middle(tmp_path, server)
        before = len(server.seen)
        with fetched_slice(settings(tmp_path, server.url), AREA) as found:
            pass
        after = {
            f"{item.path.split('/')[-2]}/candles 10m {item.query['from']}..{item.query['till']}"
            for item in server.seen[before:]
            if item.path.endswith("/candles.json")
        }
    assert closes(found.candles) == WANTED
    assert after
    assert not after & {name.partition(" of ")[0] for name in finished}


def killed_in_the_middle(lake: Path, server: ApiServer) -> set[str]:
    """What the killed run had finished, by the names of its pieces."""
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent / "servers"), *sys.path]
    run = subprocess.Popen(
        [sys.executable, "-c", FETCHES, str(lake), server.url],
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
