"""The volatility model: CatBoost on how the next week's variance departs from the EWMA's.

Pooled over tickers, every input relative to the ticker's own EWMA level, quantiles from
standardised residuals on later days. Fitting, calibrating and forecasting are here; which days
are used is in `splitting.py`, whether the result is put in force in `gate.py`, how it is kept in
`registry.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stock_assets.forecasting.labels import HORIZONS, LABEL_SESSIONS
from stock_assets.forecasting.quantiles import residual_quantiles
from stock_assets.forecasting.volatility import guarded_volatility, is_measured
from stock_assets.lake.schemas import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catboost import CatBoostRegressor
    from numpy.typing import NDArray

PARAMETERS: dict[str, Any] = {
    "loss_function": "RMSE",
    "depth": 4,
    "iterations": 200,
    "learning_rate": 0.05,
    "l2_leaf_reg": 300.0,
    "border_count": 64,
    "bootstrap_type": "No",
    "random_strength": 0.0,
    "random_seed": 7,
    # A market whose weeks are all alike has one target; a model of it says just that.
    "allow_const_label": True,
    # Fixed, so that the order of sums, and with it the last bit, is the same on every machine.
    "thread_count": 2,
}
"""CatBoost's settings: small trees and strong shrinkage, for a signal this faint."""

CODE_VERSION = 2
"""Raise whenever fitting, calibration or the inputs change: it is part of a model's name."""

MAX_LOG_RATIO = 3.0
"""Targets and log-ratio inputs are clipped here: a stuck or exploded week is not a level."""

MAX_STANDARDISED = 10.0
"""Standardised returns are clipped here: as inputs, and where a scale is learned from them."""

_LEVELS = (
    "vol_close_5",
    "vol_close_21",
    "vol_close_63",
    "vol_parkinson_5",
    "vol_parkinson_21",
    "vol_parkinson_63",
    "vol_garman_klass_21",
    "vol_rogers_satchell_21",
    "vol_gap_21",
    "range_std_21",
    "range_1d",
    "market_vol_ewma",
    "market_range_21",
    "market_dispersion",
)
_RETURNS = {
    "ret_1d": 1,
    "ret_5d": 5,
    "ret_21d": 21,
    "ret_63d": 63,
    "gap_1d": 1,
    "intraday_1d": 1,
    "worst_21": 1,
    "best_21": 1,
    "high_dist_63": 63,
    "high_dist_252": 252,
    "low_dist_252": 252,
    "relative_ret_5d": 5,
}
_MARKET_RETURNS = {"market_ret_1d": 1, "market_ret_5d": 5}
_AS_THEY_ARE = (
    "downside_share_21",
    "volume_z_63",
    "volume_ratio_5_63",
    "days_since_bar",
    "bars_252",
    "market_up_share",
    "rank_ret_21d",
    "rank_vol_ewma",
    "beta_63",
)


def model_inputs(features: pl.DataFrame) -> pl.DataFrame:
    """What the model sees of each row of `features`: the same rows, one Float64 column an input.

    Volatilities as log ratios to the EWMA's, returns in its standard deviations, the market's
    likewise, ranks and shares as they are. A function of the row alone. Null where unknown, and
    where a series has no such thing (the range of a single-price series is zero).
    """
    own, market = pl.col("vol_ewma"), pl.col("market_vol_ewma")

    def log_ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
        known = (above > 0) & (below > 0)
        return pl.when(known).then((above / below).log().clip(-MAX_LOG_RATIO, MAX_LOG_RATIO))

    def standardised(name: str, sessions: int, level: pl.Expr) -> pl.Expr:
        scaled = pl.col(name) / (level * math.sqrt(sessions))
        return pl.when(level > 0).then(scaled.clip(-MAX_STANDARDISED, MAX_STANDARDISED)).alias(name)

    return features.select(
        *(log_ratio(pl.col(name), own).alias(name) for name in _LEVELS),
        log_ratio(pl.col("market_range_21"), market).alias("market_range_to_close"),
        *(standardised(name, sessions, own) for name, sessions in _RETURNS.items()),
        *(standardised(name, sessions, market) for name, sessions in _MARKET_RETURNS.items()),
        *_AS_THEY_ARE,
    ).cast(pl.Float64)


