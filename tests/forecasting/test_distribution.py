"""The distribution behind a forecast: inverse, monotone, exact, and its probabilities come true."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # noqa: TID253 - no command loads a test

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.baseline import baseline_forecasts
from stock_assets.forecasting.distribution import PriceDistributions
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.scoring import diebold_mariano
from stock_assets.lake.schemas import QUANTILES
from stock_assets.lake.splits import read_splits, split_factors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRICES = st.floats(0.01, 1e6)
PROBABILITIES = st.floats(1e-6, 1 - 1e-6)
# Thousandths of a log return, so that neighbours are equal now and then but never nearly so.
RETURNS = st.lists(st.integers(-300, 300), min_size=7, max_size=7).map(
    lambda values: [value / 1000 for value in sorted(values)]
)


def forecast(last_price: float, returns: list[float], sigma: float = 0.02) -> PriceDistributions:
    return PriceDistributions(np.array([last_price]), np.array([returns]), np.array([sigma]))


def one(found: np.ndarray) -> float:
    assert found.shape == (1,)
    return float(found[0])


def slow_probability(returns: list[float], sigma: float, wanted: float) -> float:
    """`cdf` at a log return by walking along the segments."""
    odds = [math.log(level / (1 - level)) for level in QUANTILES]
    own = sigma * math.sqrt(3) / math.pi
    lower = (returns[1] - returns[0]) / (odds[1] - odds[0]) or own
    upper = (returns[6] - returns[5]) / (odds[6] - odds[5]) or own
    found = odds[0] + (wanted - returns[0]) / lower
    for place in range(6):
        if wanted >= returns[place]:
            found = odds[place]
            if returns[place + 1] > returns[place]:
                share = (wanted - returns[place]) / (returns[place + 1] - returns[place])
                found += share * (odds[place + 1] - odds[place])
    if wanted >= returns[6]:
        found = odds[6] + (wanted - returns[6]) / upper
    return 1 / (1 + math.exp(-found)) if found > -700 else 0.0


@settings(deadline=None)
@given(RETURNS, PRICES, st.floats(0.001, 0.2), st.floats(-0.5, 0.5))
def test_probabilities_agree_with_walking_along_the_segments(
    returns: list[float], last: float, sigma: float, ahead: float
) -> None:
    price = last * math.exp(ahead)
    expected = slow_probability(returns, sigma, math.log(price / last))
    assert one(forecast(last, returns, sigma).cdf(price)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(RETURNS, PRICES)
def test_the_seven_quantiles_are_kept_exactly(returns: list[float], last: float) -> None:
    distribution = forecast(last, returns)
    for level, value in zip(QUANTILES, returns, strict=True):
        price = last * float(np.exp(value))
        assert one(distribution.quantile(level)) == price
        if returns.count(value) == 1:
            assert one(distribution.cdf(price)) == pytest.approx(level, abs=1e-9)


@settings(deadline=None)
@given(RETURNS, PRICES, PROBABILITIES)
def test_a_quantile_is_the_least_price_not_exceeded_with_its_probability(
    returns: list[float], last: float, probability: float
) -> None:
    distribution = forecast(last, returns)
    price = distribution.quantile(probability)
    assert one(distribution.cdf(price * (1 + 1e-12))) >= probability - 1e-9
    assert one(distribution.probability_below(price * (1 - 1e-12))) <= probability + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=7, max_size=7), PRICES, PROBABILITIES)
def test_quantiles_and_probabilities_are_inverse_where_nothing_jumps(
    steps: list[int], last: float, probability: float
) -> None:
    distribution = forecast(last, list(np.cumsum(steps) / 1000 - 0.2))
    price = distribution.quantile(probability)
    assert one(distribution.cdf(price)) == pytest.approx(probability, rel=1e-6)
    assert one(distribution.probability_above(price)) == pytest.approx(1 - probability, rel=1e-6)
    assert one(distribution.probability_below(price)) == pytest.approx(probability, rel=1e-6)
    assert one(distribution.quantile(one(distribution.cdf(price)))) == pytest.approx(one(price))


@settings(deadline=None)
@given(RETURNS, PRICES, st.lists(st.floats(0, 3), min_size=2, max_size=20), PROBABILITIES)
def test_nothing_ever_falls(
    returns: list[float], last: float, multiples: list[float], probability: float
) -> None:
    distribution = forecast(last, returns)
    found = [one(distribution.cdf(last * multiple)) for multiple in sorted(multiples)]
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= 1
    more = min(probability * 1.1, 1 - 1e-6)
    assert one(distribution.quantile(probability)) <= one(distribution.quantile(more)) or (
        more < probability
    )


@settings(deadline=None)
@given(RETURNS, PRICES, st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.99]))
def test_the_expected_range_ends_below_and_above_with_equal_probability(
    returns: list[float], last: float, probability: float
) -> None:
    distribution = forecast(last, returns)
    low, high = distribution.interval(probability)
    outside = (1 - probability) / 2
    assert one(low) <= one(high)
    # A hair outside: where the price may jump, rounding decides which side its quantile is on.
    assert one(distribution.probability_below(low * (1 - 1e-12))) <= outside + 1e-9
    assert one(distribution.probability_above(high * (1 + 1e-12))) <= outside + 1e-9
    names = {0.5: (2, 4), 0.8: (1, 5), 0.9: (0, 6)}.get(probability)
    if names:
        ends = last * np.exp([returns[place] for place in names])
        assert [one(low), one(high)] == ends.tolist()


def test_a_price_that_stands_still_ends_neither_above_nor_below() -> None:
    still = forecast(100.0, [-0.01, -0.005, 0.0, 0.0, 0.0, 0.004, 0.01])
    assert one(still.probability_above(100)) == pytest.approx(0.25)
    assert one(still.probability_below(100)) == pytest.approx(0.25)
    stuck = forecast(100.0, [0.0] * 7, sigma=0.01)
    assert one(stuck.quantile(0.5)) == 100
    assert one(stuck.probability_below(100)) == pytest.approx(0.05)
    spread = math.log(one(stuck.quantile(0.99)) / 100)
    assert 0 < spread < stats.logistic.ppf(0.99, scale=0.01)


def test_prices_that_cannot_be_and_probabilities_that_are_none() -> None:
    distribution = forecast(100.0, [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03])
    assert one(distribution.probability_above(0)) == 1
    assert one(distribution.probability_above(-5)) == 1
    assert one(distribution.probability_below(1e300)) == 1
    assert math.isnan(one(distribution.cdf(math.nan)))
    for bad in (0, 1, -0.1, 90, math.nan):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            distribution.quantile(bad)


def test_to_touch_a_level_is_twice_as_likely_as_to_end_beyond_it_and_certain_where_it_is() -> None:
    distribution = forecast(100.0, [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04])
    for price in (97.0, 103.0):
        beyond = min(one(distribution.cdf(price)), one(distribution.probability_above(price)))
        assert one(distribution.probability_touch(price)) == pytest.approx(2 * beyond)
    assert one(distribution.probability_touch(100.0)) == 1


@pytest.mark.parametrize("away", [0.5, 1.0, 2.0])
def test_touching_comes_true_on_a_continuous_path(away: float) -> None:
    rng = np.random.default_rng(3)
    paths, steps = 4000, 2000
    highest = np.zeros(paths)
    for _ in range(4):
        walks = rng.standard_normal((paths // 4, steps)).cumsum(axis=1) / math.sqrt(steps)
        highest = np.concatenate([highest[paths // 4 :], walks.max(axis=1)])
    quantiles = (stats.norm.ppf(QUANTILES) * 0.01).tolist()
    asked = one(forecast(100.0, quantiles).probability_touch(100 * math.exp(0.01 * away)))
    # 2000 steps miss a little of a continuous path's maximum: 0.58 of a step (Broadie 1997).
    seen = float((highest + 0.5826 / math.sqrt(steps) > away).mean())
    assert asked == pytest.approx(seen, abs=0.03)


# Calibration: do the probabilities come true? --------------------------------------------------


def reliability(probability: np.ndarray, happened: np.ndarray) -> float:
    """The p value of Hosmer and Lemeshow's test (1980), for probabilities that were not fitted."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    groups = [part for part in np.array_split(order, 10) if len(part)]
    for part in groups:
        p = probability[part]
        total += (happened[part].sum() - p.sum()) ** 2 / (p * (1 - p)).sum()
    return float(stats.chi2.sf(total, len(groups)))


