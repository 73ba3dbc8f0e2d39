"""A small market's features, as the drift package takes them."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.drift.watched import PANEL_FEATURES
from stock_assets.lake.schemas import Features
from stock_assets.settings import Settings

FIRST_DAY = dt.date(2024, 3, 1)
LAST_DAY = dt.date(2024, 6, 28)


@pytest.fixture
def market() -> Settings:
    """Two Moscow tickers and one that trades on weekdays; short windows."""
    return Settings(
        partitions={"first_day": FIRST_DAY},
        universe=[
            {"ticker": "AAA", "source": "s", "exchange": "XMOS"},
            {"ticker": "S&P", "source": "s", "exchange": "XMOS"},
            {"ticker": "GOLD", "source": "s"},
        ],
        sources={"s": {"kind": "simulated"}},
        drift={"reference": 60, "current": 10, "history": 60},
    )


@pytest.fixture
def make_features(market):
    """Random features of all tickers from 2023-04 on: fat-tailed, a tenth missing."""

    def make_features(seed: int = 1, missing: float = 0.1) -> pl.DataFrame:
        random = np.random.default_rng(seed)
        parts = []
        for ticker, item in sorted(market.instruments.items()):
            days = get_calendar(item.exchange).between(dt.date(2023, 4, 3), LAST_DAY)
            values = 0.01 * random.standard_t(3, (len(days), len(PANEL_FEATURES)))
            values[random.random(values.shape) < missing] = np.nan
            frame = pl.DataFrame(values, schema=list(PANEL_FEATURES)).fill_nan(None)
            parts.append(
                frame.with_columns(
                    pl.Series("day", days),
                    ticker=pl.lit(ticker),
                    exchange=pl.lit(item.exchange),
                )
            )
        types = Features.create_empty().schema
        assert {"exchange": pl.String, "day": pl.Date}.items() <= dict(types).items()
        assert WEEKDAYS in pl.concat(parts)["exchange"]
        return pl.concat(parts).select("day", "ticker", "exchange", *PANEL_FEATURES)

    return make_features
