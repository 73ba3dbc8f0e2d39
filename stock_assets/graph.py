"""Puts the graph together: assets, checks, jobs, schedules, sensors and resources of one universe.

Each part is built by the module that owns it; the settings come in from the caller.
"""

import dagster as dg

from stock_assets.assets.common import GROUPS
from stock_assets.assets.drawer_resource import DRAWER, build_drawer
from stock_assets.assets.drifting import build_drift
from stock_assets.assets.ingest import build_ingest
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.modelling import build_forecasts, build_model, build_scores
from stock_assets.assets.transform import build_transform
from stock_assets.automation.conditions import build_automation_sensor
from stock_assets.automation.inbox import build_inbox_sensor
from stock_assets.automation.jobs import build_jobs
from stock_assets.automation.maintenance import build_maintenance
from stock_assets.automation.notices import build_notices_sensor
from stock_assets.automation.retraining import build_training_due_sensor
from stock_assets.automation.schedules import build_schedules
from stock_assets.instance.backfills import install_one_run_backfills, limit_cells_per_run
from stock_assets.instance.batching import enable_event_batching
from stock_assets.instance.partition_hash import install_kept_partition_hash
from stock_assets.instance.range_keys import install_kept_range_keys
from stock_assets.partitions import Grid
from stock_assets.settings import Settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The definitions for these settings. Raises `SettingsError` where they cannot work."""
    # Runs that Dagster starts in processes of their own pass here too.
    enable_event_batching()
    limit_cells_per_run(settings.partitions.cells_per_run)
    install_one_run_backfills()
    install_kept_partition_hash()
    install_kept_range_keys()
    grid = Grid.of(settings)
    jobs = build_jobs()
    return dg.Definitions(
        assets=[
            build_ingest(settings, grid),
            build_transform(settings, grid),
            build_drift(settings, grid),
            build_model(settings, grid),
            build_forecasts(settings, grid),
            build_scores(settings, grid),
        ],
        jobs=jobs.all(),
        schedules=[*build_schedules(settings, grid, jobs), build_maintenance(settings)],
        sensors=[
            build_automation_sensor(),
            build_training_due_sensor(settings, grid, jobs),
            build_inbox_sensor(settings, grid, jobs),
            build_notices_sensor(settings, grid),
        ],
        resources={
            "lake": LakeResource(database=":memory:", root=str(settings.lake_dir)),
            DRAWER: build_drawer(grid),
        },
        # Ten small steps take a minute in processes of their own, seconds in the run's.
        executor=dg.in_process_executor,
    )


STEPS = ("ingest", "transform", "drift", "model", "forecasts", "scores")
"""The steps that compute, in the order they run; dbt and each step check what they wrote."""


def asset_names() -> tuple[str, ...]:
    """The names of the assets, in the order of the graph."""
    return tuple(GROUPS)
