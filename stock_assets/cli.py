"""`stock-assets`: what a person types.

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 a run failed, 2 wrong use or
settings, 3 a source, 4 the lake, 5 a model, 6 a notice. Heavy packages are imported by the commands
that need them, so that `sql` and `status` answer at once.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
import signal
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stock_assets import console, model_commands, notices_commands, sources_commands
from stock_assets.backtest_commands import backtest
from stock_assets.drift_commands import as_plain, drift
from stock_assets.errors import SliceError, StockAssetsError
from stock_assets.forecast_commands import forecast
from stock_assets.options import (
    AsOfOption,
    JsonOption,
    SettingsOption,
    load,
    parse_as_of,
    parse_day,
    parse_names,
    settings_file,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.drift.verdict import Verdict
    from stock_assets.settings import Settings
    from stock_assets.slices import Slice

app = typer.Typer(
    help="Candles in, honest forecasts out: a Dagster lakehouse on your machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - a callback gets the option's value
    if wanted:
        print(version("stock-assets"))  # noqa: T201
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    pass


app.command()(backtest)
app.command()(drift)
app.command()(forecast)
app.add_typer(model_commands.app, name="model")
app.add_typer(sources_commands.app, name="sources")
app.add_typer(notices_commands.app, name="notices")

DEMO_LAST_DAY = dt.date(2026, 6, 30)
"""The demo's slice: from the sample's first partition day to here."""


_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line; turn our own errors into a message and an exit code."""
    console.show_log()
    code = _run_app()
    _leave_quietly()
    sys.exit(code)


def _leave_quietly() -> None:
    """All is said; what the interpreter prints while it ends would only be noise.

    Taking a million objects apart costs seconds and is left out; DuckDB's binding (2.0) reports
    pages of "leaked" objects there.
    """
    gc.freeze()
    sys.stderr.flush()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _run_app() -> int:
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer makes this of a KeyboardInterrupt
            console.fail("interrupted; every table is as before the run or as after it")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StockAssetsError as error:
        console.fail(str(error))
        return error.exit_code
    return 0


@app.command()
def demo(settings: SettingsOption = None) -> None:
    """The whole graph over the sample market, then forecasts, drift and scores."""
    loaded = load(settings)
    last = min(DEMO_LAST_DAY, dt.datetime.now(tz=dt.UTC).date() - dt.timedelta(1))
    code = _materialize(loaded, settings, loaded.partitions.first_day, last, loaded.tickers, None)
    _print_outcome(loaded, last)
    raise typer.Exit(code)


@app.command()
def run(
    settings: SettingsOption = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day; default the earliest.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Last day; default the latest.")
    ] = None,
    tickers: Annotated[
        str | None, typer.Option(metavar="A,B", help="Tickers; default the whole universe.")
    ] = None,
    assets: Annotated[
        str | None, typer.Option(metavar="a,b", help="Assets; default all of them.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Materialize the slice of days x tickers through Dagster."""
    loaded = load(settings)
    begin = parse_day(first, "--from") or loaded.partitions.first_day
    end = parse_day(last, "--to") or dt.datetime.now(tz=dt.UTC).date()
    chosen = parse_names(tickers, "--tickers") or list(loaded.tickers)
    wanted = parse_names(assets, "--assets")
    if begin > end and last is not None:
        raise SliceError(f"--from {begin} is after --to {end}; swap them")
    if begin > end:
        source = "--from" if first else "partitions.first_day"
        raise SliceError(f"{source} {begin} is in the future; the last day is {end}")
    code = _materialize(loaded, settings, begin, end, chosen, wanted, as_json=as_json)
    raise typer.Exit(code)


def _print_macros(wanted: bool) -> None:  # noqa: FBT001 - a callback gets the option's value
    if wanted:
        from stock_assets.lake.views import macros  # noqa: PLC0415

        print(macros(), end="")  # noqa: T201
        raise typer.Exit


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the lake's tables by name.")],
    settings: SettingsOption = None,
    as_of: AsOfOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to FILE.csv or FILE.parquet.")
    ] = None,
    as_json: JsonOption = False,
    macros: Annotated[  # noqa: ARG001 - its callback prints them, and that is all
        bool,
        typer.Option(
            "--macros",
            callback=_print_macros,
            is_eager=True,
            help="Print the macros on forecasts, to use them in a DuckDB of your own.",
        ),
    ] = False,
) -> None:
    """Query the lake with DuckDB: candles, bars, features, drift, models, forecasts, scores ...

    Beside the tables: `instruments`, the universe as the settings have it.
    """
    import duckdb  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    from stock_assets.lake.history import versions_at  # noqa: PLC0415
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import connect  # noqa: PLC0415
    from stock_assets.overview import instruments  # noqa: PLC0415

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{out} must end in .csv or .parquet", param_hint="--out")
    moment = parse_as_of(as_of, dt.datetime.now(tz=dt.UTC))
    loaded = load(settings)
    lake = Lake(loaded.lake_dir)
    versions = None if moment is None else versions_at(lake, moment)
    if versions is not None and not any(item is not None for item in versions.values()):
        console.say(f"nothing had been written into this lake by {moment:%Y-%m-%d %H:%M} UTC")
    with connect(lake, versions=versions) as connection:
        connection.register("instruments", instruments(loaded).to_arrow())
        try:
            relation = connection.sql(query)
            found = None
            if relation is not None:
                rows = relation.to_arrow_table()
                found = pl.DataFrame(rows.rename_columns(_distinct(rows.column_names)))
        except duckdb.Error as error:
            console.fail(f"the query failed: {error}")
            raise typer.Exit(2) from None
    if found is None:
        return
    if out is not None:
        try:
            found.write_csv(out) if out.suffix == ".csv" else found.write_parquet(out)
        except (OSError, pl.exceptions.PolarsError) as error:
            console.fail(f"cannot write {out}: {error}")
            raise typer.Exit(2) from None
        console.say(f"{found.height} rows in {out}")
    elif as_json:
        print(found.write_json())  # noqa: T201
    else:
        console.print_frame(found)


