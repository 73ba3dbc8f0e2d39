"""The exponent of a power law is found whatever its factor."""

from __future__ import annotations

import growth
import pytest
from hypothesis import given
from hypothesis import strategies as st


@given(
    power=st.floats(-2, 3),
    factor=st.floats(1e-6, 1e6),
    amounts=st.sets(st.integers(1, 100_000), min_size=2, max_size=6),
)
def test_a_power_law_gives_its_own_exponent(power: float, factor: float, amounts: set[int]) -> None:
    points = [(amount, factor * amount**power) for amount in amounts]
    assert growth.exponent(points) == pytest.approx(power, abs=1e-6)
    assert growth.last_exponent(points) == pytest.approx(power, abs=1e-6)


def test_a_fixed_cost_weighs_less_between_the_two_largest() -> None:
    points = [(10_000, 60.0), (100, 10.5), (1_000, 15.0)]
    assert 0 < growth.exponent(points) < growth.last_exponent(points) < 1


@pytest.mark.parametrize("points", [[], [(10, 1.0)], [(10, 1.0), (10, 2.0)]])
def test_one_amount_of_work_says_nothing(points: list[growth.Point]) -> None:
    with pytest.raises(ValueError, match="two amounts"):
        growth.exponent(points)
