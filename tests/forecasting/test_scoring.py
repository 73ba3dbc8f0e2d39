"""Scores agree with a slow reference, and the words say no more than the test."""

import datetime as dt
import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.protocol import FORECAST_COLUMNS, evaluate
from stock_assets.forecasting.scoring import (
    compare,
    compare_direction,
    diebold_mariano,
    interval_score,
    p_value,
    pinball,
    qlike,
    rank_correlation,
    score,
    summarise,
)
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES, Models, Scores


@pytest.fixture(scope="module")
def forecasts(bars: pl.DataFrame, features: pl.DataFrame, sessions: list[dt.date]) -> pl.DataFrame:
    cells = bars.filter(pl.col("day") >= sessions[360]).select("day", "ticker")
    made = make_forecasts(
        cells, bars, features, Models.create_empty(), dict.__getitem__, range(1, 6),
        LakeVersions(1, 2, None),
    )  # fmt: skip
    # A model somewhat bolder than the baseline, so that the two differ.
    return made.with_columns(
        pl.lit("bold").alias("model"),
        (pl.col("sigma") * 0.9).alias("sigma"),
        *(pl.col(f"return_{name}") * 0.9 for name in QUANTILE_NAMES),
    )


def slow_pinball(actual: float, quantiles: list[float]) -> float:
    losses = [
        level * (actual - q) if actual >= q else (1 - level) * (q - actual)
        for level, q in zip(QUANTILES, quantiles, strict=True)
    ]
    return sum(losses) / len(losses)


@settings(deadline=None)
@given(
    st.floats(-0.5, 0.5),
    st.lists(st.floats(-0.5, 0.5), min_size=7, max_size=7).map(sorted),
)
def test_pinball_and_winkler_agree_with_their_definitions(
    actual: float, quantiles: list[float]
) -> None:
    row = pl.DataFrame(
        {"y": [actual]}
        | {f"return_{n}": [q] for n, q in zip(QUANTILE_NAMES, quantiles, strict=True)}
    )
    assert row.select(pinball("y")).item() == pytest.approx(slow_pinball(actual, quantiles))
    low, high = quantiles[0], quantiles[-1]
    winkler = high - low
    if actual < low:
        winkler += 20 * (low - actual)
    if actual > high:
        winkler += 20 * (actual - high)
    assert row.select(interval_score("y")).item() == pytest.approx(winkler)


def test_qlike_is_least_at_the_truth_and_null_without_variance() -> None:
    sigmas = np.linspace(0.5, 2, 151)
    rows = pl.DataFrame({"sigma": sigmas, "realised_variance": [1.0] * 151})
    losses = rows.select(qlike("sigma").alias("loss"))["loss"]
    assert sigmas[losses.arg_min()] == pytest.approx(1.0)
    assert losses.min() == pytest.approx(0.0, abs=1e-12)
    still = rows.with_columns(pl.lit(0.0).alias("realised_variance"))
    assert still.select(qlike("sigma")).to_series().is_null().all()


