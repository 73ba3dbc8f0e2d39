"""The drift distances: each ticker's last sessions against those before them, by feature.

The distance is Evidently's numerical drift score "wasserstein", computed here for thousands of
cells at once: `W1(reference, current) / max(std(reference), 0.001)` with W1 the first Wasserstein
distance of the two samples (scipy.stats.wasserstein_distance) and std the population standard
deviation. What the distances say about the universe is in `verdict.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Drift

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.calendars import Calendar
    from stock_assets.settings import DriftSettings, Settings
    from stock_assets.slices import Slice

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
"""The columns of `features` that are watched: level, spread, tails, volume and the market's mood.

Only columns that look back at most five sessions (the two volume columns only for their norm of
63). A column that averages over 21 sessions or more holds about one independent value in a window
of 20, so it is always "far" from its past: on Moscow stocks the median distance of vol_close_21
in calm times is twice that of ret_1d. Prices and calendar columns are left out because they
never repeat, and all of these vary by more than the 0.001 below which Evidently's norm stops.
"""

NORM_FLOOR = 0.001
"""Evidently's smallest norm: what a constant reference sample is divided by."""

# Windows worked on at once: 8 MB of values, which stays near the processor.
_BLOCK = 4096


def first_needed(day: dt.date, settings: Settings) -> dt.date:
    """The earliest date whose features the distances of `day` (or of any later day) can see."""
    sessions = settings.drift.reference + settings.drift.current - 1
    return min(get_calendar(name).back(day, sessions) for name in settings.exchanges)


def windows(
    day: dt.date, exchange: str, drift: DriftSettings
) -> tuple[tuple[dt.date, ...], tuple[dt.date, ...]]:
    """The reference and the current sessions of `day`: the current ones end with it."""
    calendar = get_calendar(exchange)
    end = calendar.index(day) + calendar.is_session(day)
    middle = max(0, end - drift.current)
    start = max(0, middle - drift.reference)
    return calendar.sessions[start:middle], calendar.sessions[middle:end]


def distances(features: pl.DataFrame, area: Slice, settings: Settings) -> pl.DataFrame:
    """Distances of every cell of `area` that has features: one row a (day, ticker, feature).

    `features` are rows of `schemas.Features` (day, ticker and DRIFT_FEATURES suffice) from
    `first_needed` on; later and other rows change nothing. Windows count sessions of the ticker's
    exchange, rows on other days are in none, missing values are left out. Where fewer than half of
    a window's sessions have a value the distance is null and nothing has drifted. An area with
    the history before the partitions is evaluated from the partitions' first day on.

    Returns a frame with the columns of `schemas.Drift`, sorted by its key.
    """
    first = area.first_date or settings.partitions.first_day
    wanted = features.filter(
        pl.col("ticker").is_in(list(area.tickers)) & (pl.col("day") <= area.last_date)
    )
    parts: list[pl.DataFrame] = [Drift.create_empty()]
    for (ticker,), rows in wanted.group_by("ticker"):
        calendar = get_calendar(settings.instrument(str(ticker)).exchange)
        sessions = calendar.between(first, area.last_date)
        evaluated = sorted(set(sessions).intersection(rows["day"]))
        if evaluated:
            parts.append(_of_ticker(str(ticker), rows, evaluated, calendar, settings.drift))
    return pl.concat(parts).sort(Drift.primary_key())


