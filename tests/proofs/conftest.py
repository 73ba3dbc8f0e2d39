"""Proofs about what the product says as a whole: no look-ahead, parity, reproducibility, truth.

Tests of one module stand beside the other tests of its package; here are those that follow a
number from the bars to the scores, and that must go on holding whatever the model becomes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.dbt.conftest import new_warehouse, parsed_target
from tests.forecasting.conftest import _few_trees, simulate_bars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["_few_trees", "new_warehouse", "parsed_target"]


@pytest.fixture(scope="session")
def market() -> pl.DataFrame:
    """Bars of six tickers, 420 sessions, whose volatility clusters."""
    return simulate_bars(list("ABCDEF"), 420)
