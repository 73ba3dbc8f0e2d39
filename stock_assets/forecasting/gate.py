"""The gate: whether a challenger takes over, decided on days later than it was trained on.

Losses are scored by `scoring.py`, days are divided by `splitting.py`, forecasts that are too good
are caught by `leak_alarm.py`; when a challenger is made at all is in `decision.py`. Why these
tests and levels: docs/adr/0013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_assets.forecasting.labels import returns_ahead
from stock_assets.forecasting.leak_alarm import Soundings, no_luck
from stock_assets.forecasting.scoring import Comparison, chance_words, compare, pinball

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

CHALLENGER, IN_FORCE, BASELINE_LOSS = "challenger", "in_force", "baseline"

RULES = 3
"""Raise whenever a verdict on the same losses may change: it is part of a model's name."""

LEVEL = 0.05
"""Chance between equals, one-sided, below which a difference counts: one in twenty by luck."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found. Losses are mean pinball over the same validation days.

    The t are Diebold-Mariano statistics, positive where the first named has the smaller loss; None
    where the days are too few or the losses the same.
    """

    accepted: bool
    reason: str
    challenger_loss: float
    in_force_loss: float | None
    baseline_loss: float
    validation_days: int
    demoted: bool = False
    """Whether the model in force must give way to the baseline."""
    baseline_t: float | None = None
    """Challenger against baseline."""
    in_force_t: float | None = None
    """Challenger against the model in force."""
    in_force_baseline_t: float | None = None
    """The model in force against the baseline."""
    leak_alarm: str | None = None
    """Why the challenger is too good to be true, if it is."""

    @property
    def decision(self) -> str:
        """The word for it in `models`."""
        if self.accepted:
            return "trained"
        return "demoted" if self.demoted else "rejected"


def pinball_losses(forecasts: Mapping[str, pl.DataFrame], labelled: pl.DataFrame) -> pl.DataFrame:
    """Losses of several forecasts of the same rows: day, ticker, horizon, one column each.

    `forecasts` (name -> day, ticker, horizon, return_q05 ...) are met with the returns that came;
    rows that not all of them answer, or whose return is not there, are left out.
    """
    came = returns_ahead(labelled)
    joined = came
    for name, frame in forecasts.items():
        scored = frame.join(came, on=["day", "ticker", "horizon"]).select(
            "day", "ticker", "horizon", pinball("actual_return").alias(name)
        )
        joined = joined.join(scored, on=["day", "ticker", "horizon"])
    return joined.select("day", "ticker", "horizon", *forecasts).sort("day", "ticker", "horizon")


def judge(losses: pl.DataFrame, soundings: Soundings | None = None) -> Verdict:
    """The verdict on validation losses: columns day, challenger, baseline and, if any, in_force.

    A challenger takes over when it is better than the baseline and not worse than the model in
    force, both beyond luck (`LEVEL`), and nothing it did is too good (`soundings`). Where it does
    not, and the model in force is itself worse than the baseline beyond luck, that one is demoted.
    """
    against_baseline = compare(losses, CHALLENGER, BASELINE_LOSS)
    held = IN_FORCE in losses.columns
    against_in_force = compare(losses, CHALLENGER, IN_FORCE) if held else None
    in_force_to_challenger = compare(losses, IN_FORCE, CHALLENGER) if held else None
    in_force_to_baseline = compare(losses, IN_FORCE, BASELINE_LOSS) if held else None
    baseline_to_in_force = compare(losses, BASELINE_LOSS, IN_FORCE) if held else None
    alarm = soundings.leak_alarm if soundings else None
    better = no_luck(against_baseline, LEVEL)
    worse = in_force_to_challenger is not None and no_luck(in_force_to_challenger, LEVEL)
    accepted = better and not worse and alarm is None
    demoted = (
        not accepted and baseline_to_in_force is not None and no_luck(baseline_to_in_force, LEVEL)
    )
    told = [_words("the baseline", against_baseline)]
    if against_in_force is not None:
        told.append(_words("the model in force", against_in_force))
    reason = f"{', '.join(told)}, on {against_baseline.days} later days"
    objections = [
        *([alarm] if alarm else []),
        *([] if better else ["not better than the baseline beyond luck"]),
        *(["worse than the model in force"] if worse else []),
    ]
    if objections:
        reason = f"{'; '.join(objections)}: {reason}"
    if soundings and soundings.beyond_by_luck:
        reason += f"; {soundings.beyond_by_luck}"
    if demoted:
        assert in_force_to_baseline is not None
        own = _words("the baseline", in_force_to_baseline)
        reason += f"; the model in force is worse than the baseline ({own}), which takes over"
    return Verdict(
        accepted=accepted,
        reason=reason,
        challenger_loss=against_baseline.loss,
        in_force_loss=None if against_in_force is None else against_in_force.other,
        baseline_loss=against_baseline.other,
        validation_days=against_baseline.days,
        demoted=demoted,
        baseline_t=against_baseline.t,
        in_force_t=None if against_in_force is None else against_in_force.t,
        in_force_baseline_t=None if in_force_to_baseline is None else in_force_to_baseline.t,
        leak_alarm=alarm,
    )


def _words(other: str, found: Comparison) -> str:
    size = f"loss {abs(found.skill):.2f} % {'below' if found.skill > 0 else 'above'} {other}'s"
    if found.t is None:
        return size
    return f"{size} (t {found.t:.1f}, {chance_words(found.chance)})"