def test_scores_agree_with_counting_them_one_by_one(
    forecasts: pl.DataFrame, bars: pl.DataFrame
) -> None:
    # A split in the middle: adjusted prices jump, raw ones do not belong to the same shares.
    split_day = forecasts["day"].unique().sort()[20]
    after = pl.col("day") >= split_day
    bars = bars.with_columns(
        pl.when(after).then(pl.col("raw_close") / 10).otherwise("raw_close").alias("raw_close"),
        pl.when(after).then(10.0).otherwise(1.0).alias("split_factor"),
    )
    forecasts = forecasts.with_columns(
        pl.when(after).then(pl.col("last_price") / 10).otherwise("last_price").alias("last_price"),
    )
    found = score(forecasts, bars)
    by_cell = {(r["day"], r["ticker"]): r for r in bars.iter_rows(named=True)}
    calendar = get_calendar(WEEKDAYS)
    expected = 0
    scored = {
        (r["forecast_day"], r["ticker"], r["horizon"]): r for r in found.iter_rows(named=True)
    }
    for row in forecasts.iter_rows(named=True):
        path = [row["day"], *calendar.after(row["day"], row["horizon"])]
        if (path[-1], row["ticker"]) not in by_cell:
            continue
        expected += 1
        got = scored[row["day"], row["ticker"], row["horizon"]]
        closes = [by_cell[day, row["ticker"]]["close"] for day in path]
        actual = math.log(closes[-1] / closes[0])
        variance = sum(math.log(b / a) ** 2 for a, b in itertools.pairwise(closes))
        quantiles = [row[f"return_{name}"] for name in QUANTILE_NAMES]
        ratio = variance / row["sigma"] ** 2
        assert got["day"] == path[-1]
        assert got["actual_return"] == pytest.approx(actual)
        last = by_cell[path[-1], row["ticker"]]
        factor = last["split_factor"] / by_cell[row["day"], row["ticker"]]["split_factor"]
        assert got["actual_price"] == pytest.approx(last["raw_close"] * factor)
        assert got["pinball"] == pytest.approx(slow_pinball(actual, quantiles))
        assert got["qlike"] == pytest.approx(ratio - math.log(ratio) - 1)
        assert got["in_80"] == (quantiles[1] <= actual <= quantiles[5])
        error = (row["last_price"] - got["actual_price"]) / row["last_price"]
        assert got["random_walk_error"] == pytest.approx(error)
    assert found.height == expected
    Scores.validate(found)


def test_one_target_day_at_a_time_equals_the_range(
    forecasts: pl.DataFrame, bars: pl.DataFrame
) -> None:
    together = score(forecasts, bars)
    single = []
    for day in together["day"].unique().sort():
        due = forecasts.filter(pl.col("target_day") == day)
        seen = pl.col("day").is_between(due["day"].min(), day)
        single.append(score(due, bars.filter(seen)))
    assert_frame_equal(together, pl.concat(single), check_exact=True)


def test_a_missing_bar_on_the_way_leaves_the_variance_unknown(
    forecasts: pl.DataFrame, bars: pl.DataFrame
) -> None:
    days = forecasts["day"].unique().sort()
    gone = (pl.col("day") == days[10]) & (pl.col("ticker") == "A")
    found = score(forecasts.filter(~gone), bars.filter(~gone))
    over = found.filter(
        (pl.col("ticker") == "A") & (pl.col("forecast_day") < days[10]) & (pl.col("day") > days[10])
    )
    assert over.height == 4 + 3 + 2 + 1
    assert over["qlike"].is_null().all()
    assert over["pinball"].is_not_null().all()


def test_a_forecast_across_a_suspected_split_is_not_scored(
    forecasts: pl.DataFrame, bars: pl.DataFrame
) -> None:
    day = forecasts["day"].unique().sort()[10]
    jump = pl.when((pl.col("day") == day) & (pl.col("ticker") == "A")).then(100.0)
    found = score(forecasts, bars.with_columns(jump.alias("suspected_split")))
    usual = score(forecasts, bars)
    across = (pl.col("ticker") == "A") & (pl.col("forecast_day") < day) & (pl.col("day") >= day)
    assert usual.filter(across).height == 5 + 4 + 3 + 2 + 1
    assert_frame_equal(found, usual.filter(~across), check_exact=True)


def slow_diebold_mariano(differences: list[float], lags: int) -> float:
    count = len(differences)
    mean = sum(differences) / count
    total = 0.0
    for i in range(count):
        for j in range(count):
            if abs(i - j) <= lags:
                weight = 1 - abs(i - j) / (lags + 1)
                total += weight * (differences[i] - mean) * (differences[j] - mean)
    return mean / math.sqrt(total / count**2)


@pytest.mark.parametrize("count", [20, 57, 300])
def test_diebold_mariano_agrees_with_the_double_sum(count: int) -> None:
    rng = np.random.default_rng(count)
    differences = np.convolve(rng.standard_normal(count + 4), np.ones(5), "valid") + 0.3
    lags = max(5, math.ceil(1.3 * math.sqrt(count)))
    share = (lags + 1) / count
    unbiased = math.sqrt(1 - share + share**2 / 3)
    expected = slow_diebold_mariano(differences.tolist(), lags) * unbiased
    assert diebold_mariano(differences) == pytest.approx(expected)


