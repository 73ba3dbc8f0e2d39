"""What a training is, in eight hex digits: a part of its model's name.

The same digits mean the same model and the same verdict on it, so that a training is never done
twice and never taken for another (docs/adr/0006). Constants are hashed as they are; only a change
of code needs a number raised: `CODE_VERSION` of `model.py` and `RULES` of `gate.py`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stock_assets.forecasting import (
    baseline,
    calibration,
    claims,
    gate,
    labels,
    leak_alarm,
    model,
    quantiles,
    scoring,
    splitting,
    volatility,
)

if TYPE_CHECKING:
    from types import ModuleType

FITTED_WITH = (model, labels, volatility, splitting, calibration, quantiles)
JUDGED_WITH = (baseline, scoring, claims, leak_alarm, gate)
"""Modules whose constants change a fit, or the verdict on it."""


def fingerprint(
    features: pl.DataFrame, labelled: pl.DataFrame, *, in_force: str, window: int
) -> str:
    """Eight hex digits of all that a training depends on, whatever the order of its rows.

    `features` and `labelled` are the rows it may look at, `in_force` the model that the challenger
    is compared with, `window` the sessions whose rows it is fitted and judged on.
    """
    digest = hashlib.sha256()
    constants = {module.__name__: _constants(module) for module in (*FITTED_WITH, *JUDGED_WITH)}
    about = {"constants": constants, "in_force": in_force, "window": window}
    digest.update(json.dumps(about, sort_keys=True, default=list).encode())
    features = features.sort("day", "ticker")
    levels = features.select("day", "ticker", "exchange", "vol_ewma", "market_vol_ewma")
    for frame in (levels, model.model_inputs(features), labelled.sort("day", "ticker")):
        for column in frame:
            digest.update(column.name.encode())
            digest.update(_bytes(column))
    return digest.hexdigest()[:8]


def constants_of_a_fit() -> dict[str, str]:
    """Every constant that changes a fit, as text: `calibration.MEDIAN_KEPT` and so on."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": json.dumps(value, default=list)
        for module in FITTED_WITH
        for name, value in _constants(module).items()
    }


def _constants(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper()}


def _bytes(column: pl.Series) -> bytes:
    if column.dtype == pl.String:
        return "\n".join(column.to_list()).encode()
    if column.dtype == pl.Date:
        column = column.to_physical()
    return np.ascontiguousarray(column.to_numpy()).tobytes()
