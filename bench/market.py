"""The benchmark's input: 50 tickers of daily candles since 2013, real ones where they are at hand.

Real candles are not part of the repository: the folder is that of STOCK_ASSETS_SHARED, or
`shared/data` beside the repository. Elsewhere a simulated market of the same shape stands in.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stock_assets.settings import PROJECT_DIR, Instrument, SimulatedSettings
from stock_assets.slices import Slice
from stock_assets.sources.simulated import SimulatedSource

_REAL = "moex_daily_dev_tqbr.parquet"
_BEGIN, _END = dt.date(2013, 3, 25), dt.date(2026, 6, 30)
_TICKERS = 50


@dataclass(frozen=True)
class Market:
    """A Parquet file of daily candles, and what the settings must say of it."""

    about: str
    file: Path
    splits: Path | None
    candles: pl.DataFrame


def get_market(folder: Path, *, tickers: int | None = None, begin: dt.date | None = None) -> Market:
    """The market as a file in `folder`; with only its first tickers, and days from `begin` on."""
    data = Path(os.environ.get("STOCK_ASSETS_SHARED", PROJECT_DIR.parent / "shared" / "data"))
    real = (data / _REAL).exists()
    candles = pl.read_parquet(data / _REAL) if real else _simulated()
    about = _REAL if real else "a simulated market (real candles are not on this machine)"
    names = candles["ticker"].unique().sort().to_list()[:tickers]
    chosen = candles.filter(pl.col("ticker").is_in(names))
    if begin is not None:
        chosen = chosen.filter(pl.col("timestamp").dt.date() >= begin)
    file = folder / "candles.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    chosen.write_parquet(file)
    return Market(about, file, data / "splits" if real else None, chosen)


def write_settings(market: Market, folder: Path, first_day: dt.date) -> Path:
    """Settings in `folder` for a lake beside them, with cells from `first_day` on."""
    splits = "" if market.splits is None else f'splits = "{market.splits.as_posix()}"'
    names = ", ".join(f'"{name}"' for name in market.candles["ticker"].unique().sort())
    file = folder / "settings.toml"
    file.write_text(
        f"""
[lake]
path = "data"
{splits}
[partitions]
first_day = {first_day}
[[universe]]
tickers = [{names}]
source = "market"
exchange = "XMOS"
currency = "RUB"
[sources.market]
kind = "files"
path = "{market.file.as_posix()}"
""",
        encoding="utf-8",
    )
    return file


def _simulated() -> pl.DataFrame:
    own = SimulatedSettings(kind="simulated", begin=_BEGIN, interval="1d")
    names = [f"SIM{number:02d}" for number in range(_TICKERS)]
    instruments = [Instrument(ticker=name, source="market", exchange="XMOS") for name in names]
    rows = SimulatedSource("market", own).fetch(instruments, Slice(None, _END, tuple(names)))
    return rows.select(
        "ticker", pl.col("start").alias("timestamp"), "open", "high", "low", "close", "volume"
    ).sort("ticker", "timestamp")
