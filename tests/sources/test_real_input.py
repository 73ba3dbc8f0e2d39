"""Real candles through the files source: nothing lost, little quarantined, and why."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Candles
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stock_assets.settings import Settings
    from stock_assets.sources.rules import Judged

    Build = Callable[..., Settings]

LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
LAST = dt.date(2026, 6, 30)


def fetched(
    build: Build, path: Path, exchange: str, last: dt.date = LAST
) -> tuple[pl.DataFrame, Settings, Judged]:
    source = pl.read_parquet(path)
    config = build(path, *sorted(source["ticker"].unique()), exchange=exchange)
    found = fetch_slice(config, Slice(None, last, config.tickers), now=LATE)
    assert source.height == found.candles.height + found.quarantine.height
    assert found.held_back == 0
    Candles.validate(found.candles)
    return source, config, found


def test_moscow_daily_is_taken_whole(shared_data: Path, files_settings: Build) -> None:
    path = shared_data / "moex_daily_dev_tqbr.parquet"
    source, config, found = fetched(files_settings, path, "XMOS")
    assert found.candles.height == 146_922
    assert found.quarantine.is_empty()
    # An oracle that shares no code with us: the file itself.
    same = found.candles.select(
        "ticker", pl.col("start").alias("timestamp"), "open", "high", "low", "close", "volume"
    ).sort("ticker", "timestamp")
    assert same.equals(source.sort("ticker", "timestamp"))

    begun = time.perf_counter()
    day = dt.date(2026, 6, 29)
    one = fetch_slice(config, Slice(day, day, config.tickers), now=LATE)
    assert time.perf_counter() - begun < 1.0  # 0.05 s on a quiet machine
    assert one.candles.equals(found.candles.filter(pl.col("day") == day))


def test_us_daily_keeps_zero_volumes_and_sets_empty_rows_aside(
    shared_data: Path, files_settings: Build
) -> None:
    path = shared_data / "us_daily_stocknet.parquet"
    _, _, found = fetched(files_settings, path, "XNYS")
    assert found.candles.height == 108_589
    assert found.candles.filter(pl.col("volume") == 0).height == 111
    assert found.quarantine.select("day", "ticker").rows() == [
        (dt.date(2016, 6, 29), ticker) for ticker in ("PTR", "REX", "SNP")
    ]
    assert found.quarantine["reason"].unique().to_list() == [
        "open is missing; high is missing; low is missing; close is missing"
    ]


def test_moscow_five_minutes_lie_inside_the_sessions(
    shared_data: Path, files_settings: Build
) -> None:
    path = shared_data / "moex_5min_finam.parquet"
    source, _, found = fetched(files_settings, path, "XMOS")
    assert found.quarantine.is_empty()
    assert found.candles["interval"].unique().to_list() == ["5m"]
    local = found.candles["start"].dt.convert_time_zone("Europe/Moscow")
    assert (local.dt.date() == found.candles["day"]).all()
    assert local.dt.time().min() >= dt.time(9, 50)  # type: ignore[operator]
    assert local.dt.time().max() <= dt.time(18, 50)  # type: ignore[operator]
    assert source["timestamp"].sort().equals(found.candles["start"].sort(), check_names=False)


def test_gold_of_the_bank_of_russia_has_one_price_and_no_volume(
    shared_data: Path, files_settings: Build
) -> None:
    path = shared_data / "gold_cbr_daily.parquet"
    _, _, found = fetched(files_settings, path, "CBR")
    assert found.candles.height == 2_989
    assert found.quarantine.is_empty()
    assert found.candles["volume"].null_count() == 2_989
    assert (found.candles["high"] == found.candles["low"]).all()


def test_the_dollar_of_the_bank_of_russia_has_no_day_that_the_calendar_lacks(
    shared_data: Path, files_settings: Build
) -> None:
    path = shared_data / "fx_cbr_usdrub_daily.parquet"
    _, _, found = fetched(files_settings, path, "CBR")
    assert found.quarantine.is_empty()


def test_rows_dated_on_days_the_exchange_was_shut_are_set_aside(
    shared_data: Path, files_settings: Build
) -> None:
    path = shared_data / "us_daily_dev.parquet"
    _, _, found = fetched(files_settings, path, "XNYS")
    # Juneteenth as observed in 2022, and in 2023: New York was closed.
    shut = [dt.date(2022, 6, 20), dt.date(2023, 6, 19)]
    assert found.quarantine["day"].unique().sort().to_list() == shut
    assert not any(get_calendar("XNYS").is_session(day) for day in shut)
    assert found.quarantine.height == 240
