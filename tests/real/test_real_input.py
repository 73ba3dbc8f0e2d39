"""Real candles through the whole graph by the command line: nothing lost, everything forecast."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.forecasting.scoring import Summary, summarise
from stock_assets.lake.store import Lake

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Lakehouse:
    """A settings file over one real file, and the lake that runs make of it."""

    file: Path
    source: Path

    def command(self, *arguments: str) -> str:
        program = Path(sys.executable).with_name("stock-assets")
        done = subprocess.run(
            [str(program), *arguments, "--settings", str(self.file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, first: str, last: str) -> None:
        self.command("run", "--from", first, "--to", last)

    def table(self, name: str) -> pl.DataFrame:
        return Lake(self.file.parent / "data" / "lake").read(name)

    def rows_in(self, last: str) -> int:
        day = dt.date.fromisoformat(last)
        return pl.read_parquet(self.source).filter(pl.col("timestamp").dt.date() <= day).height

    def assert_nothing_lost(self, last: str) -> None:
        stored = self.table("candles").height + self.table("quarantine").height
        assert stored == self.rows_in(last)

    def summary(self) -> Summary:
        return summarise(self.table("scores"))


@pytest.fixture
def lakehouse(tmp_path: Path, shared_data: Path) -> Callable[..., Lakehouse]:
    def make(name: str, first_day: str, exchange: str, splits: str = "") -> Lakehouse:
        source = shared_data / name
        tickers = pl.read_parquet(source)["ticker"].unique().sort().to_list()
        file = tmp_path / "real.toml"
        file.write_text(
            f"""
[lake]
path = "data"
{splits}
[partitions]
first_day = {first_day}
[[universe]]
tickers = {json.dumps(tickers)}
source = "real"
exchange = "{exchange}"
[sources.real]
kind = "files"
path = {json.dumps(str(source))}
[forecast]
cadence = 63
"""
        )
        return Lakehouse(file, source)

    return make


def test_fifty_moscow_stocks_with_half_a_year_of_cells_then_the_next_day(
    lakehouse: Callable[..., Lakehouse], shared_data: Path
) -> None:
    splits = f"splits = {json.dumps(str(shared_data / 'splits'))}"
    moex = lakehouse("moex_daily_dev_tqbr.parquet", "2026-01-05", "XMOS", splits)
    moex.run("2026-01-05", "2026-06-29")
    moex.assert_nothing_lost("2026-06-29")
    bars, forecasts = moex.table("bars"), moex.table("forecasts")
    assert bars.height == moex.table("features").height == moex.table("candles").height
    cells = bars.filter(pl.col("day") >= dt.date(2026, 1, 5)).height
    assert cells > 6_000
    assert forecasts.height == 5 * cells
    # The years of history stand behind the cells: models answer from the first of them on, but
    # for a ticker on a day when nothing of it has moved for weeks.
    assert forecasts["day"].min() == dt.date(2026, 1, 5)
    assert (forecasts["model"] != "baseline").mean() > 0.99
    split = bars.filter(ticker="GMKN").sort("day")
    moves = (split["close"] / split["close"].shift(1)).log().abs()
    assert moves.max() < 0.5
    total = moex.summary().total
    assert total.forecasts > 28_000
    assert total.pinball_skill > 0
    assert 0.76 < total.coverage_80 < 0.84
    assert 0.87 < total.coverage_90 < 0.93

    moex.run("2026-06-30", "2026-06-30")
    moex.assert_nothing_lost("2026-06-30")
    assert moex.table("forecasts").height == forecasts.height + 5 * 50


def test_five_minute_candles_become_the_daily_bars(
    lakehouse: Callable[..., Lakehouse], shared_data: Path
) -> None:
    minutes = lakehouse("moex_5min_finam.parquet", "2019-12-02", "XMOS")
    minutes.run("2019-12-02", "2019-12-30")
    minutes.assert_nothing_lost("2019-12-30")
    bars = minutes.table("bars")
    assert bars["candles"].median() > 90
    daily = pl.read_parquet(shared_data / "moex_daily_dev_tqbr.parquet").select(
        "ticker", day=pl.col("timestamp").dt.date(), daily_high="high"
    )
    both = bars.join(daily, on=["ticker", "day"])
    assert both.height > 2_000
    same = (both["raw_high"] / both["daily_high"] - 1).abs() < 1e-9
    assert same.mean() >= 0.98
    assert minutes.table("forecasts").height > 0
