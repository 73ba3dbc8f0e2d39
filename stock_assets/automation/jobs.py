"""The jobs that schedules, sensors and people start by name."""

from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

DAILY_ASSETS = ("candles", "quarantine", "bars", "features", "drift", "forecasts", "scores")
"""All but `model`: live forecasts come from the model in force."""

RETRAIN_ASSETS = ("model", "forecasts")


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
            "daily_slice",
            selection=dg.AssetSelection.assets(*DAILY_ASSETS),
            description="A day's slice from candles to scores, with the model in force.",
        ),
        retrain=dg.define_asset_job(
            "retrain",
            selection=dg.AssetSelection.assets(*RETRAIN_ASSETS),
            description="The decision to train or carry on, and the forecasts that follow.",
        ),
        everything=dg.define_asset_job(
            "everything",
            selection=dg.AssetSelection.all(),
            description="The whole graph: what a backfill of history runs.",
        ),
    )
