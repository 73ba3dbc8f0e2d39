"""Two registered models on the same days: which of them forecast better, and was it luck.

The days are later than both trainings where there are any. What the gate makes of its own
challenger is in `gate.py`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import ModelError
from stock_assets.forecasting.baseline import BASELINE, baseline_forecasts, lookback_start
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.gate import LEVEL, pinball_losses
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.model import trainable
from stock_assets.forecasting.scoring import MIN_TEST_DAYS, Comparison, chance_words, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stock_assets.forecasting.model import VolatilityModel
    from stock_assets.forecasting.registry import TrainingRecord

_OWN, _OTHER = "own", "other"


@dataclass(frozen=True)
class Versus:
    """How two models did on the same days; None stands for the baseline where a record is asked."""

    name: str
    other: str
    first: dt.date
    last: dt.date
    later: bool
    """Whether the days are later than both trainings: a fair contest."""
    result: Comparison

    @property
    def sentence(self) -> str:
        """The outcome in plain words, no more than the test bears."""
        found = self.result
        size = (
            f"{self.name}'s loss is {abs(found.skill):.2f} % "
            f"{'below' if found.skill >= 0 else 'above'} {self.other}'s"
        )
        days = f"on {found.days} days from {self.first} to {self.last}"
        if self.later:
            fair = "all later than both trainings"
        else:
            fair = (
                "on which the later of them was judged and calibrated: there is no day later than "
                "both trainings yet, so this flatters it"
            )
        return f"{size} {days}, {fair}: {self._verdict()}."

    def _verdict(self) -> str:
        found = self.result
        if found.t is None and found.days < MIN_TEST_DAYS:
            return f"too few days to tell (the test needs {MIN_TEST_DAYS})"
        if found.loss == found.other:
            return "they are the same"
        luck = found.chance if found.loss < found.other else _turned(found).chance
        told = f"t {found.t:.1f}, {chance_words(luck)}" if found.t is not None else "every day"
        if luck >= LEVEL:
            return f"no more than luck may explain ({told})"
        better = self.name if found.loss < found.other else self.other
        return f"{better} is better, beyond luck ({told})"


def versus(
    one: TrainingRecord | None,
    other: TrainingRecord | None,
    load: Callable[[str], VolatilityModel],
    data: Callable[[dt.date], tuple[pl.DataFrame, pl.DataFrame]],
    exchanges: Sequence[str],
) -> Versus:
    """Compare two models (None: the baseline) on the pinball loss of all horizons.

    `data` gives features and bars of all tickers from a day on. Raises `ModelError` when there is
    no day on which both can be scored.
    """
    records = [record for record in (one, other) if record is not None]
    if not records or one == other:
        raise ModelError("comparing a model with itself says nothing; name two of them")
    latest = max(records, key=lambda record: (record.day, record.model_id))
    # A training on a day looks at labels that ended before it: its own day is later already.
    begins = [(latest.day, True)]
    if "validation_first" in latest.sets:
        begins.append((dt.date.fromisoformat(latest.sets["validation_first"]), False))
    for begin, later in begins:
        features, bars = data(lookback_start(exchanges, begin))
        labelled = labels(bars)
        rows = trainable(features, labelled).filter(pl.col("day") >= begin)
        if not later:
            rows = rows.filter(pl.col("label_end") < latest.day)
        if rows.height:
            break
    else:
        names = " and ".join(record.model_id for record in records)
        raise ModelError(
            f"{names}: the lake holds no day since {begins[-1][0]} whose outcome is known; "
            "compare them once sessions have passed"
        )
    forecasts = {
        place: baseline_forecasts(rows, features, labelled)
        if record is None
        else load(record.model_id).forecast(rows, Known(features, labelled))
        for place, record in ((_OWN, one), (_OTHER, other))
    }
    losses = pinball_losses(forecasts, rows)
    return Versus(
        name=BASELINE if one is None else one.model_id,
        other=BASELINE if other is None else other.model_id,
        first=losses["day"].min(),  # type: ignore[arg-type]  # a Date column's
        last=losses["day"].max(),  # type: ignore[arg-type]
        later=later,
        result=compare(losses, _OWN, _OTHER),
    )


def _turned(found: Comparison) -> Comparison:
    """The same comparison, seen from the other side."""
    return Comparison(found.other, found.loss, found.days, None if found.t is None else -found.t)