@dataclass(frozen=True)
class HorizonCalibration:
    """One horizon: what makes the variance unbiased, and the quantiles in sigmas."""

    variance_factor: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """What was learned on days later than training, by horizon."""

    horizons: dict[int, HorizonCalibration]

    def to_json(self) -> str:
        """Text from which `from_json` gives the same numbers, to the last bit."""
        return json.dumps({str(h): asdict(item) for h, item in self.horizons.items()})

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The inverse of `to_json`."""
        content = json.loads(text)
        return cls(
            {
                int(h): HorizonCalibration(item["variance_factor"], tuple(item["quantiles"]))
                for h, item in content.items()
            }
        )


@dataclass(frozen=True)
class VolatilityModel:
    """A fitted and calibrated model: sigma_h^2 = h * vol_ewma^2 * exp(prediction) * c_h."""

    booster: CatBoostRegressor
    calibration: Calibration

    def forecast(self, features: pl.DataFrame, horizons: Sequence[int] = HORIZONS) -> pl.DataFrame:
        """The distribution of the log return for each row of `features` and each horizon.

        Gives day, ticker, horizon, sigma and return_q05 ... return_q95, sorted; the median is 0.
        A row's answer does not depend on the other rows.
        """
        one_session = _one_session_sigma(self.booster, features)
        parts = []
        for horizon in horizons:
            own = self.calibration.horizons[horizon]
            sigma = one_session * math.sqrt(horizon * own.variance_factor)
            columns = {"sigma": sigma} | {
                f"return_{name}": sigma * quantile
                for name, quantile in zip(QUANTILE_NAMES, own.quantiles, strict=True)
            }
            parts.append(
                features.select(
                    "day",
                    "ticker",
                    pl.lit(horizon, pl.Int32).alias("horizon"),
                    *(pl.Series(name, values) for name, values in columns.items()),
                )
            )
        return pl.concat(parts).sort("day", "ticker", "horizon")


def trainable(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """Feature rows with their labels, where the target of the model exists; sorted by day, ticker.

    The target needs the variance of all five following sessions and an EWMA that is measured.
    """
    return (
        features.filter(is_measured())
        .join(labelled.drop("exchange"), on=["day", "ticker"])
        .filter(pl.col("realised_variance").is_not_null())
        .sort("day", "ticker")
    )


def fit(rows: pl.DataFrame) -> CatBoostRegressor:
    """CatBoost on log(realised_variance / (5 vol_ewma^2)) of `rows` (see `trainable`).

    The same rows give the same trees, to the last bit.
    """
    from catboost import CatBoostRegressor

    booster = CatBoostRegressor(**PARAMETERS, allow_writing_files=False, verbose=False)
    inputs = model_inputs(rows)
    booster.fit(inputs.to_numpy(), _target(rows))
    booster.set_feature_names(inputs.columns)
    return booster


def importance(model: VolatilityModel) -> dict[str, float]:
    """Each input's share of the changes that all inputs make to the prediction, in %."""
    shares = model.booster.get_feature_importance()
    return dict(zip(model.booster.feature_names_, map(float, shares), strict=True))


def calibrate(booster: CatBoostRegressor, rows: pl.DataFrame) -> Calibration:
    """Variance factors and residual quantiles on `rows`, which are later than those fitted on.

    Pooled over tickers, for each horizon: c_h is the mean of squared standardised returns, so that
    the forecast variance is right on average; quantiles are those of return / sigma.
    """
    one_session = _one_session_sigma(booster, rows)
    found = {}
    for horizon in HORIZONS:
        standardised = rows[f"y{horizon}"].to_numpy() / (one_session * math.sqrt(horizon))
        standardised = standardised[np.isfinite(standardised)]
        # One candle in the wrong unit would otherwise be the scale of every ticker.
        usual = np.clip(standardised, -MAX_STANDARDISED, MAX_STANDARDISED)
        factor = float(np.mean(usual**2)) if len(usual) else 1.0
        # A calibration window of stuck prices says nothing about scale.
        factor = factor if factor > 0 else 1.0
        found[horizon] = HorizonCalibration(
            factor, residual_quantiles(standardised / math.sqrt(factor))
        )
    return Calibration(found)


def _target(rows: pl.DataFrame) -> NDArray[np.float64]:
    usual = LABEL_SESSIONS * pl.col("vol_ewma") ** 2
    ratio = (pl.col("realised_variance") / usual).log()  # -inf for a stuck week: clipped
    return rows.select(ratio.clip(-MAX_LOG_RATIO, MAX_LOG_RATIO)).to_series().to_numpy()


def _one_session_sigma(booster: CatBoostRegressor, features: pl.DataFrame) -> NDArray[np.float64]:
    """vol_ewma * sqrt(exp(prediction)): sigma of one session, before calibration."""
    if features.is_empty():
        return np.empty(0)
    predicted = np.asarray(booster.predict(model_inputs(features).to_numpy()), dtype=np.float64)
    level = features.select(guarded_volatility()).to_series().to_numpy()
    return level * np.exp(predicted / 2)
