"""Features of simulated bars by the SQL of the product: compiled once, run in DuckDB.

Not by dbt's own runs, which would cost seconds a market; the text of the queries is dbt's.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import duckdb
import polars as pl
from product import clean_environment

from stock_assets.lake.actions import session_rows
from stock_assets.lake.dbt_project import DBT_PROJECT_DIR, dbt_executable, ensure_manifest
from stock_assets.lake.dbt_request import REQUEST_VARIABLE, build_request, requested
from stock_assets.slices import Slice

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from stock_assets.settings import Settings


def compiled_features(settings: Settings, last: dt.date, folder: Path) -> Path:
    """The query that makes features of all history up to `last`; made in `folder`.

    Raises `subprocess.CalledProcessError` when dbt cannot compile the models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ensure_manifest().with_name("partial_parse.msgpack"), folder)
    places = {
        "--project-dir": DBT_PROJECT_DIR,
        "--profiles-dir": DBT_PROJECT_DIR,
        "--target-path": folder,
        "--log-path": folder,
    }
    options = [str(part) for pair in places.items() for part in pair]
    area = Slice(None, last, settings.tickers)
    with requested(build_request(settings, area)) as request:
        environment = {**clean_environment(), REQUEST_VARIABLE: str(request)}
        command = [str(dbt_executable()), "--quiet", "compile", *options]
        subprocess.run(command, check=True, env=environment, cwd=folder)  # noqa: S603
    return folder / "compiled" / "stock_assets" / "models" / "features.sql"


def features_of(bars: pl.DataFrame, settings: Settings, last: dt.date, query: Path) -> pl.DataFrame:
    """Rows of `Features` of `bars`, of all tickers of `settings`, up to `last`."""
    request = build_request(settings, Slice(None, last, settings.tickers))
    tickers = pl.DataFrame(
        [(i.ticker, i.exchange, i.currency, None, last) for i in settings.universe],
        schema={
            "ticker": pl.String,
            "exchange": pl.String,
            "currency": pl.String,
            "first_date": pl.Date,
            "last_date": pl.Date,
        },
        orient="row",
    )
    with duckdb.connect(":memory:") as connection:
        connection.execute("create schema run; set timezone = 'UTC'; set threads = 1")
        connection.execute("set enable_progress_bar = false")
        for name, frame in (
            ("slice", tickers),
            ("sessions", session_rows(request)),
            ("market_bars", bars),
        ):
            connection.register(f"given_{name}", frame.to_arrow())
            connection.execute(f"create table run.{name} as from given_{name}")
        return pl.DataFrame(
            connection.sql(query.read_text(encoding="utf-8")).to_arrow_table()
        ).sort("day", "ticker")
