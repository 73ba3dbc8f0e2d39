from __future__ import annotations

import datetime as dt
import functools
import math
import time

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Candles
from stock_assets.settings import Instrument, Settings, SimulatedSettings, load_settings
from stock_assets.slices import Slice
from stock_assets.sources.base import RAW_SCHEMA
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.simulated import SimulatedSource

CHANGE = dt.date(2026, 5, 18)
LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
# Many years of it: statistics of a single year are noise.
LONG = SimulatedSettings(kind="simulated", begin=dt.date(2006, 1, 2), interval="1d")


@pytest.fixture(scope="module")
def sample() -> Settings:
    config = load_settings()
    for exchange in config.exchanges:
        get_calendar(exchange)
    return config


@pytest.fixture(scope="module")
def market(sample: Settings) -> pl.DataFrame:
    return fetch_slice(sample, Slice(None, dt.date(2026, 11, 20), sample.tickers), now=LATE).candles


@functools.cache
def history() -> pl.DataFrame:
    """Twenty years of daily bars: eight shares and two currencies, with ret and gap."""
    shares = [Instrument(ticker=f"S{n}", source="sample", exchange="XNYS") for n in range(8)]
    calm = [Instrument(ticker=f"F{n}", source="sample") for n in range(2)]
    names = tuple(item.ticker for item in (*shares, *calm))
    raw = SimulatedSource("sample", LONG).fetch(
        [*shares, *calm], Slice(None, dt.date(2025, 12, 31), names)
    )
    before = pl.col("close").shift(1).over("ticker")
    return raw.with_columns(
        ret=(pl.col("close") / before).log(), gap=(pl.col("open") / before).log()
    )


def returns(ticker: str) -> np.ndarray:
    return history().filter(pl.col("ticker") == ticker)["ret"].drop_nulls().to_numpy()


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(left, right)[0, 1])


# The same however it is asked for.


@pytest.mark.slow
@pytest.mark.parametrize("day", [dt.date(2022, 1, 3), dt.date(2024, 2, 29), dt.date(2026, 5, 18)])
def test_a_day_alone_equals_the_day_within_all_history(
    sample: Settings, market: pl.DataFrame, day: dt.date
) -> None:
    alone = fetch_slice(sample, Slice(day, day, sample.tickers), now=LATE).candles
    assert alone.height
    assert alone.equals(market.filter(pl.col("day") == day))


def test_days_one_by_one_equal_the_range(sample: Settings, market: pl.DataFrame) -> None:
    first = dt.date(2026, 5, 14)
    days = [first + dt.timedelta(n) for n in range(7)]
    parts = [fetch_slice(sample, Slice(day, day, sample.tickers), now=LATE).candles for day in days]
    expected = market.filter(pl.col("day").is_between(first, days[-1]))
    assert pl.concat(parts).sort(Candles.primary_key()).equals(expected)


def test_a_ticker_is_the_same_alone_and_in_any_universe(
    sample: Settings, market: pl.DataFrame
) -> None:
    source = SimulatedSource("sample", sample.sources["sample"])  # type: ignore[arg-type]
    area = Slice(dt.date(2026, 5, 1), dt.date(2026, 6, 30), ("GOLD", "BANK"))
    some = [sample.instrument("GOLD"), sample.instrument("BANK")]
    columns = Candles.column_names()
    for chosen in (some, some[::-1], some[:1]):
        found = source.fetch(chosen, area).select(columns).sort(Candles.primary_key())
        expected = market.filter(
            pl.col("ticker").is_in([item.ticker for item in chosen])
            & pl.col("day").is_between(area.first_date, area.last_date)
        )
        assert found.equals(expected)


def test_another_seed_is_another_market() -> None:
    bank = Instrument(ticker="BANK", source="s", exchange="XMOS")
    area = Slice(None, dt.date(2022, 3, 1), ("BANK",))
    first, second = (
        SimulatedSource("s", SimulatedSettings(kind="simulated", seed=seed)).fetch([bank], area)
        for seed in (1, 2)
    )
    assert not first["close"].equals(second["close"])


