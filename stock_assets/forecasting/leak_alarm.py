"""The alarm on forecasts that are too good: a leak until shown otherwise.

Limits that no honest forecast of these prices has reached (those on price stand in `claims.py`),
each with a test, so that luck on a short or small market does not trip it. What an alarm leads to
is in `gate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.claims import LEVEL, MAX_DIRECTION, MAX_R2, MAX_RANK_IC
from stock_assets.forecasting.labels import returns_ahead
from stock_assets.forecasting.scoring import (
    Comparison,
    RankCorrelation,
    compare,
    compare_direction,
    pinball,
    qlike,
    rank_correlation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PINBALL_SKILL = 6.5
"""Pinball loss in % below the baseline's above which, for some horizon, a forecast is too good.

Knowing the true volatility of a simulated market gains 3 %; the worst real storm, in which the
baseline is at its worst, 5.9 % in 250 days.
"""

MAX_SKILL_SPREAD = 3.0
"""Points of pinball skill between the best and the worst horizon above which that is too uneven.

Volatility lasts: what is known of it serves all horizons nearly alike (at most 1.4 points apart).
Who has seen the return of one of them is good at that one.
"""

MAX_QLIKE_SKILL = 50.0
"""QLIKE in % below the baseline's above which a forecast of variance is too good.

For one session (the variance of its prices) and for five (of its returns). Knowing the true
volatility gains 30 to 36 %, an honest model 43 % in the worst real storm; knowing the variance that
comes 95 % or more, features that are one session early 72 to 94 % for one session.
"""

_VARIANCES = {1: "variance_ahead_1", 5: "realised_variance"}
"""Horizon -> the column of `labels` that its forecast of variance is held against."""


@dataclass(frozen=True)
class Soundings:
    """How good a forecast was, where too good means a leak; None where there is nothing to say."""

    r2: float | None
    """Highest R2 of a horizon's median return against the last price, in %."""
    direction: float | None
    """Right directions among those called, in %."""
    rank_ic: float | None
    pinball_skill: float | None
    """Highest of a horizon, in % of the baseline's loss."""
    qlike_skill: float | None
    """Highest of one and of five sessions, in % of the baseline's loss."""
    leak_alarm: str | None
    """Why this is a leak until shown otherwise; None when nothing is too good."""
    beyond_by_luck: str | None
    """Limits that were passed by what luck, or the drift, explains: no alarm; None without any."""


def sound(own: pl.DataFrame, baseline: pl.DataFrame, rows: pl.DataFrame) -> Soundings:
    """Look for a leak in `own`, forecasts of `rows` (of `labels`), beside the baseline's.

    Both forecasts have day, ticker, horizon, sigma and return_q05 ... return_q95. A limit counts
    as passed where the number is above it and chance does not explain that: for R2 and direction
    that the forecast has more skill than the drift that came, for rank IC that it has any, for
    volatility that its skill is above the limit.
    """
    met = _met(own, baseline, rows)
    called = met.filter(pl.col("median_move") != 0)
    squared = [compare(part, "squared", "random_walk") for part in _horizons(called)]
    beside_drift = [compare(part, "squared", "drift") for part in _horizons(called)]
    direction = compare_direction(met)
    ranks = rank_correlation(met) if called.height else None
    losses = [compare(part, "pinball", "baseline_pinball") for part in _horizons(met)]
    loss_limits = [compare(part, "pinball", "pinball_limit") for part in _horizons(met)]
    variances = met.filter(pl.col("horizon").is_in([*_VARIANCES]))
    qlikes = [compare(part, "qlike", "baseline_qlike") for part in _horizons(variances)]
    qlike_limits = [compare(part, "qlike", "qlike_limit") for part in _horizons(variances)]
    limits = [
        _Limit(f"R2 {item.skill:.1f} % (limit {MAX_R2:g} %)", item.skill > MAX_R2, drift)
        for item, drift in zip(squared, beside_drift, strict=True)
    ]
    if direction is not None:
        right = 100 * (1 - direction.loss)
        told = f"direction right in {right:.1f} % (limit {MAX_DIRECTION:g} %)"
        limits.append(_Limit(told, right > MAX_DIRECTION, direction))
    if ranks is not None:
        told = f"rank IC {ranks.mean:.2f} (limit {MAX_RANK_IC})"
        limits.append(_Limit(told, ranks.mean > MAX_RANK_IC, ranks))
    limits += [
        _Limit(
            f"pinball loss {item.skill:.1f} % below the baseline's (limit {MAX_PINBALL_SKILL:g} %)",
            item.skill > MAX_PINBALL_SKILL,
            limit,
        )
        for item, limit in zip(losses, loss_limits, strict=True)
    ]
    spread = _spread(list(_horizons(met)))
    if spread is not None:
        told = (
            f"pinball skill {spread.points:.1f} points apart between horizons {spread.best} and "
            f"{spread.worst} (limit {MAX_SKILL_SPREAD:g})"
        )
        apart = spread.above_limit
        limits.append(_Limit(told, apart.loss < apart.other, apart))
    limits += [
        _Limit(
            f"QLIKE {item.skill:.0f} % below the baseline's (limit {MAX_QLIKE_SKILL:.0f} %)",
            item.skill > MAX_QLIKE_SKILL,
            limit,
        )
        for item, limit in zip(qlikes, qlike_limits, strict=True)
    ]
    passed = [item for item in limits if item.is_passed]
    too_good = [item.told for item in passed if no_luck(item.test, LEVEL)]
    lucky = [item.told for item in passed if not no_luck(item.test, LEVEL)]
    return Soundings(
        r2=max((item.skill for item in squared), default=None),
        direction=None if direction is None else 100 * (1 - direction.loss),
        rank_ic=None if ranks is None else ranks.mean,
        pinball_skill=max((item.skill for item in losses), default=None),
        qlike_skill=max((item.skill for item in qlikes if item.days), default=None),
        leak_alarm=_listed("too good, a leak until shown otherwise", too_good),
        beyond_by_luck=_listed(
            "beyond a limit, as luck or the drift of those days explains", lucky
        ),
    )


