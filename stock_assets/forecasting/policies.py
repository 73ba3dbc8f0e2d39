"""Other rules of when to train, replayed over the same history: never, every month, no drift.

Everything but the rule is as live: the same gate, data, forecasts and scores. What people ordered
or forced is left out of all of them, as it is no rule. How replays work is in `backtest.py`, what
comes of the comparison in `worth.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import union_sessions
from stock_assets.errors import ModelError
from stock_assets.forecasting.backtest import ReplayRegistry, replay_product
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.scoring import score
from stock_assets.forecasting.shadows import attempts, shadow_scores
from stock_assets.forecasting.worth import PolicyLosses

if TYPE_CHECKING:
    import datetime as dt

    from stock_assets.forecasting.backtest import History, Say
    from stock_assets.forecasting.model import VolatilityModel
    from stock_assets.forecasting.registry import Registered, Registry, TrainingRecord
    from stock_assets.settings import Settings

MONTH = 21
"""Sessions."""

_FOR_EVER = 1_000_000


@dataclass(frozen=True)
class Policy:
    """A rule of when to train."""

    name: str
    title: str
    cadence: int | None = None
    """Sessions between routine trainings; None: the settings'."""
    drift: bool = False
    """Whether drift asks for trainings, by the settings' thresholds."""


AS_SET = Policy("as set", "cadence and drift as in the settings", drift=True)
POLICIES = (
    AS_SET,
    Policy("cadence alone", "the settings' cadence, whatever drifts"),
    Policy("every month", f"every {MONTH} sessions, whatever drifts", cadence=MONTH),
    Policy("never", "the first model that was in force, kept for ever", cadence=_FOR_EVER),
)


@dataclass(frozen=True)
class PolicyReplays:
    """What the rules would have given."""

    policies: tuple[PolicyLosses, ...]
    """The settings' own rule first."""
    shadows: pl.DataFrame
    """Rows of `Shadows` of the settings' own rule."""


class CachedRegistry(ReplayRegistry):
    """A replay's registry that keeps what it trains in a folder apart, for the next replay.

    Models are found by their names, which are their inputs: the user's own registry is read first,
    and never written.
    """

    def __init__(self, own: Registry, cache: Registry) -> None:
        super().__init__(own)
        self.cache = cache

    def find(self, model_id: str) -> Registered | None:
        """The model called `model_id`, in the user's registry or in the cache."""
        return super().find(model_id) or self.cache.find(model_id)

    def load(self, model_id: str) -> VolatilityModel:
        """The model called `model_id`."""
        if super().find(model_id) is None and self.cache.find(model_id) is not None:
            return self.cache.load(model_id)
        return super().load(model_id)

    def register(self, model: VolatilityModel, record: TrainingRecord, **_: object) -> Registered:
        """Keep `model` in the cache, without pictures."""
        return self.cache.register(model, record)


def replay_policies(  # noqa: PLR0913
    history: History,
    settings: Settings,
    first: dt.date,
    last: dt.date,
    *,
    registry: ReplayRegistry,
    say: Say,
) -> PolicyReplays:
    """Replay `POLICIES` from `first` to `last`, all from the model in force before `first`.

    Raises `ModelError` where that model was trained later than `first`: it knows the days to come.
    """
    _refuse_prophets(history.models, first, registry)
    ruled = replace(history, orders=None, forced={})
    found, shadows = [], None
    for policy in POLICIES:
        say(f"{policy.name} ...")
        own = ruled if policy.drift else replace(ruled, drift={})
        made = replay_product(
            own, _with(settings, policy), settings.tickers, first, last, registry=registry, say=say
        )
        scored = score(made.forecasts, history.bars)
        if policy is AS_SET:
            known = pl.concat([history.models, made.decisions])
            shadows = _shadows(history, known, scored, settings, registry)
        tried = made.decisions.drop_nulls("challenger").unique(["day", "challenger"])
        found.append(
            PolicyLosses(
                policy.name,
                policy.title,
                tried.height,
                tried.filter(decision="trained").height,
                scored.select("day", "ticker", "horizon", "pinball"),
            )
        )
    assert shadows is not None
    return PolicyReplays(tuple(found), shadows)


def _refuse_prophets(models: pl.DataFrame, first: dt.date, registry: Registry) -> None:
    for name in models.filter(pl.col("model") != BASELINE)["model"].unique().sort():
        found = registry.find(name)
        if found is not None and found.record.day > first:
            message = (
                f"the lake's `models` has {name} in force before {first}, and it was trained on "
                f"{found.record.day}: it has seen the days that it would be tested on; run the "
                "`model` asset for the days before again, or replay from a later day (--from)"
            )
            raise ModelError(message)


def _with(settings: Settings, policy: Policy) -> Settings:
    if policy.cadence is None:
        return settings
    forecast = settings.forecast.model_copy(update={"cadence": policy.cadence})
    return settings.model_copy(update={"forecast": forecast})


def _shadows(
    history: History,
    models: pl.DataFrame,
    scored: pl.DataFrame,
    settings: Settings,
    registry: Registry,
) -> pl.DataFrame:
    def read(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
        seen = pl.col("day").is_between(first, last)
        return history.bars.filter(seen), history.features.filter(seen)

    return shadow_scores(
        scored,
        attempts(models),
        read,
        registry.load,
        exchanges=settings.exchanges,
        sessions=union_sessions(settings.exchanges),
        length=settings.scores.shadow,
    )
