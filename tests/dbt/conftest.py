"""A small market with every oddity the models must stand, and dbt runs over slices of it."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import get_calendar
from stock_assets.lake.dbt_project import BUILD_ARGUMENTS, DBT_PROJECT_DIR, ensure_manifest
from stock_assets.lake.dbt_request import build_request, requested
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

FIRST = dt.date(2023, 6, 1)
LAST = dt.date(2025, 1, 31)
CELLS_FROM = dt.date(2025, 1, 22)
SPLITS = (
    ("SPLT", dt.date(2024, 3, 5), 5.0, 1.0),
    ("SPLT", dt.date(2025, 1, 28), 1.0, 10.0),
    ("USAA", dt.date(2024, 12, 28), 1.0, 3.0),  # a Saturday
)
UNDECLARED = (("JUMP", dt.date(2024, 6, 10), 1.0, 4.0), ("JUMP", dt.date(2025, 1, 24), 10.0, 1.0))
DIVIDENDS = (
    ("CALM", dt.date(2023, 5, 2), 3.0),  # before any candle
    ("CALM", dt.date(2024, 5, 11), 5.0),  # a Saturday
    ("CALM", dt.date(2025, 1, 27), 4.0),
    ("INTR", dt.date(2024, 8, 1), 2.0),
    ("SPLT", dt.date(2024, 3, 5), 12.0),  # on the day of a split
    ("SPLT", dt.date(2025, 1, 30), 1.0),
    ("USBB", dt.date(2026, 1, 30), 999.0),  # to come
)
EXCHANGES = {
    **dict.fromkeys(["CALM", "GAPS", "HALT", "LATE", "SPLT", "INTR", "STUK"], "XMOS"),
    **dict.fromkeys(["USAA", "USBB"], "XNYS"),
    "GOLD": "weekdays",
    "JUMP": "XMOS",
}


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """tests/dbt/oracle.py; by its path, for test folders are no packages."""
    spec = importlib.util.spec_from_file_location("oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Warehouse:
    """A lake with candles, and dbt over it."""

    settings: Settings
    target: Path
    project: Path = DBT_PROJECT_DIR

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.lake_dir)

    @property
    def tickers(self) -> tuple[str, ...]:
        return self.settings.tickers

    def put(self, candles: pl.DataFrame) -> None:
        """Make these all candles of the lake."""
        self.lake.write("candles", candles, Slice(None, dt.date(2100, 1, 1), self.tickers))

    def build(
        self,
        first: dt.date | None,
        last: dt.date,
        tickers: Sequence[str] | None = None,
        *arguments: str,
    ) -> Any:
        """Build models and run data tests over a slice, as a run does; the invocation's result."""
        area = Slice(first, last, tuple(tickers or self.tickers))
        with requested(build_request(self.settings, area, run_id="a-run")):
            return self.dbt(*BUILD_ARGUMENTS, *arguments)

    def dbt(self, *arguments: str) -> Any:
        """Run dbt within this process: 0.5 s instead of 7."""
        from dbt.cli.main import dbtRunner  # noqa: PLC0415

        folders = {
            "--project-dir": self.project,
            "--profiles-dir": self.project,
            "--target-path": self.target,
            "--log-path": self.target,
        }
        options = [str(part) for pair in folders.items() for part in pair]
        result = dbtRunner().invoke(["--quiet", *arguments, *options])
        if not result.success:
            said = [str(node.message) for node in getattr(result.result, "results", [])]
            raise AssertionError(f"dbt {' '.join(arguments)}: {result.exception or said}")
        return result.result

    def table(self, name: str, first: dt.date | None = None, last: dt.date = LAST) -> pl.DataFrame:
        return self.lake.read(name, Slice(first, last, self.tickers))


@pytest.fixture(scope="session")
def parsed_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target folder with dbt's parsed project in it."""
    target = tmp_path_factory.mktemp("target")
    shutil.copy(ensure_manifest().with_name("partial_parse.msgpack"), target)
    return target


