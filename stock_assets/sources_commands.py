"""`stock-assets sources ...`: which sources there are, whether they answer, and what they give.

Nothing here writes to the lake. What a source is, and how its rows are judged, is in `sources/`.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from stock_assets import console
from stock_assets.errors import SettingsError, SliceError
from stock_assets.options import JsonOption, SettingsOption, load, parse_day, parse_names

if TYPE_CHECKING:
    import polars as pl

    from stock_assets.settings import Settings
    from stock_assets.slices import Slice
    from stock_assets.sources.checking import Unknown
    from stock_assets.sources.rules import Judged

app = typer.Typer(help="The sources of candles: list, check, fetch to look.", no_args_is_help=True)

_LATELY = dt.timedelta(days=10)
_AT_FAULT = 3


@app.command("list")
def list_sources(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """The configured sources: kind, address, candles, tickers, limit."""
    from stock_assets.sources.checking import configured  # noqa: PLC0415

    found = configured(load(settings))
    if as_json:
        print(json.dumps([asdict(item) for item in found], indent=2))  # noqa: T201
        return
    console.show(console.sources_table(found))


@app.command("check")
def check_sources(
    name: Annotated[str | None, typer.Argument(help="One source; default all.")] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask each source for something small, and for the symbols of its tickers.

    Exit code 3 when one does not answer, or does not know a symbol.
    """
    from stock_assets.sources.checking import check  # noqa: PLC0415

    loaded = load(settings)
    found = [check(item, loaded) for item in ([name] if name else sorted(loaded.sources))]
    if as_json:
        print(json.dumps([asdict(item) for item in found], indent=2))  # noqa: T201
    else:
        for item in found:
            state = "answers" if item.answers else "does NOT answer"
            console.show(f"{item.name} {state} ({item.seconds:.1f} s): {item.said}")
            if item.waits >= 1:
                console.show(f"  its limit holds requests back for {item.waits:.0f} s")
            for symbol in item.unknown:
                console.show(f"  {_in_words(symbol)}")
    if not all(item.answers and not item.unknown for item in found):
        raise typer.Exit(_AT_FAULT)


@app.command()
def fetch(
    name: Annotated[str | None, typer.Argument(help="One source; default all.")] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day; default ten days ago.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Last day; default today.")
    ] = None,
    tickers: Annotated[
        str | None, typer.Option(metavar="A,B", help="Tickers; default all of the source.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to FILE.csv or FILE.parquet.")
    ] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a slice and show its candles, without touching the lake.

    They are judged as a run would judge them: what it would set aside is told, with why.
    """
    from stock_assets.slices import Slice  # noqa: PLC0415
    from stock_assets.sources.fetching import fetch_slice  # noqa: PLC0415

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{out} must end in .csv or .parquet", param_hint="--out")
    loaded = load(settings)
    end = parse_day(last, "--to") or dt.datetime.now(tz=dt.UTC).date()
    begin = parse_day(first, "--from") or end - _LATELY
    if begin > end:
        raise SliceError(f"--from {begin} is after --to {end}; swap them")
    chosen = _tickers(loaded, name, parse_names(tickers, "--tickers"))
    area = Slice(begin, end, chosen)
    judged = fetch_slice(loaded, area)
    if out is not None:
        _write(judged.candles, out)
        console.say(f"{judged.candles.height} candles in {out}")
    elif as_json:
        print(judged.candles.write_json())  # noqa: T201
    else:
        console.print_frame(judged.candles)
    if judged.candles.is_empty():
        console.say(f"no candle from {begin} to {end}; --from and --to ask for other days")
    _tell_of_the_rest(judged, area)


def _in_words(item: Unknown) -> str:
    said = f"it does NOT know {item.symbol}"
    if item.ticker != item.symbol:
        said += f", the symbol of {item.ticker}"
    if item.nearest:
        return f"{said}; nearest: {', '.join(item.nearest)}"
    return f"{said}, nor anything like it: {item.why}"


def _tickers(settings: Settings, name: str | None, asked: list[str] | None) -> tuple[str, ...]:
    """The tickers that are meant, in the universe's order."""
    if name is not None and name not in settings.sources:
        known = ", ".join(sorted(settings.sources))
        raise SettingsError(f"there is no source {name!r}; the settings define {known}")
    theirs = [item.ticker for item in settings.universe if name is None or item.source == name]
    if strange := sorted(set(asked or ()) - set(theirs)):
        of = f"source {name} has" if name else "the universe has"
        raise SliceError(f"unknown ticker(s) {', '.join(strange)}; {of} {', '.join(theirs[:8])}")
    if not theirs:
        raise SettingsError(f"no ticker of the universe has source = {name!r}; add one")
    return tuple(ticker for ticker in theirs if asked is None or ticker in asked)


def _write(candles: pl.DataFrame, out: Path) -> None:
    try:
        candles.write_csv(out) if out.suffix == ".csv" else candles.write_parquet(out)
    except OSError as error:
        console.fail(f"cannot write {out}: {error}")
        raise typer.Exit(2) from None


def _tell_of_the_rest(judged: Judged, area: Slice) -> None:
    """Splits of these days, and what of the fetched rows would be no candle, and why."""
    for source, splits in judged.splits.items():
        for item in splits:
            if area.contains(item.day):
                console.say(f"source {source} declares: {item}")
    if judged.held_back:
        console.say(f"{judged.held_back} rows held back: their sessions are not final yet")
    for reason, count in judged.quarantine["reason"].value_counts(sort=True).head(5).iter_rows():
        console.warn(f"{count} rows would be set aside: {reason}")
