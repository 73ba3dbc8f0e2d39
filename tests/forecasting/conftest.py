"""A small simulated market and features made from it, without dbt or the lake."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.model import PARAMETERS, VolatilityModel
from stock_assets.forecasting.registry import Registered, TrainingRecord
from stock_assets.forecasting.volatility import session_variance
from stock_assets.lake.schemas import Bars, Features
from stock_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRST = dt.date(2023, 1, 2)


def simulate_bars(
    tickers: Sequence[str],
    sessions: int,
    *,
    exchange: str = WEEKDAYS,
    first: dt.date = FIRST,
    seed: int = 1,
    log_volatility: Callable[[np.random.Generator, int], np.ndarray] | None = None,
) -> pl.DataFrame:
    """Bars with clustered volatility that the range shows before the close does.

    `log_volatility` gives the path of a market's or ticker's own log volatility, if not the usual.
    """
    calendar = get_calendar(exchange)
    days = calendar.after(first - dt.timedelta(1), sessions)
    rng = np.random.default_rng(seed)
    frames = []
    path_of = log_volatility or _log_volatility
    market = path_of(rng, sessions)
    for ticker in tickers:
        sigma = 0.015 * np.exp(0.5 * market + 0.5 * path_of(rng, sessions))
        steps = rng.standard_normal((sessions, 20)) * sigma[:, None] / math.sqrt(20)
        path = np.cumsum(steps, axis=1)
        start = math.log(100) + np.concatenate([[0], np.cumsum(path[:, -1])[:-1]])
        inside = start[:, None] + path
        high = np.maximum(inside.max(axis=1), start)
        low = np.minimum(inside.min(axis=1), start)
        prices = {"open": start, "high": high, "low": low, "close": inside[:, -1]}
        frames.append(
            pl.DataFrame({name: np.exp(values) for name, values in prices.items()}).with_columns(
                pl.Series("day", days, pl.Date),
                pl.lit(ticker).alias("ticker"),
                pl.Series("volume", np.exp(10 + sigma * 30 + rng.standard_normal(sessions))),
                pl.Series("true_sigma", sigma),
            )
        )
    raw = pl.concat(frames)
    return raw.select(
        *raw.columns,
        pl.lit(exchange).alias("exchange"),
        pl.lit("RUB").alias("currency"),
        *(pl.col(name).alias(f"raw_{name}") for name in ("open", "high", "low", "close", "volume")),
        pl.lit(None, pl.Float64).alias("realised_variance"),
        pl.lit(1.0).alias("split_factor"),
        *(pl.lit(None, pl.Float64).alias(name) for name in ("dividend_factor", "suspected_split")),
        pl.lit("1d").alias("interval"),
        pl.lit(1, pl.Int64).alias("candles"),
    ).sort("day", "ticker")


def _log_volatility(rng: np.random.Generator, sessions: int) -> np.ndarray:
    """A mean-reverting log volatility, half-life about 5 sessions, deviation about 0.5."""
    state, path = 0.0, []
    for shock in rng.standard_normal(sessions):
        state = 0.87 * state + 0.25 * shock
        path.append(state)
    return np.array(path)


def make_features(bars: pl.DataFrame) -> pl.DataFrame:
    """All columns of `Features`, from bars, with windows that count bars."""
    own = bars.sort("ticker", "day").with_columns(
        (pl.col("close") / pl.col("close").shift(1)).log().over("ticker").alias("ret_1d"),
        (pl.col("open") / pl.col("close").shift(1)).log().over("ticker").alias("gap_1d"),
        (pl.col("close") / pl.col("open")).log().alias("intraday_1d"),
        (pl.col("high") / pl.col("low")).log().alias("range_1d"),
        session_variance(pl.col("close").shift(1).over("ticker")).log().alias("log_variance_1d"),
        pl.col("day").diff().over("ticker").dt.total_days().cast(pl.Int32).alias("days_since_bar"),
        pl.when(pl.col("volume") > 0).then(pl.col("volume").log()).alias("log_volume"),
    )

    def window(expression: pl.Expr, sessions: int, how: str = "mean") -> pl.Expr:
        rolled = getattr(expression, f"rolling_{how}")(sessions, min_samples=(sessions + 1) // 2)
        return rolled.over("ticker")

    up, down = (pl.col("high") / pl.col("open")).log(), (pl.col("low") / pl.col("open")).log()
    square_range = pl.col("range_1d") ** 2
    square = pl.col("ret_1d") ** 2
    log_variance = pl.col("log_variance_1d")
    garman_klass = 0.5 * square_range - (2 * math.log(2) - 1) * pl.col("intraday_1d") ** 2
    rogers_satchell = up * (up - pl.col("intraday_1d")) + down * (down - pl.col("intraday_1d"))

    def root(expression: pl.Expr) -> pl.Expr:
        return expression.clip(lower_bound=0).sqrt()

    own = own.with_columns(
        *(window(pl.col("ret_1d"), n, "sum").alias(f"ret_{n}d") for n in (5, 21, 63)),
        _ewma().alias("vol_ewma"),
        *(root(window(square, n)).alias(f"vol_close_{n}") for n in (5, 21, 63, 252)),
        *(window(log_variance, n).alias(f"log_variance_{n}") for n in (5, 21, 63, 252)),
        *(
            root(window(square_range, n) / (4 * math.log(2))).alias(f"vol_parkinson_{n}")
            for n in (5, 21, 63)
        ),
        root(window(garman_klass, 21)).alias("vol_garman_klass_21"),
        root(window(rogers_satchell, 21)).alias("vol_rogers_satchell_21"),
        root(window(pl.col("gap_1d") ** 2, 21)).alias("vol_gap_21"),
        window(pl.col("range_1d"), 21, "std").alias("range_std_21"),
        pl.when(window(square, 21, "sum") > 0)
        .then(
            window(pl.col("ret_1d").clip(upper_bound=0) ** 2, 21, "sum") / window(square, 21, "sum")
        )
        .clip(0, 1)
        .alias("downside_share_21"),
        window(pl.col("ret_1d"), 21, "min").alias("worst_21"),
        window(pl.col("ret_1d"), 21, "max").alias("best_21"),
        ((pl.col("log_volume") - window(pl.col("log_volume"), 63)) / _positive_deviation()).alias(
            "volume_z_63"
        ),
        (window(pl.col("log_volume"), 5) - window(pl.col("log_volume"), 63)).alias(
            "volume_ratio_5_63"
        ),
        *(
            (pl.col("close") / window(pl.col("high"), n, "max")).log().alias(f"high_dist_{n}")
            for n in (63, 252)
        ),
        (pl.col("close") / window(pl.col("low"), 252, "min")).log().alias("low_dist_252"),
        *(
            pl.col("day")
            .replace_strict(_days_ahead(bars, count), return_dtype=pl.Int32)
            .alias(f"days_ahead_{count}")
            for count in (1, 5)
        ),
        pl.col("day").dt.weekday().cast(pl.Int32).alias("weekday"),
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("ticker").clip(1, 252).alias("bars_252"),
    )
    market = ["exchange", "day"]

    def rank(name: str) -> pl.Expr:
        others = (pl.col(name).count() - 1).over(market)
        place = (pl.col(name).rank("average") - 1).over(market)
        return pl.when(others > 0).then(place / others).otherwise(0.5).alias(f"rank_{name}")

    own = own.with_columns(
        pl.len().over(market).cast(pl.Int32).alias("market_tickers"),
        pl.col("ret_1d").mean().over(market).alias("market_ret_1d"),
        pl.col("ret_5d").mean().over(market).alias("market_ret_5d"),
        (pl.col("vol_ewma") ** 2).mean().sqrt().over(market).alias("market_vol_ewma"),
        (pl.col("vol_parkinson_21") ** 2).mean().sqrt().over(market).alias("market_range_21"),
        *(
            pl.col(name).mean().over(market).alias(f"market_{name}")
            for name in (
                *("log_variance_1d", "log_variance_5", "log_variance_21", "log_variance_63"),
                "volume_z_63",
            )
        ),
        pl.col("ret_1d").std(ddof=0).over(market).alias("market_dispersion"),
        (pl.col("ret_1d") > 0).mean().over(market).alias("market_up_share"),
        rank("ret_21d"),
        rank("vol_ewma"),
    ).with_columns((pl.col("ret_5d") - pl.col("market_ret_5d")).alias("relative_ret_5d"))
    product = window(pl.col("ret_1d") * pl.col("market_ret_1d"), 63)
    spread = window(pl.col("market_ret_1d") ** 2, 63)
    beta = pl.when(spread > 0).then(product / spread).alias("beta_63")
    names = Features.column_names()
    return (
        own.with_columns(beta)
        .select(names)
        .cast(Features.create_empty().schema)
        .sort("day", "ticker")
    )


def _days_ahead(bars: pl.DataFrame, count: int) -> dict[dt.date, int]:
    calendar = get_calendar(bars["exchange"][0])
    return {day: calendar.days_ahead(day, count) for day in bars["day"].unique()}


def _ewma() -> pl.Expr:
    weighted = (pl.col("ret_1d") ** 2).ewm_mean(alpha=0.06, adjust=True, min_samples=12)
    return weighted.sqrt().over("ticker")


def _positive_deviation() -> pl.Expr:
    deviation = pl.col("log_volume").rolling_std(63, min_samples=32).over("ticker")
    return pl.when(deviation > 0).then(deviation)


@pytest.fixture(scope="session")
def make_bars() -> Callable[..., pl.DataFrame]:
    """`simulate_bars`, for tests that need a market of their own."""
    return simulate_bars


@pytest.fixture(scope="session")
def features_of() -> Callable[[pl.DataFrame], pl.DataFrame]:
    """`make_features`: a stand-in for the dbt features."""
    return make_features


@pytest.fixture(scope="session")
def bars() -> pl.DataFrame:
    """Six tickers, 420 sessions."""
    return Bars.validate(simulate_bars(list("ABCDEF"), 420), cast=True)


@pytest.fixture(scope="session")
def features(bars: pl.DataFrame) -> pl.DataFrame:
    return Features.validate(make_features(bars), cast=True)


class MemoryRegistry:
    """A registry without MLflow, for tests of what is decided rather than kept."""

    def __init__(self) -> None:
        self.models: dict[str, tuple[VolatilityModel, Registered]] = {}
        self.of_other_code: dict[str, str] = {}

    def find(self, model_id: str) -> Registered | None:
        return self.models[model_id][1] if model_id in self.models else None

    def unfit(self) -> dict[str, str]:
        return self.of_other_code

    def load(self, model_id: str) -> VolatilityModel:
        return self.models[model_id][0]

    def note_trigger(self, *_: object) -> None:
        """What asks for a training is no part of it."""

    def register(self, model: VolatilityModel, record: TrainingRecord, **_: object) -> Registered:
        registered = Registered(len(self.models) + 1, record)
        self.models[record.model_id] = (model, registered)
        return registered


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need a model that learned something, soon."""
    monkeypatch.setitem(PARAMETERS, "iterations", 20)
    monkeypatch.setitem(PARAMETERS, "learning_rate", 0.2)
    monkeypatch.setitem(PARAMETERS, "l2_leaf_reg", 30.0)


@pytest.fixture(scope="session")
def labelled(bars: pl.DataFrame) -> pl.DataFrame:
    return labels(bars)


@pytest.fixture(scope="session")
def sessions(bars: pl.DataFrame) -> list[dt.date]:
    return bars["day"].unique().sort().to_list()


def settings_for(tickers: Sequence[str], **forecast: int) -> Settings:
    """Settings of a universe on weekdays that trains early and often."""
    small = {"cadence": 40, "cooldown": 10, "min_training_rows": 500, "window": 250}
    return Settings(
        partitions={"first_day": FIRST},
        universe=[{"tickers": list(tickers), "source": "none", "currency": "RUB"}],
        sources={"none": {"kind": "simulated"}},
        forecast={**small, **forecast},
    )


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Settings]:
    """`settings_for`."""
    return settings_for
