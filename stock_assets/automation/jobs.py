"""The jobs that schedules, sensors and people start by name, and what a run of them works on."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.slices import Slice

DAILY_ASSETS = ("candles", "quarantine", "bars", "features", "drift", "forecasts", "scores")
"""All but `model`: live forecasts come from the model in force."""

RETRAIN_ASSETS = ("model", "forecasts", "scores")
"""Scores follow where the slice has several days: earlier forecasts in it were made again."""

DAILY_JOB, RETRAIN_JOB, MAINTENANCE_JOB = "daily_slice", "retrain", "maintenance"

_UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_PARTITION_TAG = "dagster/partition"


@dataclass(frozen=True)
class Jobs:
    """One job for the day's slice, one for a training, one for everything."""

    daily: UnresolvedAssetJobDefinition
    retrain: UnresolvedAssetJobDefinition
    everything: UnresolvedAssetJobDefinition

    def all(self) -> list[UnresolvedAssetJobDefinition]:
        """All of them, as definitions want them."""
        return [self.daily, self.retrain, self.everything]


def build_jobs() -> Jobs:
    """Jobs over the assets' partitions."""
    return Jobs(
        daily=dg.define_asset_job(
            DAILY_JOB,
            selection=dg.AssetSelection.assets(*DAILY_ASSETS),
            description="A day's slice from candles to scores, with the model in force.",
        ),
        retrain=dg.define_asset_job(
            RETRAIN_JOB,
            selection=dg.AssetSelection.assets(*RETRAIN_ASSETS),
            description="The decision to train or carry on; forecasts and their scores follow.",
        ),
        everything=dg.define_asset_job(
            "everything",
            selection=dg.AssetSelection.all(),
            description="The whole graph: what a backfill of history runs.",
        ),
    )


def unfinished_runs(instance: dg.DagsterInstance, asset: str) -> Iterator[dg.DagsterRun]:
    """Runs that are queued or in progress and make `asset`, whoever asked for them."""
    for run in instance.get_runs(dg.RunsFilter(statuses=list(_UNFINISHED))):
        if makes(run, asset):
            yield run


def makes(run: dg.DagsterRun, asset: str) -> bool:
    """Whether a run makes an asset, whoever asked for it."""
    if run.asset_selection is not None:
        return dg.AssetKey(asset) in run.asset_selection
    # A run of a whole job does not list its assets.
    whole = {DAILY_JOB: DAILY_ASSETS, RETRAIN_JOB: RETRAIN_ASSETS, MAINTENANCE_JOB: ()}
    return asset in whole.get(run.job_name, (asset,))


def slice_of_run(run: dg.DagsterRun, grid: Grid) -> Slice | None:
    """The slice that a run's tags mean; None for a run of no partition.

    Raises `SliceError` when they name a cell that the settings no longer have.
    """
    one = run.tags.get(_PARTITION_TAG)
    first, last = run.tags.get(RANGE_START_TAG, one), run.tags.get(RANGE_END_TAG, one)
    if first is None or last is None:
        return None
    return grid.slice_of_range(first, last)
