"""The one scoring: what forecasts were worth, beside the baseline, and whether that means anything.

The gate, the scores table, the backtest and the summary a person reads all compute their losses
and their test here. The tables over many methods are in `protocol.py`, what may be said of the
tests in `claims.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.forecasting.claims import MedianSkill, Verdict, percent, verdict
from stock_assets.forecasting.labels import HORIZONS, LABEL_SESSIONS, splits_so_far
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES, Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_TEST_DAYS = 20
"""Days below which the Diebold-Mariano test says nothing: its variance is not known."""

INTERVALS = {50: ("q25", "q75"), 80: ("q10", "q90"), 90: ("q05", "q95")}
"""The quantiles at the ends of each interval, by its nominal coverage in %."""

PROMISED = (80, 90)
"""The intervals whose coverage a verdict tells and the live check watches."""

VARIANCE_HORIZON = LABEL_SESSIONS
"""The horizon whose variance is scored: a squared return of fewer sessions says little of it."""

_MIN_LAG = 5
_LAG_FACTOR = 1.3
_MIN_RANKED = 5
"""Tickers below which a day's ranks are not worth a correlation."""


def pinball(actual: str, prefix: str = "return_") -> pl.Expr:
    """Mean pinball (quantile) loss over the seven quantiles, in log return.

    Koenker and Bassett (1978): (y - q)(level - [y < q]) for each quantile q. `actual` is the
    column of what came, `prefix` that of the quantile columns.
    """
    losses = []
    for level, name in zip(QUANTILES, QUANTILE_NAMES, strict=True):
        short = pl.col(actual) - pl.col(prefix + name)
        losses.append(pl.max_horizontal(level * short, (level - 1) * short))
    return _sum(losses) / len(losses)


def interval_score(actual: str, prefix: str = "return_") -> pl.Expr:
    """Winkler (1972) score of the 90 % interval: its width, plus 20 times what it missed by."""
    low, high = pl.col(prefix + "q05"), pl.col(prefix + "q95")
    missed = pl.max_horizontal(low - pl.col(actual), pl.col(actual) - high, pl.lit(0.0))
    return (high - low) + 2 / 0.10 * missed


def qlike(sigma: str, variance: str = "realised_variance") -> pl.Expr:
    """QLIKE (Patton 2011) of a variance forecast: v/s^2 - log(v/s^2) - 1; null where v is 0."""
    ratio = pl.col(variance) / pl.col(sigma) ** 2
    return pl.when((pl.col(variance) > 0) & (pl.col(sigma) > 0)).then(ratio - ratio.log() - 1)


