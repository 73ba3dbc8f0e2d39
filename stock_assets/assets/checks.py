"""Checks that every table has: the slice keeps the schema, and no cell is silently empty.

They run inside the step that writes the table, on what the lake holds then: a check that is a
step of its own costs one, and has Dagster list every partition of its asset (docs/adr/0012).
`checked_asset` makes such a step of one asset.

Checks of one asset only (the drift verdict) live with that asset; dbt's tests become checks in
`transform.py`.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
import duckdb
import polars as pl

from stock_assets.assets.common import BACKFILL, TABLE_OF, slice_of
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.calendars import get_calendar
from stock_assets.forecast_inputs import blocked_cells
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.splits import declaration
from stock_assets.lake.undeclared import before_and_after
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.settling import latest_settled

_SHOWN = 10
_NAMED = 3

SCHEMA, COMPLETE = "schema", "complete"
NOTHING_SET_ASIDE, WHOLE_MARKET = "nothing_set_aside", "whole_market"
NO_UNDECLARED_SPLIT = "no_undeclared_split"

UPSTREAM_OF = {
    "bars": "candles",
    "features": "bars",
    "drift": "features",
    "model": "features",
    "forecasts": "bars",
    "scores": None,
    "candles": None,
}
"""Table whose cells each asset's must follow; None: see `_complete`."""

# A candle in the weeks before a slice tells a ticker that fell silent from one that starts late.
_RECENT = dt.timedelta(days=40)

Cells = set[tuple[dt.date, str]]
Compute = Callable[[dg.AssetExecutionContext, LakeResource], None]
Results = Callable[[dg.AssetExecutionContext, LakeResource], Iterator[dg.AssetCheckResult]]


def checked_asset(  # noqa: PLR0913
    spec: dg.AssetSpec,
    settings: Settings,
    grid: Grid,
    *,
    more_specs: Sequence[dg.AssetCheckSpec] = (),
    more_results: Results | None = None,
    more_resources: Collection[str] = (),
) -> Callable[[Compute], dg.AssetsDefinition]:
    """Decorator: an asset whose step computes and writes, then checks what the lake holds.

    `more_specs` are checks beside those that every table has; `more_results` yields their results.
    `more_resources` are those that it finds in its context beside the lake.
    """
    name = spec.key.to_user_string()

    def decorate(compute: Compute) -> dg.AssetsDefinition:
        @dg.multi_asset(
            name=name,
            specs=[spec],
            check_specs=[*table_check_specs(name), *more_specs],
            backfill_policy=BACKFILL,
            # Otherwise Dagster takes the asset and its checks for one thing that must be requested
            # together, and automation asks for the checks of a single cell in a run of their own.
            can_subset=True,
            required_resource_keys={"lake", *more_resources},
        )
        def step(context: dg.AssetExecutionContext):  # noqa: ANN202
            lake: LakeResource = context.resources.lake
            if context.selected_asset_keys:
                compute(context, lake)
                yield dg.MaterializeResult(name)
            area, wanted = slice_of(context, grid), context.selected_asset_check_keys
            yield from table_check_results(name, area, lake, settings, grid, wanted=wanted)
            if more_results is not None and not wanted.isdisjoint(item.key for item in more_specs):
                yield from more_results(context, lake)

        return step

    return decorate


def table_check_specs(name: str) -> list[dg.AssetCheckSpec]:
    """The checks of asset `name` that `table_check_results` evaluates."""
    table = TABLE_OF[name]
    described = {SCHEMA: f"The slice's rows of `{table}` keep its types, keys and rules."}
    if name in UPSTREAM_OF:
        described[COMPLETE] = (
            f"Which cells of the slice have rows in `{table}`, and why the others do not."
        )
    if name == "quarantine":
        described[NOTHING_SET_ASIDE] = (
            "Warns when rows of the slice were set aside, with the commonest reasons."
        )
    if name == "bars":
        described[NO_UNDECLARED_SPLIT] = (
            "Warns when a bar's move looks like a split that nobody declared, with its ratio and "
            "what to write where. Until then nothing is made of the move: no return, no score."
        )
    if name == "features":
        described[WHOLE_MARKET] = (
            "Warns when market-wide features were made while bars of the same exchange and day "
            "were missing; running those days for all its tickers completes them."
        )
    return [
        dg.AssetCheckSpec(check, asset=name, description=description)
        for check, description in described.items()
    ]


