"""`model`, `forecasts` and `scores`: decide, forecast, and say afterwards what it was worth.

The decision, the forecasts and the scores are computed in `forecasting/`; here slices of the lake
go in and come out.
"""

import datetime as dt
from typing import Any

import dagster as dg
import polars as pl

from stock_assets.assets.common import BACKFILL, report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.automation.conditions import FOLLOW_THE_MODEL, RETRAIN_WHEN_DRIFT_FAILS
from stock_assets.calendars import get_calendar
from stock_assets.drift.verdict import universe_verdict
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

FORCE_TAG = "stock_assets/force_training"
"""A run with this tag trains on its last day whatever is due."""


def build_model(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The asset that decides, day by day, which model is in force."""

    @dg.multi_asset(
        name="model",
        specs=[
            spec(
                "model",
                grid,
                deps=("features", "drift"),
                automation_condition=RETRAIN_WHEN_DRIFT_FAILS,
            )
        ],
        backfill_policy=BACKFILL,
    )
    def model(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from stock_assets.forecasting.decision import decide  # noqa: PLC0415

        raise NotImplementedError

    return model
