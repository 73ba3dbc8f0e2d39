"""Checks that every table has: the slice keeps the schema, and no cell is silently empty.

Checks of one asset only (drift, quarantine) live with that asset; dbt's tests become checks in
`transform.py`.
"""

import datetime as dt
from collections import Counter

import dagster as dg
import duckdb
import polars as pl

from stock_assets.assets.common import TABLE_OF, slice_of
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

_SHOWN = 10

UPSTREAM_OF = {
    "bars": "candles",
    "features": "bars",
    "drift": "features",
    "model": "features",
    "forecasts": "bars",
    "scores": None,
    "candles": None,
}
"""Table whose cells each asset's must follow; None: see `_expected`."""


def build_table_checks(settings: Settings, grid: Grid) -> list[dg.AssetChecksDefinition]:
    """Schema and completeness for every table."""
    checks = [_schema_check(name, grid) for name in TABLE_OF]
    checks += [_completeness_check(name, settings, grid) for name in UPSTREAM_OF]
    return [*checks, _quarantine_check(grid), _whole_market_check(settings, grid)]


def _schema_check(name: str, grid: Grid) -> dg.AssetChecksDefinition:
    table = TABLE_OF[name]
    schema = TABLES[table]

    @dg.asset_check(
        asset=name,
        name="schema",
        description=f"The slice's rows of `{table}` keep its types, keys and rules.",
    )
    def check_schema(
        context: dg.AssetCheckExecutionContext, lake: LakeResource
    ) -> dg.AssetCheckResult:
        area = slice_of(context, grid)
        with lake.get_connection() as connection:
            found = rows(connection, table, area.first_date, area.last_date, tickers=area.tickers)
        good, failure = schema.filter(found)
        return dg.AssetCheckResult(
            passed=failure.invalid().is_empty(),
            description=f"{good.height} of {found.height} rows keep the schema",
            metadata={"broken rules": dg.MetadataValue.json(dict(failure.counts()))},
        )

    return check_schema


def _completeness_check(name: str, settings: Settings, grid: Grid) -> dg.AssetChecksDefinition:
    table = TABLE_OF[name]

    @dg.asset_check(
        asset=name,
        name="complete",
        description=f"Which cells of the slice have rows in `{table}`, and why the others do not.",
    )
    def check_complete(
        context: dg.AssetCheckExecutionContext, lake: LakeResource
    ) -> dg.AssetCheckResult:
        area = slice_of(context, grid)
        with lake.get_connection() as connection:
            filled = _cells(connection, table, area, grid)
            expected, explained = _expected(connection, name, settings, area, grid)
        missing = sorted(expected - filled)
        # Rows of a halted or thinly traded ticker may really not exist: a warning, not an error.
        return dg.AssetCheckResult(
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{len(filled)} of {len(filled) + len(missing)} expected cells have rows"
                + (f"; missing without an explanation: {len(missing)}" if missing else "")
            ),
            metadata={
                "cells with rows": len(filled),
                "explained": dg.MetadataValue.json(explained),
                "missing": dg.MetadataValue.json(
                    [f"{day}|{ticker}" for day, ticker in missing[:_SHOWN]]
                ),
                "missing cells": len(missing),
            },
        )

    return check_complete


def _quarantine_check(grid: Grid) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="quarantine",
        name="nothing_set_aside",
        description="Warns when rows of the slice were set aside, with the commonest reasons.",
    )
    def check_quarantine(
        context: dg.AssetCheckExecutionContext, lake: LakeResource
    ) -> dg.AssetCheckResult:
        area = slice_of(context, grid)
        with lake.get_connection() as connection:
            found = rows(
                connection, "quarantine", area.first_date, area.last_date, tickers=area.tickers
            )
        reasons = found["reason"].value_counts(sort=True).head(_SHOWN)
        return dg.AssetCheckResult(
            passed=found.is_empty(),
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{found.height} rows set aside; see the table `quarantine`",
            metadata={"reasons": dg.MetadataValue.json(dict(reasons.iter_rows()))},
        )

    return check_quarantine


