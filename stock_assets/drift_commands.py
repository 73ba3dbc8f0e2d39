"""`stock-assets drift`: what an evaluated day said, and its pages, drawn where they are missing.

What a page shows is in `drift/reports.py`; `console.py` draws the verdict.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_assets import console
from stock_assets.calendars import get_calendar
from stock_assets.errors import SliceError
from stock_assets.options import JsonOption, SettingsOption, load, parse_day
from stock_assets.settings import command_line

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    import duckdb
    import polars as pl

    from stock_assets.drift.verdict import Verdict
    from stock_assets.settings import Settings


def drift(
    day: Annotated[
        str | None, typer.Argument(help="A day that was evaluated; default the latest.")
    ] = None,
    settings: SettingsOption = None,
    ticker: Annotated[
        str | None, typer.Option(metavar="TICKER", help="This ticker's page, drifted or not.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What has drifted on DAY, and the report of it: of the universe, or of one ticker."""
    import duckdb  # noqa: PLC0415

    from stock_assets.drift.index import write_index  # noqa: PLC0415
    from stock_assets.drift.pages import index_file, page_file  # noqa: PLC0415
    from stock_assets.drift.verdict import verdicts  # noqa: PLC0415
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import prepare, register_views, rows  # noqa: PLC0415
    from stock_assets.overview import latest_drift_day  # noqa: PLC0415

    loaded = load(settings)
    if ticker is not None and ticker not in loaded.tickers:
        raise SliceError(f"ticker {ticker!r} is not in the universe")
    lake = Lake(loaded.lake_dir)
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, lake, ("drift", "features"))
        wanted = parse_day(day, "DAY") or latest_drift_day(connection)
        if wanted is None:
            raise SliceError("no day was evaluated yet; run the asset drift first")
        found = rows(connection, "drift", wanted, wanted)
        said = verdicts(found, loaded)
        if not said:
            raise SliceError(_why_nothing(loaded, settings, wanted))
        page = page_file(loaded, wanted, ticker)
        if not page.exists():
            _draw(connection, found, loaded, wanted, ticker)
            write_index(lake, loaded, wanted)
    shown = str(page) if page.exists() else None
    if as_json:
        print(json.dumps(as_plain(said[-1], loaded, ticker), indent=2))  # noqa: T201
    else:
        console.show(*console.verdict_lines(said[-1], shown, str(index_file(loaded))))


def _why_nothing(settings: Settings, file: Path | None, day: dt.date) -> str:
    exchanges = dict.fromkeys(item.exchange for item in settings.universe)
    closed = [get_calendar(exchange).why_closed(day) for exchange in exchanges]
    if all(closed):
        return f"nothing was evaluated on {day}: {'; '.join(map(str, closed))}"
    run = command_line(file, "run", "--from", f"{day}", "--to", f"{day}", "--assets", "drift")
    return f"nothing was evaluated on {day}; with features of that day there: {run}"


def as_plain(
    verdict: Verdict | None, settings: Settings, ticker: str | None = None
) -> dict[str, Any] | None:
    """A verdict in JSON: the same words and places as on the terminal."""
    from stock_assets.drift.pages import index_file, page_file  # noqa: PLC0415

    if verdict is None:
        return None
    page, index = page_file(settings, verdict.day, ticker), index_file(settings)
    return {
        "day": verdict.day.isoformat(),
        "moved": verdict.moved,
        "sentence": verdict.sentence,
        "drifted_tickers": [item.ticker for item in verdict.drifted_tickers],
        "faults": [item.sentence for item in verdict.faults],
        "report": str(page) if page.exists() else None,
        "index": str(index) if index.exists() else None,
    }


def _draw(
    connection: duckdb.DuckDBPyConnection,
    drift: pl.DataFrame,
    settings: Settings,
    day: dt.date,
    ticker: str | None,
) -> None:
    from stock_assets.drift.drawing import Drawer  # noqa: PLC0415
    from stock_assets.drift.reports import (  # noqa: PLC0415
        features_shown,
        write_pages,
        write_ticker_page,
    )

    with Drawer() as drawer:
        drawer.start()
        console.say(f"drawing the report of {day} ...")
        features = features_shown(connection, settings, day)
        if ticker is None:
            write_pages(features, drift, settings, drawer.draw)
        else:
            write_ticker_page(features, drift, settings, drawer.draw, ticker)
