"""A small market in a file, and lakes that the whole graph is run on."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import polars as pl
import pytest

from stock_assets import cli
from stock_assets.graph import build_definitions
from stock_assets.lake.schemas import TABLES, lineage_columns
from stock_assets.lake.store import Lake
from stock_assets.launch import open_instance, prepare_home, run_slice
from stock_assets.partitions import Grid
from stock_assets.settings import Instrument, Settings, SimulatedSettings, load_settings
from stock_assets.slices import Slice
from stock_assets.sources.simulated import SimulatedSource

TICKERS = {"AAA": "XMOS", "BBB": "XMOS", "CCC": "XNYS", "DDD": "XNYS", "LATE": "XNYS"}
FIRST, LAST = dt.date(2025, 6, 2), dt.date(2025, 6, 9)
BEGIN = dt.date(2021, 6, 1)
SPLIT_DAY = BEGUN = dt.date(2025, 6, 4)


@dataclass(frozen=True)
class Told:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Market:
    """A settings file over a Parquet file of candles, with a lake of its own."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        return self.folder / "market.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_dir)

    def copied(self, folder: Path) -> Market:
        """The same lake elsewhere, to go on with."""
        return Market(shutil.copytree(self.folder, folder))

    def command(self, *arguments: str) -> list[str]:
        program = Path(sys.executable).with_name("stock-assets")
        return [str(program), *arguments, "--settings", str(self.settings_file)]

    def cli(self, *arguments: str) -> Told:
        """A command of the command line, in this process: to start one takes seconds."""
        out, err = io.StringIO(), io.StringIO()
        with (
            # The home is in the environment; the tests after this one must not see it.
            mock.patch.dict(os.environ),
            mock.patch.object(sys, "argv", self.command(*arguments)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = cli._run_app()
        return Told(code, out.getvalue(), err.getvalue())

    def run(
        self, first: dt.date, last: dt.date, *assets: str, tags: dict[str, str] | None = None
    ) -> None:
        """Materialize the whole universe from `first` to `last` in this process.

        Without pictures and pages, half of the work: tests/drift and tests/ui are about those.
        """
        grid = Grid.of(self.settings)
        area = grid.slice(first, last, self.settings.tickers)
        # The home is in the environment; the tests after this one must not see it.
        with (
            mock.patch.dict(os.environ),
            mock.patch("stock_assets.assets.drifting.write_pages", return_value=[]),
            mock.patch("stock_assets.drift.drawing.Drawer.start"),
            mock.patch("stock_assets.assets.modelling.fan_picture", return_value=b""),
        ):
            prepare_home(self.settings, self.settings_file)
            with open_instance() as instance:
                definitions = build_definitions(self.settings)
                outcome = run_slice(definitions, instance, grid, area, assets=assets, tags=tags)
        assert outcome.success, outcome.errors

    def tables(self, last: dt.date = dt.date.max) -> dict[str, pl.DataFrame]:
        """All rows up to `last`, without the columns that say which versions they came from."""
        found = {}
        for name, schema in TABLES.items():
            rows = self.lake.read(name).filter(pl.col("day") <= last)
            found[name] = rows.drop(lineage_columns(schema))
        return found

    def versions(self) -> dict[str, int | None]:
        return {name: self.lake.version(name) for name in TABLES}


def assert_same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> None:
    """Every table, every column, to the last bit."""
    for name, rows in one.items():
        assert rows.columns == other[name].columns
        differing = [
            column
            for column in rows.columns
            if rows.height != other[name].height
            or not rows[column].equals(other[name][column], null_equal=True)
        ]
        assert not differing, f"{name} differs in {differing}"


def candles() -> pl.DataFrame:
    """Four years of daily candles: a split, a late starter, rows that break the rules.

    Enough for a model to pass the gate, on these days and with this seed.
    """
    own = SimulatedSettings(
        kind="simulated", seed=13, begin=BEGIN, regime_change=dt.date(2025, 5, 20), interval="1d"
    )
    instruments = [
        Instrument(ticker=name, source="market", exchange=exchange)
        for name, exchange in TICKERS.items()
    ]
    area = Slice(None, LAST, tuple(TICKERS))
    raw = SimulatedSource("market", own).fetch(instruments, area)
    rows = raw.select(
        "ticker",
        timestamp="start",
        **{name: name for name in ("open", "high", "low", "close", "volume")},
    ).sort("ticker", "timestamp")
    split = (pl.col("ticker") == "AAA") & (pl.col("timestamp").dt.date() >= SPLIT_DAY)
    late = (pl.col("ticker") == "LATE") & (pl.col("timestamp").dt.date() < dt.date(2025, 4, 1))
    rows = rows.filter(~late).with_columns(
        pl.when(split).then(pl.col(name) / 10).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    )
    # One bad row in history, one within the cells.
    bad = rows.filter(
        (pl.col("ticker") == "BBB")
        & pl.col("timestamp").dt.date().is_in([dt.date(2024, 3, 5), dt.date(2025, 6, 5)])
    ).with_columns(high=pl.col("low") / 2)
    # In the order of time, as a feed appends: cutting the file leaves row numbers alone.
    return pl.concat([rows, bad]).sort("timestamp", "ticker")


def make_market(folder: Path, rows: pl.DataFrame) -> Market:
    """Write the market's file, splits and settings into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "candles.parquet")
    (folder / "splits.csv").write_text(f"ticker,date,before,after\nAAA,{SPLIT_DAY},1,10\n")
    by_exchange: dict[str, list[str]] = {}
    for name, exchange in TICKERS.items():
        by_exchange.setdefault(exchange, []).append(name)
    universe = "\n".join(
        f'[[universe]]\ntickers = {json.dumps(names)}\nsource = "market"\nexchange = "{exchange}"'
        for exchange, names in by_exchange.items()
    )
    (folder / "market.toml").write_text(
        f"""
[lake]
path = "data"
splits = "splits.csv"
[partitions]
first_day = {FIRST}
{universe}
[sources.market]
kind = "files"
path = "candles.parquet"
interval = "1d"
[forecast]
cadence = 3
cooldown = 1
min_training_rows = 300
[drift]
universe_share = 0.2
"""
    )
    return Market(folder)


@pytest.fixture(scope="session")
def market_rows() -> pl.DataFrame:
    return candles()


@pytest.fixture(scope="session")
def one_range(tmp_path_factory: pytest.TempPathFactory, market_rows: pl.DataFrame) -> Market:
    """The lake after one run over all days: what every other way is compared with."""
    market = make_market(tmp_path_factory.mktemp("one_range"), market_rows)
    market.run(FIRST, LAST)
    return market


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, market_rows: pl.DataFrame) -> Market:
    """A lake of the first days, to BEGUN. To be read only: go on with a copy."""
    market = make_market(tmp_path_factory.mktemp("begun"), market_rows)
    market.run(FIRST, BEGUN)
    return market


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory, market_rows: pl.DataFrame) -> Market:
    """A lake as evenings made it, one run a day. To be read only."""
    market = make_market(tmp_path_factory.mktemp("lived"), market_rows)
    for day in days_of(market):
        market.run(day, day)
    return market


def days_of(market: Market) -> list[dt.date]:
    """Its partition days from FIRST to LAST."""
    return [day for day in Grid.of(market.settings).days() if FIRST <= day <= LAST]