@app.command()
def status(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """What the lake holds, what waits in the inbox, the last runs, the tickers that are behind."""
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import connect  # noqa: PLC0415
    from stock_assets.overview import (  # noqa: PLC0415
        latest_verdict,
        plain,
        stale_tickers,
        table_status,
    )
    from stock_assets.sources.inbox import Inbox  # noqa: PLC0415

    loaded = load(settings)
    lake = Lake(loaded.lake_dir)
    tables = table_status(lake)
    stale = stale_tickers(lake, loaded, dt.datetime.now(tz=dt.UTC))
    with connect(lake) as connection:
        verdict = latest_verdict(connection, loaded)
    runs = _last_runs(loaded)
    waiting = Inbox(loaded.inbox_dir).waiting(loaded)
    if as_json:
        content = {
            "lake": str(loaded.lake_dir),
            "tables": plain(tables),
            "inbox": plain(waiting),
            "runs": runs,
            "stale": plain(stale),
            "drift": as_plain(verdict, loaded),
        }
        print(json.dumps(content, indent=2))  # noqa: T201
        return
    console.show(f"Lake: {loaded.lake_dir}", *console.status_tables(tables, stale))
    console.show(*_drift_lines(loaded, verdict))
    if waiting:
        console.show(console.inbox_table(waiting))
    console.show(*[f"{item['started']}  {item['status']:<8} {item['slice']}" for item in runs])


@app.command()
def maintain(settings: SettingsOption = None) -> None:
    """Compact the tables; remove files that no version younger than lake.keep_days needs."""
    from stock_assets.lake.maintenance import maintain as maintain_lake  # noqa: PLC0415
    from stock_assets.lake.store import Lake  # noqa: PLC0415

    loaded = load(settings)
    for done in maintain_lake(Lake(loaded.lake_dir), keep=loaded.lake.keep):
        console.show(done.told)


@app.command()
def dev(
    settings: SettingsOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the UI.")] = None,
) -> None:
    """Dagster's UI and daemon on this lake, with the saved reports served beside it."""
    from stock_assets.launch import dagster_command, open_instance, prepare_home  # noqa: PLC0415
    from stock_assets.reports_server import serving  # noqa: PLC0415
    from stock_assets.server_process import run_until_asked  # noqa: PLC0415
    from stock_assets.settings import PROJECT_DIR  # noqa: PLC0415

    loaded = load(settings)
    prepare_home(loaded, settings_file(settings))
    with open_instance():
        pass  # its tables exist before the webserver, the daemon and the code server all look
    where, own_port = host or loaded.server.host, port or loaded.server.port
    with serving(loaded.reports_dir, where, loaded.server.reports_port) as address:
        console.say(f"reports on {address}")
        console.say(f"UI on http://{where}:{own_port}/ in a few seconds ...")
        environment = {
            **os.environ,
            # `dagster dev` recommends a tool for making projects: no news for who runs one.
            "PYTHONWARNINGS": "ignore",
            # The runs and sensors write links: they must lead to where this serves.
            "STOCK_ASSETS_SERVER__HOST": where,
            "STOCK_ASSETS_SERVER__PORT": str(own_port),
        }
        command = [dagster_command(), "dev", "-w", str(PROJECT_DIR / "workspace.yaml")]
        command += ["-h", where, "-p", str(own_port)]
        code = run_until_asked(command, environment, loaded.dagster_home)
    raise typer.Exit(max(0, code))


def _distinct(names: list[str]) -> list[str]:
    """Column names as the query gave them, a repeated one with its number: close, close_2."""
    return [
        name if names.index(name) == place else f"{name}_{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _materialize(
    settings: Settings,
    file: Path | None,
    first: dt.date,
    last: dt.date,
    tickers: Sequence[str],
    assets: Sequence[str] | None,
    *,
    as_json: bool = False,
) -> int:
    """Run the slice in as few Dagster runs as it takes, up to one that fails; the exit code."""
    console.say("starting ...")
    # Imports make a million objects that all stay: looking for garbage among them costs seconds.
    gc.disable()
    try:
        from stock_assets.graph import STEPS, asset_names, build_definitions  # noqa: PLC0415
        from stock_assets.launch import open_instance, prepare_home, run_slice  # noqa: PLC0415
        from stock_assets.partitions import Grid  # noqa: PLC0415
        from stock_assets.slices import why_part  # noqa: PLC0415
    finally:
        gc.freeze()
        gc.enable()
    prepare_home(settings, settings_file(file))

    unknown = sorted(set(assets or ()) - set(asset_names()))
    if unknown:
        message = f"unknown asset(s) {', '.join(unknown)}; use {', '.join(asset_names())}"
        raise SliceError(message)
    grid = Grid.of(settings)
    # Refuse unknown tickers and days before anything starts.
    wanted = grid.slice(first, last, tickers)
    definitions = build_definitions(settings)
    outcomes = []
    with open_instance() as instance:
        areas = grid.runs(wanted)
        cut = len(areas) > len(grid.blocks(wanted.tickers))
        for number, area in enumerate(areas, 1):
            with console.progress(str(area), STEPS) as listener:
                outcome = run_slice(
                    definitions,
                    instance,
                    grid,
                    area,
                    assets=assets,
                    tags=why_part(number, len(areas)) if cut else None,
                    listener=listener,
                )
            outcomes.append(outcome)
            for line in outcome.errors:
                console.fail(line)
            for asset, check, description in outcome.failed_checks:
                console.say(f"[yellow]check {asset}/{check}:[/] {description}")
            verb = "done" if outcome.success else "[red]failed[/]"
            if outcome.success:
                _warn_of_baselines(settings, area)
            console.say(f"{verb} in {outcome.seconds:.0f} s (run {outcome.run_id})")
            if not outcome.success:
                break
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))  # noqa: T201
    return max(outcome.exit_code for outcome in outcomes)


