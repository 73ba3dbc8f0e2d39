"""What is watched for drift, of which kind, by which statistic, over which sessions.

The one list of it: distances, thresholds, verdicts, pages and docs derive from these. Faults of the
prices themselves are in `quality.py`; live skill and coverage in `forecasting/live_check.py`.
"""

from __future__ import annotations

DATA, TARGET, QUALITY = "data", "target", "quality"
"""Kinds of drift: what the model sees, what it forecasts, whether the prices can be right."""

DRIFT_FEATURES: tuple[str, ...] = (
    "ret_1d",
    "gap_1d",
    "intraday_1d",
    "range_1d",
    "vol_close_5",
    "vol_parkinson_5",
    "volume_z_63",
    "volume_ratio_5_63",
    "relative_ret_5d",
    "market_ret_1d",
    "market_dispersion",
    "market_up_share",
)
"""Columns of `features` whose Wasserstein distance is watched (kind data).

Level, spread, tails, volume and the market's mood. Only columns that look back at most five
sessions (the two volume columns only for their norm of 63): one that averages over 21 or more holds
about one independent value in a window of 20. Prices and calendar columns are left out because they
never repeat, and all of these vary by more than the 0.001 below which Evidently's norm stops.
"""

TARGET_FEATURE = "log_variance_1d"
"""The column whose rise is watched (kind target): the log of the variance that is forecast."""

TARGET_REFERENCE, TARGET_CURRENT = 15, 5
"""Sessions of the rise: the mean of the last 5 above that of the 15 before, if it is above.

A week against the weeks before, because volatility wanders: against a whole year its level says
little. Where a simulated ticker's volatility trebles, this finds 88 % within ten sessions at the
false-alarm rate at which the Wasserstein distance of 20 sessions to 250 finds 5 %. A fall of
volatility leaves the forecasts too wide for a while, harms nobody at once, and moves the distances.
"""

PANEL_FEATURES: tuple[str, ...] = (*DRIFT_FEATURES, TARGET_FEATURE)
"""All columns of `features` that are watched."""
