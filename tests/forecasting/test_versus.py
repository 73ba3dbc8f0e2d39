"""Comparing two models names the one with the smaller loss, and only where luck is ruled out."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.calendars import WEEKDAYS
from stock_assets.errors import ModelError
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import TARGETS, VolatilityModel, fit, trainable
from stock_assets.forecasting.registry import TrainingRecord
from stock_assets.forecasting.scoring import Comparison
from stock_assets.forecasting.versus import Versus, versus

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = dt.date(2024, 6, 3)


def told(loss: float, other: float, t: float | None, days: int = 250) -> str:
    return Versus("ours", "theirs", DAY, DAY, True, Comparison(loss, other, days, t)).sentence


@pytest.mark.parametrize(
    ("loss", "other", "t", "said"),
    [
        (0.9, 1.0, 4.0, "ours's loss is 10.00 % below theirs's on 250 days"),
        (0.9, 1.0, 4.0, ": ours is better, beyond luck (t 4.0, chance < 0.1 %)."),
        (1.0, 0.9, -4.0, "ours's loss is 11.11 % above theirs's on 250 days"),
        (1.0, 0.9, -4.0, ": theirs is better, beyond luck (t -4.0, chance < 0.1 %)."),
        (0.99, 1.0, 0.5, ": no more than luck may explain (t 0.5, chance 31.2 %)."),
        (1.0, 0.99, -0.5, ": no more than luck may explain (t -0.5, chance 31.2 %)."),
        (1.0, 1.0, None, ": they are the same."),
        (0.9, 1.0, None, ": ours is better, beyond luck (every day)."),
        (1.0, 0.9, None, ": theirs is better, beyond luck (every day)."),
    ],
)
def test_who_is_better_is_said_by_name(
    loss: float, other: float, t: float | None, said: str
) -> None:
    assert said in told(loss, other, t)


def test_few_days_name_nobody() -> None:
    assert told(0.5, 1.0, None, days=19).endswith(": too few days to tell (the test needs 20).")


def record(name: str, day: dt.date, validation_first: dt.date | None = None) -> TrainingRecord:
    verdict = Verdict(True, "for a test", 0.9, None, 1.0, 50)
    sets = {"validation_first": str(validation_first)} if validation_first else {}
    return TrainingRecord(name, day, tuple("ABCDEF"), 100, verdict, sets=sets)


@pytest.fixture(scope="module")
def load(
    features: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> Callable[[str], VolatilityModel]:
    """A model of the market, and one that takes its variance for forty times what it is."""
    rows = trainable(features, labelled).filter(pl.col("label_end") <= sessions[240])
    loud = rows.with_columns(pl.col(TARGETS) * 40)
    models = {"fine": fit(rows, sessions[395]), "loud": fit(loud, sessions[395])}
    return models.__getitem__


@pytest.fixture
def data(features: pl.DataFrame, bars: pl.DataFrame) -> Callable[[dt.date], tuple]:
    def since(first: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
        seen = pl.col("day") >= first
        return features.filter(seen), bars.filter(seen)

    return since


def test_the_better_model_is_named_whichever_is_asked_first(load, data, sessions) -> None:
    fine, loud = record("fine", sessions[340]), record("loud", sessions[300])
    for pair in ((fine, loud), (loud, fine)):
        found = versus(*pair, load, data, [WEEKDAYS])
        assert (found.name, found.other) == tuple(item.model_id for item in pair)
        assert ": fine is better, beyond luck" in found.sentence
    baseline = versus(loud, None, load, data, [WEEKDAYS])
    assert ": baseline is better, beyond luck" in baseline.sentence


def test_the_days_are_later_than_both_trainings_and_all_of_them(load, data, sessions) -> None:
    """A training looks at labels that ended before its day: its own day is the first."""
    found = versus(
        record("fine", sessions[340]), record("loud", sessions[300]), load, data, [WEEKDAYS]
    )
    assert (found.first, found.last, found.later) == (sessions[340], sessions[-6], True)
    assert found.result.days == len(sessions) - 5 - 340
    assert "all later than both trainings" in found.sentence


def test_without_later_days_those_of_the_later_verdict_are_taken_and_it_is_said(
    load, data, sessions
) -> None:
    late = record("fine", sessions[-1], validation_first=sessions[370])
    found = versus(late, None, load, data, [WEEKDAYS])
    # The label of the last of them ended before the training's day.
    assert (found.first, found.last, found.later) == (sessions[370], sessions[-7], False)
    assert "there is no day later than both trainings yet, so this flatters it" in found.sentence


def test_where_there_is_nothing_to_compare_the_error_says_what_to_do(load, data, sessions) -> None:
    same = record("fine", sessions[340])
    with pytest.raises(ModelError, match="name two of them"):
        versus(same, same, load, data, [WEEKDAYS])
    with pytest.raises(ModelError, match=r"fine: .*compare them once sessions have passed"):
        versus(record("fine", sessions[-1]), None, load, data, [WEEKDAYS])
