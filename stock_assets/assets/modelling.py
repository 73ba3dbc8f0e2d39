"""`model`, `forecasts` and `scores`: decide, forecast, and say afterwards what it was worth.

The step of `scores` writes `shadows` too, which is no asset: a cell of it would cost an event in
every backfill, and nothing depends on it (docs/adr/0026).

What is decided, forecast and scored is computed in `forecasting/`; here slices of the lake go in
and come out.
"""

import base64
import datetime as dt
from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from stock_assets.assets.checks import checked_asset
from stock_assets.assets.common import report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.live_check import LIVE_CHECK_SPEC, forecasts_keep_their_promise
from stock_assets.assets.page_check import PageCheck
from stock_assets.automation.conditions import FOLLOW_THE_MODEL
from stock_assets.calendars import get_calendar, union_sessions
from stock_assets.drift.index import write_index
from stock_assets.drift.sound import first_bar_to_judge, sound_rows
from stock_assets.drift.verdict import signals
from stock_assets.errors import ModelError
from stock_assets.forecast_inputs import (
    FORECAST_TABLES,
    all_orders,
    blocked_cells,
    known_models,
    read_inputs,
)
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.decision import decide, forced_days, forced_words
from stock_assets.forecasting.fan import fan_picture
from stock_assets.forecasting.model import VolatilityModel
from stock_assets.forecasting.registry import Registry
from stock_assets.forecasting.scoring import score, summarise
from stock_assets.forecasting.shadows import BAR_COLUMNS, attempts, shadow_scores, window_start
from stock_assets.lake.schemas import Shadows
from stock_assets.lake.views import rows, versions_of
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

_GATE = (
    "challenger",
    "challenger_loss",
    "in_force_loss",
    "baseline_loss",
    "baseline_t",
    "in_force_t",
    "in_force_baseline_t",
    "validation_days",
    "leak_alarm",
)
"""Columns of `Models` that the UI shows as the model's metadata."""

FORCE_TAG = "stock_assets/force_training"
"""A run with this tag tries a training on its last day, whatever is due.

Its value is the reason, where it is that of `performance_words`.
"""

_DECISION_TABLES = ("bars", "features", "drift", "models", "orders")

_HELD = ("day", "ticker", "note")

_FAN_DAYS = dt.timedelta(days=120)


