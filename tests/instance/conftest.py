"""A small graph that reports events of every kind we have, and instances that record them."""

import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.events import (
    AssetMaterializationFailure,
    AssetMaterializationFailureReason,
    AssetMaterializationFailureType,
)
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    DagsterEvent,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log import SqliteEventLogStorage

from stock_assets.instance.batching import BATCH_SIZE_VARIABLE, enable_event_batching
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

DAYS = ["2024-01-03", "2024-01-04", "2024-01-05"]
TICKERS = ["AAA", "BBB"]
CELLS = len(DAYS) * len(TICKERS)
RANGE = {
    "dagster/asset_partition_range_start": f"{DAYS[0]}|{TICKERS[0]}",
    "dagster/asset_partition_range_end": f"{DAYS[-1]}|{TICKERS[-1]}",
}
day_ticker = dg.MultiPartitionsDefinition(
    {"day": dg.StaticPartitionsDefinition(DAYS), "ticker": dg.StaticPartitionsDefinition(TICKERS)}
)
single_run = dg.BackfillPolicy.single_run()


class NoValues(dg.IOManager):
    """Assets here are events only."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store nothing."""

    def load_input(self, context: dg.InputContext) -> None:
        """Load nothing."""


# A code version, for Dagster takes the run's id for it otherwise and data versions would differ.
@dg.asset(
    partitions_def=day_ticker,
    backfill_policy=single_run,
    code_version="1",
    check_specs=[dg.AssetCheckSpec("priced", asset="bars")],
)
def bars(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log.info("a line that is no event")
    for day in DAYS:
        context.log_event(
            dg.AssetObservation(
                "bars",
                partition=dg.MultiPartitionKey({"day": day, "ticker": "AAA"}),
                metadata={"seen": 1},
                tags={"dagster/data_version": day},
            )
        )
    return dg.MaterializeResult(
        metadata={"rows": 12, "note": "«rows»"},
        check_results=[dg.AssetCheckResult(check_name="priced", passed=True)],
    )


@dg.asset(partitions_def=day_ticker, backfill_policy=single_run, code_version="1", deps=[bars])
def features() -> None: ...


@dg.asset_check(asset=features)
def drifted() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=features, partitions_def=day_ticker)
def finite() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(code_version="1")
def summary() -> dg.MaterializeResult:
    return dg.MaterializeResult(tags={"kind": "summary"})


def statuses(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str | None]:
    """What the UI shows of each partition; nothing for an asset of which there is no event."""
    asked = [(key, day_ticker)]
    context = LoadingContextForTest(instance)
    (value,) = instance.event_log_storage.get_asset_status_cache_values(asked, context)
    if value is None:
        return {}
    shown: dict[str, str | None] = dict.fromkeys(day_ticker.get_partition_keys())
    for name, subset in (
        ("MATERIALIZED", value.deserialize_materialized_partition_subsets(day_ticker)),
        ("FAILED", value.deserialize_failed_partition_subsets(day_ticker)),
        ("IN_PROGRESS", value.deserialize_in_progress_partition_subsets(day_ticker)),
    ):
        shown.update(dict.fromkeys(subset.get_partition_keys(), name))
    return shown


@dg.asset(partitions_def=day_ticker, backfill_policy=single_run, code_version="1", deps=[bars])
def failing(context: dg.AssetExecutionContext) -> None:
    context.log.info("statuses %s", statuses(context.instance, context.asset_key))
    raise ValueError("no forecast today")


def run_range(
    instance: dg.DagsterInstance, *selection: Any, tags: dict[str, str] | None = RANGE
) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(
        assets=[one for one in selection if not isinstance(one, dg.AssetChecksDefinition)],
        asset_checks=[one for one in selection if isinstance(one, dg.AssetChecksDefinition)],
        resources={"io_manager": NoValues()},
    )
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, tags=tags, raise_on_error=False
    )


@pytest.fixture(autouse=True)
def _no_batches_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # set before deleted, so that what a test sets is undone as well
    monkeypatch.setenv(BATCH_SIZE_VARIABLE, "0")
    monkeypatch.delenv(BATCH_SIZE_VARIABLE)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the keys of cells that are made."""
    calls: list[int] = []
    stock = dg.MultiPartitionKey.__new__

    def count(cls: type[dg.MultiPartitionKey], keys: dict[str, str]) -> dg.MultiPartitionKey:
        calls.append(1)
        return stock(cls, keys)

    monkeypatch.setattr(dg.MultiPartitionKey, "__new__", count)
    return calls


@contextmanager
def instance_at(home: Path, storage: type[SqliteEventLogStorage]) -> Iterator[dg.DagsterInstance]:
    """Open an instance from a dagster.yaml in `home`, with batching on exactly if it is ours."""
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(
        textwrap.dedent(f"""\
            telemetry: {{enabled: false}}
            event_log_storage:
              module: {storage.__module__}
              class: {storage.__name__}
              config: {{base_dir: {shards_of(home)}}}
            """)
    )
    if storage is BatchedSqliteEventLogStorage:
        enable_event_batching()
    else:
        os.environ.pop(BATCH_SIZE_VARIABLE, None)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.event_log_storage) is storage
        yield instance


def shards_of(home: Path) -> Path:
    return home / "history" / "runs"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[EventLogEntry]:
    """Events of every kind that the shards tell apart, of two runs and of none."""
    home = tmp_path_factory.mktemp("recorded")
    with instance_at(home, SqliteEventLogStorage) as instance:
        entries = []
        for run in (
            run_range(instance, bars, features, drifted, finite),
            run_range(instance, bars, failing),
        ):
            entries += instance.all_logs(run.run_id)
        for event in (
            dg.AssetMaterialization("outside", partition="p", tags={"dagster/data_version": "7"}),
            dg.AssetObservation("outside", metadata={"rows": 1}),
            dg.AssetCheckEvaluation(asset_key=bars.key, check_name="priced", passed=False),
            FreshnessStateChange(
                key=bars.key,
                new_state=FreshnessState.FAIL,
                previous_state=FreshnessState.PASS,
                state_change_timestamp=1.0,
            ),
        ):
            instance.report_runless_asset_event(event)
        entries += instance.all_logs("")
    failure = DagsterEvent.build_asset_failed_to_materialize_event(
        job_name="job",
        step_key="bars",
        asset_materialization_failure=AssetMaterializationFailure(
            asset_key=dg.AssetKey("never"),
            partition="p",
            tags={"dagster/data_version": "7"},
            failure_type=AssetMaterializationFailureType.FAILED,
            reason=AssetMaterializationFailureReason.FAILED_TO_MATERIALIZE,
        ),
    )
    entries.append(entry_of(failure, run_id=entries[0].run_id))
    kinds = {entry.dagster_event_type for entry in entries}
    assert kinds > {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, DagsterEventType.RUN_FAILURE, None}
    return entries


def entry_of(event: DagsterEvent, run_id: str) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=logging.DEBUG,
        user_message="",
        run_id=run_id,
        timestamp=1_700_000_000.25,
        job_name=event.job_name,
        step_key=event.step_key,
        dagster_event=event,
    )