def score(forecasts: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """Rows of `Scores` for the rows of `Forecasts` whose target day has a bar, sorted by key.

    `bars` (rows of `Bars`) reach from the earliest forecast day to the last target day. A forecast
    is dated by its target day. Variance, and so QLIKE, is null unless every session on the way
    has its bar. A forecast across a suspected split is not scored: what came is not known before
    the split is declared. One that is held is not: it is an earlier day's, which is scored as that
    day's. A row depends on its own forecast and those bars only.
    """
    own = forecasts.filter(pl.col("held_from").is_null())
    found = _with_actuals(own, bars).with_columns(
        (pl.col("last_price") * pl.col("actual_return").exp()).alias("actual_price")
    )
    return found.select(
        pl.col("target_day").alias("day"),
        "ticker",
        "horizon",
        pl.col("day").alias("forecast_day"),
        "model",
        "actual_return",
        "actual_price",
        pinball("actual_return").alias("pinball"),
        pinball("actual_return", "baseline_return_").alias("baseline_pinball"),
        interval_score("actual_return").alias("interval_score_90"),
        interval_score("actual_return", "baseline_return_").alias("baseline_interval_score_90"),
        *(inside(level).alias(f"in_{level}") for level in INTERVALS),
        *(inside(level, "baseline_return_").alias(f"baseline_in_{level}") for level in PROMISED),
        qlike("sigma").alias("qlike"),
        qlike("baseline_sigma").alias("baseline_qlike"),
        ((pl.col("price_q50") - pl.col("actual_price")) / pl.col("last_price")).alias(
            "price_error"
        ),
        ((pl.col("last_price") - pl.col("actual_price")) / pl.col("last_price")).alias(
            "random_walk_error"
        ),
    ).sort(Scores.primary_key())


def _with_actuals(forecasts: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    """The forecasts with actual_return and realised_variance, where both bars are there."""
    # Bars are numbered per ticker, so that "every session has its bar" is a difference of numbers.
    numbered = bars.sort("ticker", "day").select(
        "day",
        "ticker",
        "close",
        splits_so_far().alias("splits"),
        pl.int_range(pl.len()).over("ticker").alias("number"),
        (pl.col("close") / pl.col("close").shift(1)).log().over("ticker").pow(2).alias("square"),
    )
    # The variance of the last h returns, added from the oldest on in the same order everywhere.
    on_the_way = numbered.select(
        pl.col("day").alias("target_day"),
        "ticker",
        pl.col("close").alias("target_close"),
        pl.col("number").alias("target_number"),
        pl.col("splits").alias("target_splits"),
        *(
            _sum(
                [pl.col("square").shift(age).over("ticker") for age in reversed(range(horizon))]
            ).alias(f"variance{horizon}")
            for horizon in HORIZONS
        ),
    )
    joined = (
        forecasts.join(
            numbered.select("day", "ticker", "close", "number", "splits"), on=["day", "ticker"]
        )
        .join(on_the_way, on=["target_day", "ticker"])
        .filter(pl.col("splits") == pl.col("target_splits"))
    )
    complete = pl.col("target_number") - pl.col("number") == pl.col("horizon")
    variance = pl.coalesce(
        pl.when(pl.col("horizon") == horizon).then(pl.col(f"variance{horizon}"))
        for horizon in HORIZONS
    )
    return joined.with_columns(
        (pl.col("target_close") / pl.col("close")).log().alias("actual_return"),
        pl.when(complete).then(variance).alias("realised_variance"),
    )


def inside(level: int, prefix: str = "return_") -> pl.Expr:
    """Whether `actual_return` is in the interval of nominal coverage `level`, its ends included."""
    low, high = INTERVALS[level]
    return pl.col("actual_return").is_between(pl.col(prefix + low), pl.col(prefix + high))


def _sum(terms: list[pl.Expr]) -> pl.Expr:
    """Terms added from left to right: the order, and so the last bit, is fixed."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@dataclass(frozen=True)
class Comparison:
    """Two losses over the same days: their means, and a paired test of the difference."""

    loss: float
    other: float
    days: int
    t: float | None
    """Diebold-Mariano statistic, positive where `loss` is the smaller; None on too few days."""

    @property
    def skill(self) -> float:
        """By how much `loss` is smaller, in % of `other`."""
        return 100 * (1 - self.loss / self.other) if self.other else 0.0

    @property
    def p(self) -> float | None:
        """Chance of a |t| as large between equals; None where there is no t."""
        return None if self.t is None else p_value(self.t, self.days)

    @property
    def chance(self) -> float:
        """Chance of `loss` being as much the smaller between equals; 1 on days too few to tell."""
        return _one_sided(self.t, self.days, always=self.loss < self.other)


@dataclass(frozen=True)
class Calls(Comparison):
    """Shares of wrong calls of the direction, beside those of one call that is always the same."""

    beside: str = "always up"
    """Which call that is."""
    between: bool = False
    """Better than one fixed call and worse than the other: neither skill nor the lack of it."""

    @property
    def p(self) -> float | None:
        """As of any comparison; 1 between the two, which is a test that proved nothing."""
        return 1.0 if self.between else super().p

    @property
    def always_up(self) -> float:
        """Share of the outcomes that went up."""
        return 1 - self.other if self.beside == "always up" else self.other


@dataclass(frozen=True)
class RankCorrelation:
    """Mean daily rank correlation (IC) of forecast and outcome across tickers."""

    mean: float
    days: int
    t: float | None

    @property
    def p(self) -> float | None:
        """Chance of a |t| as large without any skill; None where there is no t."""
        return None if self.t is None else p_value(self.t, self.days)

    @property
    def chance(self) -> float:
        """Chance of a correlation as high without any skill; 1 on days too few to tell."""
        return _one_sided(self.t, self.days, always=self.mean > 0)


def chance_words(share: float) -> str:
    """A chance in words: "chance 2.3 %". Never nothing: no test is that sure."""
    return f"chance {100 * share:.1f} %" if share >= 0.001 else "chance < 0.1 %"  # noqa: PLR2004


def compare(rows: pl.DataFrame, loss: str, other: str) -> Comparison:
    """Compare two loss columns of `rows` (day, ...): averaged over each day first, then tested.

    A day counts once however many tickers it has; rows where either loss is null are left out.
    """
    both = rows.filter(pl.col(loss).is_not_null() & pl.col(other).is_not_null())
    daily = group_means(both, ["day"], [loss, other])
    return compare_daily(daily[loss].to_numpy(), daily[other].to_numpy())


def group_means(rows: pl.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Means of `columns` over each group, nulls left out; sorted by the group.

    The same to the last bit each time, for rows in the same order: polars 2.1 adds the rows of a
    group of several keys in an order that differs from one call to the next.
    """
    lists = rows.group_by(by).agg(pl.col(columns)).sort(by)
    return lists.with_columns(pl.col(columns).list.mean())


def compare_daily(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Comparison:
    """Compare the mean losses of the same days, in the order of the days; no NaN."""
    if not len(mine):
        return Comparison(math.nan, math.nan, 0, None)
    t = diebold_mariano(theirs - mine)
    return Comparison(float(mine.mean()), float(theirs.mean()), len(mine), t)


def compare_direction(rows: pl.DataFrame) -> Calls | None:
    """Calls of the direction, against always-up or always-down: shares that were wrong, by day.

    Skill is to be better than both, as in a market that fell always-down is better than always-up:
    tested is the better of the two then, the worse where the calls are worse than both, and nothing
    in between. `rows` have day, `median_move` (forecast) and `actual_move`. A median of zero is no
    call; an outcome of zero is neither up nor down, and left out. The fixed calls are of all
    outcomes of a day: who calls some only may do so because he knows. None without any call.
    """
    outcomes = rows.filter(pl.col("actual_move") != 0).select(
        "day",
        pl.when(pl.col("median_move") != 0)
        .then((pl.col("median_move") > 0) != (pl.col("actual_move") > 0))
        .cast(pl.Float64)
        .alias("own"),
        (pl.col("actual_move") < 0).cast(pl.Float64).alias("always up"),
        (pl.col("actual_move") > 0).cast(pl.Float64).alias("always down"),
    )
    daily = group_means(outcomes, ["day"], ["own", *_FIXED]).drop_nulls()
    if daily.is_empty():
        return None
    own = daily["own"].to_numpy()
    found = {name: compare_daily(own, daily[name].to_numpy()) for name in _FIXED}
    # Always-up where they are equal.
    better, worse = sorted(_FIXED, key=lambda name: found[name].other)
    if found[better].loss < found[better].other:
        return _calls(found[better], better)
    if found[worse].loss > found[worse].other:
        return _calls(found[worse], worse)
    return replace(_calls(found[better], better), t=None, between=True)


_FIXED = ("always up", "always down")


def _calls(found: Comparison, beside: str) -> Calls:
    return Calls(found.loss, found.other, found.days, found.t, beside)


def rank_correlation(rows: pl.DataFrame) -> RankCorrelation | None:
    """Spearman's correlation of `median_move` and `actual_move` across tickers (the rank IC).

    For each day and horizon with at least five tickers whose forecasts differ; a day's
    correlations are averaged over horizons first. None where no day has one.
    """
    group = ["day", "horizon"]
    ranked = rows.filter(pl.len().over(group) >= _MIN_RANKED).select(
        *group, *(pl.col(name).rank().over(group) for name in ("median_move", "actual_move"))
    )
    correlations = (
        ranked.group_by(group)
        .agg(pl.corr("median_move", "actual_move").alias("ic"))
        .filter(pl.col("ic").is_finite())
        .sort(group)
    )
    daily = group_means(correlations, ["day"], ["ic"])
    if daily.is_empty():
        return None
    values = daily["ic"].to_numpy()
    return RankCorrelation(float(values.mean()), len(values), diebold_mariano(values))


def median_skill(rows: pl.DataFrame) -> MedianSkill:
    """How medians did against the random walk: direction, ranks, price.

    `rows` have day, horizon, `median_move` and `actual_move` (as shares of the last price or log
    returns), `square` and `walk_square` (squared errors of the price and of the last price).
    """
    if not (rows["median_move"] != 0).any():
        return MedianSkill(None, None, None)
    return MedianSkill(
        compare_direction(rows), rank_correlation(rows), compare(rows, "square", "walk_square")
    )


def diebold_mariano(differences: NDArray[np.float64]) -> float | None:
    """The t statistic of the mean of daily loss differences (Diebold and Mariano 1995).

    The variance is Newey and West's (1987) with Bartlett weights over `_lags` lags, made unbiased
    for the mean that was taken out. Judge it by `p_value`. None on fewer than 20 days, or when all
    differences are the same.
    """
    count = len(differences)
    if count < MIN_TEST_DAYS:
        return None
    centred = differences - differences.mean()
    lags = _lags(count)
    variance = float(centred @ centred)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    share = (lags + 1) / count
    variance /= 1 - share + share**2 / 3
    if variance <= np.finfo(float).tiny:
        return None
    return float(differences.mean()) * count / math.sqrt(variance)


def p_value(t: float, days: int) -> float:
    """Chance of a |t| of `diebold_mariano` this large over `days` days without any difference.

    Student's distribution with the degrees of freedom that a Newey-West variance has, three halves
    of the days per lag (Lazarus, Lewis, Stock and Watson 2018): five-session forecasts made on
    neighbouring days share most of their future, and a normal distribution would call every tenth
    difference between equals one.
    """
    from scipy.special import stdtr

    return float(2 * stdtr(1.5 * days / (_lags(days) + 1), -abs(t)))


def _one_sided(t: float | None, days: int, *, always: bool) -> float:
    """Chance of a t as high; without one it was the same each day, and `always` says how."""
    if t is not None:
        p = p_value(t, days)
        return p / 2 if t > 0 else 1 - p / 2
    return 0.0 if always and days >= MIN_TEST_DAYS else 1.0


def _lags(days: int) -> int:
    """Lags of the variance: 1.3 roots of the days (Lazarus et al.), and at least five."""
    return max(_MIN_LAG, math.ceil(_LAG_FACTOR * math.sqrt(days)))


@dataclass(frozen=True)
class HorizonSummary:
    """How the forecasts of one horizon did (None: all horizons together)."""

    horizon: int | None
    forecasts: int
    days: int
    pinball_skill: float
    """Pinball loss below the baseline's, in %."""
    pinball_t: float | None
    coverage_50: float
    coverage_80: float
    coverage_90: float
    baseline_coverage_80: float
    baseline_coverage_90: float
    """Shares of outcomes inside the interval, 0 to 1."""
    interval_skill: float
    """Winkler score of the 90 % interval below the baseline's, in %."""
    qlike_skill: float | None
    """QLIKE of five sessions below the baseline's, in %; None of the other horizons."""
    qlike_t: float | None


@dataclass(frozen=True)
class Summary:
    """How all scored forecasts did, by horizon and together, with one plain sentence."""

    total: HorizonSummary
    by_horizon: tuple[HorizonSummary, ...]
    by_model_share: float
    """Share of the forecasts that a model made, 0 to 1; the baseline made the rest."""
    sentence: str
    verdict: Verdict
    """What the sentence says, claim by claim."""


def summarise(scores: pl.DataFrame) -> Summary:
    """Sum up rows of `Scores`. Raises `ValueError` when there are none."""
    if scores.is_empty():
        raise ValueError("there are no scores to sum up")
    total = _summary(scores, None)
    present = scores["horizon"].unique().sort().to_list()
    by_horizon = tuple(
        _summary(scores.filter(pl.col("horizon") == horizon), horizon) for horizon in present
    )
    by_model = float(scores.select((pl.col("model") != "baseline").mean()).item())
    found = _verdict(scores, total)
    return Summary(total, by_horizon, by_model, _sentence(total, by_model, found), found)


def _verdict(scores: pl.DataFrame, total: HorizonSummary) -> Verdict:
    """What may be said of the scored forecasts beside the baseline's."""
    moves = scores.select(
        "day",
        "horizon",
        # Zero to the last bit where the median is the last price: both are the same numbers then.
        (pl.col("price_error") - pl.col("random_walk_error")).alias("median_move"),
        (-pl.col("random_walk_error")).alias("actual_move"),
        (pl.col("price_error") ** 2).alias("square"),
        (pl.col("random_walk_error") ** 2).alias("walk_square"),
    )
    against = {"the baseline": compare(scores, "pinball", "baseline_pinball")}
    variance = _compare_variance(scores)
    return verdict(
        median_skill(moves),
        {"the baseline": variance} if variance.days else {},
        against,
        {80: total.coverage_80, 90: total.coverage_90},
    )


def _compare_variance(scores: pl.DataFrame) -> Comparison:
    """QLIKE beside the baseline's, over the rows of the horizon whose variance is scored."""
    scored = scores.filter(pl.col("horizon") == VARIANCE_HORIZON)
    return compare(scored, "qlike", "baseline_qlike")


def _summary(scores: pl.DataFrame, horizon: int | None) -> HorizonSummary:
    loss = compare(scores, "pinball", "baseline_pinball")
    winkler = compare(scores, "interval_score_90", "baseline_interval_score_90")
    variance = _compare_variance(scores)
    covered = {
        name: float(scores[name].mean())  # type: ignore[arg-type]  # a Boolean column's mean
        for name in ("in_50", "in_80", "in_90", "baseline_in_80", "baseline_in_90")
    }
    return HorizonSummary(
        horizon=horizon,
        forecasts=scores.height,
        days=loss.days,
        pinball_skill=loss.skill,
        pinball_t=loss.t,
        coverage_50=covered["in_50"],
        coverage_80=covered["in_80"],
        coverage_90=covered["in_90"],
        baseline_coverage_80=covered["baseline_in_80"],
        baseline_coverage_90=covered["baseline_in_90"],
        interval_skill=winkler.skill,
        qlike_skill=variance.skill if variance.days else None,
        qlike_t=variance.t,
    )


def _sentence(total: HorizonSummary, by_model: float, found: Verdict) -> str:
    """What the numbers allow to be said, and no more."""
    scope = f"{total.forecasts:,} forecasts over {total.days} target days"
    if by_model == 0:
        covered = (
            f"the 80 % interval held {percent(total.coverage_80)} "
            f"and the 90 % interval {percent(total.coverage_90)}"
        )
        return f"{scope}, all by the baseline: nothing to compare yet; {covered}."
    made = "" if by_model == 1 else f" ({percent(by_model, 0)} of them by a model)"
    alarms = "".join(f" Alarm: {alarm}." for alarm in found.alarms)
    return f"{scope}{made}: {found.sentence}.{alarms}"
