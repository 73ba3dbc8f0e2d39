"""Nothing is claimed that a test does not bear, however many things are tested at once."""

from __future__ import annotations

import datetime as dt
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.claims import Claim, MedianSkill, proven, verdict
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.protocol import RETURNS, Evaluation, evaluate
from stock_assets.forecasting.scoring import Calls, Comparison, RankCorrelation
from stock_assets.lake.schemas import QUANTILES

FIRST = dt.date(2020, 1, 1)
GAUSSIAN = tuple(NormalDist().inv_cdf(level) for level in QUANTILES)
MARKETS, TICKERS, DAYS = 100, 8, 260


def claims(*chances: float | None) -> list[Claim]:
    return [Claim(str(n), better=True, t=2.0, p=p) for n, p in enumerate(chances)]


@pytest.mark.parametrize(
    ("chances", "sure"),
    [
        ((0.04,), {"0"}),
        ((0.04, 0.9), set()),  # 0.04 of two tests is 0.08
        ((0.02, 0.04), {"0", "1"}),  # once the first is sure one is left
        ((0.03, 0.04), set()),
        ((None, 0.04), {"1"}),
        ((0.001, 0.03, 0.02), {"0", "1", "2"}),
        ((), set()),
    ],
)
def test_claims_are_proven_by_holms_rule(chances: tuple[float | None, ...], sure: set[str]) -> None:
    assert proven(claims(*chances)) == sure


def beside(loss: float, t: float | None, days: int = 500) -> Comparison:
    return Comparison(loss, 1.0, days, t)


def calls(loss: float, t: float | None) -> Calls:
    return Calls(loss, 1.0, 500, t)


@pytest.mark.parametrize(
    ("median", "said"),
    [
        (
            MedianSkill(None, None, None),
            "no better than the random walk, as the median is the last price",
        ),
        (MedianSkill(calls(0.49, 1.0), None, beside(0.99, 1.1)), "no better than the random walk"),
        (MedianSkill(calls(0.4, 4.0), None, beside(0.99, 1.1)), "better than the random walk on"),
        (MedianSkill(calls(0.49, 1.0), None, beside(1.1, -4.0)), "worse than the random walk"),
        (MedianSkill(calls(0.4, 4.0), None, beside(1.1, -4.0)), "no skill on direction"),
    ],
)
def test_the_sentence_on_direction(median: MedianSkill, said: str) -> None:
    assert said in verdict(median, {}, {}, {80: 0.8}).sentence


def test_volatility_is_told_with_its_size_and_its_t() -> None:
    found = verdict(
        MedianSkill(None, None, None),
        {"garch": beside(0.89, 3.6), "har": beside(0.99, 1.1)},
        {"ewma": beside(0.985, 4.0)},
        {80: 0.796, 90: 0.9},
    )
    assert found.sentence == (
        "no skill on direction: no better than the random walk, as the median is the last price; "
        "volatility 11.0 % better than garch (t 3.6); "
        "volatility 1.0 % better than har, which may be luck (t 1.1); "
        "pinball 1.5 % better than ewma (t 4.0); "
        "the 80 % interval held 79.6 % and the 90 % interval held 90.0 %"
    )
    assert found.proven == ("volatility against garch", "pinball against ewma")


def test_too_good_is_an_alarm_and_luck_is_none() -> None:
    good = MedianSkill(calls(0.4, 5.0), RankCorrelation(0.2, 500, 6.0), beside(0.97, 3.0))
    assert len(verdict(good, {}, {}, {}).alarms) == 3
    lucky = MedianSkill(calls(0.4, 1.5), RankCorrelation(0.2, 500, 1.0), beside(0.97, 0.5))
    assert verdict(lucky, {}, {}, {}).alarms == ()


def right_in(share: float, always_up: float, t: float) -> MedianSkill:
    """A median that was right in so many calls, beside always-up."""
    return MedianSkill(Calls(1 - share, 1 - always_up, 500, t), None, None)


def test_always_down_in_a_market_that_fell_is_neither_skill_nor_a_leak() -> None:
    between = Calls(0.36, 0.36, 500, None, "always down", between=True)
    found = verdict(MedianSkill(between, None, None), {}, {}, {})
    assert found.sentence.startswith(
        "no skill on direction: no better than the random walk, "
        "64.0 % of calls right beside 64.0 % always down"
    )
    assert (found.alarms, found.claims[0].p) == ((), 1.0), "a test that proved nothing counts"


def test_right_more_often_than_54_but_less_than_always_up_is_worse_and_no_alarm() -> None:
    """In a market that mostly rose, who is right in 55 % has lost to who says "up"."""
    found = verdict(right_in(0.55, 0.62, t=-5.0), {}, {}, {})
    assert "worse than the random walk" in found.sentence
    assert found.alarms == ()


def test_a_price_or_ranks_that_are_good_on_average_and_bad_by_the_test_are_no_alarm() -> None:
    """The sign counts for all three; numbers so odd come from few days of a wild market."""
    odd = MedianSkill(None, RankCorrelation(0.2, 500, -4.0), beside(0.97, -4.0))
    assert verdict(odd, {}, {}, {}).alarms == ()


