"""`stock-assets forecast`: one ticker's forecast, and the chances of levels a person asks about.

What is answered is gathered in `outlook.py`, what a forecast that is made again is in `replay.py`;
`console.py` draws both.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stock_assets import console
from stock_assets.errors import SliceError
from stock_assets.options import (
    AsOfOption,
    JsonOption,
    SettingsOption,
    load,
    parse_as_of,
    parse_day,
)

if TYPE_CHECKING:
    import polars as pl

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings


def forecast(
    ticker: Annotated[str, typer.Argument(help="A ticker of the universe.")],
    settings: SettingsOption = None,
    above: Annotated[
        float | None,
        typer.Option(metavar="PRICE", help="How likely it ends above this price, or touches it."),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(metavar="PRICE", help="How likely it ends below this price, or touches it."),
    ] = None,
    day: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="The forecast made at this day's close; default latest."),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(metavar="N", help="N sessions ahead only; default all.")
    ] = None,
    as_of: AsOfOption = None,
    replayed: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Make it again from the versions that it names; exit code 1 if it differs.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The latest forecast of TICKER: ranges, odds of a price, and how such forecasts did lately."""
    _refuse_impossible(above, "--above")
    _refuse_impossible(below, "--below")

    if replayed and (above, below, horizon) != (None, None, None):
        raise SliceError(
            "--replay makes the whole forecast again; leave out --above, --below and --horizon"
        )

    import duckdb  # noqa: PLC0415

    from stock_assets.drift.pages import page_file  # noqa: PLC0415
    from stock_assets.lake.history import versions_at  # noqa: PLC0415
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import prepare, register_views  # noqa: PLC0415
    from stock_assets.outlook import (  # noqa: PLC0415
        TABLES_READ,
        Question,
        outlook,
        stored_forecast,
    )

    loaded = load(settings)
    lake = Lake(loaded.lake_dir)
    now = dt.datetime.now(tz=dt.UTC)
    moment = parse_as_of(as_of, now)
    tables = ("forecasts",) if replayed else TABLES_READ
    versions = None if moment is None else versions_at(lake, moment, tables)
    question = Question(ticker, parse_day(day, "--day"), horizon, above, below, settings)
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, lake, tables, versions=versions)
        if replayed:
            _replay(lake, loaded, stored_forecast(connection, loaded, question), as_json=as_json)
            return
        found = outlook(connection, loaded, question, moment or now)
    if as_json:
        print(json.dumps(asdict(found), indent=2, default=dt.date.isoformat))  # noqa: T201
    else:
        page = page_file(loaded, found.day, ticker)
        drifted = [f"What drifted: {page}"] if page.exists() else []
        console.show(*console.outlook_parts(found), *drifted)


def _replay(lake: Lake, settings: Settings, stored: pl.DataFrame, *, as_json: bool) -> None:
    from stock_assets.replay import replay  # noqa: PLC0415

    found = replay(lake, settings, stored)
    if as_json:
        print(json.dumps(asdict(found), indent=2, default=dt.date.isoformat))  # noqa: T201
    else:
        console.show(*console.replay_parts(found))
    if found.differences:
        raise typer.Exit(1)


def _refuse_impossible(price: float | None, option: str) -> None:
    if price is not None and not (price > 0 and math.isfinite(price)):
        message = f"{price:g} is no price; give one above 0, in the ticker's currency"
        raise typer.BadParameter(message, param_hint=option)