def normed_wasserstein(
    reference: NDArray[np.float64], current: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Normed distances of many pairs of samples: one a row, missing values as NaN.

    Shapes (n, reference sessions) and (n, current sessions); returns (n,), NaN where one of the
    samples is empty. The sum runs over the steps of the two empirical distribution functions, as
    in scipy.stats.wasserstein_distance.
    """
    width = reference.shape[1]
    values = np.concatenate([reference, current], axis=1)
    order = np.argsort(values, axis=1)  # NaN sorts last
    ordered = np.take_along_axis(values, order, axis=1)
    there = ~np.isnan(ordered)
    in_reference = order < width
    with np.errstate(invalid="ignore", divide="ignore"):
        reference_share = _running_share(in_reference & there)
        current_share = _running_share(~in_reference & there)
        steps = np.abs(reference_share - current_share)[:, :-1] * np.diff(ordered, axis=1)
        distance = np.where(there[:, 1:], steps, 0.0).sum(axis=1)
        empty = np.isnan(reference).all(axis=1) | np.isnan(current).all(axis=1)
        return np.where(empty, np.nan, distance / np.maximum(_std(reference), NORM_FLOOR))


def _running_share(belongs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Empirical distribution function of the marked values, at each value."""
    counts = np.cumsum(belongs, axis=1, dtype=np.int32)
    return np.asarray(counts / counts[:, -1:])


def _std(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Population standard deviation by row, of the values that are there."""
    there = ~np.isnan(sample)
    count = there.sum(axis=1)
    mean = np.where(there, sample, 0.0).sum(axis=1) / count
    deviation = np.where(there, sample - mean[:, None], 0.0)
    return np.asarray(np.sqrt((deviation**2).sum(axis=1) / count))


def _of_ticker(
    ticker: str,
    rows: pl.DataFrame,
    days: Sequence[dt.date],
    calendar: Calendar,
    drift: DriftSettings,
) -> pl.DataFrame:
    """Distances of one ticker on `days` (sessions of its calendar, rising)."""
    length = drift.reference + drift.current
    # Column 0 of the grid is the first session that the first day's reference window sees.
    origin = calendar.index(days[0]) - length + 1
    grid = _by_session(rows, calendar, origin, calendar.index(days[-1]) - origin + 1)
    ends = np.array([calendar.index(day) - origin - length + 1 for day in days])
    view = np.lib.stride_tricks.sliding_window_view(grid, length, axis=1)
    count = len(DRIFT_FEATURES)
    distance = np.empty((len(days), count))
    seen = np.empty((2, len(days), count), dtype=np.int32)
    per_block = max(1, _BLOCK // count)
    for start in range(0, len(days), per_block):
        block = slice(start, start + per_block)
        windows_of_block = np.moveaxis(view[:, ends[block]], 0, 1).reshape(-1, length)
        reference = windows_of_block[:, : drift.reference]
        current = windows_of_block[:, drift.reference :]
        distance[block] = normed_wasserstein(reference, current).reshape(-1, count)
        seen[0, block] = (~np.isnan(reference)).sum(axis=1).reshape(-1, count)
        seen[1, block] = (~np.isnan(current)).sum(axis=1).reshape(-1, count)
    enough = (2 * seen[0] >= drift.reference) & (2 * seen[1] >= drift.current)
    distance[~enough] = np.nan
    return pl.DataFrame(
        {
            "day": pl.Series(days, dtype=pl.Date).gather(np.repeat(np.arange(len(days)), count)),
            "ticker": pl.repeat(ticker, distance.size, eager=True),
            "feature": list(DRIFT_FEATURES) * len(days),
            "distance": distance.ravel(),
            "threshold": pl.repeat(
                drift.feature_threshold, distance.size, dtype=pl.Float64, eager=True
            ),
            "drifted": (distance >= drift.feature_threshold).ravel(),
            "reference_rows": seen[0].ravel(),
            "current_rows": seen[1].ravel(),
        }
    ).with_columns(pl.col("distance").fill_nan(None))


def _by_session(
    rows: pl.DataFrame, calendar: Calendar, origin: int, width: int
) -> NDArray[np.float64]:
    """The features (feature, session) from session number `origin`; NaN where there is none."""
    grid = np.full((len(DRIFT_FEATURES), width), np.nan)
    days = rows["day"].to_list()
    columns = np.array([calendar.index(day) - origin for day in days])
    inside = np.array([calendar.is_session(day) for day in days])
    inside &= (columns >= 0) & (columns < width)
    values = rows.select(pl.col(DRIFT_FEATURES).cast(pl.Float64)).to_numpy().T
    grid[:, columns[inside]] = np.where(np.isfinite(values), values, np.nan)[:, inside]
    return grid