def test_the_first_candle_is_pinned() -> None:
    """A change of the simulation changes every stored cell: it must be meant."""
    bank = Instrument(ticker="BANK", source="s", exchange="XMOS")
    found = SimulatedSource("s", SimulatedSettings(kind="simulated")).fetch(
        [bank], Slice(None, dt.date(2022, 1, 3), ("BANK",))
    )
    assert found.row(0, named=True)["start"] == dt.datetime(2022, 1, 3, 9, tzinfo=dt.UTC)
    assert found.row(0)[4:9] == (148.9, 148.9, 147.27, 147.27, 46396.0)


# What the market has.


def test_rows_keep_all_candle_rules(sample: Settings) -> None:
    area = Slice(None, dt.date(2026, 11, 20), sample.tickers)
    found = fetch_slice(sample, area, now=LATE)
    assert found.quarantine.is_empty()
    assert found.held_back == 0
    Candles.validate(found.candles)


def test_each_session_has_its_candles_and_no_other_day_has(
    sample: Settings, market: pl.DataFrame
) -> None:
    for ticker in ("BANK", "CHIP", "GOLD"):
        days = market.filter(pl.col("ticker") == ticker)["day"].unique().sort().to_list()
        calendar = get_calendar(sample.instrument(ticker).exchange)
        assert days == list(calendar.between(dt.date(2022, 1, 3), dt.date(2026, 11, 20)))


def test_hours_lie_inside_the_session_by_the_exchanges_clock(market: pl.DataFrame) -> None:
    for ticker, zone, hours in (
        ("CHIP", "America/New_York", list(range(10, 16))),
        ("BANK", "Europe/Moscow", list(range(12, 18))),
        ("EURX", "UTC", list(range(8, 16))),
    ):
        start = market.filter(pl.col("ticker") == ticker)["start"].dt.convert_time_zone(zone)
        assert start.dt.hour().unique().sort().to_list() == hours
        assert (start.dt.minute() == 0).all()


