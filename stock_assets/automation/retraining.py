"""A sensor for what no failed check announces: no model yet, a training due, or an order given.

When drift asks for a training is in `conditions.py`. Whether a training is due, and whether it
then really happens, is decided in `forecasting/decision.py`, from the same numbers.
"""

import datetime as dt

import dagster as dg
import polars as pl

from stock_assets.automation.jobs import Jobs, unfinished_runs
from stock_assets.forecasting.decision import training_due
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, latest_before, rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import WHY_TAG


def build_training_due_sensor(settings: Settings, grid: Grid, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor that asks for `model` of the newest day when a training is due on it."""

    @dg.sensor(
        name="training_due",
        job=jobs.retrain,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for `model` when there is none, one is due or one was ordered.",
    )
    def training_due_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        day = newest_forecast_day(Lake(settings.lake_dir))
        if day is None or day < grid.sessions[0]:
            return dg.SkipReason("the lake holds no forecast yet")
        with connect(Lake(settings.lake_dir)) as connection:
            known = pl.concat(
                [latest_before(connection, "models", day), rows(connection, "models", day, day)]
            )
            orders = rows(connection, "orders", None, dt.date.max)
        # Drift is left out: the condition on its check asks, and would otherwise be asked twice.
        unfit = Registry(settings.mlflow_dir).unfit()
        why = training_due(day, known, None, settings, orders, unfit=unfit)
        if why is None:
            return dg.SkipReason(f"no training is due on {day}")
        # It decides the day: asked for by the drift check, by a person, or along a backfill.
        if run := next(unfinished_runs(context.instance, "model"), None):
            return dg.SkipReason(f"{why}; run {run.run_id} is about to decide")
        area = grid.slice(day, day, settings.tickers)
        # One request a day: a training that finds too few rows says so and is not asked for again.
        # Another once somebody has given an order since.
        given = f":{orders.height}" if orders.height else ""
        return dg.RunRequest(
            run_key=f"training:{day}{given}", tags={**grid.tags(area), WHY_TAG: why}
        )

    return training_due_sensor


def newest_forecast_day(lake: Lake) -> dt.date | None:
    """The last day with forecasts; the day that a training would serve."""
    with connect(lake) as connection:
        ((day,),) = connection.sql("select max(day) from forecasts").fetchall()
    return day
