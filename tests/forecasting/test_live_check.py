"""The live check: silent while forecasts are calibrated, loud when they are not, in plain words."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats  # noqa: TID253 - no command loads a test

from stock_assets.forecasting.live_check import LiveVerdict, live_verdict, recent_scores
from stock_assets.lake.schemas import QUANTILES
from stock_assets.settings import ScoreSettings

DEFAULTS = ScoreSettings()
MONTH = 21
HORIZONS = 5
FIRST = dt.date(2025, 1, 1)
SCORES = np.array(stats.norm.ppf(QUANTILES))


def market(
    tickers: int, correlation: float, days: int, seed: int, width: float = 1.0, noise: float = 0.05
) -> pl.DataFrame:
    """Scores of a market whose true volatility is known.

    Forecasts for all horizons by a model and by a baseline that are equally good: the truth, each
    with a random error of `noise` in log sigma; the model's sigma then times `width`.
    """
    rng = np.random.default_rng(seed)
    sessions = days + HORIZONS
    together = rng.standard_normal((sessions, 1))
    alone = rng.standard_normal((sessions, tickers))
    returns = math.sqrt(correlation) * together + math.sqrt(1 - correlation) * alone
    price = np.vstack([np.zeros((1, tickers)), returns.cumsum(axis=0)])
    dates = np.arange(days).astype("timedelta64[D]") + np.datetime64(FIRST, "D")
    parts = []
    for horizon in range(1, HORIZONS + 1):
        came = (price[HORIZONS + 1 :] - price[HORIZONS + 1 - horizon : -horizon]).ravel()
        came /= math.sqrt(horizon)
        error, other = np.exp(noise * rng.standard_normal((2, came.size)))
        own = width * error
        inside = {
            name: np.abs(came) < own * SCORES[place] for name, place in (("80", 5), ("90", 6))
        }
        parts.append(
            pl.DataFrame(
                {
                    "day": np.repeat(dates, tickers),
                    "ticker": [f"T{n}" for n in range(tickers)] * days,
                    "horizon": [horizon] * came.size,
                    "model": ["m"] * came.size,
                    "in_80": inside["80"],
                    "in_90": inside["90"],
                    "pinball": pinball(came, own),
                    "baseline_pinball": pinball(came, other),
                }
            )
        )
    return pl.concat(parts)


def pinball(came: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    short = came[:, None] - sigma[:, None] * SCORES
    levels = np.array(QUANTILES)
    return np.maximum(levels * short, (levels - 1) * short).mean(axis=1)


def months_with_an_alarm(tickers: int, correlation: float, months: int) -> float:
    """Share of months in which a check every day, of calibrated forecasts, fails at least once."""
    failed = 0
    for seed in range(months):
        scores = market(tickers, correlation, DEFAULTS.window + MONTH - 1, seed)
        evenings = [FIRST + dt.timedelta(DEFAULTS.window - 1 + n) for n in range(MONTH)]
        failed += any(
            live_verdict(scores.filter(pl.col("day") <= evening), "X", DEFAULTS).failures
            for evening in evenings
        )
    return failed / months


@pytest.mark.slow
def test_calibrated_forecasts_seldom_raise_an_alarm_in_a_month() -> None:
    assert months_with_an_alarm(tickers=8, correlation=0.4, months=40) <= 0.10


@pytest.mark.slow
@pytest.mark.parametrize(("tickers", "correlation"), [(4, 0.3), (10, 0.5), (50, 0.6)])
def test_one_month_in_twenty_at_most_has_a_false_alarm(tickers: int, correlation: float) -> None:
    # 5 % of 100 months, and what sampling adds to that (99 %).
    assert months_with_an_alarm(tickers, correlation, months=100) <= 0.05 + 0.051


@pytest.mark.parametrize(
    ("tickers", "correlation", "found"), [(1, 0, 0.7), (4, 0.3, 1), (50, 0.6, 1)]
)
def test_a_halved_sigma_is_found(tickers: int, correlation: float, found: float) -> None:
    verdicts = [
        live_verdict(market(tickers, correlation, DEFAULTS.window, seed, width=0.5), "X", DEFAULTS)
        for seed in range(20)
    ]
    loud = [verdict for verdict in verdicts if verdict.failures]
    assert len(loud) >= found * len(verdicts)
    assert all("too narrow" in verdict.sentence for verdict in loud)


def test_a_doubled_sigma_is_found_even_when_every_outcome_is_inside() -> None:
    scores = market(50, 0.3, DEFAULTS.window, 1, width=2)
    assert "interval is too wide" in live_verdict(scores, "X", DEFAULTS).sentence
    inside = market(50, 0.3, DEFAULTS.window, 1).with_columns(
        pl.lit(value=True).alias("in_80"), pl.lit(value=True).alias("in_90")
    )
    assert len(live_verdict(inside, "X", DEFAULTS).failures) == 2


def test_a_single_ticker_that_is_nearly_always_inside_is_no_proof() -> None:
    days = pl.col("day") == FIRST + dt.timedelta(7)
    seldom = market(1, 0, DEFAULTS.window, 1).with_columns(
        (~days).alias("in_80"), (~days).alias("in_90")
    )
    ninety = live_verdict(seldom, "X", DEFAULTS).coverages[1]
    assert ninety.covered > 0.98
    assert ninety.p is not None
    assert ninety.p > DEFAULTS.significance


def test_forecasts_that_are_worse_than_the_baseline_are_found() -> None:
    scores = market(20, 0.3, DEFAULTS.window, 2)
    worse = scores.with_columns(pl.col("pinball") * 1.03)
    verdict = live_verdict(worse, "X", DEFAULTS)
    assert len(verdict.failures) == 1
    assert "above the baseline's, worse than luck explains" in verdict.sentence
    better = scores.with_columns(pl.col("pinball") * 0.97)
    assert live_verdict(better, "X", DEFAULTS).failures == ()


def verdict_of_a_good_market(days: int) -> LiveVerdict:
    return live_verdict(market(20, 0.3, days, 5), "XMOS", DEFAULTS)


def test_the_sentence_has_the_numbers() -> None:
    verdict = verdict_of_a_good_market(60)
    covered = {item.nominal: item.covered for item in verdict.coverages}
    assert verdict.days == 60
    assert verdict.forecasts == 60 * 20 * 5
    assert "XMOS, 6,000 forecasts over the 60 target days to 2025-03-01" in verdict.sentence
    assert f"the 80 % interval held {100 * covered[0.8]:.1f} %" in verdict.sentence


def test_nothing_is_judged_on_too_few_days() -> None:
    verdict = live_verdict(market(20, 0.3, 19, 5, width=0.5), "XMOS", DEFAULTS)
    assert verdict.failures == ()
    assert "too few days to judge" in verdict.sentence
    nothing = live_verdict(market(1, 0.3, 19, 5).clear(), "XMOS", DEFAULTS)
    assert nothing.failures == ()
    assert "no forecast has reached its target day" in nothing.sentence


def test_only_the_window_counts() -> None:
    scores = market(5, 0.3, 100, 3)
    last = recent_scores(scores, DEFAULTS.window)
    assert last["day"].n_unique() == DEFAULTS.window
    assert last["day"].max() == scores["day"].max()
    assert live_verdict(scores, "X", DEFAULTS) == live_verdict(last, "X", DEFAULTS)


def test_a_deviation_within_the_tolerance_is_never_a_failure() -> None:
    scores = market(200, 0.0, DEFAULTS.window, 4, width=0.93)
    patient = DEFAULTS.model_copy(update={"coverage_tolerance": 0.1})
    strict = DEFAULTS.model_copy(update={"coverage_tolerance": 0.0})
    assert any("narrow" in text for text in live_verdict(scores, "X", strict).failures)
    assert not any("narrow" in text for text in live_verdict(scores, "X", patient).failures)


def test_forecasts_of_the_baseline_are_not_compared_with_itself() -> None:
    scores = market(20, 0.3, 60, 5).with_columns(
        pl.col("baseline_pinball").alias("pinball"), pl.lit("baseline").alias("model")
    )
    verdict = live_verdict(scores, "X", DEFAULTS)
    assert verdict.failures == ()
    assert "all by the baseline" in verdict.sentence


def test_failures_of_a_model_that_was_replaced_are_said_to_be_its() -> None:
    narrow = market(20, 0.3, 60, 5, width=0.5)
    words = "most of these forecasts are of a model that has been replaced"
    assert words in live_verdict(narrow, "X", DEFAULTS, serving=["new"]).sentence
    assert words not in live_verdict(narrow, "X", DEFAULTS, serving=["m", "new"]).sentence
    assert words not in live_verdict(narrow, "X", DEFAULTS).sentence
    late = pl.when(pl.col("day") < narrow["day"].unique().sort()[35])
    half = narrow.with_columns(late.then(pl.lit("m")).otherwise(pl.lit("new")).alias("model"))
    assert words in live_verdict(half, "X", DEFAULTS, serving=["new"]).sentence
    assert words not in live_verdict(half, "X", DEFAULTS, serving=["m"]).sentence
    right = market(20, 0.3, 60, 5)
    assert words not in live_verdict(right, "X", DEFAULTS, serving=["new"]).sentence