def test_diebold_mariano_is_silent_where_it_knows_nothing() -> None:
    assert diebold_mariano(np.ones(19)) is None
    assert diebold_mariano(np.ones(50)) is None


def test_overlapping_losses_of_equal_forecasts_are_seldom_called_different() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((400, 304))
    overlapping = np.stack([np.convolve(row, np.ones(5), "valid") for row in noise])
    chances = np.array([p_value(diebold_mariano(row), len(row)) for row in overlapping])
    # Without Newey-West it is about 0.38, with six lags and a normal distribution 0.11.
    assert np.mean(chances < 0.05) < 0.08
    assert np.mean(chances < 0.5) == pytest.approx(0.5, abs=0.1)


def test_a_day_counts_once_however_many_tickers_it_has() -> None:
    first, second = dt.date(2024, 1, 1), dt.date(2024, 1, 2)
    rows = pl.DataFrame(
        {"day": [first] * 9 + [second], "mine": [1.0] * 9 + [3.0], "other": [2.0] * 10}
    )
    found = compare(rows, "mine", "other")
    assert (found.loss, found.other, found.days, found.t) == (2.0, 2.0, 2, None)


def scores_with(differences: np.ndarray, model: str = "m") -> pl.DataFrame:
    first = dt.date(2024, 1, 1)
    days = [first + dt.timedelta(n) for n in range(len(differences))]
    count = len(days)
    return pl.DataFrame(
        {
            "day": days, "ticker": ["A"] * count, "horizon": [1] * count, "model": [model] * count,
            "pinball": 1 - differences, "baseline_pinball": [1.0] * count,
            "interval_score_90": [1.0] * count, "baseline_interval_score_90": [1.0] * count,
            "qlike": [0.5] * count, "baseline_qlike": [0.5] * count,
            "price_error": [0.01] * count, "random_walk_error": [0.01] * count,
            **{name: [True] * count for name in (
                "in_50", "in_80", "in_90", "baseline_in_80", "baseline_in_90")},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "shift", "scale", "said"),
    [
        (100, 0.05, 0.01, "pinball 5.0 % better than the baseline (t"),
        (100, -0.05, 0.01, "pinball 5.0 % worse than the baseline (t"),
        (100, 0.001, 0.1, "pinball 0.1 % better than the baseline, which may be luck"),
        (10, 0.05, 0.01, "on too few days to tell from luck"),
    ],
)
def test_the_sentence_claims_no_more_than_the_test_shows(
    count: int, shift: float, scale: float, said: str
) -> None:
    noise = np.random.default_rng(4).standard_normal(count) * scale
    summary = summarise(scores_with(shift + noise - noise.mean()))
    assert said in summary.sentence
    assert summary.total.pinball_skill == pytest.approx(100 * shift)


def test_the_baseline_is_not_compared_with_itself() -> None:
    summary = summarise(scores_with(np.zeros(50), model="baseline"))
    assert "nothing to compare" in summary.sentence
    assert summary.by_model_share == 0


def test_the_summary_has_all_horizons_and_refuses_nothing_at_all(
    forecasts: pl.DataFrame, bars: pl.DataFrame
) -> None:
    scores = score(forecasts, bars)
    summary = summarise(scores)
    assert [item.horizon for item in summary.by_horizon] == [1, 2, 3, 4, 5]
    assert summary.total.forecasts == sum(item.forecasts for item in summary.by_horizon)
    assert summary.total.coverage_80 == pytest.approx(scores["in_80"].mean())
    with pytest.raises(ValueError, match="no scores"):
        summarise(scores.clear())


