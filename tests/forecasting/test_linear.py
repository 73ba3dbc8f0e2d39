"""The ridge regression is the textbook's, to the same last bit whoever fits or asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.forecasting.linear import LinearLearner

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = 5


def sample(seed: int, rows: int = 400, missing: float = 0.0) -> tuple[pl.DataFrame, np.ndarray]:
    """Inputs of different sizes that go together, and what depends on them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, COLUMNS)) @ rng.standard_normal((COLUMNS, COLUMNS))
    values = values * 10.0 ** rng.integers(-3, 4, COLUMNS) + rng.standard_normal(COLUMNS)
    target = (values / values.std(axis=0)) @ rng.standard_normal(COLUMNS) + 3
    target += rng.standard_normal(rows)
    gone = rng.random(values.shape) < missing
    frame = pl.DataFrame(np.where(gone, np.nan, values), schema=[f"x{n}" for n in range(COLUMNS)])
    return frame.fill_nan(None), target


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 100.0, 1e4]))
def test_it_is_ridge_regression_on_standardised_inputs(seed: int, penalty: float) -> None:
    inputs, target = sample(seed)
    learner = LinearLearner.fit(inputs, target, penalty)
    raw = inputs.to_numpy()
    scaled = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    # As least squares of a longer table, whose further rows are the penalty.
    longer = np.vstack([scaled, np.sqrt(penalty) * np.eye(COLUMNS)])
    wanted = np.concatenate([target - target.mean(), np.zeros(COLUMNS)])
    weights, *_ = np.linalg.lstsq(longer, wanted)
    assert learner.weights == pytest.approx(weights, rel=1e-6, abs=1e-9)
    expected = target.mean() + scaled @ weights
    assert learner.predict(inputs) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_what_is_missing_counts_as_the_mean_of_what_is_there() -> None:
    inputs, target = sample(3, missing=0.2)
    filled = inputs.with_columns(pl.all().fill_null(pl.all().mean()))
    learner = LinearLearner.fit(inputs, target, 10.0)
    assert learner.predict(inputs) == pytest.approx(learner.predict(filled), rel=1e-9)
    # The weights are those of the filled table, in units of what was there.
    raw = (filled.to_numpy() - inputs.mean().to_numpy()) / inputs.std(ddof=0).to_numpy()
    centred = raw - raw.mean(axis=0)
    gram = centred.T @ centred + 10.0 * np.eye(COLUMNS)
    weights = np.linalg.solve(gram, centred.T @ (target - target.mean()))
    assert learner.weights == pytest.approx(weights, rel=1e-8)


def test_an_input_that_is_never_there_or_never_changes_says_nothing() -> None:
    inputs, target = sample(4)
    plain = LinearLearner.fit(inputs, target, 1.0)
    odd = inputs.with_columns(pl.lit(None, pl.Float64).alias("never"), pl.lit(2.0).alias("always"))
    learner = LinearLearner.fit(odd, target, 1.0)
    assert learner.weights[COLUMNS:] == (0.0, 0.0)
    assert learner.predict(odd) == pytest.approx(plain.predict(inputs), rel=1e-9)


def test_inputs_that_say_the_same_share_the_weight() -> None:
    inputs, target = sample(5)
    twice = inputs.with_columns(pl.col("x0").alias("again"))
    learner = LinearLearner.fit(twice, target, 1.0)
    assert learner.weights[0] == pytest.approx(learner.weights[-1], rel=1e-6)


def test_a_row_is_answered_the_same_to_the_last_bit_whatever_is_asked_beside_it() -> None:
    inputs, target = sample(6, missing=0.05)
    learner = LinearLearner.fit(inputs, target, 1.0)
    together = learner.predict(inputs)
    for size in (1, 7, 64):
        parts = [learner.predict(part) for part in inputs.iter_slices(size)]
        assert np.concatenate(parts).tolist() == together.tolist()


FITTED = """
import json, sys
from dataclasses import asdict
import polars as pl
from stock_assets.forecasting.linear import LinearLearner
table = pl.read_parquet(sys.argv[1])
learner = LinearLearner.fit(table.drop("target"), table["target"].to_numpy(), 100.0)
print(json.dumps(asdict(learner)))
"""


def test_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    inputs = pl.DataFrame(rng.standard_normal((30_000, 22)))
    target = rng.standard_normal(30_000)
    file = tmp_path / "table.parquet"
    inputs.with_columns(pl.Series("target", target)).write_parquet(file)
    here = json.dumps(asdict(LinearLearner.fit(inputs, target, 100.0)))
    for threads in ("1", "2", "5"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", FITTED, str(file)],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert done.stdout.strip() == here