def _whole_market_check(settings: Settings, grid: Grid) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="features",
        name="whole_market",
        description=(
            "Warns when market-wide features were made while bars of the same exchange and day "
            "were missing; running those days for all its tickers completes them."
        ),
    )
    def check_whole_market(
        context: dg.AssetCheckExecutionContext, lake: LakeResource
    ) -> dg.AssetCheckResult:
        area = slice_of(context, grid)
        first = grid.days_of(area)[0]
        exchanges = {item.ticker: item.exchange for item in settings.universe}
        columns = ["day", "ticker", "exchange", "market_tickers"]
        with lake.get_connection() as connection:
            made = rows(
                connection, "features", first, area.last_date, tickers=area.tickers, columns=columns
            )
            bars = rows(
                connection, "bars", first, area.last_date, columns=["day", "ticker", "exchange"]
            )
        # Tickers of the universe that have a bar by now, and those that have none on a session.
        there = bars.group_by("day", "exchange").agg(pl.col("ticker").n_unique().alias("now"))
        partial = made.join(there, on=["day", "exchange"]).filter(
            pl.col("market_tickers") < pl.col("now")
        )
        silent = {
            name: count
            for name, count in sorted(Counter(exchanges.values()).items())
            if (held := made.filter(exchange=name)).height
            and int(held["market_tickers"].max() or 0) < count
        }
        return dg.AssetCheckResult(
            passed=partial.is_empty() and not silent,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{partial.height} rows were made from fewer tickers than have bars now"
                + (f"; never the whole market of {', '.join(silent)}" if silent else "")
            ),
            metadata={
                "rows to run again": partial.height,
                "days": dg.MetadataValue.json(
                    [str(day) for day in partial["day"].unique().sort().head(_SHOWN)]
                ),
            },
        )

    return check_whole_market


def _cells(
    connection: duckdb.DuckDBPyConnection, table: str, area: Slice, grid: Grid
) -> set[tuple[dt.date, str]]:
    found = rows(
        connection,
        table,
        grid.days_of(area)[0],
        area.last_date,
        tickers=area.tickers,
        columns=["day", "ticker"],
    ).unique()
    return set(found.iter_rows())


def _expected(
    connection: duckdb.DuckDBPyConnection, name: str, settings: Settings, area: Slice, grid: Grid
) -> tuple[set[tuple[dt.date, str]], dict[str, int]]:
    """Cells that should have rows, and how many of the others have which explanation."""
    upstream = UPSTREAM_OF[name]
    if name == "scores":
        due = connection.sql(
            "select f.target_day, f.ticker from forecasts f join bars b"
            " on b.day = f.target_day and b.ticker = f.ticker where f.target_day between ? and ?",
            params=[grid.days_of(area)[0], area.last_date],
        ).to_arrow_table()
        pairs = pl.DataFrame(due).unique()
        wanted = {cell for cell in pairs.iter_rows() if cell[1] in set(area.tickers)}
        return wanted, {}
    if upstream is not None:
        return _cells(connection, upstream, area, grid), {}
    return _expected_candles(connection, settings, area, grid)


def _expected_candles(
    connection: duckdb.DuckDBPyConnection, settings: Settings, area: Slice, grid: Grid
) -> tuple[set[tuple[dt.date, str]], dict[str, int]]:
    now = dt.datetime.now(tz=dt.UTC)
    filled = _cells(connection, "candles", area, grid)
    begins = _first_candles(connection, sorted(set(area.tickers)), area, grid, len(filled))
    expected: set[tuple[dt.date, str]] = set()
    explained: dict[str, int] = {}
    for ticker in area.tickers:
        calendar = get_calendar(settings.instrument(ticker).exchange)
        # A ticker without a single candle is no late starter: its source may not know it at all.
        begin = begins.get(ticker, dt.date.min)
        for day in grid.days_of(area):
            if not calendar.is_session(day):
                why = f"not a session of {calendar.name}"
            elif (day, ticker) not in filled and day < begin:
                why = "before the ticker's first candle"
            elif calendar.closes_at(day) > now:
                why = "the session is not over"
            else:
                expected.add((day, ticker))
                continue
            explained[why] = explained.get(why, 0) + 1
    return expected, explained


def _first_candles(
    connection: duckdb.DuckDBPyConnection,
    tickers: list[str],
    area: Slice,
    grid: Grid,
    filled: int,
) -> dict[str, dt.date]:
    """First candle of each ticker, asked for only when the slice has empty cells to explain."""
    if filled == len(tickers) * len(grid.days_of(area)):
        return {}
    marks = ", ".join("?" * len(tickers))
    found = connection.execute(
        f"select ticker, min(day) from candles where ticker in ({marks}) group by ticker",  # noqa: S608
        tickers,
    )
    return dict(found.fetchall())