def table_check_results(  # noqa: PLR0913
    name: str,
    area: Slice,
    lake: LakeResource,
    settings: Settings,
    grid: Grid,
    *,
    wanted: Collection[dg.AssetCheckKey] | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """The results of the checks of asset `name` on `area` as the lake holds it; reads it once.

    `wanted` (all without it) are the checks that the run selected. An error names the check that
    could not be evaluated.
    """
    specs = table_check_specs(name)
    chosen = [spec.name for spec in specs if wanted is None or spec.key in wanted]
    if not chosen:
        return
    table = TABLE_OF[name]
    with _about(f"the checks of {name}", area), lake.get_connection(table) as connection:
        found = rows(connection, table, area.first_date, area.last_date, tickers=area.tickers)
    evaluate: dict[str, Callable[[], dg.AssetCheckResult]] = {
        SCHEMA: lambda: _keeps_schema(name, found),
        COMPLETE: lambda: _complete(name, found, area, lake, settings, grid),
        NOTHING_SET_ASIDE: lambda: _nothing_set_aside(found),
        NO_UNDECLARED_SPLIT: lambda: _no_undeclared_split(found, settings),
        WHOLE_MARKET: lambda: _whole_market(found, area, lake, settings, grid),
    }
    for check in chosen:
        with _about(f"check {check} of {name}", area):
            result = evaluate[check]()
        yield result


@contextmanager
def _about(what: str, area: Slice) -> Iterator[None]:
    """Adds to an error what could not be evaluated: the step has written its rows by then."""
    try:
        yield
    except Exception as error:
        error.add_note(f"({what} could not be evaluated on {area}; its rows are in the lake)")
        raise


def _keeps_schema(name: str, found: pl.DataFrame) -> dg.AssetCheckResult:
    good, failure = TABLES[TABLE_OF[name]].filter(found)
    return dg.AssetCheckResult(
        asset_key=name,
        check_name=SCHEMA,
        passed=failure.invalid().is_empty(),
        description=f"{good.height} of {found.height} rows keep the schema",
        metadata={"broken rules": dg.MetadataValue.json(dict(failure.counts()))},
    )


def _nothing_set_aside(found: pl.DataFrame) -> dg.AssetCheckResult:
    reasons = found["reason"].value_counts(sort=True).head(_SHOWN)
    return dg.AssetCheckResult(
        asset_key="quarantine",
        check_name=NOTHING_SET_ASIDE,
        passed=found.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{found.height} rows set aside; see the table `quarantine`",
        metadata={"reasons": dg.MetadataValue.json(dict(reasons.iter_rows()))},
    )


def _no_undeclared_split(found: pl.DataFrame, settings: Settings) -> dg.AssetCheckResult:
    suspected = found.filter(pl.col("suspected_split").is_not_null()).sort("day", "ticker")
    advice = [
        declaration(settings.lake.splits, *cell, *before_and_after(ratio))
        for *cell, ratio in suspected.select("ticker", "day", "suspected_split").iter_rows()
    ]
    return dg.AssetCheckResult(
        asset_key="bars",
        check_name=NO_UNDECLARED_SPLIT,
        passed=suspected.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            "no move looks like a split that nobody declared"
            if suspected.is_empty()
            else "; ".join([*advice[:_NAMED], *(["..."] if len(advice) > _NAMED else [])])
            + ". Then run these days and those after them again"
        ),
        metadata={
            "suspected splits": suspected.height,
            "what to write": dg.MetadataValue.json(advice[:_SHOWN]),
        },
    )


