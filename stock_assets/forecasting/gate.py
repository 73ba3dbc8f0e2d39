"""The gate: whether a challenger takes over, decided on days later than it was trained on.

Losses are scored by `scoring.py`, days are divided by `splitting.py`; when a challenger is made at
all is in `decision.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_assets.forecasting.labels import returns_ahead
from stock_assets.forecasting.scoring import Comparison, compare, pinball

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

CHALLENGER, IN_FORCE, BASELINE_LOSS = "challenger", "in_force", "baseline"


@dataclass(frozen=True)
class Verdict:
    """What the gate found. Losses are mean pinball over the same validation days."""

    accepted: bool
    reason: str
    challenger_loss: float
    in_force_loss: float | None
    baseline_loss: float
    validation_days: int


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


def judge(losses: pl.DataFrame) -> Verdict:
    """The verdict on validation losses: columns day, challenger, baseline and, if any, in_force.

    A challenger takes over when its mean loss is below the baseline's and not above that of the
    model in force. The t statistics (Diebold-Mariano) are told, not required: a quarter's worth
    of retraining seldom makes a significant difference, and keeping the old model is no safer.
    The model in force may have been calibrated on some of these days, which favours it.
    """
    against_baseline = compare(losses, CHALLENGER, BASELINE_LOSS)
    against_in_force = compare(losses, CHALLENGER, IN_FORCE) if IN_FORCE in losses.columns else None
    accepted = against_baseline.loss < against_baseline.other and (
        against_in_force is None or against_in_force.loss <= against_in_force.other
    )
    reason = _words("the baseline", against_baseline)
    if against_in_force is not None:
        reason += f", {_words('the model in force', against_in_force)}"
    return Verdict(
        accepted=accepted,
        reason=f"{reason}, on {against_baseline.days} later days",
        challenger_loss=against_baseline.loss,
        in_force_loss=None if against_in_force is None else against_in_force.other,
        baseline_loss=against_baseline.other,
        validation_days=against_baseline.days,
    )


def _words(other: str, found: Comparison) -> str:
    t = "" if found.t is None else f" (t {found.t:.1f})"
    return f"loss {abs(found.skill):.2f} % {'below' if found.skill > 0 else 'above'} {other}'s{t}"
