"""A small market with planted drift, its rows of `drift`, and a draw that needs no Evidently."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.drift.distances import distances
from stock_assets.drift.watched import DRIFT_FEATURES, PANEL_FEATURES
from stock_assets.lake.schemas import Features
from stock_assets.settings import Settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

    from stock_assets.drift.evidently_page import Drawing

DAY = dt.date(2024, 6, 27)
TICKERS = {"AAA": "XMOS", "S&P_1": "XMOS", "CALM": "XMOS", "GOLD": "weekdays"}
WIDE, RISEN, CALM = "AAA", "S&P_1", "CALM"
"""Every feature of WIDE has left its past; only the target of RISEN has; CALM has not moved."""


def market(folder: Path, **drift: Any) -> Settings:
    """Two exchanges with short windows; the lake is in `folder`."""
    return Settings(
        lake={"path": folder},
        partitions={"first_day": dt.date(2024, 3, 1)},
        universe=[
            {"ticker": ticker, "source": "s", "exchange": exchange}
            for ticker, exchange in TICKERS.items()
        ],
        sources={"s": {"kind": "simulated"}},
        drift={"reference": 60, "current": 10, "feature_threshold": 0.8, **drift},
    )


def features(missing: str = "volume_z_63") -> pl.DataFrame:
    """Features of all tickers since 2023-10; one column has no values."""
    random = np.random.default_rng(5)
    parts = []
    for ticker, exchange in TICKERS.items():
        days = get_calendar(exchange).between(dt.date(2023, 1, 2), dt.date(2024, 6, 28))
        values = 0.01 * random.standard_normal((len(days), len(PANEL_FEATURES)))
        places = [days.index(day) for day in days if day <= DAY][-10:]
        if ticker == WIDE:
            values[places] += 0.05
        if ticker == RISEN:
            values[places[-5:], PANEL_FEATURES.index("log_variance_1d")] += 5
        frame = pl.DataFrame(values, schema=list(PANEL_FEATURES))
        parts.append(
            frame.with_columns(
                pl.Series("day", days), ticker=pl.lit(ticker), exchange=pl.lit(exchange)
            )
        )
    return pl.concat(parts).with_columns(pl.lit(None, pl.Float64).alias(missing))


def stored_features() -> pl.DataFrame:
    """They as rows of the table `features`, up to DAY; what is not watched is any."""
    empty = Features.create_empty()
    known = features().filter(pl.col("day") <= DAY)
    known = known.with_columns(pl.col("market_dispersion", "market_up_share").abs())
    rest = [
        pl.lit(None if column.nullable else 1).cast(empty.schema[name]).alias(name)
        for name, column in Features.columns().items()
        if name not in known.columns
    ]
    return known.with_columns(rest).select(empty.columns)


def measured(settings: Settings, day: dt.date = DAY) -> pl.DataFrame:
    """The rows of `drift` of one day, with alarm levels that planted drift alone is above."""
    found = distances(features(), Slice(day, day, settings.tickers), settings)
    data = pl.col("kind") == "data"
    return found.with_columns(
        threshold=pl.when(data).then("threshold").otherwise(1.0),
        drifted=pl.when(data).then("drifted").otherwise(pl.col("distance") > 1.0),
        ticker_alarm=pl.when(data).then(0.5).otherwise(1.0),
        market_alarm=pl.when(data).then(0.2).otherwise(9.0),
    )


class Draws:
    """Stands in for Evidently: remembers what it is asked to draw."""

    def __init__(self) -> None:
        self.asked: list[Drawing] = []

    def __call__(self, drawing: Drawing) -> str:
        self.asked.append(drawing)
        script = "/* Evidently's scripts */" * 60_000
        return (
            "<!DOCTYPE html><html><head><style>p {}</style></head><body><div>drawn</div>"
            f"<script>{script}</script><script>draw('data')</script></body></html>"
        )


assert set(DRIFT_FEATURES) < set(PANEL_FEATURES)