def _complete(  # noqa: PLR0913, PLR0917
    name: str,
    found: pl.DataFrame,
    area: Slice,
    lake: LakeResource,
    settings: Settings,
    grid: Grid,
) -> dg.AssetCheckResult:
    first = grid.days_of(area)[0]
    filled = _cells(found.filter(pl.col("day") >= first))
    upstream = UPSTREAM_OF[name]
    explained: dict[str, int] = {}
    if upstream is not None:
        with lake.get_connection(upstream) as connection:
            expected = _cells(
                rows(
                    connection,
                    upstream,
                    first,
                    area.last_date,
                    tickers=area.tickers,
                    columns=["day", "ticker"],
                )
            )
    elif name == "scores":
        expected = _due_scores(first, area, lake, settings)
    else:
        expected, explained = _expected_candles(filled, area, lake, settings, grid)
    missing = sorted(expected - filled)
    why = ""
    if name == "forecasts" and missing:
        missing, explained, why = _not_at_fault(missing, first, area, lake)
    # Rows of a halted or thinly traded ticker may really not exist: a warning, not an error.
    return dg.AssetCheckResult(
        asset_key=name,
        check_name=COMPLETE,
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(filled)} of {len(filled) + len(missing)} expected cells have rows"
            + (f"; missing without an explanation: {_named(missing)}" if missing else "")
            + why
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


def _not_at_fault(
    missing: list[tuple[dt.date, str]], first: dt.date, area: Slice, lake: LakeResource
) -> tuple[list[tuple[dt.date, str]], dict[str, int], str]:
    """Of cells without a forecast: those without a fault; how many have one; which, in words."""
    with lake.get_connection("drift") as connection:
        blocked = blocked_cells(connection, first, area.last_date, area.tickers)
    faults = {(day, ticker): why for day, ticker, why in blocked.iter_rows()}
    found = [cell for cell in missing if cell in faults]
    if not found:
        return missing, {}, ""
    told = [f"{day} {ticker}: {faults[day, ticker]}" for day, ticker in found]
    return (
        [cell for cell in missing if cell not in faults],
        {"prices that cannot be right, and no earlier forecast reaches on": len(found)},
        "; none, and rightly, for " + "; ".join(told[:_NAMED] + ["..."] * (len(told) > _NAMED)),
    )


def _named(missing: list[tuple[dt.date, str]]) -> str:
    """How many cells, and of which tickers most: "17 (YNDX 14, GOLD 3)"."""
    worst = Counter(ticker for _, ticker in missing).most_common()
    shown = ", ".join(f"{ticker} {count}" for ticker, count in worst[:_NAMED])
    return f"{len(missing)} ({shown}{', ...' if len(worst) > _NAMED else ''})"


def _cells(found: pl.DataFrame) -> Cells:
    return set(found.select("day", "ticker").unique().iter_rows())


def _due_scores(first: dt.date, area: Slice, lake: LakeResource, settings: Settings) -> Cells:
    """Cells whose bar is there and that some forecast that can be scored was made for."""
    longest = max(settings.forecast.horizons)
    earliest = min(get_calendar(name).back(first, longest) for name in settings.exchanges)
    with lake.get_connection("forecasts", "bars", "drift") as connection:
        forecasts = rows(
            connection,
            "forecasts",
            earliest,
            area.last_date,
            tickers=area.tickers,
            columns=["day", "target_day", "ticker", "held_from"],
        ).filter(pl.col("held_from").is_null())
        bars = rows(
            connection,
            "bars",
            earliest,
            area.last_date,
            tickers=area.tickers,
            columns=["day", "ticker", "suspected_split"],
        )
        # Prices that cannot be right are no outcome, and nothing was forecast from them.
        blocked = blocked_cells(connection, earliest, area.last_date, area.tickers)
    # What leads across a suspected split is not scored.
    splits = bars.filter(pl.col("suspected_split").is_not_null())
    across = forecasts.join(splits, on="ticker", suffix="_split").filter(
        (pl.col("day") < pl.col("day_split")) & (pl.col("day_split") <= pl.col("target_day"))
    )
    scored = forecasts.join(across, on=["day", "target_day", "ticker"], how="anti")
    due = scored.select(pl.col("target_day").alias("day"), "ticker")
    return _cells(due) & _cells(bars.filter(pl.col("day") >= first)) - _cells(blocked)


