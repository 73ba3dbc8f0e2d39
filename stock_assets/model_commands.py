"""`stock-assets model ...`: what models there are, how they compare, and ordering another.

What an order means is in `forecasting/orders.py`, how two models compare in
`forecasting/versus.py`; here people ask and are told.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

from stock_assets import console
from stock_assets.errors import ModelError
from stock_assets.options import JsonOption, SettingsOption, load, parse_day
from stock_assets.worth_commands import worth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.forecasting.orders import Action, Order
    from stock_assets.forecasting.registry import Listed, Registered, Registry
    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings

app = typer.Typer(
    help="The models: list, look at, compare, promote, roll back, and what they were worth.",
    no_args_is_help=True,
)
app.command()(worth)

Name = Annotated[str, typer.Argument(help="Id, version number or alias.", show_default=False)]
WhyOption = Annotated[str, typer.Option(help="Why, in words that others will understand.")]
ByOption = Annotated[
    str | None, typer.Option(help="Who orders it; default: the user of this machine.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="DAY", help="First day it counts for; default: the next to be forecast."
    ),
]


@dataclass(frozen=True)
class _State:
    """What the lake and the registry say of the models, read once."""

    registered: list[Listed]
    orders: pl.DataFrame
    in_force: dict[str, list[str]]
    """Model that serves the next forecasts -> its tickers."""
    next_day: dt.date


@app.command("list")
def list_models(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """All models: when they were trained, what the gate said, and where they are in force."""
    from stock_assets.forecasting.baseline import BASELINE  # noqa: PLC0415

    loaded = load(settings)
    state = _state(loaded)
    rows = [
        {
            "version": item.version,
            "model": item.model_id,
            "trained": item.trained,
            "decision": item.record and item.record.verdict.decision,
            "skill": item.record and item.record.measures.get("skill"),
            "t": item.record and item.record.verdict.baseline_t,
            "condition": item.condition,
            "in force": _where(state, item.model_id, loaded.tickers),
            "aliases": ", ".join(item.aliases),
        }
        for item in state.registered
    ]
    if as_json:
        content = {
            "models": rows,
            "problems": [item.problem for item in state.registered if item.problem is not None],
            "orders": _plain(state.orders),
            "next day": str(state.next_day),
        }
        print(json.dumps(content, indent=2))  # noqa: T201
        return
    if not rows:
        console.show("No model was trained yet: the baseline answers.")
    else:
        console.show(_table(f"Models (in force: for the forecasts of {state.next_day})", rows))
    _warn_of_problems(state.registered)
    if BASELINE in state.in_force:
        console.show(f"The baseline serves {_where(state, BASELINE, loaded.tickers)}.")
    if state.orders.height:
        console.show(_table("Orders", _plain(state.orders)))


def _warn_of_problems(registered: Sequence[Listed]) -> None:
    """A line a damaged version, and one for all that other code registered."""
    for item in registered:
        if item.condition == "damaged":
            console.warn(f"version {item.version} cannot serve: {item.problem}")
    others = [str(item.version) for item in registered if item.condition == "other code"]
    if others:
        console.warn(
            f"another version of stock-assets registered version {', '.join(others)}, which cannot "
            "serve here; the next run of `model` trains another where one of them was in force"
        )


@app.command()
def show(name: Name, settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """One model: its training, the gate's numbers and reason, its inputs, orders about it."""
    loaded = load(settings)
    state = _state(loaded)
    registry = _registry(loaded)
    found = registry.resolve(name)
    record = found.record
    model_id = record.model_id
    listed = next(item for item in state.registered if item.version == found.version)
    aliases = listed.aliases
    importance = registry.importance(model_id)
    about = state.orders.filter(pl.col("model") == model_id)
    content = {
        "model": model_id,
        "version": found.version,
        "aliases": list(aliases),
        "problem": listed.problem,
        "in force": _where(state, model_id, loaded.tickers),
        "trained": str(record.day),
        "decision": record.verdict.decision,
        "reason": record.verdict.reason,
        "rows": record.rows,
        "tickers": list(record.tickers),
        "sets": dict(record.sets),
        "lake versions": dict(record.lake_versions),
        "measures": dict(record.measures),
        "inputs": [] if importance is None else importance.to_dicts(),
        "orders": _plain(about),
    }
    if as_json:
        print(json.dumps(content, indent=2))  # noqa: T201
        return
    console.show(
        f"{model_id}, version {found.version}"
        + (f" ({', '.join(aliases)})" if aliases else "")
        + f", in force for {content['in force'] or 'nobody'}",
        f"Trained on {record.day} from {record.rows:,} rows of {len(record.tickers)} tickers: "
        f"{record.verdict.decision}, {record.verdict.reason}.",
        "Days: " + ", ".join(f"{key} {value}" for key, value in record.sets.items()),
        "Lake: " + ", ".join(f"{key} {value}" for key, value in record.lake_versions.items()),
    )
    if record.measures:
        shown = [
            {"measure": key, "value": f"{number:.6g}"} for key, number in record.measures.items()
        ]
        console.show(_table("Measured on the validation days", shown))
    if listed.problem is not None:
        console.warn(f"it cannot serve: {listed.problem}")
    if importance is not None:
        shown = importance.head(15).with_columns(pl.col("importance").round(2)).to_dicts()
        console.show(_table("Inputs of the trees (half of the model), by their share in %", shown))
    if about.height:
        console.show(_table("Orders", _plain(about)))


