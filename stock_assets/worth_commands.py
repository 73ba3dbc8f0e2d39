"""`stock-assets model worth`: what each retrain was worth, and whether the rule earns its keep.

What the numbers are is in `forecasting/worth.py`, the page in `forecasting/worth_report.py`, the
replays of other rules in `forecasting/policies.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from stock_assets import console
from stock_assets.errors import SliceError
from stock_assets.options import JsonOption, SettingsOption, load, parse_day

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from rich.table import Table

    from stock_assets.forecasting.policies import PolicyReplays
    from stock_assets.forecasting.worth import Line, Tested, Worth
    from stock_assets.settings import Settings

_HEADS = ["days", "loss below", "t", "p", "is"]

_NOT_YET = (
    "The lake holds no shadow scores of those days yet: they come with the sessions after a "
    "training. `--policies` replays history instead."
)


def worth(
    settings: SettingsOption = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DAY",
            help="First day of a training; default all; with --policies two years before the last.",
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="DAY", help="Last day; default the newest of the lake."),
    ] = None,
    policies: Annotated[
        bool,
        typer.Option(
            "--policies",
            help="Replay history by these settings and by other rules: cadence alone, every "
            "month, never. Takes seconds a training, the first time.",
        ),
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE.html", help="Save the page there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What each retrain was worth beside the model that it replaced, live or replayed."""
    from stock_assets.forecasting.worth import worth as worth_of  # noqa: PLC0415

    loaded = load(settings)
    begin, end = parse_day(first, "--from"), parse_day(last, "--to")
    if begin is not None and end is not None and begin > end:
        raise SliceError(f"--from {begin} is after --to {end}; swap them")
    if policies:
        begin, end = _replayed_days(loaded, begin, end)
        made = _replayed(loaded, begin, end)
        found = worth_of(made.shadows, made.policies)
        about = f"History from {begin} to {end}, replayed by the settings and by other rules."
    else:
        shadows = _lived(loaded, begin, end)
        found = worth_of(shadows)
        about = f"Trainings from {begin or 'the first'} to {end or 'the last'}, as they were lived."
        if shadows.is_empty() and not as_json:
            console.show(_NOT_YET)
    if page is not None:
        _save(found, about, loaded, page)
    if as_json:
        print(json.dumps({"about": about, **found.plain()}, indent=2))  # noqa: T201
        return
    console.show(*tables(found), f"Verdict: {found.sentence}.", about)
    if page is not None:
        console.show(f"Report: {page}")


def tables(found: Worth) -> list[Table]:
    """Retrains with their sum, by cause, other rules, and what was no retrain."""
    from stock_assets.forecasting.worth import FIRST, ORDER, REJECTED, RETRAIN  # noqa: PLC0415

    retrains = [_line(item) for item in found.of(RETRAIN)]
    if found.total is not None:
        retrains.append(["all", "", "", *_numbers(found.total)])
    causes = [[item.name, str(n), *_numbers(item)] for n, item in found.by_cause]
    rules = [
        [
            item.name,
            str(item.trainings),
            str(item.put_in_force),
            f"{item.loss * 1e4:.3f}",
            *(_numbers(item.tested) if item.tested else [""] * len(_HEADS)),
        ]
        for item in found.policies
    ]
    line = ["day", "why", "in shadow"]
    rejected, firsts, orders = (
        [_line(item) for item in found.of(kind)] for kind in (REJECTED, FIRST, ORDER)
    )
    made = [
        _table("Retrains: the live loss beside that of the model they replaced", line, retrains),
        _table("Retrains by why they were tried", ["why", "retrains"], causes),
        _table(
            "Other rules: the settings' loss beside theirs (pinball in 1/10,000)",
            ["rule", "trainings", "in force", "pinball"],
            rules,
        ),
        _table("Rejected trainings: the live loss beside the challenger's", line, rejected),
        _table("First models, beside the baseline", line, firsts),
        _table("Orders and demotions, beside what they replaced", line, orders),
    ]
    return [table for table in made if table.row_count]


def _line(item: Line) -> list[str]:
    return [str(item.day), item.cause, item.shadow_model, *_numbers(item.tested)]


def _numbers(tested: Tested) -> list[str]:
    found = tested.result
    return [
        str(found.days),
        f"{found.skill:+.2f} %" if found.days else "-",
        "-" if found.t is None else f"{found.t:.1f}",
        "-" if found.p is None else f"{found.p:.3f}",
        tested.words,
    ]


def _table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for head in [*heads, *_HEADS]:
        words = head in {"day", "why", "in shadow", "rule", "is"}
        table.add_column(head, justify="left" if words else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _lived(settings: Settings, first: dt.date | None, last: dt.date | None) -> pl.DataFrame:
    """Rows of `shadows` of the trainings from `first` to `last`."""
    import polars as pl  # noqa: PLC0415

    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import connect, rows  # noqa: PLC0415

    with connect(Lake(settings.lake_dir)) as connection:
        found = rows(connection, "shadows", first, dt.date.max)
    asked = pl.col("attempt_day").is_between(first or dt.date.min, last or dt.date.max)
    return found.filter(asked)


def _replayed_days(
    settings: Settings, first: dt.date | None, last: dt.date | None
) -> tuple[dt.date, dt.date]:
    from stock_assets.backtest_inputs import newest_day  # noqa: PLC0415

    end = last or newest_day(settings)
    begin = first or end.replace(year=end.year - 2, day=min(end.day, 28))
    if begin > end:
        raise SliceError(f"--from {begin} is after the newest day of the lake, {end}")
    return begin, end


def _replayed(settings: Settings, first: dt.date, last: dt.date) -> PolicyReplays:
    from stock_assets.backtest_inputs import load_history  # noqa: PLC0415
    from stock_assets.forecasting.policies import CachedRegistry, replay_policies  # noqa: PLC0415
    from stock_assets.forecasting.registry import Registry  # noqa: PLC0415

    console.say(f"reading the lake, {first} to {last} ...")
    history = load_history(settings, settings.tickers, first, last)
    registry = CachedRegistry(Registry(settings.mlflow_dir), Registry(settings.replays_dir))
    return replay_policies(history, settings, first, last, registry=registry, say=console.say)


def _save(found: Worth, about: str, settings: Settings, file: Path) -> None:
    from stock_assets.forecasting.worth_report import WorthPage, write_worth  # noqa: PLC0415

    try:
        write_worth(WorthPage(found, about, settings.scores.shadow), file)
    except OSError as error:
        message = f"the page {file} cannot be written: {error}; choose another place: --html"
        raise SliceError(message) from error