@dataclass(frozen=True)
class _Limit:
    """A number held against its limit."""

    told: str
    is_passed: bool
    test: Comparison | RankCorrelation
    """Whether more than luck passed it."""


def _listed(title: str, items: list[str]) -> str | None:
    return f"{title}: {'; '.join(items)}" if items else None


@dataclass(frozen=True)
class _Spread:
    """How much better the best horizon's pinball skill is than the worst's."""

    best: int
    worst: int
    points: float
    above_limit: Comparison
    """Of a loss that is smaller where they are further apart than the limit."""


def _spread(parts: list[pl.DataFrame]) -> _Spread | None:
    """Of the rows of each horizon; None where there are fewer than two, or no baseline's loss."""
    found = []
    for part in parts:
        typical = part["baseline_pinball"].mean()
        if not typical:
            return None
        losses = part.group_by("day").agg(
            pl.col("horizon").first(),
            (pl.col("pinball").mean() / typical).alias("own"),
            (pl.col("baseline_pinball").mean() / typical).alias("baseline"),
        )
        found.append((compare(part, "pinball", "baseline_pinball").skill, losses))
    if len(found) < 2:  # noqa: PLR2004
        return None
    (high, best), (low, worst) = max(found, key=_skill), min(found, key=_skill)
    both = best.join(worst, on="day", suffix="_worst").with_columns(
        (pl.col("own") + pl.col("baseline_worst")).alias("apart"),
        (pl.col("baseline") + pl.col("own_worst") - MAX_SKILL_SPREAD / 100).alias("limit"),
    )
    return _Spread(
        best["horizon"][0], worst["horizon"][0], high - low, compare(both, "apart", "limit")
    )


def _skill(found: tuple[float, pl.DataFrame]) -> float:
    return found[0]


def no_luck(found: Comparison | RankCorrelation, level: float) -> bool:
    """Whether the smaller loss, or the correlation, is more than luck, with a chance below `level`.

    One-sided. False on days too few to tell.
    """
    return found.chance < level


def _horizons(met: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for horizon in met["horizon"].unique().sort():
        yield met.filter(pl.col("horizon") == horizon)


def _met(own: pl.DataFrame, baseline: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Both forecasts with what came, and the losses of each."""
    key = ["day", "ticker", "horizon"]
    both = own.join(baseline, on=key, suffix="_baseline").rename(
        lambda name: (
            f"baseline_{name.removesuffix('_baseline')}" if name.endswith("_baseline") else name
        )
    )
    return (
        both.join(returns_ahead(rows), on=key)
        .join(_variances_ahead(rows), on=key, how="left")
        .sort(key)
        .with_columns(
            pl.col("return_q50").alias("median_move"),
            pl.col("actual_return").alias("actual_move"),
            ((pl.col("actual_return") - pl.col("return_q50")) ** 2).alias("squared"),
            (pl.col("actual_return") ** 2).alias("random_walk"),
            # Who expects a rise in years that rose is not clairvoyant: known afterwards, the mean
            # return is what skill must be more than.
            ((pl.col("actual_return") - pl.col("actual_return").mean().over("horizon")) ** 2).alias(
                "drift"
            ),
            pinball("actual_return").alias("pinball"),
            pinball("actual_return", "baseline_return_").alias("baseline_pinball"),
            qlike("sigma").alias("qlike"),
            qlike("baseline_sigma").alias("baseline_qlike"),
        )
        .with_columns(
            (pl.col("baseline_pinball") * (1 - MAX_PINBALL_SKILL / 100)).alias("pinball_limit"),
            (pl.col("baseline_qlike") * (1 - MAX_QLIKE_SKILL / 100)).alias("qlike_limit"),
        )
    )


def _variances_ahead(rows: pl.DataFrame) -> pl.DataFrame:
    """What came of each forecast of variance: day, ticker, horizon, realised_variance."""
    return pl.concat(
        rows.select(
            "day",
            "ticker",
            pl.lit(horizon, pl.Int32).alias("horizon"),
            pl.col(name).alias("realised_variance"),
        )
        for horizon, name in _VARIANCES.items()
    )
