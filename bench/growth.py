"""How a cost grows with the work: the exponent of a power law. Pure arithmetic."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = tuple[float, float]
"""(amount of work, cost), both above zero."""


def exponent(points: Sequence[Point]) -> float:
    """The b of cost = a * work ** b, by least squares of the logarithms.

    1 means in proportion, 0 not at all. Raises `ValueError` for fewer than two amounts of work, or
    where something is not above zero.
    """
    if len({work for work, _ in points}) < 2:  # noqa: PLR2004
        raise ValueError("an exponent needs costs of two amounts of work at least")
    return statistics.linear_regression(
        [math.log(work) for work, _ in points], [math.log(cost) for _, cost in points]
    ).slope


def last_exponent(points: Sequence[Point]) -> float:
    """The exponent between the two largest amounts of work: there what is fixed weighs least."""
    return exponent(sorted(points)[-2:])
