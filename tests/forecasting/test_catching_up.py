"""Trainings that were missed: caught up on as a replay would decide, and no further."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import union_sessions
from stock_assets.drift.verdict import Signal
from stock_assets.forecasting import decision
from stock_assets.forecasting.decision import CATCH_UP, decide, trainings_due
from stock_assets.forecasting.gate import Verdict
from stock_assets.lake.schemas import Models
from tests.forecasting.conftest import settings_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.forecasting.in_force import InForce
    from stock_assets.settings import Settings

NONE = Models.create_empty()
REGISTRY = mock.Mock(**{"unfit.return_value": {}})


def sessions(configured: Settings) -> list[dt.date]:
    return [day for day in union_sessions(configured.exchanges) if day >= dt.date(2025, 1, 6)]


def attempt(_: object, day: dt.date, __: InForce, ___: str) -> SimpleNamespace:
    """A training that costs nothing and succeeds on days of even number."""
    verdict = Verdict(day.day % 2 == 0, "-", 1.0, None, 1.0, 1)
    record = SimpleNamespace(model_id=f"m-{day}", verdict=verdict)
    return SimpleNamespace(record=record, version=1)


def decided(
    days: Sequence[dt.date], known: pl.DataFrame, moved: set[dt.date], configured: Settings
) -> pl.DataFrame:
    cells = pl.DataFrame({"day": days, "ticker": ["A"] * len(days)})
    with mock.patch.object(decision._Trainer, "attempt", attempt):
        return decide(cells, known, signals(moved), mock.Mock(), REGISTRY, configured).rows


def signals(moved: set[dt.date]) -> dict[dt.date, Signal]:
    return {day: Signal(1.0, "XMOS: moved") for day in moved}


def tried(rows: pl.DataFrame) -> list[tuple[dt.date, str, str]]:
    attempts = rows.filter(pl.col("challenger").is_not_null()).sort("day")
    return attempts.select("day", "model", "reason").rows()


@pytest.mark.slow
@given(
    moved=st.sets(st.integers(1, 160), max_size=25),
    missed=st.lists(st.tuples(st.integers(1, 160), st.integers(1, CATCH_UP - 2)), max_size=4),
    cooldown=st.integers(0, 25),
    cadence=st.integers(1, 90),
)
@settings(deadline=None, max_examples=25)
def test_evenings_of_which_any_were_missed_decide_what_a_replay_decides(
    moved: set[int], missed: list[tuple[int, int]], cooldown: int, cadence: int
) -> None:
    """A stretch of evenings is missed: the daemon is off, or a run that decides is going on."""
    configured = settings_for("A", cooldown=cooldown, cadence=cadence)
    days = sessions(configured)[:162]
    alarms = {days[number] for number in moved}
    silent = {number for begin, length in missed for number in range(begin, begin + length)}
    live, since = decided(days[:1], NONE, alarms, configured), 1
    for number in range(1, len(days)):
        if number in silent and number - since < CATCH_UP - 2:
            continue
        since, day = number, days[number]
        latest = live.filter(pl.col("day") == pl.col("day").max())
        due = trainings_due(day, latest, lambda *_: signals(alarms), configured)
        if due:
            asked = [item for item in days if min(due) <= item <= day]
            live = pl.concat([live, decided(asked, latest, alarms, configured)])
    seen = [day for day in days if day <= days[since]]
    assert tried(live) == tried(decided(seen, NONE, alarms, configured))


@pytest.fixture
def decided_first() -> tuple[Settings, list[dt.date], pl.DataFrame]:
    configured = settings_for("A", cooldown=10, cadence=40)
    days = sessions(configured)
    return configured, days, decided(days[:1], NONE, set(), configured)


def test_no_more_than_a_quarter_is_looked_at_however_long_ago_the_last_decision_was(
    decided_first: tuple[Settings, list[dt.date], pl.DataFrame],
) -> None:
    configured, days, known = decided_first
    looked_at = []

    def signals_of(first: dt.date, last: dt.date) -> dict[dt.date, Signal]:
        looked_at.append((first, last))
        return {}

    due = trainings_due(days[90], known, signals_of, configured)
    assert min(due) == days[40], "the routine training that was missed"
    due = trainings_due(days[400], known, signals_of, configured)
    assert list(due) == [days[400]], "what was due before a quarter ago is not caught up on"
    assert looked_at == [(days[90 - CATCH_UP + 1], days[90]), (days[400 - CATCH_UP + 1], days[400])]


def test_where_nothing_was_ever_decided_only_the_newest_day_is_asked_for() -> None:
    configured = settings_for("A")
    day = sessions(configured)[300]
    due = trainings_due(day, NONE, lambda *_: {}, configured)
    assert due == {day: "no model in force"}


def test_a_model_that_an_upgrade_retired_is_replaced_on_the_newest_day(
    decided_first: tuple[Settings, list[dt.date], pl.DataFrame],
) -> None:
    configured, days, known = decided_first
    (model,) = known["model"]
    due = trainings_due(days[5], known, lambda *_: {}, configured, unfit={model})
    assert due == {days[5]: "no model in force"}
