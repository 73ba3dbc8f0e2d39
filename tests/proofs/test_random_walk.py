"""On a pure random walk there is nothing to know: skill there is a leak, whatever the code says.

A detector that needs no idea of where the leak is. The honest product finds next to nothing; the
same measure on leaky variants finds what cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.forecasting import model
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.model import PARAMETERS
from stock_assets.forecasting.scoring import summarise
from stock_assets.forecasting.splitting import Split, split
from stock_assets.lake.schemas import Features
from tests.forecasting.conftest import settings_for

from .chain import HONEST, Links, Trained, forecast, make_features, plant, tell, train
from .markets import CONSTANT, simulate
from .test_training_sets import ByRows, CalibratedOnTraining, TrainedOnAll

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    import numpy as np
    from sklearn.neighbors import KNeighborsRegressor

pytestmark = pytest.mark.slow

MOST_PINBALL_SKILL = 0.9
"""In %, on a year of a random walk. An honest model has a little over an EWMA, which is noisy."""

MOST_QLIKE_SKILL = 15.0
MOST_CLAIMED_SKILL = 1.0
"""In %, of a model without any restraint, when it is judged."""

LEAST_COVERAGE = 0.883
"""Of its 90 % interval."""

FIRST_DAYS = 40
WALKS = 200


@pytest.fixture(scope="module", params=[1, 2, 3])
def walks(request: pytest.FixtureRequest) -> pl.DataFrame:
    return simulate(CONSTANT, 12, 700, seed=request.param)


def skills(walks: pl.DataFrame, features: Callable[[pl.DataFrame], pl.DataFrame]):
    """Pinball and QLIKE skill over the baseline on the last days, in %."""
    days = walks["day"].unique().sort().to_list()[500:690]
    total = summarise(tell(walks, days, links=Links(features=features))["scores"]).total
    return total.pinball_skill, total.qlike_skill


def test_the_honest_chain_finds_no_skill(walks) -> None:
    pinball, qlike = skills(walks, make_features)
    assert pinball < MOST_PINBALL_SKILL
    assert qlike < MOST_QLIKE_SKILL


@pytest.mark.parametrize("ahead", [2, 5])
def test_a_window_over_days_to_come_shows_impossible_skill(walks, ahead) -> None:
    def leaking(bars: pl.DataFrame) -> pl.DataFrame:
        window = pl.col("vol_close_5").shift(-ahead).over("ticker", order_by="day")
        return make_features(bars).with_columns(window)

    pinball, qlike = skills(walks, leaking)
    assert pinball > MOST_PINBALL_SKILL
    assert qlike > MOST_QLIKE_SKILL


ON_PRICE = {"direction", "price", "ranks"}
"""Topics of claims that nothing can be true of on a random walk; its variance can be known."""


def said_of(seed: int, links: Links = HONEST) -> tuple[set[str], str]:
    """What the product says of its own median over five months: skill proven, and the sentence."""
    bars = simulate(CONSTANT, 6, 380, seed=seed)
    days = bars["day"].unique().sort().to_list()[270:370]
    # One training serves all the days.
    settings = settings_for(bars["ticker"].unique().sort(), cadence=len(days))
    found = summarise(tell(bars, days, links=links, settings=settings)["scores"]).verdict
    better = {claim.topic for claim in found.claims if claim.better} & set(found.proven) & ON_PRICE
    if "no skill on direction" not in found.sentence:
        better.add("the sentence")
    return better, found.sentence


@pytest.fixture
def five_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """They make no median: two hundred walks cost two minutes so."""
    monkeypatch.setitem(PARAMETERS, "iterations", 5)
    monkeypatch.setitem(PARAMETERS, "learning_rate", 0.5)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("five_trees")
def test_the_product_claims_no_skill_on_direction() -> None:
    """From the bars to the verdict, the gate open: a false claim in fewer than 5 % of the walks."""
    told = [said_of(seed) for seed in range(WALKS)]
    # With the last price for a median there would be nothing to claim, and nothing proven here.
    assert not any("as the median is the last price" in sentence for _, sentence in told)
    false = [seed for seed, (better, _) in enumerate(told) if better]
    assert len(false) < 0.05 * WALKS, false


@pytest.mark.usefixtures("five_trees")
def test_a_product_that_has_seen_a_little_of_the_outcome_claims_skill() -> None:
    def leaking(cells: pl.DataFrame, features: pl.DataFrame, bars: pl.DataFrame, *more: object):
        seen = returns_ahead(labels(bars))
        made = forecast(cells, features, bars, *more)
        moved = made.join(seen, on=["day", "ticker", "horizon"], how="left").with_columns(
            pl.col("return_q50") + 0.1 * pl.col("actual_return").fill_null(0.0)
        )
        price = pl.col("last_price") * pl.col("return_q50").exp()
        return moved.with_columns(price.alias("price_q50")).select(made.columns)

    for seed in range(3):
        better, sentence = said_of(seed, Links(forecasts=leaking))
        assert {"direction", "price", "ranks", "the sentence"} == better, sentence


class Rote:
    """In the regression's place, so that no member of the model has any restraint."""

    def __init__(self, remembered: KNeighborsRegressor) -> None:
        self._remembered = remembered

    @classmethod
    def fit(cls, inputs: pl.DataFrame, target: np.ndarray, _penalty: float) -> Rote:
        from sklearn.neighbors import KNeighborsRegressor

        return cls(KNeighborsRegressor(1).fit(_without_nulls(inputs), target))

    def predict(self, inputs: pl.DataFrame) -> np.ndarray:
        return self._remembered.predict(_without_nulls(inputs))