@pytest.fixture(scope="session")
def new_warehouse(tmp_path_factory: pytest.TempPathFactory, parsed_target: Path):
    """Make an empty warehouse over the market's tickers, or over others."""

    def make(
        exchanges: dict[str, str] = EXCHANGES,
        splits: Path | None = None,
        project: Path = DBT_PROJECT_DIR,
    ) -> Warehouse:
        folder = tmp_path_factory.mktemp("warehouse")
        if splits is None:
            splits = folder / "splits.csv"
            lines = [f"{name},{day},{before},{after}" for name, day, before, after in SPLITS]
            splits.write_text("\n".join(["ticker,date,before,after", *lines]))
        dividends = folder / "dividends.csv"
        paid = [",".join(map(str, row)) for row in DIVIDENDS if row[0] in exchanges]
        dividends.write_text("\n".join(["ticker,date,amount", *paid]))
        universe = "".join(
            f'[[universe]]\nticker = "{ticker}"\nexchange = "{exchange}"\nsource = "none"\n'
            for ticker, exchange in exchanges.items()
        )
        file = folder / "settings.toml"
        file.write_text(
            f'[lake]\nsplits = "{splits}"\ndividends = "{dividends}"\n'
            f"[partitions]\nfirst_day = {CELLS_FROM}\n"
            f'[sources.none]\nkind = "simulated"\n{universe}'
        )
        own = parsed_target if project == DBT_PROJECT_DIR else folder / "target"
        return Warehouse(load_settings(file), own, project)

    return make


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    """Candles of all tickers, FIRST to LAST."""
    return _candles()


@pytest.fixture(scope="session")
def whole(new_warehouse, market: pl.DataFrame) -> Warehouse:
    """Everything built by one run over the whole range. Read only."""
    warehouse = new_warehouse()
    warehouse.put(market)
    warehouse.build(None, LAST)
    return warehouse


def _candles() -> pl.DataFrame:
    rng = np.random.default_rng(20250131)
    rows: list[dict[str, object]] = []
    common: dict[dt.date, float] = {}
    for ticker, exchange in EXCHANGES.items():
        days = get_calendar(exchange).between(FIRST, LAST)
        price = 100.0
        for index, day in enumerate(days):
            move = 0.7 * common.setdefault(day, 0.01 * rng.standard_t(4)) + 0.01 * rng.normal()
            from_end = len(days) - index
            missing = (
                (ticker == "GAPS" and rng.random() < 0.2)
                or (ticker == "HALT" and (15 <= from_end < 23 or 60 <= from_end < 100))
                or (ticker == "LATE" and from_end > 45)
            )
            if ticker == "STUK" and index > 300:
                move = 0.0
            price *= float(np.exp(move))
            if missing:
                continue
            traded = price
            for name, split_day, before, after in (*SPLITS, *UNDECLARED):
                if name == ticker and split_day <= day:
                    traded *= before / after
            rows += _of_day(ticker, day, traded, index, rng)
    # A bar off every calendar: it is a bar, but has no features and counts in none.
    friday = next(row for row in rows if row["ticker"] == "CALM" and row["day"].isoweekday() == 5)
    saturday = friday["day"] + dt.timedelta(1)
    rows.append({**friday, "day": saturday, "start": dt.datetime.combine(saturday, dt.time())})
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("start").dt.replace_time_zone("UTC"), pl.lit("made").alias("source")
    )


def _of_day(
    ticker: str, day: dt.date, price: float, index: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    midnight = dt.datetime.combine(day, dt.time())
    common = {"day": day, "ticker": ticker}
    if ticker == "GOLD" or (ticker == "STUK" and index > 300):
        flat = dict.fromkeys(("open", "high", "low", "close"), round(price, 3))
        volume = None if ticker == "GOLD" else 500.0
        return [{**common, "interval": "1d", "start": midnight, **flat, "volume": volume}]
    intraday = ticker == "INTR" and index % 9 != 0
    rows: list[dict[str, Any]] = []
    for hour in range(4 if intraday else 1):
        path = price * np.exp(0.006 * rng.normal(size=4))
        volume = float(rng.integers(0, 4)) * 125.5 if rng.random() < 0.1 else rng.uniform(1e3, 1e6)
        if ticker == "JUMP":
            volume = 1e7 / price  # the same money each day
        missing = ticker == "INTR" and (hour == 2 or index % 7 == 0)
        rows.append(
            {
                **common,
                "interval": "1h" if intraday else "1d",
                "start": midnight + dt.timedelta(hours=8 + hour if intraday else 0),
                "open": float(path[0]),
                "high": float(path.max()),
                "low": float(path.min()),
                "close": float(path[-1]),
                "volume": None if missing else volume,
            }
        )
    if ticker == "INTR" and index % 5 == 0:
        # The same day at finer intervals too: must count for nothing but the realised variance,
        # where nine candles are too few and minutes are too short.
        for minutes, candles in ((5, 9 if index % 2 else 12), (1, 20)):
            rows += _finer(rows[0], minutes, candles)
    return rows


def _finer(coarse: dict[str, Any], minutes: int, candles: int) -> list[dict[str, Any]]:
    """Candles of so many minutes that swing between the low and the high of a coarser one."""
    return [
        {
            **coarse,
            "interval": f"{minutes}m",
            "start": coarse["start"] + dt.timedelta(minutes=minutes * number),
            "close": coarse["low" if number % 2 else "high"],
        }
        for number in range(candles)
    ]
