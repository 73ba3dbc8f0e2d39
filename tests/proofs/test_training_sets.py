"""Inside a training: what is fitted, calibrated and judged on lies apart in time.

A leak here needs no future: the days after a training may be unknown and its verdict still be worth
nothing, because the judged days were learned from.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl
import pytest

from stock_assets.forecasting.splitting import Split, split
from stock_assets.lake.schemas import Features

from .chain import Story, Trained, assert_same, garbage_after, honest, make_features, plant, train


@pytest.fixture(scope="module")
def features(market: pl.DataFrame) -> pl.DataFrame:
    return Features.validate(make_features(market), cast=True)


@pytest.fixture(scope="module")
def day(market: pl.DataFrame) -> dt.date:
    return market["day"].unique().sort()[380]


def assert_sets_lie_apart(trained: Trained, day: dt.date) -> None:
    """Fitted rows end before calibration begins, those before validation, all before the day."""
    ended, begun = trained.fitted["label_end"].max(), trained.calibration_first
    assert ended <= begun, f"fitted on labels until {ended}, the next set begins on {begun}"
    judged = trained.validation["day"].min()
    assert begun < judged, f"calibrated from {begun} on, the next set begins on {judged}"
    ended = trained.validation["label_end"].max()
    assert ended < day, f"judged on labels until {ended}, on {day}"


def assert_the_judged_knew_nothing(
    market: pl.DataFrame, features: pl.DataFrame, day: dt.date
) -> None:
    """A forecast shown to the judge is the same whatever prices came after its own day.

    The features stay, so that only what was learned from the later prices can make a difference.
    """
    shown = train(market, features, day)
    judged_days = shown.validation["day"].unique().sort().to_list()
    for cut in (judged_days[0], judged_days[len(judged_days) // 2]):
        # No wilder than a storm: beyond one, targets are clipped and all the same.
        other = train(garbage_after(market, cut, size=0.03), features, day)
        assert_same(_until(shown, cut), _until(other, cut))


def _until(trained: Trained, day: dt.date) -> Story:
    return {name: rows.filter(pl.col("day") <= day) for name, rows in trained.judged.items()}


def test_the_sets_of_a_training_lie_apart(market, features, day) -> None:
    trained = train(market, features, day)
    assert_sets_lie_apart(trained, day)
    assert min(trained.fitted.height, trained.validation.height) > 100


def test_what_the_judge_is_shown_knows_nothing_of_what_came_after(market, features, day) -> None:
    assert_the_judged_knew_nothing(market, features, day)


# Leaky ways of dividing history, in the shape of the honest one.


@dataclass(frozen=True)
class ByRows:
    """Every row where a die says: neighbours of a judged row, sharing its label, are fitted on."""

    calibration_first: dt.date
    validation_first: dt.date
    end: dt.date

    def _set(self, number: int) -> pl.Expr:
        die = pl.struct("day", "ticker").hash(seed=3) % 5
        chosen = {0: die < 3, 1: die == 3, 2: die == 4}[number]
        return chosen & (pl.col("label_end") <= self.end)

    def training(self) -> pl.Expr:
        return self._set(0)

    def calibration(self) -> pl.Expr:
        return self._set(1)

    def validation(self) -> pl.Expr:
        return self._set(2)

    def after_training(self) -> pl.Expr:
        return self._set(1) | self._set(2)

    def parts(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        return self.training(), self.calibration(), self.validation()


@dataclass(frozen=True)
class Unpurged(Split):
    """Divided by the day alone: the last label windows of a set reach into the next."""

    def training(self) -> pl.Expr:
        return pl.col("day") < self.calibration_first

    def calibration(self) -> pl.Expr:
        return (pl.col("day") >= self.calibration_first) & (pl.col("day") < self.validation_first)


@dataclass(frozen=True)
class TrainedOnAll(Split):
    """Trained on the days it is judged on."""

    def training(self) -> pl.Expr:
        return pl.col("label_end") <= self.end


@dataclass(frozen=True)
class CalibratedOnTraining(Split):
    """All calibration days are trained on too: residuals of what was memorised."""

    def training(self) -> pl.Expr:
        return pl.col("label_end") <= self.validation_first


@dataclass(frozen=True)
class CalibratedTooEarly(Split):
    """Training ends a month after calibration begins."""

    def training(self) -> pl.Expr:
        return pl.col("label_end") <= self.calibration_first + dt.timedelta(30)


ONLY_MEMORY = (Unpurged, CalibratedOnTraining, CalibratedTooEarly)
"""Nothing of the judged days was learned; what is wrong is how sure the challenger is."""

LEAKY = (ByRows, TrainedOnAll, *ONLY_MEMORY)


@pytest.fixture
def leaky(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def divided(labelled: pl.DataFrame, end: dt.date) -> object:
        sets = split(labelled, end)
        assert sets is not None
        return request.param(sets.calibration_first, sets.validation_first, sets.end)

    plant(monkeypatch, "split", divided)


@pytest.mark.slow
@pytest.mark.parametrize("leaky", LEAKY, indirect=True)
@pytest.mark.usefixtures("leaky")
def test_sets_that_meet_are_caught(market, features, day) -> None:
    with pytest.raises(AssertionError, match="the next set begins"):
        assert_sets_lie_apart(train(market, features, day), day)


@pytest.mark.parametrize(
    "leaky", [kind for kind in LEAKY if kind not in ONLY_MEMORY], indirect=True
)
@pytest.mark.usefixtures("leaky")
def test_a_judge_that_is_shown_the_future_is_caught(market, features, day) -> None:
    with pytest.raises(AssertionError, match=r"^challenger differs"):
        assert_the_judged_knew_nothing(market, features, day)


@pytest.mark.parametrize("reach", [0, 1])
def test_a_label_window_that_reaches_into_the_day_itself_is_caught(
    market, features, day, monkeypatch, reach
) -> None:
    """Labels said to end `reach` sessions after their day, not five."""
    product = honest("labels of a training")
    days = market["day"].unique().sort()

    def short(bars: pl.DataFrame) -> pl.DataFrame:
        ends = pl.DataFrame({"day": days, "label_end": days.shift(-reach)})
        return product(bars).drop("label_end").join(ends, on="day").sort("day", "ticker")

    plant(monkeypatch, "labels of a training", short)
    with pytest.raises(AssertionError, match=r"^(challenger|baseline) differs"):
        assert_the_judged_knew_nothing(market, features, day)