def _warn_of_baselines(settings: Settings, area: Slice) -> None:
    """Say why no model answered, if none did on the slice's last day: history may be missing."""
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import connect, rows  # noqa: PLC0415

    with connect(Lake(settings.lake_dir)) as connection:
        made = rows(connection, "models", area.first_date, area.last_date, tickers=area.tickers)
        if made.is_empty():
            return
        last = made.filter(day=made["day"].max())
        if not (last["model"] == "baseline").all():
            return
        attempted = last["attempted_day"].max()
        tried = rows(connection, "models", attempted, attempted) if attempted else made.clear()
    words = f"the baseline answers on {last['day'][0]}: {last['reason'][0]}. "
    if tried.is_empty():
        words += (
            f"History before {settings.partitions.first_day} comes with that day: "
            f"if it is not in the lake yet, run --from {settings.partitions.first_day}"
        )
    elif attempted != last["day"][0]:
        words += f"Last attempt, on {attempted}: {tried['decision'][0]}, {tried['reason'][0]}"
    console.say(f"[yellow]warning:[/] {words}")


def _print_outcome(settings: Settings, last: dt.date) -> None:
    from stock_assets import overview  # noqa: PLC0415
    from stock_assets.lake.store import Lake  # noqa: PLC0415
    from stock_assets.lake.views import connect  # noqa: PLC0415

    with connect(Lake(settings.lake_dir)) as connection:
        forecasts = overview.latest_forecasts(connection, settings.tickers, last)
        verdict = overview.latest_verdict(connection, settings, last)
        summary = overview.score_summary(connection, last)
    console.show(
        console.forecast_table(forecasts),
        *_drift_lines(settings, verdict),
        *console.score_lines(summary),
        "",
        "Next:",
        "  make dev                                         the graph, in Dagster's UI",
        "  .venv/bin/stock-assets sql \"select * from forecasts where ticker = 'GOLD' limit 5\"",
        "  .venv/bin/stock-assets status                    what the lake holds",
        "  .venv/bin/stock-assets run --from 2026-07-01 --to 2026-07-03     the next days",
    )


def _drift_lines(settings: Settings, verdict: Verdict | None) -> list[str]:
    """The verdict with the places of its report and of the index, where they are."""
    from stock_assets.drift.pages import index_file, page_file  # noqa: PLC0415

    files = (page_file(settings, verdict.day) if verdict else None, index_file(settings))
    page, index = (str(file) if file and file.exists() else None for file in files)
    return console.verdict_lines(verdict, page, index)


def _last_runs(settings: Settings, count: int = 5) -> list[dict[str, str]]:
    """The newest runs of the lake's Dagster instance, newest first."""
    if not (settings.dagster_home / "dagster.yaml").exists():
        return []
    from stock_assets.launch import open_instance, prepare_home  # noqa: PLC0415
    from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG  # noqa: PLC0415

    prepare_home(settings)
    with open_instance() as instance:
        records = instance.get_run_records(limit=count)
    return [
        {
            "run": record.dagster_run.run_id,
            "status": record.dagster_run.status.value,
            "started": f"{record.create_timestamp:%Y-%m-%d %H:%M}",
            "slice": " .. ".join(
                record.dagster_run.tags[tag]
                for tag in (RANGE_START_TAG, RANGE_END_TAG)
                if tag in record.dagster_run.tags
            )
            or record.dagster_run.job_name,
        }
        for record in records
    ]
