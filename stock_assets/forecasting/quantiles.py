"""What stands in for the quantiles of residuals where there are too few: a normal's.

How residuals are pooled and weighed is in `calibration.py`.
"""

from __future__ import annotations

from statistics import NormalDist

from stock_assets.lake.schemas import QUANTILES

MIN_RESIDUALS = 500
"""Residuals below which a normal distribution is assumed instead of their own."""

GAUSSIAN: tuple[float, ...] = tuple(NormalDist().inv_cdf(level) for level in QUANTILES)
"""The seven quantiles of the standard normal, in sigmas."""
