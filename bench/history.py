"""Lakes whose last year was run for real and whose earlier years cost little to make.

What the next day's run must not notice is all there: candles, bars and features of all years (the
real ones, carried by the first day of the recent run), cells of all years in the partitions, and
rows of all years in the other tables, which are the recent ones moved back by whole years (but
`shadows`, those of the recent run alone). They are written in one go, not day by day: the files
that days would add are those that the weekly maintenance takes away again. The
event log holds the recent run alone, or the earlier cells too where `partitions_log.py` fills them.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from market import get_market, write_settings
from measuring import measured, say
from product import Product, clean_environment, first_of
from scales import LAST

from stock_assets.partitions import Grid
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from scales import Scale

    from stock_assets.lake.store import Lake

_WARM_UP = dt.timedelta(days=500)
"""Candles before the first partition: what drift's windows and the EWMA look back on, with room."""
_YEAR = dt.timedelta(weeks=52)
"""Whole weeks, so that a weekday stays one."""
_DERIVED = ("drift", "models", "forecasts", "scores")
_FILL_LOG = Path(__file__).with_name("partitions_log.py")


def first_partition(years: int) -> dt.date:
    """Where the partitions of so many years begin."""
    return LAST.replace(year=LAST.year - years)


def make_history(scale: Scale, years: int, folder: Path) -> dict[str, Any]:
    """A lake with so many years behind `LAST`, in `folder`; returns what it holds."""
    first = first_partition(years)
    begin = max(first - _WARM_UP, scale.begin or dt.date.min)
    market = get_market(folder, tickers=scale.tickers, begin=begin)
    product = Product(write_settings(market, folder, first))
    product.empty()
    if _FILL_LOG.exists():
        say(f"{years} years: filling the event log")
        command = [sys.executable, str(_FILL_LOG), str(product.file)]
        measured(command, clean_environment(), folder, name="filling the event log")
    recent = first_of(scale.recent_days, LAST)
    say(f"{years} years: the recent run")
    Product(write_settings(market, folder, recent)).run(recent, LAST)
    for table in _DERIVED:
        _repeat_backwards(product.lake, table, recent, first, product.settings.tickers)
    write_settings(market, folder, first)
    days = sum(day <= LAST for day in Grid.of(product.settings).days())
    rows = {
        table: product.lake.read(table, columns=["day"]).height
        for table in ("candles", "features", *_DERIVED)
    }
    return {
        "what": "history",
        "years": years,
        "cells": days * len(product.settings.tickers),
        "rows": rows,
        "log_bytes": product.log_bytes,
        "log_filled": _FILL_LOG.exists(),
    }


def open_history(years: int, folder: Path) -> Product:
    """The lake that `make_history` left in `folder`."""
    found = Product(folder / "settings.toml")
    assert found.settings.partitions.first_day == first_partition(years)
    return found


def _repeat_backwards(
    lake: Lake, table: str, recent: dt.date, first: dt.date, tickers: tuple[str, ...]
) -> None:
    rows = lake.read(table, Slice(recent, LAST, tickers))
    dates = [name for name, kind in rows.schema.items() if kind == pl.Date]
    copies = [
        rows.with_columns(pl.col(dates) - years * _YEAR)
        for years in range(1, LAST.year - first.year + 1)
    ]
    older = pl.concat(copies).filter(pl.col("day").is_between(first, recent, closed="left"))
    if older.height:
        area = Slice(first, recent - dt.timedelta(1), tickers)
        lake.write(table, older, area)
