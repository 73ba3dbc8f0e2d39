"""`drift`: what moved in the slice, the pages that show it, and the checks on it.

The numbers, their thresholds and the verdict are in `drift/`; what a failed check sets off is in
`automation`.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
import duckdb
import polars as pl

from stock_assets.assets.checks import checked_asset
from stock_assets.assets.common import report, slice_of, spec
from stock_assets.assets.drawer_resource import DRAWER
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.page_check import PageCheck
from stock_assets.drift.distances import distances, first_needed
from stock_assets.drift.index import write_index
from stock_assets.drift.pages import index_file, page_file, remove_pages, served_at
from stock_assets.drift.quality import (
    QUALITY_COLUMNS,
    Episode,
    episodes,
    faults,
    first_bar_needed,
    first_fault_needed,
)
from stock_assets.drift.reports import features_shown, write_pages
from stock_assets.drift.verdict import Verdict, verdicts
from stock_assets.drift.watched import PANEL_FEATURES
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

DRIFT_CHECK = "universe_has_not_moved"
TICKER_CHECK = "no_ticker_has_moved"
QUALITY_CHECK = "prices_can_be_right"

WAITING = "not judged yet"
"""Metadata of DRIFT_CHECK: exchanges of which too few tickers have come to say anything."""

EPISODES = "blocking faults"
"""Metadata of QUALITY_CHECK: what blocks, as `drift.quality.Episode` has it, the newest first."""

_NAMED = 3

_EPISODES_KEPT = 200
"""A broken history has thousands: what is told of it is their number."""

DRIFT_CHECK_SPEC = dg.AssetCheckSpec(
    DRIFT_CHECK,
    asset="drift",
    description=(
        "Fails when a market of the slice has moved by its last day: too many (ticker, feature) "
        "pairs drifted, its volatility shifted, or one of its sectors moved. A warning: nothing "
        "stops; a training is asked for where a day since the last decision calls for one. Says so "
        "when too few tickers have come to judge."
    ),
)

TICKER_CHECK_SPEC = dg.AssetCheckSpec(
    TICKER_CHECK,
    asset="drift",
    description="Warns of tickers that have moved by the slice's last day, whatever their market.",
)

QUALITY_CHECK_SPEC = dg.AssetCheckSpec(
    QUALITY_CHECK,
    asset="drift",
    description=(
        "An error where prices of the slice cannot be right (a wrong unit, a stuck feed): nothing "
        "is forecast from them. A warning where candles are late or missing, or volume collapsed."
    ),
)


def build_drift(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of drift's numbers: one row a day, ticker and feature; and the checks on them."""
    pages = PageCheck("drift")

    def more_checks(
        context: dg.AssetExecutionContext, lake: LakeResource
    ) -> Iterator[dg.AssetCheckResult]:
        area = slice_of(context, grid)
        day = grid.days_of(area)[-1]
        yield from drift_checks(lake, settings, area, day)
        yield pages.result(context, day)

    @checked_asset(
        spec("drift", grid, deps=("bars", "features")),
        settings,
        grid,
        more_specs=[DRIFT_CHECK_SPEC, TICKER_CHECK_SPEC, QUALITY_CHECK_SPEC, pages.spec],
        more_results=more_checks,
        more_resources=[DRAWER],
    )
    def drift(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        measured = pl.concat(
            [
                distances(_features(lake, settings, area), area, settings),
                faults(_bars(lake, settings, area), area, settings),
            ]
        )
        written = lake.write(context, "drift", measured, area)
        day = grid.days_of(area)[-1]
        _save_pages(context, lake, settings, day, pages)
        summary = {
            "rows": written.rows,
            "version": written.version,
            "evaluated": str(day),
            **({"pages": told} if (told := pages.told(context, day)) else {}),
            **_page_links(settings, day),
        }
        report(context, "drift", measured, area, grid, summary)

    return drift


def drift_checks(
    lake: LakeResource, settings: Settings, area: Slice, day: dt.date
) -> Iterator[dg.AssetCheckResult]:
    """What is said of a slice whose last day is `day`, from the rows that the lake holds."""
    verdict = _verdict(lake, settings, area, day)
    yield _universe_has_not_moved(verdict, settings, day)
    yield _no_ticker_has_moved(verdict, settings, day)
    yield _prices_can_be_right(lake, settings, area)


def _universe_has_not_moved(
    verdict: Verdict | None, settings: Settings, day: dt.date
) -> dg.AssetCheckResult:
    """Fails when a market has moved on the slice's last day: the sign to retrain."""
    if verdict is None or not verdict.markets:
        return dg.AssetCheckResult(
            asset_key="drift",
            check_name=DRIFT_CHECK,
            passed=True,
            description=f"{day}: nothing to compare (too few sessions, or no session)",
        )
    return dg.AssetCheckResult(
        asset_key="drift",
        check_name=DRIFT_CHECK,
        passed=not verdict.moved,
        severity=dg.AssetCheckSeverity.WARN,
        description=verdict.sentence,
        metadata={
            # The UI plots every number over time: only the shares are worth a plot.
            **{f"{market.exchange}: share": round(market.share, 4) for market in verdict.markets},
            "drifted pairs": "; ".join(
                f"{market.exchange} {market.drifted:,} of {market.pairs:,}"
                for market in verdict.markets
            ),
            **({WAITING: ", ".join(verdict.waiting)} if verdict.waiting else {}),
            **_page_links(settings, day),
        },
    )


def _no_ticker_has_moved(
    verdict: Verdict | None, settings: Settings, day: dt.date
) -> dg.AssetCheckResult:
    moved = verdict.drifted_tickers if verdict else ()
    told = "; ".join(ticker.sentence for ticker in moved[:_NAMED])
    more = f"; and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    return dg.AssetCheckResult(
        asset_key="drift",
        check_name=TICKER_CHECK,
        passed=not moved,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{day}: {told}{more}" if moved else f"{day}: no ticker has moved by itself",
        metadata={
            "tickers that moved": len(moved),
            "which": ", ".join(ticker.ticker for ticker in moved),
            **_page_links(settings, day),
            **{
                f"{ticker.ticker} report": dg.MetadataValue.url(served_at(settings, page))
                for ticker in moved
                if (page := page_file(settings, day, ticker.ticker)).exists()
            },
        },
    )


