"""Whatever a series looks like there is a sensible forecast, and never a crash.

Sensible: finite, rising quantiles, positive prices, a width that the series' own past explains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stock_assets.lake.schemas import QUANTILE_NAMES, Bars, Features, Forecasts, Models
from tests.forecasting.conftest import MemoryRegistry, settings_for, simulate_bars

from .chain import cells_of, forecast, in_force, make_features, tell

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

SESSIONS = 330
ASKED = 3
"""Days forecast, the last ones."""

PRICES = ("open", "high", "low", "close")


def assert_sensible(made: pl.DataFrame, bars: pl.DataFrame, days: Sequence[dt.date]) -> None:
    """A whole distribution for each bar of the days and each horizon."""
    Forecasts.validate(made)
    assert made.height == 5 * bars.filter(pl.col("day").is_in(days)).height
    numbers = made.select(pl.col(pl.Float64)).to_numpy()
    assert np.isfinite(numbers).all()
    prices, returns, baseline = (
        made.select(prefix + name for name in QUANTILE_NAMES).to_numpy()
        for prefix in ("price_", "return_", "baseline_return_")
    )
    assert (prices > 0).all()
    for values in (prices, returns, baseline):
        assert (np.diff(values, axis=1) >= 0).all()
    for values in (returns, baseline):
        assert (values[:, 0] < values[:, -1]).all()
    assert (made.select("sigma", "baseline_sigma").to_numpy() > 0).all()


class Served:
    """A market, and a model in force that was trained on it."""

    def __init__(self) -> None:
        self.bars = Bars.validate(simulate_bars(list("ABCD"), SESSIONS), cast=True)
        self.days = self.bars["day"].unique().sort().to_list()
        self.asked = self.days[-ASKED:]
        self.registry = MemoryRegistry()
        trained = tell(
            self.bars,
            [self.days[-40]],
            settings=settings_for(list("ABCD")),
            registry=self.registry,
        )
        self.trained = trained["models"].head(1)

    def forecast(self, odd: pl.DataFrame, *, alone: bool = False) -> pl.DataFrame:
        """Forecasts of the odd tickers, and of the market beside them unless `alone`."""
        bars = odd if alone else pl.concat([self.bars, odd]).sort("day", "ticker")
        features = Features.validate(make_features(bars), cast=True)
        cells = cells_of(bars, self.asked)
        made = forecast(cells, features, bars, self.trained, self.registry)
        assert_sensible(made, bars, self.asked)
        return made.filter(pl.col("ticker") == "ODD")


@pytest.fixture(scope="module")
def served() -> Served:
    market = Served()
    assert market.trained["model"].item() in market.registry.models
    return market


def series(served: Served, closes: np.ndarray, **columns: Any) -> pl.DataFrame:
    """Bars of ticker ODD on the last days, one a close; other columns can be said."""
    days = served.days[-len(closes) :]
    plain = served.bars.filter(pl.col("ticker") == "A", pl.col("day").is_in(days)).sort("day")
    said = {**dict.fromkeys(PRICES, closes), "volume": None, **columns}
    made = plain.with_columns(
        pl.lit("ODD").alias("ticker"),
        *(
            pl.Series(name, np.broadcast_to(value, len(days)), pl.Float64)
            for name, value in said.items()
        ),
    )
    raw = made.with_columns(pl.col(name).alias(f"raw_{name}") for name in said)
    return Bars.validate(raw)


def walk(size: int, sigma: float = 0.01, start: float = 100.0, seed: int = 3) -> np.ndarray:
    steps = sigma * np.random.default_rng(seed).standard_normal(size)
    return start * np.exp(np.cumsum(steps))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 5, 12, 13, 22, 64, 253])
@pytest.mark.parametrize("alone", [False, True])
def test_short_history(served, size, alone) -> None:
    made = served.forecast(series(served, walk(size)), alone=alone)
    assert made.height == 5 * min(size, ASKED)
    if size < 10:
        assert made["model"].unique().to_list() == ["baseline"]
    # Never so wide or narrow that the market, or the ticker, would not know it.
    assert made["sigma"].is_between(0.001, 0.2).all()


def test_one_price_a_day_and_no_volume_is_served_by_the_model(served) -> None:
    made = served.forecast(series(served, walk(300)))
    assert (made["model"] != "baseline").all()
    last = made.filter(pl.col("horizon") == 1)["sigma"]
    assert last.is_between(0.005, 0.02).all()


@pytest.mark.parametrize("moved", [0, 1, 100])
def test_stuck_prices(served, moved) -> None:
    """Since ever, or since some sessions of movement."""
    closes = np.concatenate([walk(moved), np.full(300 - moved, 50.0)])
    assert served.forecast(series(served, closes))["sigma"].max() < 0.2


def test_everything_is_stuck(served) -> None:
    stuck = served.bars.with_columns(
        pl.lit(7.0).alias(name) for name in (*PRICES, *(f"raw_{name}" for name in PRICES))
    )
    told = tell(stuck, served.asked)
    assert_sensible(told["forecasts"], stuck, served.asked)
    assert told["models"]["model"].unique().to_list() == ["baseline"]
    assert "labelled rows to train on" in told["models"]["reason"][0]


@pytest.mark.parametrize("start", [1e-6, 1e-3, 1e9])
def test_extreme_price_levels_make_no_difference(served, start) -> None:
    usual, extreme = (
        served.forecast(series(served, walk(300, start=level))) for level in (100.0, start)
    )
    for column in ("sigma", "return_q05", "baseline_return_q95"):
        assert extreme[column].to_numpy() == pytest.approx(usual[column].to_numpy(), rel=1e-6)
    ratio = extreme["price_q95"] / usual["price_q95"]
    assert ratio.to_numpy() == pytest.approx(start / 100, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [100.0, 0.01])
@pytest.mark.parametrize("ago", [0, 1, 5, 30])
def test_a_unit_error_in_one_candle(served, factor, ago) -> None:
    closes = walk(300)
    closes[-1 - ago] *= factor
    made = served.forecast(series(served, closes))
    assert (made["sigma"] < 10).all()


@pytest.mark.slow
@pytest.mark.parametrize("ago", [5, 60])
def test_a_unit_error_in_one_ticker_leaves_the_others_width_alone(served, ago) -> None:
    """Its residuals are hundreds of sigmas, on days from which the scale of all is learned."""
    wrong = (pl.col("ticker") == "B") & (pl.col("day") == served.days[-ago])
    names = [*PRICES, *(f"raw_{name}" for name in PRICES)]
    broken = served.bars.with_columns(
        pl.when(wrong).then(pl.col(names) * 100).otherwise(pl.col(names))
    )
    widths = []
    for bars in (served.bars, broken):
        told = tell(bars, served.asked, settings=settings_for(list("ABCD"), window=320))
        by_day = told["models"].filter(pl.col("day") == served.asked[0])
        assert by_day["decision"].unique().to_list() == ["trained"], "nothing was compared"
        others = told["forecasts"].filter(pl.col("ticker").is_in(["A", "C", "D"]))
        assert_sensible(told["forecasts"], bars, served.asked)
        widths.append(others.select("sigma", width=pl.col("return_q95") - pl.col("return_q05")))
    for column in ("sigma", "width"):
        ratio = widths[1][column] / widths[0][column]
        assert ratio.is_between(0.7, 1.5).all()


def test_a_halt(served) -> None:
    """Gone for forty sessions, back for two."""
    whole = series(served, walk(300))
    away = served.days[-42:-2]
    made = served.forecast(whole.filter(~pl.col("day").is_in(away)))
    assert made["day"].n_unique() == 2


def test_one_ticker_alone_is_trained_on_and_forecast(served) -> None:
    alone = served.bars.filter(pl.col("ticker") == "A")
    told = tell(alone, served.asked, settings=settings_for(["A"], min_training_rows=100))
    assert told["models"]["challenger"].drop_nulls().len() > 0
    assert_sensible(told["forecasts"], alone, served.asked)


def test_a_price_that_moves_by_the_same_every_day_does_not_stop_a_training(served) -> None:
    """Every week's variance is what its EWMA says: the targets are all alike."""
    closes = np.where(np.arange(300) % 2, 100.0, 101.0)
    odd = series(served, closes)
    told = tell(odd, served.asked, settings=settings_for(["ODD"], min_training_rows=100))
    assert_sensible(told["forecasts"], odd, served.asked)