@app.command()
def compare(
    one: Name, other: Name, settings: SettingsOption = None, as_json: JsonOption = False
) -> None:
    """Two models (or `baseline`) on the same days, later than both trainings if there are any."""
    from stock_assets.forecasting.baseline import BASELINE  # noqa: PLC0415
    from stock_assets.forecasting.versus import versus  # noqa: PLC0415
    from stock_assets.lake.views import connect, rows  # noqa: PLC0415

    loaded = load(settings)
    registry = _registry(loaded)
    records = [None if name == BASELINE else registry.resolve(name).record for name in (one, other)]
    with connect(_lake(loaded)) as connection:

        def data(first: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
            features = rows(connection, "features", first, dt.date.max)
            return features, rows(connection, "bars", first, dt.date.max)

        found = versus(records[0], records[1], registry.load, data, loaded.exchanges)
    if as_json:
        content = {
            **asdict(found),
            "first": str(found.first),
            "last": str(found.last),
            "skill": found.result.skill,
            "p": found.result.p,
            "sentence": found.sentence,
        }
        print(json.dumps(content, indent=2))  # noqa: T201
        return
    console.show(found.sentence)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Id, version number, alias, or `baseline`.")],
    why: WhyOption,
    by: ByOption = None,
    begin: FromOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a model in force from the next forecasts on, until an accepted training replaces it."""
    from stock_assets.forecasting.baseline import BASELINE  # noqa: PLC0415

    loaded = load(settings)
    target = None if name == BASELINE else _registry(loaded).resolve(name)
    _order(loaded, "promote", target, why=why, by=by, begin=begin, as_json=as_json)


@app.command()
def rollback(
    why: WhyOption,
    to: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Which one; default: the one before the present one."),
    ] = None,
    by: ByOption = None,
    begin: FromOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the model that was in force before, from the next forecasts on."""
    from stock_assets.forecasting.baseline import BASELINE  # noqa: PLC0415
    from stock_assets.forecasting.orders import rollback_target, succession  # noqa: PLC0415
    from stock_assets.lake.views import connect, rows  # noqa: PLC0415

    loaded = load(settings)
    if to is None:
        lake = _lake(loaded)
        with connect(lake) as connection:
            decided = rows(connection, "models", None, dt.date.max)
            ordered = rows(connection, "orders", None, dt.date.max)
        to = rollback_target(succession(decided, ordered, _next_day(loaded, lake))).model
    target = None if to == BASELINE else _registry(loaded).resolve(to)
    _order(loaded, "rollback", target, why=why, by=by, begin=begin, as_json=as_json)


def _order(
    settings: Settings,
    action: Action,
    target: Registered | None,
    *,
    why: str,
    by: str | None,
    begin: str | None,
    as_json: bool,
) -> None:
    """Give the order, say what comes of it, and move the champion's title."""
    from stock_assets.forecasting.orders import Order, effective_day  # noqa: PLC0415

    registry, lake = _registry(settings), _lake(settings)
    first, wanted = settings.partitions.first_day, parse_day(begin, "--from")
    following = _next_day(settings, lake)
    order = Order.of(
        action,
        target,
        day=effective_day(settings.exchanges, first, _last_forecast(lake), wanted),
        at=dt.datetime.now(tz=dt.UTC),
        by=by or getpass.getuser(),
        why=why,
    )
    if target is not None:
        _refuse_alarmed(target)
        registry.load(order.model)  # a model that cannot be read is refused now, not this evening
        if not target.record.verdict.accepted:
            console.warn(f"the gate rejected {order.model}: {target.record.verdict.reason}")
    lake.append("orders", order.row())
    # Told before anything else can fail: whoever heard of an error only would order twice.
    if as_json:
        print(json.dumps(_plain(order.row())[0], indent=2))  # noqa: T201
    else:
        console.show(_told(order))
    if order.day == following:
        _entitle(registry, order)
    forecast = _last_forecast(lake)
    if forecast is not None and forecast >= order.day:
        console.warn(
            f"forecasts of {order.day} were made while you ordered; run "
            f"`stock-assets run --from {order.day} --to {forecast} --assets model,forecasts` "
            "to have them obey"
        )


def _refuse_alarmed(target: Registered) -> None:
    """A model that is too good to be true is put in force by nobody (docs/adr/0013)."""
    if (alarm := target.record.verdict.leak_alarm) is not None:
        message = (
            f"model {target.record.model_id} cannot be put in force: it is too good to be true, "
            f"and so it has probably seen what it should forecast ({alarm}); find the leak in its "
            "inputs, then train again"
        )
        raise ModelError(message)


def _entitle(registry: Registry, order: Order) -> None:
    """Have MLflow's alias name what is ordered; the order stands without it too."""
    from stock_assets.forecasting.baseline import BASELINE  # noqa: PLC0415
    from stock_assets.forecasting.decision import CHAMPION_ALIAS  # noqa: PLC0415

    model = None if order.model == BASELINE else order.model
    try:
        registry.set_alias(CHAMPION_ALIAS, model, order.day)
    except ModelError as error:
        console.warn(
            f"the order stands, do not give it again; only MLflow's alias {CHAMPION_ALIAS} was not "
            f"moved: {error}; once that is mended, the run of `model` for {order.day} moves it"
        )


def _told(order: Order) -> str:
    return (
        f"{order.model} is in force from {order.day} on, by order of {order.ordered_by} "
        f"({order.action}: {order.why}), until an accepted training replaces it. "
        "Earlier days stay as they are."
    )


def _next_day(settings: Settings, lake: Lake) -> dt.date:
    """The day of the next forecasts."""
    from stock_assets.forecasting.orders import effective_day  # noqa: PLC0415

    first = settings.partitions.first_day
    return effective_day(settings.exchanges, first, _last_forecast(lake), None)


def _state(settings: Settings) -> _State:
    from stock_assets.forecasting.in_force import models_in_force  # noqa: PLC0415
    from stock_assets.lake.views import connect, latest_before, rows  # noqa: PLC0415

    lake, registry = _lake(settings), _registry(settings)
    following = _next_day(settings, lake)
    with connect(lake) as connection:
        decided = latest_before(connection, "models", following)
        orders = rows(connection, "orders", None, dt.date.max)
    cells = pl.DataFrame({"ticker": list(settings.tickers)}).select(
        pl.lit(following).alias("day"), "ticker"
    )
    served = models_in_force(cells, decided, orders, registry.unfit())
    in_force: dict[str, list[str]] = {}
    for _, ticker, model, _ in served.iter_rows():
        in_force.setdefault(model, []).append(ticker)
    return _State(registry.versions(), orders, in_force, following)


def _where(state: _State, model: str, tickers: Sequence[str]) -> str:
    """The tickers that `model` serves, in words; empty where it serves none."""
    served = state.in_force.get(model, [])
    if not served:
        return ""
    if len(served) == len(tickers):
        return f"all {len(tickers)} tickers"
    return f"{len(served)} of {len(tickers)} tickers: {', '.join(served)}"


def _last_forecast(lake: Lake) -> dt.date | None:
    from stock_assets.lake.views import connect  # noqa: PLC0415

    with connect(lake) as connection:
        ((day,),) = connection.sql("select max(day) from forecasts").fetchall()
    return day


def _lake(settings: Settings) -> Lake:
    from stock_assets.lake.store import Lake  # noqa: PLC0415

    return Lake(settings.lake_dir)


def _registry(settings: Settings) -> Registry:
    from stock_assets.forecasting.registry import Registry  # noqa: PLC0415

    return Registry(settings.mlflow_dir)


def _plain(orders: pl.DataFrame) -> list[dict[str, Any]]:
    """Orders as JSON-ready values, the latest last."""
    return [
        {key: str(value) if isinstance(value, dt.date) else value for key, value in row.items()}
        for row in orders.sort("day", "ordered_at").iter_rows(named=True)
    ]


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
