"""The numbers of drift: how far each ticker's latest sessions are from those before, by feature.

Two statistics (`kernels.py`): Evidently's normed Wasserstein distance of the last sessions to a
year before them, for what the model sees; the rise of the mean from three weeks to one, for what is
forecast. Beside each number stands the threshold that the market's own earlier history gives
(`calibration.py`). What they say together is in `verdict.py`.

A pure function of features: the history that calibrates is measured again from them, never read
back, so that slices may run in any order. It ends before the latest sessions begin: what is judged
has no say in how it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.drift.calibration import (
    GRID,
    USUAL,
    alarm_level,
    begun_with,
    block_maxima,
    stationary,
    upper_quantile,
)
from stock_assets.drift.kernels import normed_wasserstein, rises
from stock_assets.drift.watched import (
    DATA,
    DRIFT_FEATURES,
    PANEL_FEATURES,
    TARGET,
    TARGET_CURRENT,
    TARGET_FEATURE,
    TARGET_REFERENCE,
)
from stock_assets.lake.schemas import Drift

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.calendars import Calendar
    from stock_assets.settings import DriftSettings, Settings
    from stock_assets.slices import Slice

    Floats = NDArray[np.float64]

# Windows worked on at once: 8 MB of values, which stays near the processor.
_BLOCK = 4096

_DATA_PART, _TARGET_PART, _SECTOR_PART = 0.5, 0.25, 0.25
"""How the false alarms that a market may have are divided among what can raise one."""

_TICKER_DATA_PART, _TICKER_TARGET_PART = 0.2, 0.8
"""The same for one ticker, whose distances say little until its market's do."""

_ALLOWANCE = 1.2
"""Times a share of history that a share may be.

History is measured on one day in five, and by thresholds that were fitted to it. A month that is
asked every day, by thresholds from before it, reaches further: in simulated markets by a fifth.
"""


def first_needed(day: dt.date, settings: Settings) -> dt.date:
    """The earliest date whose features the numbers of `day` (or of any later day) can see."""
    return min(
        get_calendar(name).back(day, _reach(settings.drift) - 1) for name in settings.exchanges
    )


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
    """Numbers of every cell of `area` that has features: one row a (day, ticker, feature).

    `features` are rows of `schemas.Features` (day, ticker and PANEL_FEATURES suffice) from
    `first_needed` on, of all tickers of the area's exchanges: the others' history is part of what
    is usual in their market. Later and other rows change nothing. Windows count sessions of the
    ticker's exchange, rows on other days are in none, missing values are left out. Where fewer than
    half of a window's sessions have a value the distance is null and nothing has drifted. An area
    with the history before the partitions is evaluated from the partitions' first day on.

    Returns a frame with the columns of `schemas.Drift`, sorted by its key.
    """
    first = area.first_date or settings.partitions.first_day
    by_exchange: dict[str, list[str]] = {}
    for ticker in area.tickers:
        by_exchange.setdefault(settings.instrument(ticker).exchange, []).append(ticker)
    parts: list[pl.DataFrame] = [Drift.create_empty()]
    for exchange, asked in by_exchange.items():
        sessions = get_calendar(exchange).between(first, area.last_date)
        if sessions:
            parts += _of_market(features, exchange, asked, sessions, settings)
    return pl.concat(parts).sort(Drift.primary_key())


@dataclass(frozen=True)
class _Panel:
    """The watched features of a market on consecutive sessions."""

    calendar: Calendar
    tickers: tuple[str, ...]
    sectors: tuple[str, ...]
    """Of the tickers; empty where none is known."""
    origin: int
    """Number of the first session in the calendar; may be negative, before the calendar begins."""
    values: Floats
    """(feature, ticker, session); NaN where there is none."""
    there: NDArray[np.bool_]
    """(ticker, session): whether the ticker has features."""


@dataclass(frozen=True)
class _Thresholds:
    """What is too much in one block of sessions."""

    distance: Floats
    """(feature, ticker)."""
    rise: Floats
    """(ticker,)."""
    ticker: Floats
    """(ticker,): share of its drifted features."""
    sector: Floats
    """(ticker,): how much larger a share its sector may have than the market."""
    market: float
    """Share of the market's drifted pairs."""
    market_rise: float
    """Mean rise of the market's tickers."""


def _reach(drift: DriftSettings) -> int:
    """Sessions that end with a day on which its numbers depend."""
    # The day's place in its block, the calibration's distance from the block, its length, and the
    # windows of its first value.
    return 2 * drift.current + drift.history + drift.current + drift.reference - 2


