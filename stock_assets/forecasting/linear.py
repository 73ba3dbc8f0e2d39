"""Ridge regression whose numbers are the same to the last bit wherever it is fitted and asked.

A matrix product of a library adds up in an order that depends on its threads and on how many rows
there are; here columns are taken one by one. Which inputs and targets is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LinearLearner:
    """Weights of inputs that are centred, scaled and, where missing, at their centre."""

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(
        cls, inputs: pl.DataFrame, target: NDArray[np.float64], penalty: float
    ) -> LinearLearner:
        """Least squares on standardised inputs, with `penalty` times the squared weights.

        Hoerl and Kennard (1970): (X'X + penalty I) w = X'y, the intercept not penalised.
        `target` has a finite number a row.
        """
        there = [column.drop_nulls().to_numpy() for column in inputs]
        centres = tuple(float(np.mean(values)) if len(values) else 0.0 for values in there)
        scales = tuple((float(np.std(values)) if len(values) else 0.0) or 1.0 for values in there)
        columns = _standardised(inputs, centres, scales)
        # Where an input is missing its column stands at the centre: no mean is exactly zero.
        means = [float(np.mean(column)) for column in columns]
        columns = [column - mean for column, mean in zip(columns, means, strict=True)]
        centre = float(np.mean(target))
        size = len(columns)
        gram = np.empty((size, size))
        for row in range(size):
            for place in range(row, size):
                gram[row, place] = gram[place, row] = np.sum(columns[row] * columns[place])
        moments = np.array([np.sum(column * (target - centre)) for column in columns])
        weights = np.linalg.solve(gram + penalty * np.eye(size), moments)
        intercept = centre - sum(w * m for w, m in zip(weights.tolist(), means, strict=True))
        return cls(centres, scales, tuple(weights.tolist()), intercept)

    def predict(self, inputs: pl.DataFrame) -> NDArray[np.float64]:
        """One number a row of `inputs`, which does not depend on the other rows."""
        total = np.full(inputs.height, self.intercept)
        columns = _standardised(inputs, self.centres, self.scales)
        for weight, column in zip(self.weights, columns, strict=True):
            total += weight * column
        return total


def _standardised(
    inputs: pl.DataFrame, centres: Sequence[float], scales: Sequence[float]
) -> list[NDArray[np.float64]]:
    """Each input's column in standard deviations from its mean; zero where missing."""
    return [
        ((column - centre) / scale).fill_null(0.0).to_numpy()
        for column, centre, scale in zip(inputs, centres, scales, strict=True)
    ]
