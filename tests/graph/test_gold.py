"""Gold of the Bank of Russia end to end: its API, the command line, the whole graph, the lake."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from api_server import Fault
from cbr_server import GUARD, CbrServer

from stock_assets.calendars import CBR, get_calendar
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import Lake
from stock_assets.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

FIRST, LAST = dt.date(2025, 2, 8), dt.date(2025, 2, 18)
UNPUBLISHED = dt.date(2025, 2, 13)


@pytest.fixture
def gold(shared_data: Path) -> dict[dt.date, float]:
    """The real series, by day."""
    rows = pl.read_parquet(shared_data / "gold_cbr_daily.parquet")
    return dict(rows.select(pl.col("timestamp").dt.date(), "close").iter_rows())


def command(server: CbrServer, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`stock-assets` over a lake in `folder` whose GOLD comes from the server."""
    file = folder / "market.toml"
    file.write_text(
        f"""
[lake]
path = "data"
[partitions]
first_day = {FIRST}
[[universe]]
ticker = "GOLD"
symbol = "XAU"
source = "cbr"
[sources.cbr]
kind = "cbr"
base_url = "{server.url}"
requests_per_second = 50
attempts = 2
first_wait = 0.01
[forecast]
window = 500
min_training_rows = 300
""",
        encoding="utf-8",
    )
    program = os.path.join(os.path.dirname(sys.executable), "stock-assets")  # noqa: PTH118, PTH120
    return subprocess.run(
        [program, *words, "--settings", str(file)],
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip


def tables(folder: Path) -> dict[str, pl.DataFrame]:
    lake = Lake(load_settings(folder / "market.toml").lake_dir)
    return {name: lake.read(name) for name in TABLES}


def runs(server: CbrServer, folder: Path) -> list[str]:
    """How the runs of the lake ended, newest first."""
    shown: dict[str, Any] = json.loads(command(server, folder, "status", "--json").stdout)
    return [run["status"] for run in shown["runs"]]


@pytest.mark.slow
@pytest.mark.timeout(600)  # 25 s of processor, which other tests share
def test_gold_is_forecast_and_scored_and_an_unpublished_day_is_named(
    gold: dict[dt.date, float], tmp_path: Path
) -> None:
    del gold[UNPUBLISHED]
    with CbrServer({"XAU": gold}) as server:
        done = command(server, tmp_path, "run", "--to", str(LAST))
    assert done.returncode == 0, done.stderr

    made = tables(tmp_path)
    assert dict(made["candles"].select("day", "close").iter_rows()) == gold
    assert made["quarantine"].is_empty()
    assert made["candles"]["volume"].null_count() == len(gold)
    assert made["bars"].height == len(gold)

    sessions = list(get_calendar(CBR).between(FIRST, LAST))
    published = [day for day in sessions if day != UNPUBLISHED]
    forecasts = made["forecasts"]
    assert forecasts["ticker"].unique().to_list() == ["GOLD"]
    assert forecasts["day"].unique().sort().to_list() == published
    assert forecasts.height == 5 * len(published)
    assert (forecasts["sigma"] > 0).all()
    # Rates are effective the day after a working day: Tuesday to Saturday, rarely Sunday.
    assert 1 not in set(forecasts["target_day"].dt.weekday())
    assert (forecasts["target_day"].dt.weekday() == 6).any()
    scored = made["scores"].filter(ticker="GOLD")
    assert LAST in scored["day"].to_list()
    assert made["models"]["day"].sort().to_list() == sessions

    # Never silence: the check of the run says which cell has nothing.
    assert "candles/complete" in done.stderr
    assert f"{len(published)} of {len(sessions)} expected cells have rows" in done.stderr


@pytest.mark.slow
def test_a_bank_that_fails_for_good_fails_the_run_visibly_and_nothing_is_written(
    gold: dict[dt.date, float], tmp_path: Path
) -> None:
    with CbrServer({"XAU": gold}) as server:
        server.fail_at_random(1.0, Fault("html", 403, body=GUARD))
        done = command(server, tmp_path, "run", "--to", str(LAST))
        assert done.returncode == 3
        for words in ("source cbr", "GOLD", "DDOS-GUARD", "requests_per_second", "failed"):
            assert words in done.stderr
        assert all(rows.is_empty() for rows in tables(tmp_path).values())
        lake = Lake(load_settings(tmp_path / "market.toml").lake_dir)
        assert {lake.version(name) for name in TABLES} == {None}

        # And when it answers again, the same command does it all.
        server.fail_at_random(0.0)
        done = command(server, tmp_path, "run", "--to", str(LAST), "--assets", "candles")
        assert done.returncode == 0, done.stderr
        assert tables(tmp_path)["candles"].height == len(gold)
        assert runs(server, tmp_path) == ["SUCCESS", "FAILURE"]