def _of_market(
    features: pl.DataFrame,
    exchange: str,
    asked: Sequence[str],
    sessions: Sequence[dt.date],
    settings: Settings,
) -> list[pl.DataFrame]:
    panel = _panel(features, exchange, sessions, settings)
    drift = settings.drift
    length = drift.reference + drift.current
    grid = _grid(panel, drift)
    history = _on_grid(panel, grid, drift)
    rise, rise_reference, rise_current = rises(
        panel.values[PANEL_FEATURES.index(TARGET_FEATURE)], TARGET_REFERENCE, TARGET_CURRENT
    )
    # All days of a block are judged alike: by what was usual before it.
    numbers = np.array([panel.calendar.index(day) for day in sessions])
    blocks, block_of = np.unique(numbers // drift.current, return_inverse=True)
    limits = []
    for block in blocks.tolist():
        end = (block - 1) * drift.current - panel.origin
        known = (grid <= end) & (grid > end - drift.history)
        earlier = rise[:, max(0, end + 1 - drift.history) : max(0, end + 1)]
        begun = panel.there[:, max(0, end + 1 - drift.history) : max(0, end + 1)].any(axis=1).sum()
        limits.append(_calibrated(history[:, :, known], earlier, int(begun), panel, drift))
    places = numbers - panel.origin
    market_usual, sector_usual = _usual_tickers(panel, places, drift)
    parts = []
    for number, ticker in enumerate(panel.tickers):
        evaluated = np.flatnonzero(panel.there[number, places])
        if ticker not in asked or not len(evaluated):
            continue
        ends, own = places[evaluated], [limits[block] for block in block_of[evaluated]]
        view = np.lib.stride_tricks.sliding_window_view(
            panel.values[: len(DRIFT_FEATURES), number], length, axis=1
        )
        measured = _measured(np.moveaxis(view[:, ends - length + 1], 0, 1), drift)
        risen = rise[number, ends], rise_reference[number, ends], rise_current[number, ends]
        distance = np.column_stack([measured[0], risen[0]])
        reference_rows, current_rows = (
            np.column_stack([measured[place], risen[place]]) for place in (1, 2)
        )
        parts.append(
            _rows(
                ticker,
                [sessions[place] for place in evaluated.tolist()],
                distance,
                reference_rows,
                current_rows,
                {
                    "threshold": np.array(
                        [np.append(item.distance[:, number], item.rise[number]) for item in own]
                    ),
                    "ticker_alarm": _columns(
                        [(item.ticker[number], item.rise[number]) for item in own]
                    ),
                    "sector_alarm": _columns([(item.sector[number], np.nan) for item in own]),
                    "market_alarm": _columns([(item.market, item.market_rise) for item in own]),
                },
                {
                    "market_tickers": market_usual[evaluated],
                    "sector_tickers": sector_usual[number, evaluated],
                },
            )
        )
    return parts


def _panel(
    features: pl.DataFrame, exchange: str, sessions: Sequence[dt.date], settings: Settings
) -> _Panel:
    calendar = get_calendar(exchange)
    members = sorted(
        (item for item in settings.universe if item.exchange == exchange),
        key=lambda item: item.ticker,
    )
    tickers = tuple(item.ticker for item in members)
    origin = calendar.index(sessions[0]) - _reach(settings.drift) + 1
    width = calendar.index(sessions[-1]) - origin + 1
    first = calendar.sessions[max(0, origin)]
    known = calendar.sessions[max(0, origin) : origin + width]
    places = pl.DataFrame(
        {"day": known, "place": range(max(0, -origin), width)},
        schema={"day": pl.Date, "place": pl.Int64},
    )
    numbers = pl.DataFrame(
        {"ticker": tickers, "number": range(len(tickers))},
        schema={"ticker": pl.String, "number": pl.Int64},
    )
    rows = (
        features.filter(pl.col("day").is_between(first, sessions[-1]))
        .select("day", "ticker", *PANEL_FEATURES)
        .join(numbers, on="ticker")
        .join(places, on="day")
    )
    at = (rows["number"].to_numpy(), rows["place"].to_numpy())
    values = np.full((len(PANEL_FEATURES), len(tickers), width), np.nan)
    for number, name in enumerate(PANEL_FEATURES):
        column = rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        values[number][at] = np.where(np.isfinite(column), column, np.nan)
    there = np.zeros((len(tickers), width), dtype=bool)
    there[at] = True
    return _Panel(calendar, tickers, tuple(item.sector for item in members), origin, values, there)


def _usual_tickers(
    panel: _Panel, places: NDArray[np.int64], drift: DriftSettings
) -> tuple[Floats, Floats]:
    """Tickers that the market (day,) and each ticker's sector (ticker, day) have had lately.

    The median over the earlier sessions of the current window with any ticker: of whole days, even
    where some were not, and soon without those that are gone. The day itself has no say in it. NaN
    where there was none, and for a ticker without a sector.
    """
    named = np.array(panel.sectors)
    sectors = {sector: panel.there[named == sector] for sector in set(panel.sectors) - {""}}
    market = _lately(panel.there, places, drift.current - 1)
    sector = np.full((len(panel.tickers), len(places)), np.nan)
    for name, there in sectors.items():
        sector[named == name] = _lately(there, places, drift.current - 1)
    return market, sector


def _lately(there: NDArray[np.bool_], places: NDArray[np.int64], sessions: int) -> Floats:
    """(day,): the lower median of the tickers `there`, over so many sessions before each day."""
    counts = np.sort(
        np.lib.stride_tricks.sliding_window_view(there.sum(axis=0), sessions)[places - sessions]
    )
    none = (counts == 0).sum(axis=1)
    middle = np.minimum(none + (sessions - 1 - none) // 2, sessions - 1)
    found = counts[np.arange(len(places)), middle].astype(np.float64)
    return np.where(none < sessions, found, np.nan)


def _grid(panel: _Panel, drift: DriftSettings) -> NDArray[np.int64]:
    """The sessions of history (as places in the panel) on which distances are measured.

    They are the same ones of the calendar, whatever the panel.
    """
    length = drift.reference + drift.current
    places = np.arange(length - 1, panel.values.shape[2])
    return np.asarray(places[(places + panel.origin) % GRID == 0])


def _on_grid(panel: _Panel, grid: NDArray[np.int64], drift: DriftSettings) -> Floats:
    """Distances (feature, ticker, place of the grid)."""
    length = drift.reference + drift.current
    count = len(DRIFT_FEATURES)
    found = np.full((count, len(panel.tickers), len(grid)), np.nan)
    if not len(grid):
        return found
    view = np.lib.stride_tricks.sliding_window_view(panel.values[:count], length, axis=2)
    for number in range(len(panel.tickers)):
        # Nothing to measure before a ticker begins.
        begins = int(np.argmax(panel.there[number])) if panel.there[number].any() else len(grid)
        some = grid >= begins
        if some.any():
            of_ticker = np.moveaxis(view[:, number, grid[some] - length + 1], 0, 1)
            found[:, number, some] = _measured(of_ticker, drift)[0].T
    return found


def _measured(
    samples: Floats, drift: DriftSettings
) -> tuple[Floats, NDArray[np.int32], NDArray[np.int32]]:
    """Distances of `samples` (day, feature, session), NaN on too few values, and how many."""
    shape = samples.shape[:2]
    flat = samples.reshape(-1, samples.shape[2])
    distance = np.empty(len(flat))
    rows = np.empty((2, len(flat)), dtype=np.int32)
    for start in range(0, len(flat), _BLOCK):
        part = slice(start, start + _BLOCK)
        reference, current = flat[part, : drift.reference], flat[part, drift.reference :]
        distance[part], rows[0, part], rows[1, part] = normed_wasserstein(reference, current)
    enough = (2 * rows[0] >= drift.reference) & (2 * rows[1] >= drift.current)
    distance[~enough] = np.nan
    return distance.reshape(shape), rows[0].reshape(shape), rows[1].reshape(shape)


def _calibrated(
    history: Floats, earlier_rises: Floats, begun: int, panel: _Panel, drift: DriftSettings
) -> _Thresholds:
    """The thresholds from `history` (feature, ticker, grid) and rises (ticker, session).

    `begun` tickers have any: that is the market whose history this is, not the whole universe.
    """
    known, size = stationary(), begun or len(panel.tickers)
    per_block = drift.current // GRID
    usual = np.stack(
        [
            upper_quantile(begun_with(known.distances_of(name), history[number]), 1 - USUAL)
            for number, name in enumerate(DRIFT_FEATURES)
        ]
    )
    if drift.feature_threshold is not None:
        usual = np.full_like(usual, drift.feature_threshold)
    measured = ~np.isnan(history)
    drifted = measured & (history > usual[:, :, None])
    rate = drift.false_alarms

    def level(statistic: str, series: Floats, tickers: int, share: float, length: int) -> Floats:
        prior = known.blocks_of(statistic, tickers)
        return alarm_level(prior, block_maxima(series, length), share)

    shares = _share(drifted, measured, axis=0)
    market_share = _share(drifted, measured, axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        present = ~np.isnan(earlier_rises)
        mean_rise = np.where(present, earlier_rises, 0).sum(axis=0) / present.sum(axis=0)
    data_rate, target_rate = _DATA_PART * rate, _TARGET_PART * rate
    market = _ALLOWANCE * float(level("share", market_share, size, data_rate, per_block))
    return _Thresholds(
        distance=usual,
        rise=level("rise", earlier_rises, 1, _TICKER_TARGET_PART * rate, drift.current),
        ticker=_ALLOWANCE * level("share", shares, 1, _TICKER_DATA_PART * rate, per_block),
        sector=_sector_excess(drifted, measured, panel, _SECTOR_PART * rate, per_block),
        market=market if drift.universe_share is None else drift.universe_share,
        market_rise=float(level("rise", mean_rise, size, target_rate, drift.current)),
    )


def _share(
    drifted: NDArray[np.bool_], measured: NDArray[np.bool_], axis: int | tuple[int, ...]
) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(drifted.sum(axis=axis) / measured.sum(axis=axis))


def _sector_excess(
    drifted: NDArray[np.bool_],
    measured: NDArray[np.bool_],
    panel: _Panel,
    share: float,
    per_block: int,
) -> Floats:
    """(ticker,): how much more of its sector's pairs than of the market's may have drifted.

    The largest excess of any sector, in units of 1 / sqrt(its tickers), since that of a small
    sector varies more. NaN where a sector has one ticker or is all there is, and while the history
    has too few blocks for the rate.
    """
    found = np.full(len(panel.tickers), np.nan)
    named = np.array(panel.sectors)
    sectors = {
        sector: named == sector
        for sector in set(panel.sectors) - {""}
        if 1 < (named == sector).sum() < len(named)
    }
    if not sectors:
        return found
    market = _share(drifted, measured, axis=(0, 1))
    excess = np.stack(
        [
            (_share(drifted[:, of], measured[:, of], axis=(0, 1)) - market) * np.sqrt(of.sum())
            for of in sectors.values()
        ]
    )
    largest = np.where(np.isnan(excess), -np.inf, excess).max(axis=0)
    own = block_maxima(np.where(np.isneginf(largest), np.nan, largest), per_block)
    if (~np.isnan(own)).sum() < _SECTOR_BLOCKS:
        return found
    limit = _ALLOWANCE * float(alarm_level(np.array([]), own, share))
    for of in sectors.values():
        found[of] = limit / np.sqrt(of.sum())
    return found


_SECTOR_BLOCKS = 24
"""Months of history from which on sectors are judged: the simulated market has none of them."""


def _columns(pairs: Sequence[tuple[float, float]]) -> Floats:
    """(day, feature): one value for the features of each kind, data and target."""
    data, target = np.array(pairs).T
    return np.column_stack([*([data] * len(DRIFT_FEATURES)), target])


def _rows(  # noqa: PLR0913, PLR0917
    ticker: str,
    days: Sequence[dt.date],
    distance: Floats,
    reference_rows: NDArray[np.int32],
    current_rows: NDArray[np.int32],
    limits: dict[str, Floats],
    usual: dict[str, Floats],
) -> pl.DataFrame:
    """Rows of `Drift` of one ticker; all arrays are (day, feature), those of `usual` (day,)."""
    count = distance.shape[1]
    kinds = [*([DATA] * len(DRIFT_FEATURES)), TARGET]
    return (
        pl.DataFrame(
            {
                "day": pl.Series(days, dtype=pl.Date).gather(
                    np.repeat(np.arange(len(days)), count)
                ),
                "ticker": pl.repeat(ticker, distance.size, eager=True),
                "kind": kinds * len(days),
                "feature": list(PANEL_FEATURES) * len(days),
                "distance": distance.ravel(),
                "drifted": (distance > limits["threshold"]).ravel(),
                "reference_rows": reference_rows.ravel(),
                "current_rows": current_rows.ravel(),
                **{name: values.ravel() for name, values in limits.items()},
                **{
                    name: pl.Series(np.repeat(values, count)).fill_nan(None).cast(pl.Int32)
                    for name, values in usual.items()
                },
            }
        )
        .with_columns(
            pl.col(pl.Float64).fill_nan(None),
            pl.col("reference_rows", "current_rows").cast(pl.Int32),
        )
        .select(Drift.column_names())
    )
