"""A lake on which a run does everything once and next to nothing: what any run pays.

One ticker with 500 days of history, and the model that serves it on a real lake.
"""

from __future__ import annotations

import datetime as dt
import shutil
from typing import TYPE_CHECKING, Any

import polars as pl
from market import Market, write_settings
from product import Product
from scales import LAST

from stock_assets.settings import FilesSettings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

_HISTORY = dt.timedelta(days=500)
_FIRST_DAY = dt.date(2026, 6, 22)
_UPSTREAM = ("candles", "quarantine", "bars", "features", "drift")


def make_start_up(rich: Product, folder: Path) -> dict[str, Any]:
    """Make it in `folder`, with the last ticker and the model of a `rich` lake, and save it."""
    (source,) = rich.settings.sources.values()
    assert isinstance(source, FilesSettings)
    ticker = rich.settings.tickers[-1]
    own = pl.read_parquet(source.path).filter(
        (pl.col("ticker") == ticker) & (pl.col("timestamp").dt.date() >= LAST - _HISTORY)
    )
    folder.mkdir(exist_ok=True)
    file = folder / "candles.parquet"
    own.write_parquet(file)
    market = Market("one ticker", file, rich.settings.lake.splits, own)
    starter = Product(write_settings(market, folder, _FIRST_DAY))
    starter.empty()
    starter.run(_FIRST_DAY, LAST, _UPSTREAM)
    # The decision and the model of the whole lake, so that the day is forecast with them.
    area = Slice(LAST, LAST, (ticker,))
    starter.lake.write("models", rich.lake.read("models", area), area)
    if rich.settings.mlflow_dir.exists():
        shutil.copytree(rich.settings.mlflow_dir, starter.settings.mlflow_dir)
    starter.save()
    return {"what": "start-up lake", "candles": own.height}


def open_start_up(folder: Path) -> Product:
    """The lake that `make_start_up` left in `folder`."""
    return Product(folder / "settings.toml")