def build_model(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset that decides, day by day, which model is in force."""
    pages = PageCheck("model")

    def pages_check(
        context: dg.AssetExecutionContext, _: LakeResource
    ) -> Iterator[dg.AssetCheckResult]:
        yield pages.result(context, grid.days_of(slice_of(context, grid))[-1])

    @checked_asset(
        spec("model", grid, deps=("features", "drift")),
        settings,
        grid,
        more_specs=[pages.spec],
        more_results=pages_check,
    )
    def model(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        days = grid.days_of(area)
        registry = Registry(settings.mlflow_dir)
        with lake.get_connection(*_DECISION_TABLES) as connection:

            def training_data(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
                begin = first_bar_to_judge(first, settings)
                return sound_rows(
                    rows(connection, "features", first, last),
                    rows(connection, "bars", begin, last),
                    first,
                    settings,
                )

            drift = signals(rows(connection, "drift", days[0], days[-1]), settings)
            forced = forced_days(rows(connection, "models", days[0], days[-1]))
            if (reason := context.run.tags.get(FORCE_TAG)) is not None:
                forced[days[-1]] = forced_words(reason)
            result = decide(
                _cells(settings, grid, area),
                known_models(connection, days[0], days[-1]),
                drift,
                training_data,
                registry,
                settings,
                orders=all_orders(connection),
                forced=forced,
                lake_versions=versions_of(connection),
            )
        written = lake.write(context, "models", result.rows, area)
        _entitle(context, registry, result.aliases, days[-1])
        for attempt in result.attempts:
            context.log.info("%s %s: %s", attempt.day, attempt.model_id, attempt.reason)
        # What drift has caused is on the index as well. The decision stands without it: a step that
        # failed now would leave the day decided, and nobody to ask for its forecasts.
        pages.attempt(
            context,
            "the index of drift could not be drawn",
            lambda: write_index(lake.lake, settings, days[-1]),
        )
        last = result.rows.filter(pl.col("day") == pl.col("day").max())
        summary = {
            "rows": written.rows,
            "version": written.version,
            "trainings": len(result.attempts),
            "accepted": sum(attempt.accepted for attempt in result.attempts),
            "in force": ", ".join(last["model"].unique().sort()) or BASELINE,
            "decision": ", ".join(last["decision"].unique().sort()),
            "reason": last["reason"][0] if last.height else "",
            **_gate_numbers(result.rows),
            **({"pages": told} if (told := pages.told(context, days[-1])) else {}),
        }
        report(context, "model", result.rows, area, grid, summary)

    return model


def _entitle(
    context: dg.AssetExecutionContext,
    registry: Registry,
    aliases: Mapping[str, str | None],
    day: dt.date,
) -> None:
    """Have MLflow's aliases name the models; the decision, which is in the lake, stands without."""
    for alias, name in aliases.items():
        try:
            registry.set_alias(alias, name, day)
        except ModelError as error:
            context.log.error("%s; the next run of `model` moves it", error)  # noqa: TRY400


def build_forecasts(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of forecasts: by the model in force, else by the baseline."""

    @checked_asset(
        spec(
            "forecasts",
            grid,
            deps=("bars", "features", "drift", "model"),
            automation_condition=FOLLOW_THE_MODEL,
        ),
        settings,
        grid,
    )
    def forecasts(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        days = grid.days_of(area)
        registry = Registry(settings.mlflow_dir)
        while True:
            with lake.get_connection(*FORECAST_TABLES) as connection:
                orders_version = versions_of(connection).get("orders")
                inputs = read_inputs(connection, settings.exchanges, days[0], days[-1])
            made = inputs.forecasts(
                _cells(settings, grid, area),
                registry,
                settings.forecast.horizons,
                unfit=registry.unfit(),
            )
            written = lake.write(context, "forecasts", made, area)
            # An order for these days that was given meanwhile found them without forecasts.
            if lake.lake.version("orders") == orders_version:
                break
        by_baseline = made.filter(pl.col("model") == BASELINE).height
        stands = made.filter(pl.col("held_from").is_not_null()).unique(["day", "ticker"])
        for day, ticker, note in stands.sort("day", "ticker").select(_HELD).iter_rows():
            context.log.warning("%s %s is not forecast from its prices: %s", day, ticker, note)
        summary = {
            **({"held": stands.height} if stands.height else {}),
            "rows": written.rows,
            "version": written.version,
            "by the baseline": by_baseline,
            "models": ", ".join(made["model"].unique().sort()),
            **_fan(inputs.bars, made),
        }
        report(context, "forecasts", made, area, grid, summary)

    return forecasts


def build_scores(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of scores: what forecasts were worth whose target day is in the slice."""

    def live_check(
        context: dg.AssetExecutionContext, lake: LakeResource
    ) -> Iterator[dg.AssetCheckResult]:
        yield forecasts_keep_their_promise(lake, settings, slice_of(context, grid))

    @checked_asset(
        spec("scores", grid, deps=("bars", "drift", "forecasts")),
        settings,
        grid,
        more_specs=[LIVE_CHECK_SPEC],
        more_results=live_check,
    )
    def scores(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        days = grid.days_of(area)
        longest = max(settings.forecast.horizons)
        first = min(get_calendar(name).back(days[0], longest) for name in settings.exchanges)
        with lake.get_connection("bars", "drift", "forecasts") as connection:
            due = rows(connection, "forecasts", first, days[-1], tickers=area.tickers).filter(
                pl.col("target_day").is_between(days[0], days[-1])
            )
            bars = rows(connection, "bars", first, days[-1], tickers=area.tickers)
            # Prices that cannot be right are no outcome: as if the bar were missing.
            blocked = blocked_cells(connection, first, days[-1], area.tickers)
            made = score(due, bars.join(blocked, on=["day", "ticker"], how="anti"))
        written = lake.write(context, "scores", made, area)
        summary: dict[str, object] = {"rows": written.rows, "version": written.version}
        summary["in shadow"] = _write_shadows(context, lake, settings, made, area)
        if made.height:
            summary["verdict"] = summarise(made).sentence
        report(context, "scores", made, area, grid, summary)

    return scores


def _write_shadows(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    settings: Settings,
    scored: pl.DataFrame,
    area: Slice,
) -> int:
    """Write what models that are not in force would have scored; the number of rows."""
    registry = Registry(settings.mlflow_dir)

    def read(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
        with lake.get_connection("bars", "features") as connection:
            bars = rows(connection, "bars", first, last, columns=BAR_COLUMNS)
            return bars, rows(connection, "features", first, last)

    def load(name: str) -> VolatilityModel | None:
        try:
            return registry.load(name)
        except ModelError as error:
            # What is in force does not depend on it: its worth stays unknown for these days.
            context.log.warning("no shadow of %s: %s", name, error)
            return None

    made = Shadows.create_empty()
    if scored.height and settings.scores.shadow:
        sessions = union_sessions(settings.exchanges)
        first, last = scored["forecast_day"].min(), scored["forecast_day"].max()
        assert isinstance(first, dt.date)
        assert isinstance(last, dt.date)
        with lake.get_connection("models", "orders") as connection:
            begin = window_start(sessions, first, settings.scores.shadow)
            tried = attempts(known_models(connection, begin, last), all_orders(connection))
        made = shadow_scores(
            scored,
            tried,
            read,
            load,
            exchanges=settings.exchanges,
            sessions=sessions,
            length=settings.scores.shadow,
        )
    if made.height or lake.lake.version("shadows") is not None:
        lake.write(context, "shadows", made, area)
    return made.height


def _cells(settings: Settings, grid: Grid, area: Slice) -> pl.DataFrame:
    """day, ticker of the slice's partition days that are sessions of the ticker's exchange."""
    cells = [
        (day, ticker)
        for ticker in area.tickers
        for day in grid.days_of(area)
        if get_calendar(settings.instrument(ticker).exchange).is_session(day)
    ]
    return pl.DataFrame(cells, schema={"day": pl.Date, "ticker": pl.String}, orient="row")


def _gate_numbers(decided: pl.DataFrame) -> dict[str, float | str]:
    """What the gate found at the slice's last training, as the rows say it; nothing without one."""
    tried = decided.filter(pl.col("challenger").is_not_null())
    if tried.is_empty():
        return {}
    last = tried.row(-1, named=True)
    return {name.replace("_", " "): last[name] for name in _GATE if last[name] is not None}


def _fan(bars: pl.DataFrame, forecasts: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    """The picture of the last prices and the forecast fan of the slice's first tickers."""
    if forecasts.is_empty():
        return {}
    last = forecasts["day"].max()
    newest = forecasts.filter(pl.col("day") == last)
    tail = bars.filter((pl.col("day") <= last) & (pl.col("day") >= last - _FAN_DAYS))
    picture = fan_picture(tail, newest, newest["ticker"].unique(maintain_order=True).to_list())
    encoded = base64.b64encode(picture).decode()
    return {"fan": dg.MetadataValue.md(f"![forecast fan](data:image/png;base64,{encoded})")}