VOLATILITIES = st.sampled_from([0.0, 1e-9, 1e-5, 0.01, 0.1, 1.0])


@st.composite
def odd_series(draw: st.DrawFn, least: int = 1) -> dict:
    """Segments of different volatility, gaps, ranges or none, volumes or none, a unit error."""
    size = draw(st.integers(least, 320))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = np.concatenate(
        [draw(VOLATILITIES) * rng.standard_normal(part) for part in (size // 2, size - size // 2)]
    )
    closes = 10 ** draw(st.integers(-6, 9)) * np.exp(np.clip(np.cumsum(steps), -12, 12))
    if draw(st.booleans()):
        closes[rng.integers(size)] *= draw(st.sampled_from([0.01, 100.0]))
    wide = draw(st.sampled_from([0.0, 0.0, 0.02])) * rng.random(size)
    volume = draw(st.sampled_from([None, 0.0, 1.0, 1e15]))
    present = rng.random(size) < draw(st.sampled_from([1.0, 0.9, 0.3]))
    present[-1] = True
    return {
        "closes": closes,
        "high": closes * np.exp(wide),
        "low": closes * np.exp(-wide),
        "volume": volume,
        "present": present,
    }


@pytest.mark.slow
@given(odd=odd_series(), alone=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_series_gets_a_sensible_forecast(served, odd, alone) -> None:
    present = odd.pop("present")
    bars = series(served, odd.pop("closes"), **odd)
    served.forecast(bars.filter(pl.Series(present)), alone=alone)


@pytest.mark.slow
@given(odd=odd_series(least=200))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_series_can_be_trained_on(served, odd) -> None:
    present = odd.pop("present")
    bars = series(served, odd.pop("closes"), **odd).filter(pl.Series(present))
    features = Features.validate(make_features(bars), cast=True)
    cells = cells_of(bars, served.asked[-1:])
    small = settings_for(["ODD"], min_training_rows=60)
    Models.validate(in_force(cells, features, bars, MemoryRegistry(), small))


ODD = {
    "HUGE": 1e9,
    "PENNY": 1e-6,
    "LEAP": 100.0,
    "UNIT": 100.0,
    "STUCK": 100.0,
    "LEVEL": 100.0,
    "NEW": 100.0,
    "HALT": 100.0,
}
"""Tickers of one odd market, with the price that they begin at."""


@pytest.fixture(scope="module")
def odd_market(served: Served) -> pl.DataFrame:
    frames = []
    for number, (ticker, start) in enumerate(ODD.items()):
        closes = walk(300, start=start, seed=number)
        wide = 0.0 if ticker in {"STUCK", "LEVEL"} else 0.01
        if ticker == "LEAP":
            closes[-10:] *= 1e8
        if ticker == "UNIT":
            closes[-5] *= 100
        if ticker == "STUCK":
            closes[20:] = closes[20]
        columns = {"high": closes * np.exp(wide), "low": closes * np.exp(-wide)}
        volume = None if ticker == "LEVEL" else 1e15 if ticker == "HUGE" else 100.0
        made = series(served, closes, volume=volume, **columns)
        if ticker == "NEW":
            made = made.tail(2)
        if ticker == "HALT":
            made = pl.concat([made.head(200), made.tail(1)])
        frames.append(made.with_columns(pl.lit(ticker).alias("ticker")))
    return pl.concat(frames).sort("day", "ticker")


@pytest.mark.slow
def test_odd_series_pass_through_the_sql_too(served, odd_market, new_warehouse) -> None:
    """The features of production: sums in integers, which must hold all of this."""
    start = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    warehouse = new_warehouse(dict.fromkeys(ODD, "weekdays"))
    warehouse.put(
        odd_market.select(
            "day", "ticker", "interval", start.alias("start"), *PRICES, "volume",
            pl.lit("made").alias("source"),
        )
    )  # fmt: skip
    warehouse.build(None, served.asked[-1], None, "--select", "bars features")
    bars, features = (
        warehouse.table(name, None, served.asked[-1]) for name in ("bars", "features")
    )
    assert bars.height == odd_market.height
    settings = settings_for(list(ODD), min_training_rows=300)
    registry = MemoryRegistry()
    models = in_force(cells_of(bars, served.asked), features, bars, registry, settings)
    assert models["challenger"].drop_nulls().len() > 0
    made = forecast(cells_of(bars, served.asked), features, bars, models, registry)
    assert_sensible(made, bars, served.asked)
    # By the market's model too, whether or not this one's passed the gate.
    other = forecast(cells_of(bars, served.asked), features, bars, served.trained, served.registry)
    assert_sensible(other, bars, served.asked)
    model = other.filter(pl.col("day") == served.asked[-1], pl.col("horizon") == 1)
    served_by = dict(model.select("ticker", "model").iter_rows())
    assert {name for name, who in served_by.items() if who == "baseline"} == {
        "NEW", "HALT", "STUCK",
    }  # fmt: skip
