"""The volatility model: how the coming sessions' variance departs from the EWMA's.

Pooled over tickers, every input relative to the ticker's own EWMA level. CatBoost and a ridge
regression each learn three targets (the next session's variance and the next five's from ranges,
the next five's from closes), and the mean of the logs answers: they err differently. Quantiles are
those of the standardised residuals on recent days later than training (`calibration.py`). Which
days are used is in `splitting.py`, whether the result is put in force in `gate.py`, how it is kept
in `registry.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stock_assets.forecasting.calibration import distributions, residual_pools, within_lookback
from stock_assets.forecasting.labels import HORIZONS, LABEL_SESSIONS
from stock_assets.forecasting.linear import LinearLearner
from stock_assets.forecasting.volatility import MAX_LOG_RATIO, is_measured
from stock_assets.lake.schemas import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catboost import CatBoostRegressor
    from numpy.typing import NDArray

    from stock_assets.forecasting.forecaster import Known

PARAMETERS: dict[str, Any] = {
    "loss_function": "MultiRMSE",
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

RIDGE_PENALTY = 100.0
"""Of standardised inputs: it only keeps those that say the same from cancelling out."""

CODE_VERSION = 2
"""Raise whenever fitting, calibration or the inputs change: it is part of a model's name."""

TARGETS = ("variance_ahead_1", "variance_ahead_5", "realised_variance")
"""Columns of `labels` that are learned, as logs of a session's variance over the EWMA's."""

ONE_SESSION_WEIGHTS: dict[int, float] = {1: 1.0, 2: 0.6, 3: 0.45, 4: 0.35, 5: 0.25}
"""How much of a horizon's log variance is the next session's forecast; the rest is the week's."""

CALIBRATION_SESSIONS, CALIBRATION_HALF_LIFE = 500, 250.0
"""Sessions before a day whose residuals give its quantiles; the age at which one weighs half."""

MIN_FOR_FACTOR = 50
"""Residuals from which the forecast variance is corrected: exp(a mean of logs) is too low."""

MEDIAN_KEPT = 0.25
"""Share of the residuals' own median that the forecast keeps: two years say little of the drift."""

MAX_STANDARDISED = 10.0
"""Standardised returns as inputs are clipped here."""

_VOLATILITIES = (
    "vol_close_5",
    "vol_close_21",
    "vol_close_63",
    "vol_close_252",
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
_LOG_VARIANCES = (
    "log_variance_1d",
    "log_variance_5",
    "log_variance_21",
    "log_variance_63",
    "log_variance_252",
    "market_log_variance_1d",
    "market_log_variance_5",
    "market_log_variance_21",
    "market_log_variance_63",
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
    "days_ahead_1",
    "days_ahead_5",
    "bars_252",
    "market_volume_z_63",
    "market_up_share",
    "rank_ret_21d",
    "rank_vol_ewma",
    "beta_63",
)

_LINEAR = (
    *_LOG_VARIANCES,
    "vol_close_63",
    "vol_close_252",
    "days_ahead_1",
    "days_ahead_5",
    "volume_z_63",
    "volume_ratio_5_63",
    "market_volume_z_63",
    "ret_1d",
    "ret_5d",
    "ret_21d",
    "market_ret_1d",
    "market_ret_5d",
)
"""Inputs of the regression: a HAR (Corsi 2009) of own and market's variances, and leverage."""

_LEVEL = "log_vol_ewma"
"""The regression's further input: a high level comes down, relative to itself."""


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
        *(log_ratio(pl.col(name), own).alias(name) for name in _VOLATILITIES),
        *(
            (pl.col(name) - 2 * own.log()).clip(-2 * MAX_LOG_RATIO, 2 * MAX_LOG_RATIO).alias(name)
            for name in _LOG_VARIANCES
        ),
        log_ratio(pl.col("market_range_21"), market).alias("market_range_to_close"),
        *(standardised(name, sessions, own) for name, sessions in _RETURNS.items()),
        *(standardised(name, sessions, market) for name, sessions in _MARKET_RETURNS.items()),
        *_AS_THEY_ARE,
    ).cast(pl.Float64)


