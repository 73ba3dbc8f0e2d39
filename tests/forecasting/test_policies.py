"""Rules of when to train, on markets of which it is known whether retraining can pay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.errors import ModelError
from stock_assets.forecasting import decision
from stock_assets.forecasting.backtest import History, ReplayRegistry
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.policies import (
    AS_SET,
    POLICIES,
    CachedRegistry,
    PolicyReplays,
    replay_policies,
)
from stock_assets.forecasting.registry import Registry, TrainingRecord
from stock_assets.forecasting.worth import worth
from stock_assets.lake.schemas import Bars, Features, Models

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from pathlib import Path

    from stock_assets.settings import Settings

EVERYONE = list("ABCDEF")
CHANGE = 360
"""Session from which a market that changes is another one."""


def alike(rng: np.random.Generator, sessions: int) -> np.ndarray:
    """Every session's volatility is its own: yesterday's says nothing of today's."""
    return 0.9 * rng.standard_normal(sessions)


def lasting(rng: np.random.Generator, sessions: int) -> np.ndarray:
    """Storms last for weeks: yesterday's volatility says nearly all of today's."""
    state, path = 0.0, []
    for shock in rng.standard_normal(sessions):
        state = 0.97 * state + 0.22 * shock
        path.append(state)
    return np.array(path)


def changing(rng: np.random.Generator, sessions: int) -> np.ndarray:
    """The one, then the other."""
    return np.concatenate([alike(rng, CHANGE), lasting(rng, sessions - CHANGE)])


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def market(make_bars, features_of) -> Callable[..., History]:
    def made(path: Callable[..., np.ndarray], seed: int, sessions: int) -> History:
        raw = make_bars(EVERYONE, sessions, seed=seed, log_volatility=path)
        bars = Bars.validate(raw, cast=True)
        features = Features.validate(features_of(raw), cast=True)
        return History(features, bars, {}, Models.create_empty())

    return made


@pytest.fixture
def replayed(make_settings, tmp_path: Path) -> Callable[..., PolicyReplays]:
    def made(
        history: History, begin: int, end: int | None = None, registry: ReplayRegistry | None = None
    ) -> PolicyReplays:
        days = history.bars["day"].unique().sort().to_list()
        first, last = days[begin], days[-6 if end is None else end]
        settings: Settings = make_settings(EVERYONE)
        registry = registry or ReplayRegistry(Registry(tmp_path / "own"))
        return replay_policies(history, settings, first, last, registry=registry, say=quiet)

    return made


@pytest.mark.slow
def test_where_the_market_changes_its_ways_retraining_is_said_to_pay(
    market, replayed, monkeypatch
) -> None:
    monkeypatch.setattr("stock_assets.forecasting.gate.LEVEL", 0.5)  # a model before the change
    made = replayed(market(changing, 5, sessions=620), 320)
    found = worth(made.shadows, made.policies)
    never = next(item for item in found.policies if item.name == "never")
    assert never.put_in_force == never.trainings == 1
    assert never.tested is not None
    assert never.tested.words == "better", found.sentence
    assert found.sentence.endswith(", beyond luck")
    assert "it costs" not in found.sentence


@pytest.mark.slow
def test_where_nothing_changes_nothing_is_claimed(market, replayed, monkeypatch) -> None:
    monkeypatch.setattr("stock_assets.forecasting.gate.LEVEL", 0.5)
    made = replayed(market(lasting, 1, sessions=620), 320)
    found = worth(made.shadows, made.policies)
    assert [item.name for item in found.policies] == [policy.name for policy in POLICIES]
    assert found.sentence.endswith("nothing here shows that retraining by these settings pays, or "
                                   "that it costs")  # fmt: skip


@pytest.mark.slow
def test_rules_differ_in_their_trainings_alone(market, replayed, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("stock_assets.forecasting.gate.LEVEL", 0.5)
    history = market(lasting, 3, sessions=420)
    days: list[dt.date] = history.bars["day"].unique().sort().to_list()
    cached = CachedRegistry(Registry(tmp_path / "own"), Registry(tmp_path / "replays"))
    made = replayed(history, 300, 350, cached)
    trained = {item.name: item.trainings for item in made.policies}
    assert trained["never"] == 1
    assert trained["as set"] == trained["cadence alone"] == 2
    assert trained["every month"] == 3
    # Without drift the settings' own rule is the cadence alone: not a bit of difference.
    own, alone, *_ = made.policies
    assert own.name == AS_SET.name
    assert_frame_equal(own.losses, alone.losses, check_exact=True)
    # All of them serve the same first model until the first of them trains again.
    before = pl.col("day") <= days[300 + 21]
    for item in made.policies:
        assert_frame_equal(item.losses.filter(before), own.losses.filter(before), check_exact=True)
    # What was trained is kept apart, and found again: nothing is fitted twice.
    assert not (tmp_path / "own").exists()
    assert len(cached.cache.versions()) == 4  # the first, two of the months, one of the cadence
    monkeypatch.setattr(decision, "fit", None)
    again = replayed(
        history, 300, 350,
        CachedRegistry(Registry(tmp_path / "own"), Registry(tmp_path / "replays")),
    )  # fmt: skip
    assert_frame_equal(again.shadows, made.shadows, check_exact=True)
    for one, other in zip(again.policies, made.policies, strict=True):
        assert_frame_equal(one.losses, other.losses, check_exact=True)


def test_a_model_that_knows_the_days_to_come_is_refused(market, replayed, tmp_path) -> None:
    history = market(lasting, 3, sessions=420)
    days: list[dt.date] = history.bars["day"].unique().sort().to_list()
    registry = ReplayRegistry(Registry(tmp_path / "own"))
    verdict = Verdict(True, "better", 0.9, None, 1.0, 250)
    registry.register(None, TrainingRecord("prophet", days[380], ("A",), 10, verdict))
    row = {"day": days[299], "ticker": "A", "model": "prophet", "decision": "carried",
           "reason": "x", "trained_day": days[200], "attempted_day": days[200]}  # fmt: skip
    models = pl.DataFrame([row], schema=Models.create_empty().schema)
    with pytest.raises(ModelError, match=f"prophet in force before {days[300]}, and it was trained "
                       f"on {days[380]}"):  # fmt: skip
        replayed(replace(history, models=models), 300, 390, registry)