def _expected_candles(
    filled: Cells, area: Slice, lake: LakeResource, settings: Settings, grid: Grid
) -> tuple[Cells, dict[str, int]]:
    """Cells that should have candles, and how many of the others have which explanation."""
    now = dt.datetime.now(tz=dt.UTC)
    days = grid.days_of(area)
    held = Counter(ticker for _, ticker in filled)
    begins = _first_candles([name for name in area.tickers if held[name] < len(days)], days, lake)
    expected: Cells = set()
    explained: Counter[str] = Counter()
    by_exchange: dict[str, list[str]] = {}
    for ticker in area.tickers:
        by_exchange.setdefault(settings.instrument(ticker).exchange, []).append(ticker)
    for exchange, tickers in by_exchange.items():
        calendar = get_calendar(exchange)
        sessions = [day for day in days if calendar.is_session(day)]
        explained[f"not a session of {calendar.name}"] += len(tickers) * (len(days) - len(sessions))
        for ticker in tickers:
            # A ticker without a single candle is no late starter: its source may not know it.
            begin = begins.get(ticker, dt.date.min)
            instrument = settings.instrument(ticker)
            settled = latest_settled(settings, exchange, now, source=instrument.source)
            for day in sessions:
                if not instrument.is_listed(day) and (day, ticker) not in filled:
                    explained["not listed then, as the settings say"] += 1
                elif day < begin and (day, ticker) not in filled:
                    explained["before the ticker's first candle"] += 1
                elif day > settled:
                    explained["the session is not over"] += 1
                else:
                    expected.add((day, ticker))
    return expected, {why: count for why, count in explained.items() if count}


def _first_candles(
    tickers: list[str], days: tuple[dt.date, ...], lake: LakeResource
) -> dict[str, dt.date]:
    """First candle of each of the tickers, or an earlier one than any of `days` if it has some."""
    if not tickers:
        return {}
    with lake.get_connection("candles") as connection:
        found = _earliest(connection, tickers, days[0] - _RECENT, days[0])
        # All of history is looked at only for those that may really begin here.
        rest = [ticker for ticker in tickers if ticker not in found]
        return found | (_earliest(connection, rest, dt.date.min, dt.date.max) if rest else {})


def _earliest(
    connection: duckdb.DuckDBPyConnection, tickers: list[str], first: dt.date, end: dt.date
) -> Mapping[str, dt.date]:
    """Each ticker's first day with candles from `first` to the day before `end`."""
    marks = ", ".join("?" * len(tickers))
    found = connection.execute(
        f"select ticker, min(day) from candles where ticker in ({marks})"  # noqa: S608
        " and day >= ? and day < ? group by ticker",
        [*tickers, first, end],
    )
    return dict(found.fetchall())


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _whole_market(
    found: pl.DataFrame, area: Slice, lake: LakeResource, settings: Settings, grid: Grid
) -> dg.AssetCheckResult:
    first = grid.days_of(area)[0]
    columns = ["day", "ticker", "exchange"]
    with lake.get_connection("bars") as connection:
        bars = rows(connection, "bars", first, area.last_date, columns=columns)
    made = found.filter(pl.col("day") >= first)
    there = bars.group_by("day", "exchange").agg(pl.col("ticker").n_unique().alias("now"))
    partial = made.join(there, on=["day", "exchange"]).filter(
        pl.col("market_tickers") < pl.col("now")
    )
    days: dict[str, set[dt.date]] = {}
    for day, exchange in made.select("day", "exchange").unique().iter_rows():
        days.setdefault(exchange, set()).add(day)
    come = set(bars["ticker"])
    silent = [
        item.ticker
        for item in settings.universe
        if item.ticker not in come and any(map(item.is_listed, days.get(item.exchange, ())))
    ]
    return dg.AssetCheckResult(
        asset_key="features",
        check_name=WHOLE_MARKET,
        passed=partial.is_empty() and not silent,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{partial.height} rows were made from fewer tickers than have bars now"
            + (f"; no bar on any of these days: {_listing(silent)}" if silent else "")
        ),
        metadata={
            "rows to run again": partial.height,
            "days": dg.MetadataValue.json(
                [str(day) for day in partial["day"].unique().sort().head(_SHOWN)]
            ),
        },
    )
