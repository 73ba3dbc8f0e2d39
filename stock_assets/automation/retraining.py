"""The sensor that asks for `model`: none is there, one is due, drift or live scores call for it.

One place for all of them, so that they go the same way: one request for each new reason, none while
a run is about to decide, none within the cooldown, none for a day that has been decided. A day on
which nobody could ask is not lost: what is asked for goes from the first day on which a training is
due to the newest, and the decision walks these days as a replay would. What is due is said by
`forecasting/decision.py`, from the same numbers that then decide; here only what has been asked for
already is remembered, by Dagster's run keys, which outlive the daemon.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg
import duckdb
import polars as pl

from stock_assets.assets.live_check import live_verdicts
from stock_assets.assets.modelling import FORCE_TAG
from stock_assets.automation.jobs import RETRAIN_ASSETS, Jobs, unfinished_runs
from stock_assets.drift.verdict import Signal, signals
from stock_assets.forecast_inputs import all_orders, known_models
from stock_assets.forecasting.decision import performance_words, rested, trainings_due
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, rows
from stock_assets.partitions import Grid, cell_key
from stock_assets.settings import Settings
from stock_assets.slices import WHY_TAG


def build_training_due_sensor(settings: Settings, grid: Grid, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor that asks for `model` from the first day on which a training is due."""

    @dg.sensor(
        name="training_due",
        job=jobs.retrain,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Asks for `model` when there is none, one is due or was ordered, a market has moved, "
            "or live scores have left their band."
        ),
    )
    def training_due_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        with connect(Lake(settings.lake_dir)) as connection:
            newest = _newest_forecast_day(connection)
            if newest is None or newest < grid.sessions[0]:
                return dg.SkipReason("the lake holds no forecast yet")

            def signals_of(first: dt.date, last: dt.date) -> dict[dt.date, Signal]:
                return signals(rows(connection, "drift", first, last), settings)

            known = known_models(connection, newest, newest)
            orders = all_orders(connection)
            unfit = Registry(settings.mlflow_dir).unfit()
            due = trainings_due(newest, known, signals_of, settings, orders, unfit=unfit)
            due = {day: why for day, why in due.items() if day >= grid.sessions[0]}
            tags: dict[str, str] = {}
            if not due and (failing := _failing(connection, settings, newest, known)):
                due = {newest: failing}
                # The decision cannot see scores, which come after it: the run says so.
                tags[FORCE_TAG] = failing
        if not due:
            return dg.SkipReason(f"no training is due on {newest}")
        first, why = next(iter(due.items()))
        if first < newest:
            why += f", on {first}"
        # It decides the days: asked for by a person, or along a backfill.
        if run := next(unfinished_runs(context.instance, "model"), None):
            return dg.SkipReason(f"{why}; run {run.run_id} is about to decide")
        # What one run may not hold is asked for once these days are decided.
        area = grid.runs(grid.slice(first, newest, settings.tickers))[0]
        # The last day that calls for it: one that calls for nothing is no reason to ask again.
        last = max(day for day in due if day <= area.last_date)
        # One request a day: a training that finds too few rows says so and is not asked for again.
        # Another once somebody has given an order since, or what called for it was checked again.
        given = f":{orders.height}" if orders.height else ""
        evaluated = _evaluation(context.instance, last, settings.tickers, due[last])
        return dg.RunRequest(
            run_key=f"training:{last}{given}{evaluated}",
            tags={**grid.tags(area), **tags, WHY_TAG: why},
            # Scores are of days after the forecast's: on a single day none can change.
            asset_selection=[
                dg.AssetKey(name)
                for name in RETRAIN_ASSETS
                if name != "scores" or first < area.last_date
            ],
        )

    return training_due_sensor


def _newest_forecast_day(connection: duckdb.DuckDBPyConnection) -> dt.date | None:
    """The last day with forecasts; the day that a training would serve."""
    ((day,),) = connection.sql("select max(day) from forecasts").fetchall()
    return day


def _failing(
    connection: duckdb.DuckDBPyConnection, settings: Settings, day: dt.date, known: pl.DataFrame
) -> str | None:
    """What live scores call for on `day`; nothing within the cooldown, or when it is decided.

    Forecasts up to the last attempt have had theirs: they say nothing of what came of it.
    """
    if not rested(day, known, settings):
        return None
    attempted = known["attempted_day"].max()
    assert isinstance(attempted, dt.date)
    failures = [
        f"{verdict.exchange}, {failure}"
        for verdict in live_verdicts(
            connection, settings, day, settings.exchanges, made_after=attempted
        )
        for failure in verdict.failures
    ]
    return performance_words("; ".join(failures)) if failures else None


def _evaluation(
    instance: dg.DagsterInstance, day: dt.date, tickers: Sequence[str], why: str
) -> str:
    """What tells the evaluation of `day` that is behind `why` from the one before it.

    The run that last made what was evaluated: the check itself is one of a slice's last day.
    """
    assets = {"drift": "drift", "performance": "scores"}
    for kind, asset in assets.items():
        if why.startswith(kind):
            made = dg.AssetRecordsFilter(
                asset_key=dg.AssetKey(asset),
                asset_partitions=[cell_key(day, ticker) for ticker in tickers],
            )
            found = instance.fetch_materializations(made, limit=1).records
            return f":{kind}:{found[0].run_id}" if found else ""
    return ""
