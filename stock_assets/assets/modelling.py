"""`model`, `forecasts` and `scores`: decide, forecast, and say afterwards what it was worth.

What is decided, forecast and scored is computed in `forecasting/`; here slices of the lake go in
and come out.
"""

import base64
import datetime as dt
from collections.abc import Iterator

import dagster as dg
import polars as pl

from stock_assets.assets.checks import checked_asset
from stock_assets.assets.common import report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.live_check import LIVE_CHECK_SPEC, forecasts_keep_their_promise
from stock_assets.automation.conditions import FOLLOW_THE_MODEL, RETRAIN_WHEN_DRIFT_FAILS
from stock_assets.calendars import get_calendar
from stock_assets.drift.verdict import universe_verdict
from stock_assets.forecast_inputs import (
    FORECAST_TABLES,
    all_orders,
    known_models,
    read_inputs,
)
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.decision import decide, forced_days
from stock_assets.forecasting.fan import fan_picture
from stock_assets.forecasting.registry import Registry
from stock_assets.forecasting.scoring import score, summarise
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
"""A run with this tag tries a training on its last day, whatever is due."""

_DECISION_TABLES = ("bars", "features", "drift", "models", "orders")

_FAN_DAYS = dt.timedelta(days=120)


def build_model(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset that decides, day by day, which model is in force."""

    @checked_asset(
        spec(
            "model",
            grid,
            deps=("features", "drift"),
            automation_condition=RETRAIN_WHEN_DRIFT_FAILS,
        ),
        settings,
        grid,
    )
    def model(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
        area = slice_of(context, grid)
        days = grid.days_of(area)
        registry = Registry(settings.mlflow_dir)
        with lake.get_connection(*_DECISION_TABLES) as connection:

            def training_data(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
                return rows(connection, "features", first, last), rows(
                    connection, "bars", first, last
                )

            verdicts = universe_verdict(rows(connection, "drift", days[0], days[-1]), settings)
            forced = forced_days(rows(connection, "models", days[0], days[-1]))
            if FORCE_TAG in context.run.tags:
                forced.add(days[-1])
            result = decide(
                _cells(settings, grid, area),
                known_models(connection, days[0], days[-1]),
                {verdict.day: verdict.share for verdict in verdicts},
                training_data,
                registry,
                settings,
                orders=all_orders(connection),
                forced=forced,
                lake_versions=versions_of(connection),
            )
        written = lake.write(context, "models", result.rows, area)
        for alias, name in result.aliases.items():
            registry.set_alias(alias, name, days[-1])
        for attempt in result.attempts:
            context.log.info("%s %s: %s", attempt.day, attempt.model_id, attempt.reason)
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
        }
        report(context, "model", result.rows, area, grid, summary)

    return model


def build_forecasts(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset of forecasts: by the model in force, else by the baseline."""

    @checked_asset(
        spec(
            "forecasts",
            grid,
            deps=("bars", "features", "model"),
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
        summary = {
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
        spec("scores", grid, deps=("bars", "forecasts")),
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
        with lake.get_connection("bars", "forecasts") as connection:
            due = rows(connection, "forecasts", first, days[-1], tickers=area.tickers).filter(
                pl.col("target_day").is_between(days[0], days[-1])
            )
            made = score(due, rows(connection, "bars", first, days[-1], tickers=area.tickers))
        written = lake.write(context, "scores", made, area)
        summary: dict[str, object] = {"rows": written.rows, "version": written.version}
        if made.height:
            summary["verdict"] = summarise(made).sentence
        report(context, "scores", made, area, grid, summary)

    return scores


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