def _prices_can_be_right(
    lake: LakeResource, settings: Settings, area: Slice
) -> dg.AssetCheckResult:
    with lake.get_connection("drift") as connection:
        found = rows(
            connection, "drift", area.first_date, area.last_date, tickers=area.tickers
        ).filter((pl.col("kind") == "quality") & pl.col("drifted"))
        told = [
            (verdict.day, fault)
            for verdict in reversed(verdicts(found, settings))
            for fault in sorted(verdict.faults, key=lambda fault: not fault.blocks)
        ]
        blocking = [(day, fault) for day, fault in told if fault.blocks]
        lasting = _lasting(connection, settings, area, sorted({f.ticker for _, f in blocking}))
    shown = "; ".join(f"{day} {fault.sentence}" for day, fault in (blocking or told)[:_NAMED])
    return dg.AssetCheckResult(
        asset_key="drift",
        check_name=QUALITY_CHECK,
        passed=not told,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(told)} fault(s), {len(blocking)} of which block their forecasts: {shown}"
            if told
            else "no fault found in the slice's prices"
        ),
        metadata={
            "faults": len(told),
            "blocked cells": len({(d, f.ticker) for d, f in blocking}),
            EPISODES: dg.MetadataValue.json(
                [
                    {**asdict(item), "first": str(item.first), "last": str(item.last)}
                    for item in lasting[:_EPISODES_KEPT]
                ]
            ),
        },
    )


def _lasting(
    connection: duckdb.DuckDBPyConnection, settings: Settings, area: Slice, tickers: list[str]
) -> list[Episode]:
    """The blocking faults of `tickers` in the slice, each since it began."""
    if not tickers:
        return []
    first = area.first_date
    since = None if first is None else first_fault_needed(first, settings)
    known = rows(connection, "drift", since, area.last_date, tickers=tickers)
    return [item for item in episodes(known) if first is None or item.last >= first]


def _verdict(lake: LakeResource, settings: Settings, area: Slice, day: dt.date) -> Verdict | None:
    """Of the slice's exchanges, whichever of their tickers it has: others have their own runs."""
    with lake.get_connection("drift") as connection:
        measured = rows(connection, "drift", day, day, tickers=_market(settings, area))
    found = verdicts(measured, settings)
    return found[-1] if found else None


def _market(settings: Settings, area: Slice) -> list[str]:
    """All tickers of the slice's exchanges."""
    exchanges = {settings.instrument(ticker).exchange for ticker in area.tickers}
    return [item.ticker for item in settings.universe if item.exchange in exchanges]


def _features(lake: LakeResource, settings: Settings, area: Slice) -> pl.DataFrame:
    """Those of all tickers of the slice's exchanges: what is usual is said by the whole market."""
    first = None if area.first_date is None else first_needed(area.first_date, settings)
    columns = ["day", "ticker", "exchange", *PANEL_FEATURES]
    market = _market(settings, area)
    with lake.get_connection("features") as connection:
        return rows(connection, "features", first, area.last_date, tickers=market, columns=columns)


def _bars(lake: LakeResource, settings: Settings, area: Slice) -> pl.DataFrame:
    first = None if area.first_date is None else first_bar_needed(area.first_date, settings)
    with lake.get_connection("bars") as connection:
        return rows(
            connection,
            "bars",
            first,
            area.last_date,
            tickers=area.tickers,
            columns=list(QUALITY_COLUMNS),
        )


def _save_pages(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    settings: Settings,
    day: dt.date,
    pages: PageCheck,
) -> None:
    """Save the pages of the whole universe, whatever part of it the run was asked for."""

    def draw() -> None:
        with lake.get_connection("drift", "features") as connection:
            measured = rows(connection, "drift", day, day)
            shown = features_shown(connection, settings, day)
        if not write_pages(shown, measured, settings, context.resources.drift_drawer.draw):
            context.log.info("no drift page for %s: nothing to compare", day)

    if not pages.attempt(context, f"the pages of {day} could not be drawn", draw):
        # What is left of the day may show other numbers than the lake has now.
        pages.attempt(
            context,
            f"earlier pages of {day} could not be removed",
            lambda: remove_pages(settings, day, ()),
        )
    pages.attempt(
        context, "the index could not be drawn", lambda: write_index(lake.lake, settings, day)
    )


def _page_links(settings: Settings, day: dt.date) -> dict[str, dg.MetadataValue]:
    """The saved pages, as links that `stock-assets dev` serves and as the file's place."""
    index, page = index_file(settings), page_file(settings, day)
    links: dict[str, dg.MetadataValue] = {}
    if page.exists():
        links["evidently report"] = dg.MetadataValue.url(served_at(settings, page))
        links["evidently report file"] = dg.MetadataValue.path(str(page))
    if index.exists():
        links["all drift reports"] = dg.MetadataValue.url(served_at(settings, index))
    return links
