"""What befell the shares of a slice: the same rows whatever else the slice holds."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import get_calendar
from stock_assets.lake.actions import dividend_rows, prices_of, suspicion_rows
from stock_assets.lake.dbt_request import build_request
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TICKERS = ("A", "B", "C")
DAYS = get_calendar("XMOS").between(dt.date(2023, 11, 1), dt.date(2024, 4, 30))
JUMPS = {"A": (60, 100.0), "B": (90, 0.5)}
"""Place of the first session in other shares, and new shares for an old one."""
CELL_A, CELL_B = (DAYS[60], "A"), (DAYS[90], "B")


def candles(interval: str = "1d", parts: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for ticker in TICKERS:
        place, ratio = JUMPS.get(ticker, (0, 1.0))
        price = 100.0
        for number, day in enumerate(DAYS):
            price *= float(np.exp(0.01 * rng.standard_normal()))
            shares = ratio if number >= place else 1.0
            rows += [
                {
                    "day": day,
                    "ticker": ticker,
                    "interval": interval,
                    "start": dt.datetime.combine(day, dt.time(10 + part), dt.UTC),
                    **dict.fromkeys(("open", "high", "low", "close"), price / shares),
                    "volume": 1e6 * shares / price / parts,
                    "source": "made",
                }
                for part in range(parts)
            ]
    return pl.DataFrame(rows)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "splits.csv").write_text("ticker,date,before,after\n")
    (tmp_path / "dividends.csv").write_text("ticker,date,amount\n")
    declared = {name: str(tmp_path / f"{name}.csv") for name in ("splits", "dividends")}
    return Settings(
        lake={"path": str(tmp_path / "data"), **declared},
        universe=[{"ticker": name, "source": "s", "exchange": "XMOS"} for name in TICKERS],
        sources={"s": {"kind": "simulated", "begin": DAYS[0], "interval": "1d"}},
    )


Rows = dict[tuple[Any, ...], float]


@pytest.fixture
def told(settings: Settings) -> Callable[..., tuple[Rows, Rows]]:
    """Suspicions and dividend factors of a slice, by their cells."""

    def told(
        first: dt.date | None = None,
        last: dt.date = DAYS[-1],
        tickers: tuple[str, ...] = TICKERS,
    ) -> tuple[Rows, Rows]:
        request = build_request(settings, Slice(first, last, tickers))
        prices = prices_of(Lake(settings.lake_dir))
        found = suspicion_rows(request, prices), dividend_rows(request, prices)
        return tuple({tuple(row[:-1]): row[-1] for row in f.iter_rows()} for f in found)  # type: ignore[return-value]

    return told


def put(settings: Settings, rows: pl.DataFrame) -> None:
    Lake(settings.lake_dir).write("candles", rows, Slice(None, DAYS[-1], TICKERS))


@pytest.mark.parametrize(("interval", "parts"), [("1d", 1), ("1h", 3)])
def test_a_day_alone_is_told_what_the_whole_is(settings, told, interval: str, parts: int) -> None:
    put(settings, candles(interval, parts))
    whole, _ = told()
    assert whole == {CELL_A: pytest.approx(100.0), CELL_B: pytest.approx(0.5)}
    for first, last in ((60, 60), (59, 61), (61, 90), (30, 59), (91, 100)):
        within = {cell: r for cell, r in whole.items() if DAYS[first] <= cell[0] <= DAYS[last]}
        assert told(DAYS[first], DAYS[last])[0] == within
    assert told(DAYS[60], DAYS[60], ("B", "C"))[0] == {}
    assert told(None, DAYS[90], ("B",))[0] == {CELL_B: whole[CELL_B]}


def test_declared_it_is_suspected_no_more(settings, told, tmp_path: Path) -> None:
    put(settings, candles())
    splits = tmp_path / "splits.csv"
    for ratio, left in (("1,100", {CELL_B}), ("1,1", {CELL_B}), ("1,10", {CELL_A, CELL_B})):
        splits.write_text(f"ticker,date,before,after\nA,{DAYS[60]},{ratio}\n")
        assert set(told()[0]) == left
    assert told()[0][CELL_A] == pytest.approx(10.0)


def test_volume_is_compared_in_the_same_shares(settings, told, tmp_path: Path) -> None:
    """A declared split of 100 ten sessions before one of 2 that is not."""
    later = (pl.col("ticker") == "A") & (pl.col("day") >= DAYS[70])
    halved = dict.fromkeys(("open", "high", "low", "close"), 0.5) | {"volume": 2.0}
    rows = candles().with_columns(
        pl.when(later).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name, factor in halved.items()
    )
    put(settings, rows)
    (tmp_path / "splits.csv").write_text(f"ticker,date,before,after\nA,{DAYS[60]},1,100\n")
    assert set(told()[0]) == {(DAYS[70], "A"), CELL_B}


def test_half_the_price_paid_as_a_declared_dividend_is_no_split(
    settings, told, tmp_path: Path
) -> None:
    halved = {name: pl.col(name) / 2 for name in ("open", "high", "low", "close")}
    later = (pl.col("ticker") == "C") & (pl.col("day") >= DAYS[50])
    rows = candles().with_columns(
        pl.when(later).then(value).otherwise(name).alias(name) for name, value in halved.items()
    )
    put(settings, rows)
    assert (DAYS[50], "C") in told()[0]
    before = rows.filter(pl.col("ticker") == "C", pl.col("day") == DAYS[49])["close"].item()
    (tmp_path / "dividends.csv").write_text(f"ticker,date,amount\nC,{DAYS[50]},{before / 2}\n")
    suspected, factors = told()
    assert set(suspected) == {CELL_A, CELL_B}
    assert factors == {("C", DAYS[50]): pytest.approx(2.0)}
    # Known in the same way to a run over a day months later.
    assert told(DAYS[-1], DAYS[-1])[1] == factors
    assert told(DAYS[-1], DAYS[-1], ("A",))[1] == {}
    assert told(DAYS[40], DAYS[49])[1] == {}


def test_the_market_counts_though_the_slice_has_one_ticker_of_it(settings, told) -> None:
    """All fall by a third overnight, without any volume to tell more."""
    later = pl.col("day") >= DAYS[100]
    rows = candles().with_columns(
        *(
            pl.when(later).then(pl.col(name) / 1.5).otherwise(name).alias(name)
            for name in ("open", "high", "low", "close")
        ),
        pl.lit(None, pl.Float64).alias("volume"),
    )
    put(settings, rows.filter(pl.col("ticker") == "C"))
    assert set(told(DAYS[100], DAYS[100], ("C",))[0]) == {(DAYS[100], "C")}
    # Others that did not fall by a plain ratio.
    other = pl.when(later & (pl.col("ticker") != "C"))
    put(
        settings,
        rows.with_columns(
            other.then(pl.col(name) * 1.15).otherwise(name).alias(name)
            for name in ("open", "high", "low", "close")
        ),
    )
    assert told(DAYS[100], DAYS[100], ("C",))[0] == {}


def test_a_lake_without_candles_tells_nothing(told) -> None:
    assert told() == ({}, {})


def test_prices_are_read_of_the_days_and_tickers_asked_for(settings) -> None:
    put(settings, candles("1h", 3))
    prices = prices_of(Lake(settings.lake_dir))
    days = [DAYS[0], DAYS[40], DAYS[41], DAYS[-1]]
    found = prices(["A", "C"], days)
    assert set(found.select("day", "ticker").iter_rows()) == {
        (day, name) for day in days for name in ("A", "C")
    }
    whole = prices(TICKERS, DAYS)
    assert_frame_equal(
        found,
        whole.join(found.select("day", "ticker"), on=["day", "ticker"], how="semi"),
        check_row_order=False,
    )
