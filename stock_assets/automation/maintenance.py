"""A schedule that keeps the tables in few files: each Sunday it compacts the crowded ones.

Each run of a day adds a file to each table that it writes, and who reads a table opens all of its
files: after 250 such days a day's run took 32 s where it took 18 behind the same rows in few files,
and 19 once they were compacted (docs/adr/0022). What is done is `lake/maintenance.py`'s; a person
does it with `stock-assets maintain`.
"""

import dagster as dg

from stock_assets.automation.jobs import MAINTENANCE_JOB
from stock_assets.lake.maintenance import maintain
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings

CRON = "0 4 * * 0"
"""UTC: between the evenings of two weeks. Each compaction keeps the files that it replaces, for old
versions: the more often, the more of them."""


def build_maintenance(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule with its job, running by default."""

    @dg.op(
        name="compact",
        description="Compacts the tables, as `stock-assets maintain` does.",
        # A run that somebody started without the queue may be writing them.
        retry_policy=dg.RetryPolicy(max_retries=3, delay=300),
    )
    def compact(context: dg.OpExecutionContext) -> None:
        for done in maintain(Lake(settings.lake_dir), keep=settings.lake.keep):
            context.log.info(done.told)

    @dg.job(
        name=MAINTENANCE_JOB,
        executor_def=dg.in_process_executor,
        description="Few files a table, and those gone that lake.keep_days no longer asks for.",
    )
    def maintenance() -> None:
        compact()

    return dg.ScheduleDefinition(
        name=MAINTENANCE_JOB,
        job=maintenance,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Each Sunday, compacts the years of tables that have many files.",
    )
