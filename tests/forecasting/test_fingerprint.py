"""A training's digits change with whatever changes its model or its verdict, and with no more."""

import importlib
from collections.abc import Callable

import polars as pl
import pytest

from stock_assets.forecasting.fingerprint import fingerprint
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.model import ONE_SESSION_WEIGHTS, PARAMETERS

Digits = Callable[..., str]


@pytest.fixture
def digits(features: pl.DataFrame, labelled: pl.DataFrame) -> Digits:
    def made(**other: object) -> str:
        usual = {
            "features": features.tail(60),
            "labelled": labelled.tail(60),
            "in_force": "baseline",
            "window": 250,
        }
        asked = {**usual, **other}
        return fingerprint(asked.pop("features"), asked.pop("labelled"), **asked)

    return made


def test_the_order_of_rows_does_not_matter(
    digits: Digits, features: pl.DataFrame, labelled: pl.DataFrame
) -> None:
    mixed = {
        name: frame.tail(60).sample(fraction=1, shuffle=True, seed=3)
        for name, frame in (("features", features), ("labelled", labelled))
    }
    assert digits(**mixed) == digits()


def test_the_window_and_the_model_in_force_matter(digits: Digits) -> None:
    assert len({digits(), digits(window=251), digits(in_force="another")}) == 3


def test_a_split_suspected_or_declared_since_then_matters(
    digits: Digits, bars: pl.DataFrame
) -> None:
    """Labels across it are null, and those of the declared split are others: rows say it all."""
    place = bars["day"].unique().sort()[-20]
    here = (pl.col("ticker") == "A") & (pl.col("day") == place)
    suspected = bars.with_columns(pl.when(here).then(10.0).alias("suspected_split"))
    later = (pl.col("ticker") == "A") & (pl.col("day") >= place)
    declared = bars.with_columns(pl.when(later).then(pl.col("close") * 10).otherwise("close"))
    made = {digits(labelled=labels(each)) for each in (bars, suspected, declared)}
    assert len(made) == 3


@pytest.mark.parametrize("name", ["features", "labelled"])
def test_every_row_and_every_number_matters(
    digits: Digits, features: pl.DataFrame, labelled: pl.DataFrame, name: str
) -> None:
    frame = {"features": features, "labelled": labelled}[name].tail(60)
    column = {"features": "vol_ewma", "labelled": "y1"}[name]
    last = pl.int_range(pl.len()) == 59
    moved = frame.with_columns(
        pl.when(last).then(1e-9).otherwise(pl.col(column).fill_null(0.0)).alias(column)
    )
    usual = frame.with_columns(pl.col(column).fill_null(0.0))
    fewer = usual.head(59)
    assert len({digits(**{name: one}) for one in (usual, moved, fewer)}) == 3


@pytest.mark.parametrize(
    "constant",
    [
        *("model.RIDGE_PENALTY", "model.MEDIAN_KEPT", "model.CALIBRATION_SESSIONS"),
        *("model.CALIBRATION_HALF_LIFE", "model.MIN_FOR_FACTOR", "model.MAX_STANDARDISED"),
        *("model.CODE_VERSION", "volatility.MAX_LOG_RATIO", "volatility.MIN_VOLATILITY"),
        *("calibration.MAX_RESIDUAL", "quantiles.MIN_RESIDUALS", "baseline.LOOKBACK_SESSIONS"),
        *("splitting.CALIBRATION_DAYS", "splitting.VALIDATION_DAYS", "splitting.LATER_SHARE"),
        *("scoring.MIN_TEST_DAYS", "scoring._LAG_FACTOR", "gate.LEVEL", "gate.RULES"),
        *("claims.LEVEL", "claims.MAX_R2", "claims.MAX_DIRECTION", "claims.MAX_RANK_IC"),
        *("leak_alarm.MAX_PINBALL_SKILL", "leak_alarm.MAX_SKILL_SPREAD"),
        "leak_alarm.MAX_QLIKE_SKILL",
    ],
)
def test_a_constant_that_fits_calibrates_or_judges_matters(
    digits: Digits, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    usual = digits()
    module, name = constant.split(".")
    home = importlib.import_module(f"stock_assets.forecasting.{module}")
    monkeypatch.setattr(home, name, getattr(home, name) + 1)
    assert digits() != usual


def test_what_the_model_weighs_and_grows_its_trees_by_matters(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {digits()}
    monkeypatch.setitem(PARAMETERS, "depth", 5)
    found.add(digits())
    monkeypatch.setitem(ONE_SESSION_WEIGHTS, 3, 0.5)
    found.add(digits())
    assert len(found) == 3
