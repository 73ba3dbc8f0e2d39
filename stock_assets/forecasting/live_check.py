"""Whether live forecasts still do what they promise: coverage and skill over the last weeks.

A band is left when coverage is off by more than a tolerance AND by more than luck. Luck is not
that of independent outcomes: tickers move together and five-session forecasts share most of their
days, so outcomes are averaged over each target day first and tested as `scoring.py` tests losses.
What counts as too much is a setting (`[scores]`); what the asset's check makes of the verdict is
in `assets/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.claims import percent
from stock_assets.forecasting.scoring import (
    MIN_TEST_DAYS,
    PROMISED,
    Comparison,
    compare,
    diebold_mariano,
    p_value,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection

    from stock_assets.settings import ScoreSettings


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the outcome, beside how often it should have."""

    nominal: float
    covered: float
    """Shares of outcomes, 0 to 1; each target day counts once."""
    p: float | None
    """Chance of being off by as much if calibrated; None on too few days to tell."""


@dataclass(frozen=True)
class LiveVerdict:
    """What the forecasts of one exchange did over its latest target days."""

    exchange: str
    last_day: dt.date | None
    days: int
    """Target days looked at, up to `last_day`."""
    forecasts: int
    coverages: tuple[Coverage, ...]
    skill: Comparison
    """Pinball loss beside the baseline's."""
    failures: tuple[str, ...]
    """What has left its band, in words; none where all is well or too little is known."""
    sentence: str


def live_scores_start(exchange: str, day: dt.date, settings: ScoreSettings) -> dt.date:
    """The first day of the scores that a verdict up to `day` needs.

    Twice the window's sessions: on some of them nothing may have been scored.
    """
    return get_calendar(exchange).back(day, 2 * settings.window)


def recent_scores(scores: pl.DataFrame, window: int) -> pl.DataFrame:
    """The rows of `Scores` of the latest `window` target days that have any."""
    days = scores["day"].unique().sort().tail(window)
    return scores.filter(pl.col("day").is_in(days.implode()))


def live_verdict(
    scores: pl.DataFrame,
    exchange: str,
    settings: ScoreSettings,
    *,
    serving: Collection[str] | None = None,
) -> LiveVerdict:
    """The verdict on rows of `Scores` of one exchange, of which the latest days count.

    Rows older than the window change nothing. `serving` are the models that forecast now, where
    the words are to say whether it is them that failed.
    """
    recent = recent_scores(scores, settings.window)
    days = recent["day"].n_unique()
    coverages = tuple(_coverage(recent, f"in_{level}", level / 100) for level in PROMISED)
    skill = compare(recent, "pinball", "baseline_pinball")
    failures = _failures(coverages, skill, settings)
    sentence = _sentence(exchange, recent, coverages, skill, failures)
    if failures and serving and (~recent["model"].is_in(list(serving))).mean() > 0.5:  # type: ignore[operator]  # noqa: PLR2004
        sentence += "; most of these forecasts are of a model that has been replaced"
    return LiveVerdict(
        exchange,
        recent["day"].max(),  # type: ignore[arg-type]  # a Date column's
        days,
        recent.height,
        coverages,
        skill,
        failures,
        sentence,
    )


def _coverage(recent: pl.DataFrame, column: str, nominal: float) -> Coverage:
    daily = recent.group_by("day").agg(pl.col(column).mean()).sort("day")[column].to_numpy()
    if len(daily) < MIN_TEST_DAYS:
        return Coverage(nominal, float(daily.mean()) if len(daily) else math.nan, None)
    off = daily - nominal
    # Outcomes are never less dependent than forecasts that share no day. It matters where a few
    # tickers stay inside every day, which leaves nothing to estimate a variance from.
    independent = recent.height / recent["horizon"].n_unique()
    least_error = math.sqrt(nominal * (1 - nominal) / independent)
    t = abs(float(off.mean())) / least_error
    if (measured := diebold_mariano(off)) is not None:
        t = min(t, abs(measured))
    return Coverage(nominal, float(daily.mean()), p_value(t, len(daily)))


def _failures(
    coverages: tuple[Coverage, ...], skill: Comparison, settings: ScoreSettings
) -> tuple[str, ...]:
    found = []
    for item in coverages:
        off = item.covered - item.nominal
        unlikely = item.p is not None and item.p < settings.significance
        if unlikely and abs(off) > settings.coverage_tolerance:
            low = item.nominal - settings.coverage_tolerance
            high = item.nominal + settings.coverage_tolerance
            found.append(
                f"the {percent(item.nominal, 0)} interval is too {'narrow' if off < 0 else 'wide'}:"
                f" it held {percent(item.covered)} of outcomes, outside {percent(low, 0)} to "
                f"{percent(high, 0)} and more than luck explains (p = {item.p:.1g})"
            )
    if skill.t is not None and skill.t < 0 and (skill.p or 0) < settings.significance:
        found.append(
            f"pinball loss {-skill.skill:.2f} % above the baseline's, worse than luck explains "
            f"(t = {skill.t:.1f}, p = {skill.p:.1g})"
        )
    return tuple(found)


def _sentence(
    exchange: str,
    recent: pl.DataFrame,
    coverages: tuple[Coverage, ...],
    skill: Comparison,
    failures: tuple[str, ...],
) -> str:
    if recent.is_empty():
        return f"{exchange}: no forecast has reached its target day yet"
    scope = (
        f"{exchange}, {recent.height:,} forecasts over the {skill.days} target days to "
        f"{recent['day'].max()!s}"
    )
    if failures:
        return f"{scope}: {'; '.join(failures)}"
    held = " and ".join(
        f"the {percent(item.nominal, 0)} interval held {percent(item.covered)}"
        for item in coverages
    )
    if skill.days < MIN_TEST_DAYS:
        return f"{scope}: {held}; too few days to judge (at least {MIN_TEST_DAYS})"
    beside = (
        "all by the baseline"
        if (recent["model"] == "baseline").all()
        else f"pinball loss {abs(skill.skill):.2f} % "
        f"{'below' if skill.skill >= 0 else 'above'} the baseline's"
    )
    return f"{scope}: {held}; {beside}; within what luck explains or the tolerance allows"
