"""On markets whose variance is known: sigma and intervals are right, in calm and in storm.

Right means within sampling error. Sessions near each other share most of their future, so errors
are those of the means of blocks of sessions; all tickers of a session count once.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.labels import HORIZONS, returns_ahead
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES
from tests.forecasting.conftest import settings_for

from .chain import tell
from .markets import MEAN_REVERTING, RISK_METRICS, Garch, simulate

pytestmark = pytest.mark.slow

MODEL, BASELINE = "", "baseline_"
"""Prefixes of the columns of who forecasts."""

WEATHERS = ("calm", "middling", "storm")
INTERVALS = {0.5: ("q25", "q75"), 0.8: ("q10", "q90"), 0.9: ("q05", "q95")}
BLOCK = 20
"""Sessions in a block: four times the longest horizon."""

SURE = 4.0
"""Standard errors. Many numbers are looked at; one in 16,000 is beyond by chance."""

WORST_COVERAGE = 0.03
"""How far the coverage of the intervals in `PROMISED` may be off in any weather, sure or not."""

PROMISED = ("80%", "90%")


@pytest.fixture(autouse=True)
def _few_trees() -> None:
    """Here the model has the parameters of the product."""


@dataclass(frozen=True)
class Truth:
    """Rows of `Forecasts` beside what came (actual_return) and was to be expected (true_sigma)."""

    rows: pl.DataFrame

    def by_weather(self, who: str) -> pl.DataFrame:
        """With `weather`: the third of the forecasts of its horizon by the sigma forecast."""
        place = pl.col(f"{who}sigma").rank("ordinal").over("horizon") - 1
        third = (place * 3).floordiv(pl.len().over("horizon"))
        names = dict(enumerate(WEATHERS))
        return self.rows.with_columns(
            third.replace_strict(names, return_dtype=pl.String).alias("weather")
        )


def told(law: Garch, *, seed: int) -> Truth:
    """Two years of forecasts of twenty tickers, by a model that had three to learn from."""
    bars = simulate(law, 20, 1300, seed=seed)
    days = bars["day"].unique().sort().to_list()[800:1290]
    settings = settings_for(
        bars["ticker"].unique().sort(), cadence=120, window=800, min_training_rows=5000
    )
    story = tell(bars.drop("following"), days, settings=settings)
    true_variance = pl.coalesce(
        pl.when(pl.col("horizon") == horizon).then(law.over(pl.col("following"), horizon))
        for horizon in HORIZONS
    )
    rows = (
        story["forecasts"]
        .join(returns_ahead(story["labels"]), on=["day", "ticker", "horizon"])
        .join(bars.select("day", "ticker", "following"), on=["day", "ticker"])
        .with_columns(true_variance.sqrt().alias("true_sigma"))
    )
    return Truth(rows)


@pytest.fixture(scope="module")
def mean_reverting() -> Truth:
    return told(MEAN_REVERTING, seed=1)


@pytest.fixture(scope="module")
def risk_metrics() -> Truth:
    return told(RISK_METRICS, seed=2)


@dataclass(frozen=True)
class Finding:
    """How far a number is from what it should be."""

    weather: str
    horizon: int
    what: str
    off: float
    errors: float
    """The same in its standard errors."""

    def __str__(self) -> str:
        where = f"{self.weather}, {self.horizon} ahead"
        return f"{where}: {self.what} off by {self.off:+.3f} ({self.errors:+.1f} errors)"


def found(rows: pl.DataFrame, who: str) -> list[Finding]:
    """Coverage, and the mean of (return / sigma)^2 less one, by weather and horizon."""
    came, sigma = pl.col("actual_return"), pl.col(f"{who}sigma")
    checks = {"squares": (came / sigma) ** 2 - 1} | {
        f"{level:.0%}": came.is_between(f"{who}return_{low}", f"{who}return_{high}").cast(float)
        - level
        for level, (low, high) in INTERVALS.items()
    }
    findings = []
    for (weather, horizon), part in rows.group_by("weather", "horizon", maintain_order=True):
        daily = part.group_by("day").agg(
            pl.len().alias("rows"), *(value.sum().alias(name) for name, value in checks.items())
        )
        number = (pl.col("day") - dt.date(2020, 1, 6)).dt.total_days() // (7 * BLOCK // 5)
        blocks = daily.group_by(number.alias("block")).agg(pl.all().exclude("day").sum())
        for name in checks:
            off, error = _ratio(blocks[name].to_numpy(), blocks["rows"].to_numpy())
            findings.append(Finding(str(weather), int(horizon), name, off, off / error))
    return findings


def _ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """A mean over blocks of different size, and its standard error."""
    mean = sums.sum() / counts.sum()
    rests = sums - mean * counts
    factor = len(sums) / (len(sums) - 1)
    return float(mean), math.sqrt(factor * float(rests @ rests)) / float(counts.sum())


def wrong(truth: Truth, who: str) -> list[str]:
    """What is off beyond chance, or by more than is promised however sure it is."""
    rows = truth.by_weather(who)
    everything = [*found(rows.with_columns(weather=pl.lit("all")), who), *found(rows, who)]
    return [
        str(item)
        for item in everything
        if abs(item.errors) > SURE or (item.what in PROMISED and abs(item.off) > WORST_COVERAGE)
    ]


def bias_and_spread(truth: Truth, who: str) -> pl.DataFrame:
    """Mean and deviation of log(sigma / true sigma), by weather and horizon."""
    error = (pl.col(f"{who}sigma") / pl.col("true_sigma")).log()
    return (
        truth.by_weather(who)
        .group_by("weather", "horizon")
        .agg(error.mean().alias("bias"), error.std().alias("spread"))
        .sort("weather", "horizon")
    )


def test_the_models_sigma_and_intervals_are_right_in_every_weather(mean_reverting) -> None:
    assert (mean_reverting.rows["model"] != "baseline").all()
    assert wrong(mean_reverting, MODEL) == []


def test_the_baselines_are_right_where_its_law_holds(risk_metrics) -> None:
    assert wrong(risk_metrics, BASELINE) == []
    found = bias_and_spread(risk_metrics, BASELINE)
    # But for the 0.2 % of all weight that lies beyond the 100 sessions it looks back.
    assert found["bias"].abs().max() < 0.001
    assert found["spread"].max() < 0.002


def test_the_models_sigma_is_near_the_truth_and_nearer_than_an_ewma(mean_reverting) -> None:
    model, ewma = (bias_and_spread(mean_reverting, who) for who in (MODEL, BASELINE))
    assert model["bias"].abs().max() < 0.1
    assert (model["spread"] < 0.8 * ewma["spread"]).all()


def test_what_is_wrong_is_found(mean_reverting) -> None:
    """By the same check: an EWMA where storms pass, and a sigma or quantiles a little off."""
    ewma = wrong(mean_reverting, BASELINE)
    assert {"calm, 5 ahead: squares", "storm, 5 ahead: 90%", "calm, 1 ahead: 80%"} <= {
        item.split(" off")[0] for item in ewma
    }
    quantiles = [f"return_{name}" for name in QUANTILE_NAMES]
    larger = Truth(mean_reverting.rows.with_columns(pl.col("sigma") * 1.15))
    assert any("all, 1 ahead: squares" in item for item in wrong(larger, MODEL))
    narrower = Truth(mean_reverting.rows.with_columns(pl.col(quantiles) * 0.9))
    assert any("all, 5 ahead: 90%" in item for item in wrong(narrower, MODEL))


@pytest.mark.parametrize("law", ["mean_reverting", "risk_metrics"])
def test_quantiles_rise_and_price_and_return_agree(request, law) -> None:
    rows = request.getfixturevalue(law).rows
    assert len(QUANTILES) == len(QUANTILE_NAMES)
    for prefix in ("price_", "return_", "baseline_return_"):
        values = rows.select(prefix + name for name in QUANTILE_NAMES).to_numpy()
        assert (np.diff(values, axis=1) > 0).all()
    for name in QUANTILE_NAMES:
        agree = (rows["price_" + name] / rows["last_price"]).log() - rows["return_" + name]
        assert agree.abs().max() < 1e-12