@dataclass(frozen=True)
class VolatilityModel:
    """A fitted model: sigma_h^2 = h * vol_ewma^2 * exp(mean of the members) * recent factor."""

    booster: CatBoostRegressor
    linear: tuple[LinearLearner, ...]
    """One regression a target, in the order of `TARGETS`."""
    calibration_first: dt.date
    """First day after those trained on: residuals from then on may calibrate."""

    def forecast(
        self, cells: pl.DataFrame, known: Known, horizons: Sequence[int] = HORIZONS
    ) -> pl.DataFrame:
        """See `Forecaster.forecast`; cells whose volatility is not measured have no answer."""
        near = known.features.filter(within_lookback(cells, CALIBRATION_SESSIONS))
        sigmas = self.sigmas(near, horizons)
        later = pl.col("day") >= self.calibration_first
        pools = residual_pools(
            cells,
            sigmas.filter(later),
            known.labelled.filter(later),
            horizons,
            sessions=CALIBRATION_SESSIONS,
            half_life=CALIBRATION_HALF_LIFE,
            median_kept=MEDIAN_KEPT,
            min_for_factor=MIN_FOR_FACTOR,
        )
        scale = pl.col("variance_factor").sqrt()
        in_sigmas = pools.with_columns(pl.col(name) / scale for name in QUANTILE_NAMES)
        factors = cells.select("day", "ticker", "exchange").join(
            pools.select("exchange", "day", "horizon", "variance_factor"), on=["exchange", "day"]
        )
        scaled = sigmas.join(factors, on=["day", "ticker", "horizon"]).with_columns(
            pl.col("sigma") * scale
        )
        return distributions(cells, scaled, in_sigmas)

    def sigmas(self, features: pl.DataFrame, horizons: Sequence[int] = HORIZONS) -> pl.DataFrame:
        """day, ticker, horizon, sigma before calibration, of each measured row of `features`.

        A row's answer does not depend on the other rows.
        """
        rows = features.filter(is_measured())
        one, week = self._log_ratios(rows)
        level = rows["vol_ewma"].to_numpy()
        parts = []
        for horizon in horizons:
            weight = ONE_SESSION_WEIGHTS[horizon]
            ratio = np.clip(weight * one + (1 - weight) * week, -MAX_LOG_RATIO, MAX_LOG_RATIO)
            sigma = level * np.exp(ratio / 2) * math.sqrt(horizon)
            parts.append(
                rows.select(
                    "day",
                    "ticker",
                    pl.lit(horizon, pl.Int32).alias("horizon"),
                    pl.Series("sigma", sigma, pl.Float64),
                )
            )
        return pl.concat(parts)

    def _log_ratios(self, rows: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log of the next session's and of the next week's variance a session, over the EWMA's."""
        if rows.is_empty():
            return np.empty(0), np.empty(0)
        boosted = np.asarray(self.booster.predict(model_inputs(rows).to_numpy()), np.float64).T
        inputs = linear_inputs(rows)
        next_one, next_five, closes = (
            (trees, learner.predict(inputs))
            for trees, learner in zip(boosted, self.linear, strict=True)
        )
        # The regression of the closes' week says nothing of the next session, the trees' does.
        one = (next_one[0] + next_one[1] + closes[0]) / 3
        week = (next_five[0] + next_five[1] + closes[0] + closes[1]) / 4
        return one, week

    def to_json(self) -> str:
        """All but the booster, as text from which `from_json` gives the same, to the last bit."""
        content = {
            "calibration_first": self.calibration_first.isoformat(),
            "linear": [asdict(learner) for learner in self.linear],
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, booster: CatBoostRegressor, text: str) -> VolatilityModel:
        """The inverse of `to_json`."""
        content = json.loads(text)
        linear = tuple(
            LinearLearner(
                tuple(learner["centres"]),
                tuple(learner["scales"]),
                tuple(learner["weights"]),
                learner["intercept"],
            )
            for learner in content["linear"]
        )
        return cls(booster, linear, dt.date.fromisoformat(content["calibration_first"]))


def linear_inputs(features: pl.DataFrame) -> pl.DataFrame:
    """What the regressions see of each row: part of `model_inputs`, and the level."""
    return model_inputs(features).select(
        *_LINEAR, features.select(pl.col("vol_ewma").log()).to_series().alias(_LEVEL)
    )


def trainable(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """Feature rows with their labels, where the targets of the model exist; sorted by day, ticker.

    The targets need all five following sessions and an EWMA that is measured.
    """
    return (
        features.filter(is_measured())
        .join(labelled.drop("exchange"), on=["day", "ticker"])
        .filter(pl.all_horizontal(pl.col(TARGETS).is_not_null()))
        .sort("day", "ticker")
    )


def fit(rows: pl.DataFrame, calibration_first: dt.date) -> VolatilityModel:
    """The model of `rows` (see `trainable`), all earlier than `calibration_first`.

    The same rows give the same model, to the last bit.
    """
    from catboost import CatBoostRegressor

    targets = _targets(rows)
    inputs = model_inputs(rows)
    booster = CatBoostRegressor(**PARAMETERS, allow_writing_files=False, verbose=False)
    booster.fit(inputs.to_numpy(), targets)
    booster.set_feature_names(inputs.columns)
    linear = tuple(
        LinearLearner.fit(linear_inputs(rows), target, RIDGE_PENALTY) for target in targets.T
    )
    return VolatilityModel(booster, linear, calibration_first)


def _targets(rows: pl.DataFrame) -> NDArray[np.float64]:
    """Logs of the variances of `TARGETS`, a session, over the EWMA's: one column each."""
    sessions = {"variance_ahead_1": 1, "variance_ahead_5": 1, "realised_variance": LABEL_SESSIONS}
    ratios = (
        # -inf for a stuck week: clipped.
        (pl.col(name) / (sessions[name] * pl.col("vol_ewma") ** 2)).log().alias(name)
        for name in TARGETS
    )
    return rows.select(ratio.clip(-MAX_LOG_RATIO, MAX_LOG_RATIO) for ratio in ratios).to_numpy()


def importance(model: VolatilityModel) -> dict[str, float]:
    """Each input's share of the changes that all inputs make to the trees' prediction, in %."""
    shares = model.booster.get_feature_importance()
    return dict(zip(model.booster.feature_names_, map(float, shares), strict=True))
