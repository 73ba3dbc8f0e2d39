"""What the tests of the methods share."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from stock_assets.forecasting.baselines import METHODS, OPTIONAL
from stock_assets.forecasting.baselines.regressions import FOREST
from stock_assets.forecasting.forecaster import Known

if TYPE_CHECKING:
    import polars as pl

    from stock_assets.forecasting.forecaster import Method


@pytest.fixture(autouse=True)
def _few_trees_in_the_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FOREST, "n_estimators", 4)
    monkeypatch.setitem(FOREST, "min_samples_leaf", 20)


def _parameter(name: str):
    """The method's name; those of the extra are slow, an import of ten seconds to begin with."""
    return pytest.param(name, marks=[pytest.mark.slow] if name in OPTIONAL else [])


@pytest.fixture(params=[_parameter(name) for name in METHODS])
def method(request: pytest.FixtureRequest) -> Method:
    """Every method in turn."""
    found = METHODS[request.param]
    package = getattr(found, "package", None)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is of the optional extra: make compare")
    return found


@pytest.fixture(scope="session")
def known(features: pl.DataFrame, labelled: pl.DataFrame) -> Known:
    """All of the small simulated market: six tickers, 420 sessions."""
    return Known(features, labelled)
