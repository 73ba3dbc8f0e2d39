"""`stock-assets backtest`: replay history, score every method, say what it was worth.

What is read is in `backtest_inputs.py`, the replay in `forecasting/backtest.py`, the scores in
`forecasting/protocol.py`, the page in `forecasting/backtest_report.py`.
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_assets import console
from stock_assets.errors import SliceError
from stock_assets.options import JsonOption, SettingsOption, load, parse_day, parse_names

if TYPE_CHECKING:
    import datetime as dt

    from rich.table import Table

    from stock_assets.forecasting.protocol import Evaluation
    from stock_assets.settings import Settings


def backtest(
    settings: SettingsOption = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="First day; default two years before the last."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="DAY", help="Last day; default the newest of the lake."),
    ] = None,
    tickers: Annotated[
        str | None, typer.Option(metavar="A,B", help="Tickers; default the whole universe.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="a,b",
            help="Methods, the first compared with the others; "
            "default product,ewma,ewma-gaussian,garch,har.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page; default in the lake's reports folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay history as live operation would have gone, and score every method on it."""
    from stock_assets.backtest_inputs import (  # noqa: PLC0415
        chosen_models,
        chosen_tickers,
        newest_day,
    )
    from stock_assets.forecasting.backtest import DEFAULT_MODELS  # noqa: PLC0415
    from stock_assets.forecasting.backtest_report import CANDLES_AS_THEY_ARE  # noqa: PLC0415
    from stock_assets.forecasting.baselines import METHODS  # noqa: PLC0415

    loaded = load(settings)
    names = chosen_models(parse_names(models, "--models") or DEFAULT_MODELS, METHODS)
    chosen = chosen_tickers(loaded, parse_names(tickers, "--tickers"))
    end = parse_day(last, "--to") or newest_day(loaded)
    begin = parse_day(first, "--from") or end.replace(year=end.year - 2, day=min(end.day, 28))
    if begin > end and last is not None:
        raise SliceError(f"--from {begin} is after --to {end}; swap them")
    if begin > end:
        raise SliceError(f"--from {begin} is after the newest day of the lake, {end}")
    file = report or loaded.reports_dir / "backtests" / f"{begin}_{end}.html"
    found = _run(loaded, chosen, begin, end, names, file)
    if as_json:
        content = {"from": str(begin), "to": str(end), "tickers": list(chosen), "report": str(file)}
        print(json.dumps(content | found.plain(), indent=2))  # noqa: T201
        return
    console.show(*tables(found), "")
    for alarm in found.verdict.alarms:
        console.show(f"Alarm: {alarm}.")
    console.show(f"Verdict: {found.subject}: {found.verdict.sentence}.", CANDLES_AS_THEY_ARE)
    console.show(f"Report: {file}")


def _run(
    settings: Settings,
    tickers: tuple[str, ...],
    first: dt.date,
    last: dt.date,
    names: tuple[str, ...],
    report: Path,
) -> Evaluation:
    """Replay, score, and save the page."""
    import polars as pl  # noqa: PLC0415

    from stock_assets.backtest_inputs import load_history  # noqa: PLC0415
    from stock_assets.forecasting.backtest import (  # noqa: PLC0415
        PRODUCT,
        ReplayRegistry,
        replay_method,
        replay_product,
    )
    from stock_assets.forecasting.backtest_report import (  # noqa: PLC0415
        ReportInput,
        write_report,
    )
    from stock_assets.forecasting.baselines import METHODS  # noqa: PLC0415
    from stock_assets.forecasting.labels import labels  # noqa: PLC0415
    from stock_assets.forecasting.protocol import evaluate  # noqa: PLC0415
    from stock_assets.forecasting.registry import Registry  # noqa: PLC0415

    console.say(f"reading the lake, {first} to {last} ...")
    history = load_history(settings, tickers, first, last, drift=PRODUCT in names)
    forecasts, decisions = {}, None
    for name in names:
        console.say(f"{name} ...")
        if name == PRODUCT:
            registry = ReplayRegistry(Registry(settings.mlflow_dir))
            replay = replay_product(
                history, settings, tickers, first, last, registry=registry, say=console.say
            )
            forecasts[name], decisions = replay.forecasts, replay.decisions
        else:
            forecasts[name] = replay_method(
                METHODS[name], history, settings, tickers, first, last, say=console.say
            )
    console.say("scoring ...")
    volatility = history.features.select("day", "ticker", volatility="vol_ewma")
    found = evaluate(forecasts, labels(history.bars), volatility)
    content = ReportInput(
        evaluation=found,
        forecasts=forecasts[names[0]],
        bars=history.bars.filter(pl.col("day") >= first),
        decisions=decisions,
        titles={name: METHODS[name].title for name in names if name != PRODUCT},
        first=first,
        last=last,
        tickers=tickers,
    )
    try:
        write_report(content, report)
    except OSError as error:
        message = f"the report {report} cannot be written: {error}; choose another place: --report"
        raise SliceError(message) from error
    return found


def tables(found: Evaluation) -> list[Table]:
    """The scores of every method, and the subject beside each of the others."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    scores = Table(
        title=f"{found.compared:,} forecasts that every method made ({found.left_out:,} left out)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    heads = ["method", "QLIKE", "pinball", "Winkler", "in 50 %", "in 80 %", "in 90 %"]
    for head in [*heads, "MAE %", "R2 %", "right %", "up %", "rank IC", "t"]:
        scores.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for row in found.methods.iter_rows(named=True):
        scores.add_row(
            row["method"],
            _number(row["qlike"], 4),
            _number(row["pinball"], 2, 1e4),
            _number(row["interval"], 1, 1e4),
            *(_number(row[f"in_{level}"], 1, 100) for level in (50, 80, 90)),
            _number(row["mae"], 3, 100),
            _number(row["r2"], 2, 100),
            _number(row["right"], 1, 100),
            _number(row["always_up"], 1, 100),
            _number(row["rank_ic"], 3),
            _number(row["rank_ic_t"], 1),
        )
    walk = found.methods.row(0, named=True)["walk_mae"]
    scores.add_row("random walk", *[""] * 6, _number(walk, 3, 100))
    scores.caption = "Pinball and Winkler in 1/10,000 of log return; MAE in % of the last price."
    scores.caption_justify = "left"
    against = Table(
        title=f"{found.subject} beside the others: loss below theirs (t, years better)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for head in ("against", "QLIKE", "pinball", "Winkler 90 %"):
        against.add_column(head, justify="left" if head == "against" else "right", no_wrap=True)
    for (other,), rows in found.comparisons.group_by("other", maintain_order=True):
        told = {row["measure"]: _beside(row) for row in rows.iter_rows(named=True)}
        against.add_row(str(other), told["qlike"], told["pinball"], told["interval"])
    return [scores, against] if found.comparisons.height else [scores]


def _beside(row: dict[str, Any]) -> str:
    if not row["days"]:
        return "-"
    t = "" if row["t"] is None else f"t {row['t']:.1f}, "
    return f"{row['skill']:+.2f} % ({t}{row['years_better']} of {row['years']})"


def _number(value: float | None, decimals: int, factor: float = 1) -> str:
    return "-" if value is None else f"{value * factor:.{decimals}f}"
