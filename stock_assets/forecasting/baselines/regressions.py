"""What everybody tries first: a ridge regression and a random forest, on the model's own inputs.

Both learn one of the model's targets, the log ratio of the next week's variance to the EWMA's, so
that the comparison is of learners and targets and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from stock_assets.forecasting.baseline import scaled_to_horizons
from stock_assets.forecasting.baselines.scale import (
    MIN_FIT_ROWS,
    NothingFitted,
    ScaleForecaster,
    daily_variance_ahead,
    fit_rows,
    retransformation,
)
from stock_assets.forecasting.linear import LinearLearner
from stock_assets.forecasting.model import model_inputs
from stock_assets.forecasting.volatility import MAX_LOG_RATIO, is_measured

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

RIDGE_PENALTY = 100.0
"""Of standardised inputs: it only tames those that say the same."""

FOREST: dict[str, Any] = {
    "n_estimators": 60,
    "min_samples_leaf": 100,
    "max_features": 0.33,
    "max_samples": 0.25,
    "random_state": 7,
    "n_jobs": 2,
}
"""The forest's settings: small and shallow, seconds a fit."""


class Learner(Protocol):
    """Log variance ratios from `model_inputs`, row by row."""

    def predict(self, inputs: pl.DataFrame) -> NDArray[np.float64]:
        """One number a row, which does not depend on the other rows, to the last bit."""
        ...


@dataclass(frozen=True)
class ForestLearner:
    """A fitted forest of scikit-learn."""

    forest: Any

    @classmethod
    def fit(cls, inputs: pl.DataFrame, target: NDArray[np.float64]) -> ForestLearner:
        """Trees on random quarters of the rows; a missing input is a branch of its own."""
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(**FOREST).fit(inputs.to_numpy(), target)
        # Threads add up their trees in the order in which they finish: the last bit is luck.
        return cls(forest.set_params(n_jobs=1))

    def predict(self, inputs: pl.DataFrame) -> NDArray[np.float64]:
        """See `Learner.predict`."""
        if inputs.is_empty():
            return np.empty(0)
        return np.asarray(self.forest.predict(inputs.to_numpy()), dtype=np.float64)


@dataclass(frozen=True)
class LearnedScale:
    """vol_ewma * sqrt(factor * exp(prediction)): a function of the row alone."""

    learner: Learner
    factor: float

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """See `Scale.sigmas`."""
        rows = features.filter(is_measured())
        ratio = pl.Series(self.factor * np.exp(self.learner.predict(model_inputs(rows))))
        return scaled_to_horizons(rows, pl.col("vol_ewma") * ratio.sqrt(), horizons)


@dataclass
class LearnedMethod:
    """A method whose scale is learned from the model's inputs."""

    name: str
    title: str
    learn: Callable[[pl.DataFrame, NDArray[np.float64]], Learner]

    def fit(self, known: Known, day: dt.date) -> ScaleForecaster:
        """On all tickers' rows whose labels are known at the close of `day`."""
        rows = fit_rows(known, day)
        if rows.height < MIN_FIT_ROWS:
            return ScaleForecaster(NothingFitted())
        inputs = model_inputs(rows)
        usual = pl.col("vol_ewma") ** 2
        realised = rows.select(daily_variance_ahead() / usual).to_series().to_numpy()
        target = np.clip(np.log(realised), -MAX_LOG_RATIO, MAX_LOG_RATIO)
        learner = self.learn(inputs, target)
        factor = retransformation(realised, learner.predict(inputs))
        return ScaleForecaster(LearnedScale(learner, factor))


LINEAR = LearnedMethod(
    "linear",
    "ridge regression of the log variance, empirical quantiles",
    lambda inputs, target: LinearLearner.fit(inputs, target, RIDGE_PENALTY),
)
RANDOM_FOREST = LearnedMethod(
    "forest", "random forest of the log variance, empirical quantiles", ForestLearner.fit
)