def test_the_summary_and_the_protocol_find_the_same_skill_of_the_variance(
    forecasts: pl.DataFrame, bars: pl.DataFrame, features: pl.DataFrame
) -> None:
    """The same forecasts: as live operation scores them, and as a backtest does."""
    baseline = forecasts.select(
        *("day", "ticker", "horizon"),
        *(pl.col(f"baseline_{name}").alias(name) for name in FORECAST_COLUMNS[3:]),
    )
    found = evaluate(
        {"bold": forecasts.select(FORECAST_COLUMNS), "baseline": baseline},
        labels(bars),
        features.select("day", "ticker", volatility="vol_ewma"),
    )
    backtest = found.comparison("baseline", "qlike")
    summary = summarise(score(forecasts, bars))
    assert abs(summary.total.qlike_skill) > 1
    assert summary.total.qlike_skill == pytest.approx(backtest["skill"], rel=1e-9)
    assert summary.total.qlike_t == pytest.approx(backtest["t"], rel=1e-9)
    # Of one session there is one squared return, which is next to nothing of a variance.
    assert [item.qlike_skill for item in summary.by_horizon[:4]] == [None] * 4
    assert summary.by_horizon[4].qlike_skill == summary.total.qlike_skill
    told = next(item for item in summary.verdict.claims if item.topic.startswith("volatility"))
    assert told.t == summary.total.qlike_t


def moves(median: list[float], actual: list[float], days: int = 1) -> pl.DataFrame:
    """The same forecasts and outcomes of as many tickers, on each of some days."""
    first = dt.date(2024, 1, 1)
    return pl.concat(
        pl.DataFrame(
            {"day": first + dt.timedelta(n), "horizon": 1, "median_move": median,
             "actual_move": actual}
        )
        for n in range(days)
    )  # fmt: skip


def test_direction_counts_calls_only() -> None:
    found = compare_direction(moves([1.0, 1, -1, -1, 0, 1], [2.0, -1, -3, 4, 5, 0], days=2))
    assert found is not None
    assert found.loss == pytest.approx(2 / 4)  # right: the first and the third of four calls
    assert found.other == pytest.approx(2 / 5)  # of all outcomes
    assert found.days == 2
    assert compare_direction(moves([0.0, 0], [1.0, 2])) is None


@pytest.mark.parametrize(
    ("caller", "beside", "other", "proven"),
    [
        ("down", "always down", 0.4, False),
        ("up", "always down", 0.4, False),
        ("in turns", "always down", 0.4, False),  # better than always-up, worse than always-down
        ("seer", "always down", 0.4, True),
        ("sure of falls", "always down", 0.4, True),  # and silent on the rest
    ],
)
def test_in_a_market_that_fell_to_say_down_each_time_is_no_skill(
    caller: str, beside: str, other: float, *, proven: bool
) -> None:
    """Three of five tickers fall each day, not always the same."""
    days = []
    for day in range(60):
        actual = [1.0 if (day + ticker) % 5 < 2 else -1.0 for ticker in range(5)]
        median = {
            "down": [-1.0] * 5,
            "up": [1.0] * 5,
            "in turns": [1.0 if day % 2 else -1.0] * 5,
            "seer": [*actual[: 5 - day % 3], 1.0, 1.0][:5],
            "sure of falls": [min(move, 0.0) for move in actual],
        }[caller]
        date = dt.date(2024, 1, 1) + dt.timedelta(day)
        days.append(moves(median, actual).with_columns(day=date))
    found = compare_direction(pl.concat(days))
    assert found is not None
    assert (found.beside, found.other) == (beside, pytest.approx(other))
    assert found.always_up == pytest.approx(0.4)
    assert (found.chance < 0.01) == proven
    assert found.between != proven
    if not proven:
        assert (found.chance, found.p) == (1.0, 1.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(5, 12))
def test_rank_correlation_agrees_with_scipy(seed: int, tickers: int) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    median, actual = rng.integers(0, 6, tickers).astype(float), rng.standard_normal(tickers)
    found = rank_correlation(moves(median.tolist(), actual.tolist(), days=3))
    if len(set(median)) == 1:
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(spearmanr(median, actual).statistic)
    assert found.days == 3


def test_few_tickers_have_no_rank_correlation() -> None:
    assert rank_correlation(moves([1.0, 2, 3, 4], [1.0, 2, 3, 4])) is None
