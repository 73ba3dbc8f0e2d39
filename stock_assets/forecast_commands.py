"""`stock-assets forecast`: one ticker's forecast, and the chances of levels a person asks about.

What is answered is gathered in `outlook.py` and drawn by `console.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import asdict
from typing import Annotated

import typer

from stock_assets import console
from stock_assets.options import JsonOption, SettingsOption, load, parse_day


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
    as_json: JsonOption = False,
) -> None:
    """The latest forecast of TICKER: ranges, odds of a price, and how such forecasts did lately."""
    _refuse_impossible(above, "--above")
    _refuse_impossible(below, "--below")

    import duckdb  # noqa: PLC0415

    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import prepare, register_views  # noqa: PLC0415
    from stock_assets.outlook import TABLES_READ, Question, outlook  # noqa: PLC0415

    loaded = load(settings)
    question = Question(ticker, parse_day(day, "--day"), horizon, above, below)
    with duckdb.connect(":memory:") as connection:
        prepare(connection)
        register_views(connection, Lake(loaded.lake_dir), TABLES_READ)
        found = outlook(connection, loaded, question, dt.datetime.now(tz=dt.UTC))
    if as_json:
        print(json.dumps(asdict(found), indent=2, default=dt.date.isoformat))  # noqa: T201
    else:
        console.show(*console.outlook_parts(found))


def _refuse_impossible(price: float | None, option: str) -> None:
    if price is not None and not (price > 0 and math.isfinite(price)):
        message = f"{price:g} is no price; give one above 0, in the ticker's currency"
        raise typer.BadParameter(message, param_hint=option)