def simulated(truth: stats.rv_continuous, width: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of levels of all distances, and whether they came true, 20,000 of each.

    Forecasts whose quantiles are the truth's times `width`; volatility differs from row to row.
    """
    rng = np.random.default_rng(seed)
    count = 20_000
    sigma = 0.02 * np.exp(0.5 * rng.standard_normal(count))
    came = sigma * truth.rvs(count, random_state=rng)
    last = np.full(count, 100.0)
    quantiles = sigma[:, None] * width * truth.ppf(QUANTILES)
    distributions = PriceDistributions(last, quantiles, sigma)
    level = last * np.exp(sigma * rng.normal(0, 1.5, count))
    return distributions.probability_above(level), last * np.exp(came) > level


TRUTHS = {
    "normal": stats.norm(),
    "fat tails": stats.t(4, scale=math.sqrt(0.5)),
    "skewed": stats.gamma(4, loc=-2, scale=0.5),
}


@pytest.mark.parametrize("truth", TRUTHS)
def test_probabilities_come_true_within_sampling_error(truth: str) -> None:
    # Over several markets: a reliable forecast fails a test at 1 % about never in twenty.
    values = [reliability(*simulated(TRUTHS[truth], 1.0, seed)) for seed in range(20)]
    assert sum(value < 0.01 for value in values) <= 2


@pytest.mark.parametrize("width", [0.5, 0.9, 1.1])
def test_the_test_of_reliability_finds_intervals_too_narrow_or_too_wide(width: float) -> None:
    values = [reliability(*simulated(TRUTHS["normal"], width, seed)) for seed in range(5)]
    assert max(values) < 0.001


def due(forecasts: pl.DataFrame, bars: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """Forecasts beside what came, `last_price` in adjusted shares."""
    last = bars.select("day", "ticker", pl.col("close").alias("last_price"))
    return forecasts.join(returns_ahead(labelled), on=["day", "ticker", "horizon"]).join(
        last, on=["day", "ticker"]
    )


def excess_by_day(rows: pl.DataFrame, level: np.ndarray) -> np.ndarray:
    """How much more often than forecast the price ended above `level`, day by day."""
    ended = rows["last_price"].to_numpy() * np.exp(rows["actual_return"].to_numpy())
    excess = (ended > level) - PriceDistributions.of(rows).probability_above(level)
    daily = rows.select("day", pl.Series("excess", excess)).group_by("day").agg(pl.col("*").mean())
    return daily.sort("day")["excess"].to_numpy()


def test_the_products_forecasts_of_a_simulated_market_come_true(
    make_bars: Callable[..., pl.DataFrame], features_of: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    bars = make_bars(list("ABCDEFGHIJKL"), 900, seed=11)
    labelled, features = labels(bars), features_of(bars)
    late = bars["day"].unique().sort()[400]
    cells = bars.filter(pl.col("day") >= late)
    rows = due(baseline_forecasts(cells, features, labelled), bars, labelled)
    for away in (-2.0, -1.0, -0.3, 0.3, 1.0, 2.0):
        level = rows["last_price"].to_numpy() * np.exp(away * rows["sigma"].to_numpy())
        found = excess_by_day(rows, level)
        t = diebold_mariano(found)
        assert t is not None
        assert abs(t) < 4, away
        assert abs(found.mean()) < 0.03, away


@pytest.fixture(scope="module")
def real(
    shared_data: Path, features_of: Callable[[pl.DataFrame], pl.DataFrame]
) -> dict[str, pl.DataFrame]:
    """The baseline's forecasts of three later years of the development sets, beside what came."""
    found = {}
    for name, exchange, first in (
        ("moex_daily_dev_tqbr", "XMOS", dt.date(2021, 1, 1)),
        ("us_daily_dev", "XNYS", dt.date(2018, 1, 1)),
    ):
        bars = real_bars(shared_data, name, exchange, first)
        features, labelled = features_of(bars), labels(bars)
        start = get_calendar(exchange).after(first, 501)[-1]
        cells = bars.filter(pl.col("day") >= start)
        found[exchange] = due(baseline_forecasts(cells, features, labelled), bars, labelled)
    return found


def real_bars(folder: Path, name: str, exchange: str, first: dt.date) -> pl.DataFrame:
    raw = (
        pl.read_parquet(folder / f"{name}.parquet")
        .with_columns(pl.col("timestamp").dt.date().alias("day"))
        .filter((pl.col("day") >= first) & (pl.min_horizontal("open", "low", "close") > 0))
    )
    factor = pl.lit(1.0)
    for item in split_factors(read_splits(folder / "splits")) if exchange == "XMOS" else ():
        after = (pl.col("ticker") == item.ticker) & (pl.col("day") >= item.day)
        factor = pl.when(after).then(item.factor).otherwise(factor)
    return (
        raw.with_columns(pl.col("open", "high", "low", "close") * factor)
        .with_columns(
            pl.lit(exchange).alias("exchange"),
            pl.lit(None, pl.Float64).alias("realised_variance"),
            pl.lit(None, pl.Float64).alias("suspected_split"),
        )
        .filter(pl.col("day").is_in(list(get_calendar(exchange).sessions)))
        .unique(["day", "ticker"])
        .sort("day", "ticker")
    )


@pytest.mark.parametrize("exchange", ["XMOS", "XNYS"])
def test_on_real_candles_probabilities_are_nearly_uniform(
    real: dict[str, pl.DataFrame], exchange: str
) -> None:
    rows = real[exchange]
    ended = rows["last_price"].to_numpy() * np.exp(rows["actual_return"].to_numpy())
    pit = PriceDistributions.of(rows).cdf(ended)
    deciles = np.histogram(pit, np.linspace(0, 1, 11))[0] / len(pit)
    assert np.abs(deciles - 0.1).max() < 0.025, deciles
    for level in (0.01, 0.99):
        share = float((pit <= level).mean())
        assert share == pytest.approx(level, abs=0.005)


@pytest.mark.parametrize("exchange", ["XMOS", "XNYS"])
def test_on_real_candles_probabilities_of_round_levels_are_reliable(
    real: dict[str, pl.DataFrame], exchange: str
) -> None:
    rows = real[exchange]
    last = rows["last_price"].to_numpy()
    unit = 10.0 ** (np.floor(np.log10(last)) - 1)  # 300 -> 10, 42 -> 1
    ended = last * np.exp(rows["actual_return"].to_numpy())
    for level in (np.ceil(last / unit) * unit, np.floor(last / unit) * unit):
        asked = PriceDistributions.of(rows).probability_above(level)
        for low in np.arange(0, 1, 0.1):
            chosen = (asked >= low) & (asked < low + 0.1)
            if chosen.sum() < 5000:
                continue
            said, came = asked[chosen].mean(), (ended > level)[chosen].mean()
            assert said == pytest.approx(came, abs=0.04), chosen.sum()