def _without_nulls(inputs: pl.DataFrame) -> np.ndarray:
    return inputs.fill_null(0.0).to_numpy()


@pytest.fixture(params=[1, 2])
def memorised(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[Split] | None], tuple[Trained, pl.DataFrame]]:
    """Train a model that remembers all it was shown; how history is divided can be said."""
    restless = {"iterations": 100, "learning_rate": 0.3, "depth": 8, "l2_leaf_reg": 1.0}
    for name, value in restless.items():
        monkeypatch.setitem(PARAMETERS, name, value)
    monkeypatch.setattr(model, "LinearLearner", Rote)
    # Without a factor, so that the rows are as good as the days and chance is small.
    bars = simulate(CONSTANT, 16, 800, seed=request.param, factor_share=0.0)
    features = Features.validate(make_features(bars), cast=True)
    settings = settings_for(bars["ticker"].unique().sort(), window=700)

    def trained(divided: type[Split] | None = None) -> tuple[Trained, pl.DataFrame]:
        if divided is not None:

            def leaking(labelled: pl.DataFrame, end: dt.date) -> Split:
                honest = split(labelled, end)
                assert honest is not None
                return divided(honest.calibration_first, honest.validation_first, honest.end)

            plant(monkeypatch, "split", leaking)
        return train(bars, features, bars["day"].max(), settings=settings), bars

    return trained


def claimed(trained: Trained) -> float:
    """By how much the judge found the challenger's loss below the baseline's, in %."""
    row = trained.rows.row(0, named=True)
    return 100 * (1 - row["challenger_loss"] / row["baseline_loss"])


def coverage(trained: Trained, bars: pl.DataFrame) -> float:
    """Of the challenger's 90 % intervals on the first days it was judged on.

    Later ones are calibrated by residuals of judged days too, which nobody could memorise.
    """
    came = returns_ahead(labels(bars))
    judged = trained.judged["challenger"]
    first = judged["day"].unique().sort().head(FIRST_DAYS)
    made = judged.filter(pl.col("day").is_in(first.implode())).join(
        came, on=["day", "ticker", "horizon"]
    )
    inside = pl.col("actual_return").is_between("return_q05", "return_q95")
    return made.select(inside.mean()).item()


def test_a_judge_is_not_impressed_by_memory(memorised) -> None:
    trained, bars = memorised()
    assert claimed(trained) < MOST_CLAIMED_SKILL
    assert coverage(trained, bars) > LEAST_COVERAGE


def test_a_judge_of_days_that_were_trained_on_takes_memory_for_skill(memorised) -> None:
    trained, _ = memorised(TrainedOnAll)
    assert claimed(trained) > MOST_CLAIMED_SKILL


@pytest.mark.parametrize("divided", [ByRows, CalibratedOnTraining])
def test_calibrating_on_what_was_memorised_makes_intervals_too_narrow(memorised, divided) -> None:
    trained, bars = memorised(divided)
    assert coverage(trained, bars) < LEAST_COVERAGE