def test_a_daily_candle_sums_up_its_hours() -> None:
    bank = Instrument(ticker="BANK", source="s", exchange="XMOS")
    area = Slice(None, dt.date(2022, 6, 30), ("BANK",))
    hourly, daily = (
        SimulatedSource("s", SimulatedSettings(kind="simulated", interval=interval)).fetch(
            [bank], area
        )
        for interval in ("1h", "1d")
    )
    summed = hourly.group_by("day", maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    assert daily.select(summed.columns).equals(summed)
    assert daily.schema == RAW_SCHEMA


@pytest.mark.slow
def test_daily_volatility_is_that_of_real_shares() -> None:
    for number in range(8):
        assert 0.010 < returns(f"S{number}").std() < 0.025


def test_tails_are_fat() -> None:
    for number in range(8):
        values = returns(f"S{number}")
        kurtosis = float(((values - values.mean()) ** 4).mean() / values.var() ** 2 - 3)
        assert kurtosis > 1


def test_volatility_clusters_and_returns_do_not() -> None:
    sizes, signs = [], []
    for number in range(8):
        values = returns(f"S{number}")
        sizes.append(
            np.mean([correlation(abs(values[:-lag]), abs(values[lag:])) for lag in (1, 5, 10)])
        )
        signs.append(correlation(values[:-1], values[1:]))
    assert np.mean(sizes) > 0.08
    assert abs(np.mean(signs)) < 0.04


@pytest.mark.slow
def test_a_fall_of_the_market_raises_volatility() -> None:
    shares = history().filter(pl.col("ticker").str.starts_with("S"))
    mean = shares.group_by("day").agg(pl.col("ret").mean()).sort("day")["ret"].drop_nulls()
    values = mean.to_numpy()
    assert correlation(values[:-1], abs(values[1:])) < -0.03


def test_a_common_factor_moves_shares_and_hardly_currencies() -> None:
    wide = history().pivot("ticker", index="day", values="ret").drop("day").drop_nulls()
    matrix = wide.corr().to_numpy()
    shares = [index for index, name in enumerate(wide.columns) if name.startswith("S")]
    among = matrix[np.ix_(shares, shares)]
    off_diagonal = among[~np.eye(len(shares), dtype=bool)]
    assert off_diagonal.min() > 0.15
    assert 0.25 < off_diagonal.mean() < 0.7
    assert abs(wide.select(pl.corr("F0", "S0")).item()) < 0.25


def test_nights_have_gaps_and_some_are_jumps() -> None:
    gaps = history().filter(pl.col("ticker") == "S0")["gap"].drop_nulls().to_numpy()
    share = gaps.var() / returns("S0").var()
    assert 0.15 < share < 0.6
    assert abs(gaps).max() > 8 * np.median(abs(gaps))


@pytest.mark.slow
def test_volume_clusters_and_rises_with_the_size_of_moves() -> None:
    share = history().filter(pl.col("ticker") == "S1").drop_nulls("ret")
    volume = share["volume"].log().to_numpy()
    assert correlation(volume[:-1], volume[1:]) > 0.5
    assert correlation(volume, abs(share["ret"].to_numpy())) > 0.1


def test_currencies_have_no_volume_and_calmer_days() -> None:
    calm = history().filter(pl.col("ticker") == "F0")
    assert calm["volume"].null_count() == calm.height
    assert returns("F0").std() < 0.6 * np.mean([returns(f"S{n}").std() for n in range(8)])


def test_the_regime_change_multiplies_volatility_and_leaves_the_past_alone() -> None:
    shares = [Instrument(ticker=f"S{n}", source="s", exchange="XNYS") for n in range(6)]
    names = tuple(item.ticker for item in shares)
    area = Slice(None, dt.date(2026, 11, 20), names)

    def fetched(change: dt.date | None) -> pl.DataFrame:
        own = SimulatedSettings(kind="simulated", interval="1d", regime_change=change)
        return SimulatedSource("s", own).fetch(shares, area)

    calm, changed = fetched(None), fetched(CHANGE)
    before = pl.col("day") < CHANGE
    assert calm.filter(before).equals(changed.filter(before))

    def sigma(frame: pl.DataFrame) -> float:
        ranges = frame.filter(~before).select((pl.col("high") / pl.col("low")).log())
        return float(ranges.to_series().mean())  # type: ignore[arg-type]

    assert 2.2 < sigma(changed) / sigma(calm) < 3.2
    mean_volume = [frame.filter(~before)["volume"].mean() for frame in (changed, calm)]
    assert mean_volume[0] / mean_volume[1] > 1.3  # type: ignore[operator]


def test_nothing_before_the_market_begins(sample: Settings) -> None:
    area = Slice(None, dt.date(2021, 12, 31), sample.tickers)
    assert fetch_slice(sample, area, now=LATE).candles.is_empty()


def test_a_session_in_progress_is_held_back(sample: Settings) -> None:
    day = dt.date(2026, 6, 1)
    found = fetch_slice(
        sample, Slice(day, day, ("BANK", "CHIP")), now=dt.datetime(2026, 6, 1, 17, tzinfo=dt.UTC)
    )
    assert found.candles["ticker"].unique().to_list() == ["BANK"]
    assert found.held_back == 6


@pytest.mark.slow
def test_a_day_costs_a_fraction_of_all_history(sample: Settings) -> None:
    def seconds(area: Slice) -> float:
        best = math.inf
        for _ in range(3):
            begun = time.perf_counter()
            fetch_slice(sample, area, now=LATE)
            best = min(best, time.perf_counter() - begun)
        return best

    day = dt.date(2026, 6, 1)
    one = seconds(Slice(day, day, sample.tickers))
    everything = seconds(Slice(None, day, sample.tickers))
    assert one < 0.4 * everything
