"""Once a week the tables are compacted, by a job that no other part takes for a run of assets."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.automation.jobs import DAILY_ASSETS, MAINTENANCE_JOB, makes
from stock_assets.automation.maintenance import build_maintenance
from stock_assets.graph import build_definitions
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

EVENINGS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "settings.toml"
    file.write_text(
        '[lake]\npath = "data"\nkeep_days = 7\n'
        '[[universe]]\nticker = "AAA"\nsource = "sample"\nexchange = "XMOS"\n'
        '[sources.sample]\nkind = "simulated"\n'
    )
    return load_settings(file)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """One in which twelve days were run one by one."""
    found = Lake(settings.lake_dir)
    types = TABLES["candles"].create_empty().schema
    filling: dict[pl.DataType, object] = {pl.Float64(): 1.0, pl.Int64(): 1, pl.String(): "-"}
    rest = {name: filling.get(dtype) for name, dtype in types.items()}
    for number in range(EVENINGS):
        day = dt.date(2026, 6, 1 + number)
        at = dt.datetime.combine(day, dt.time(0), tzinfo=dt.UTC)
        own = {name: at for name, dtype in types.items() if isinstance(dtype, pl.Datetime)}
        rows = pl.DataFrame([{**rest, **own, "day": day, "ticker": "AAA"}], schema=types)
        found.write("candles", rows, Slice(day, day, ("AAA",)))
    return found


def test_its_run_leaves_the_same_rows_in_few_files(settings: Settings, lake: Lake) -> None:
    def files() -> int:
        table = lake.open("candles")
        assert table is not None
        return len(table.file_uris())

    before = lake.read("candles")
    assert (files(), before.height) == (EVENINGS, EVENINGS)
    job = build_maintenance(settings).job
    assert isinstance(job, dg.JobDefinition)
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        assert result.success
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.job_name == MAINTENANCE_JOB
        assert not any(makes(run, asset) for asset in (*DAILY_ASSETS, "model"))
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert f"candles: {EVENINGS} files -> 1, 0 old ones removed" in "\n".join(logged)
    assert files() == 1
    order = ["day", "ticker"]
    assert_frame_equal(lake.read("candles").sort(order), before.sort(order))


def test_it_runs_by_itself_in_every_lake() -> None:
    repository = build_definitions(load_settings()).get_repository_def()
    schedule = repository.get_schedule_def(MAINTENANCE_JOB)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 4 * * 0", "UTC")