# The limits are those of the protocol: R2 above 1 %, direction above 54 %, rank IC above 0.10.
@pytest.mark.parametrize(
    ("median", "alarmed"),
    [
        (right_in(0.5405, 0.5, t=5.0), True),
        (right_in(0.5395, 0.5, t=5.0), False),
        (MedianSkill(None, RankCorrelation(0.105, 500, 5.0), None), True),
        (MedianSkill(None, RankCorrelation(0.095, 500, 5.0), None), False),
        (MedianSkill(None, None, beside(0.9895, 5.0)), True),
        (MedianSkill(None, None, beside(0.9905, 5.0)), False),
    ],
)
def test_the_alarm_begins_at_the_limits_of_the_protocol(
    median: MedianSkill, *, alarmed: bool
) -> None:
    assert bool(verdict(median, {}, {}, {}).alarms) == alarmed


@pytest.mark.parametrize(("t", "alarmed"), [(2.6, True), (2.4, False)])
def test_an_alarm_needs_a_chance_below_one_in_a_hundred(t: float, *, alarmed: bool) -> None:
    """Student's 1 % point, one-sided, is 2.49 with the 24 degrees of freedom of 500 days."""
    for median in (
        right_in(0.6, 0.5, t),
        MedianSkill(None, RankCorrelation(0.2, 500, t), None),
        MedianSkill(None, None, beside(0.9, t)),
    ):
        assert bool(verdict(median, {}, {}, {}).alarms) == alarmed


def test_ranks_alone_are_no_skill_on_direction() -> None:
    ranked = MedianSkill(calls(0.49, 1.0), RankCorrelation(0.05, 500, 5.0), beside(0.99, 1.1))
    found = verdict(ranked, {}, {}, {})
    assert found.proven == ("ranks",)
    assert found.sentence.startswith("no skill on direction: no better than the random walk")
    assert "ranks tickers better than luck" in found.sentence


def market(seed: int, *, follows: float = 0.0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars of a random walk with volatility that clusters, and a market that all share.

    With `follows` it is none: tomorrow repeats that share of the last five sessions' mean return.
    Gives bars, the last five sessions' return of each cell, and a volatility of it.
    """
    rng = np.random.default_rng(seed)
    days = get_calendar(WEEKDAYS).after(FIRST, DAYS)
    level = np.exp(np.cumsum(0.1 * rng.standard_normal(DAYS)) * 0.3)
    shared, own = rng.standard_normal((DAYS, 1)), rng.standard_normal((DAYS, TICKERS))
    steps = 0.01 * level[:, None] * (0.6 * shared + 0.8 * own)
    for day in range(5, DAYS):
        steps[day] += follows * steps[day - 5 : day].mean(axis=0)
    price = np.cumsum(steps, axis=0)
    momentum = price - np.concatenate([np.tile(price[:1], (5, 1)), price[:-5]])
    names = [f"T{n}" for n in range(TICKERS)]

    def long(values: np.ndarray, name: str) -> pl.DataFrame:
        wide = pl.DataFrame(values, schema=names).with_columns(pl.Series("day", days))
        return wide.unpivot(names, index="day", variable_name="ticker", value_name=name)

    bars = long(np.exp(price), "close").with_columns(
        *(pl.col("close").alias(name) for name in ("open", "high", "low")),
        *(
            pl.lit(None, pl.Float64).alias(name)
            for name in ("realised_variance", "suspected_split")
        ),
        pl.lit(WEEKDAYS).alias("exchange"),
    )
    ewma = long(np.tile(0.01 * level[:, None], (1, TICKERS)), "volatility")
    return bars, long(momentum, "momentum"), ewma


def band(cells: pl.DataFrame, median: pl.Expr) -> pl.DataFrame:
    """A Gaussian band around `median`, of five horizons."""
    horizons = pl.DataFrame({"horizon": [1, 2, 3, 4, 5]}, schema={"horizon": pl.Int32})
    root = pl.col("horizon").cast(pl.Float64).sqrt()
    return (
        cells.join(horizons, how="cross")
        .with_columns((pl.col("volatility") * root).alias("sigma"))
        .with_columns(
            (median + pl.col("sigma") * quantile).alias(name)
            for name, quantile in zip(RETURNS, GAUSSIAN, strict=True)
        )
    )


def judged(seed: int, follows: float = 0.0) -> dict[str, Evaluation]:
    """The verdicts on a follower and on an opponent of the last week's return."""
    bars, momentum, volatility = market(seed, follows=follows)
    cells = momentum.join(volatility, on=["day", "ticker"])
    step = pl.col("momentum") / 5 * pl.col("horizon")
    made = {
        "follower": band(cells, 0.3 * step),
        "opponent": band(cells, -0.3 * step),
        "ewma": band(cells, pl.lit(0.0)),
    }
    labelled = labels(bars)
    return {
        name: evaluate({name: made[name], "ewma": made["ewma"]}, labelled, volatility)
        for name in ("follower", "opponent", "ewma")
        if name != "ewma"
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_a_pure_random_walk_there_is_no_skill_on_direction() -> None:
    false = dict.fromkeys(("follower", "opponent"), 0)
    for seed in range(MARKETS):
        for name, found in judged(seed).items():
            skilled = "no skill on direction" not in found.verdict.sentence
            better = {claim.topic for claim in found.verdict.claims if claim.better}
            false[name] += skilled or bool(better & set(found.verdict.proven))
    assert all(count < 0.05 * MARKETS for count in false.values()), false


def test_where_there_is_momentum_its_follower_has_skill_and_its_opponent_has_not() -> None:
    found = judged(1, follows=0.6)
    assert "better than the random walk on direction" in found["follower"].verdict.sentence
    assert "no skill on direction: worse" in found["opponent"].verdict.sentence
