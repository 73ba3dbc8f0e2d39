"""The linear regression in closed form, and predictions that do not depend on their neighbours."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.baselines.regressions import (
    LINEAR,
    RANDOM_FOREST,
    RIDGE_PENALTY,
    ForestLearner,
)
from stock_assets.forecasting.linear import LinearLearner


@pytest.fixture
def inputs() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame(rng.normal(2, 3, (900, 4)), schema=list("wxyz"))
    return frame.with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise("x").alias("x"),
        pl.lit(None, pl.Float64).alias("never"),
        pl.lit(1.5).alias("constant"),
    )


@pytest.fixture
def target(inputs: pl.DataFrame) -> np.ndarray:
    rng = np.random.default_rng(2)
    return (inputs["w"] - 0.5 * inputs["y"]).to_numpy() + rng.normal(0, 0.5, inputs.height)


def test_the_linear_regression_is_ridge_in_closed_form(inputs, target) -> None:
    learned = LinearLearner.fit(inputs, target, RIDGE_PENALTY)
    columns = []
    for name in inputs.columns:
        values = inputs[name].to_numpy().astype(float)
        spread = np.nanstd(values) if np.isfinite(values).sum() else 0.0
        centre = np.nanmean(values) if np.isfinite(values).sum() else 0.0
        columns.append(np.nan_to_num((values - centre) / (spread or 1.0)))
    table = np.column_stack(columns)
    centred = table - table.mean(axis=0)
    gram = centred.T @ centred + RIDGE_PENALTY * np.eye(table.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (target - target.mean()))
    expected = target.mean() + centred @ weights
    assert learned.predict(inputs) == pytest.approx(expected, abs=1e-9)
    assert np.corrcoef(expected, target)[0, 1] > 0.9


@pytest.mark.parametrize("method", [LINEAR, RANDOM_FOREST], ids=lambda method: method.name)
def test_a_row_is_predicted_alone_as_among_others(method, inputs, target) -> None:
    learned = method.learn(inputs, target)
    together = learned.predict(inputs)
    assert np.unique(together).size > 20
    alone = np.concatenate([learned.predict(inputs[i]) for i in range(0, 900, 45)])
    assert np.array_equal(together[::45], alone)
    assert learned.predict(inputs.clear()).size == 0


def test_the_forest_learns_the_same_again(inputs, target) -> None:
    first, second = (ForestLearner.fit(inputs, target).predict(inputs) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.corrcoef(first, target)[0, 1] > 0.7
