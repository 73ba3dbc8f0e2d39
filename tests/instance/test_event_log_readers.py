"""What the UI's own questions answer on an instance written by ours, and on one by stock storage.

Asked of the webserver's GraphQL schema in this process. And what a reader sees while batches are
pending: an ordinary event at once.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_graphql.schema import create_schema

from stock_assets.instance.batching import BATCH_SIZE_VARIABLE
from stock_assets.instance.event_log import BatchedSqliteEventLogStorage

GRAPH = """
import dagster as dg

days = dg.StaticPartitionsDefinition(["2024-01-03", "2024-01-04"])
tickers = dg.StaticPartitionsDefinition(["AAA", "BBB"])
cells = dg.MultiPartitionsDefinition({"day": days, "ticker": tickers})
one_run = dg.BackfillPolicy.single_run()

@dg.asset(partitions_def=cells, backfill_policy=one_run, code_version="1")
def bars(context) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 12, "note": "«rows»"})

@dg.asset(partitions_def=cells, backfill_policy=one_run, code_version="1", deps=[bars])
def failing() -> None:
    raise ValueError("no forecast today")

@dg.asset_check(asset=bars)
def priced() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)

definitions = dg.Definitions([bars, failing], asset_checks=[priced])
"""

RANGE = {
    "dagster/asset_partition_range_start": "2024-01-03|AAA",
    "dagster/asset_partition_range_end": "2024-01-04|BBB",
}

EVENT = """ fragment Event on DagsterRunEvent {
  __typename
  ... on MessageEvent { runId message timestamp level stepKey eventType }
}"""
MATERIALIZATION = """ fragment Cell on MaterializationEvent {
  runId timestamp stepKey partition label description eventType level
  metadataEntries { __typename label description
    ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } }
  tags { key value } assetLineage { assetKey { path } }
  runOrError { __typename ... on Run { id status } }
}"""
QUESTIONS = {
    "partition statuses": """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
      ... on AssetNode { partitionStats { numMaterialized numMaterializing numPartitions numFailed }
        assetPartitionStatuses { ... on MultiPartitionStatuses { primaryDimensionName
          ranges { primaryDimStartKey primaryDimEndKey secondaryDim {
            ... on DefaultPartitionStatuses { materializedPartitions failedPartitions
              materializingPartitions } } } } } } } }""",
    "asset events": """query($path: [String!]!) { assetOrError(assetKey: {path: $path}) {
      ... on Asset { assetMaterializations(limit: 20) { ...Cell } } } }"""
    + MATERIALIZATION,
    "one cell": """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
      ... on AssetNode { staleStatus
        latestMaterializationByPartition(partitions: ["2024-01-03|AAA", "2024-01-04|BBB"])
          { ...Cell }
        latestRunForPartition(partition: "2024-01-03|AAA") { id status }
        assetMaterializations(partitions: ["2024-01-04|AAA"]) { ...Cell }
        dataVersionByPartition(partitions: ["2024-01-04|AAA"]) } } }"""
    + MATERIALIZATION,
    "checks": """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
      ... on AssetNode { assetChecksOrError { ... on AssetChecks { checks { name
        executionForLatestMaterialization { status evaluation { success severity } } } } } } } }""",
    "run page": """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { cursor
        hasMore events { ...Event } } }
      runOrError(runId: $run) { ... on Run { status assets { key { path } }
        stats { ... on RunStatsSnapshot { materializations stepsFailed stepsSucceeded } }
        stepStats { stepKey status materializations { partition } } } } }"""
    + EVENT,
}


def _ask(instance: dg.DagsterInstance, file: Path, run_id: str) -> dict[str, Any]:
    schema = create_schema()
    answers = {}
    target = PythonFileTarget(
        python_file=str(file), attribute=None, working_directory=None, location_name="graph"
    )
    with WorkspaceProcessContext(instance, target) as process:
        for name, question in QUESTIONS.items():
            paths = [["bars"], ["failing"]] if "$path" in question else [None]
            for path in paths:
                variables = {"run": run_id} if path is None else {"path": path}
                # A context caches what it loaded, as one request may.
                context = process.create_request_context()
                result = asyncio.run(
                    schema.execute_async(question, context_value=context, variables=variables)
                )
                assert not result.errors, (name, result.errors)
                answers[f"{name} {path}"] = result.data
    return answers


RANDOM = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r'"timestamp": "\d+"'), '"timestamp": "<time>"'),
    (re.compile(r"\b[\d.]+(ms|s)\b"), "<duration>"),
    (re.compile(r"pid: \d+"), "<pid>"),
)


def _lines(answers: Any) -> list[str]:
    text = json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True)
    for pattern, name in RANDOM:
        text = pattern.sub(name, text)
    return text.splitlines()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_uis_questions_have_the_answers_of_stock_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "graph.py"
    file.write_text(GRAPH)
    found = []
    for storage, size in ((SqliteEventLogStorage, "0"), (BatchedSqliteEventLogStorage, "1000")):
        monkeypatch.setenv(BATCH_SIZE_VARIABLE, size)
        home = tmp_path / size
        home.mkdir()
        (home / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\nevent_log_storage:\n"
            f"  module: {storage.__module__}\n  class: {storage.__name__}\n"
            f"  config: {{base_dir: {home / 'history' / 'runs'}}}\n"
        )
        module: dict[str, Any] = {}
        exec(compile(GRAPH, str(file), "exec"), module)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            job = module["definitions"].resolve_implicit_global_asset_job_def()
            run = job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)
            found.append(_lines(_ask(instance, file, run.run_id)))
            ours = _lines(_ask(instance, file, run.run_id))
            assert ours == found[-1]
    stock, ours = found
    assert ours == stock
    assert any("2024-01-04|BBB" in line for line in ours)


@pytest.mark.filterwarnings("ignore")
def test_an_ordinary_event_is_seen_at_once_while_a_batch_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BATCH_SIZE_VARIABLE, "1000")
    (tmp_path / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nevent_log_storage:\n"
        "  module: stock_assets.instance.event_log\n  class: BatchedSqliteEventLogStorage\n"
        f"  config: {{base_dir: {tmp_path / 'history' / 'runs'}}}\n"
    )
    cells = dg.StaticPartitionsDefinition(["a", "b", "c"])
    seen = []
    handle = dg.DagsterInstance.handle_new_event

    def spy(self: dg.DagsterInstance, event: EventLogEntry, **options: Any) -> None:
        handle(self, event, **options)
        pending = sum(map(len, self._event_buffer.values()))
        if pending == 1 and event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self.report_engine_event("in between", job_name="job", run_id=event.run_id)
            stored = [one.message for one in self.all_logs(event.run_id)]
            seen.append((stored[-1], sum("Materialized" in message for message in stored)))

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", spy)

    @dg.asset(partitions_def=cells, backfill_policy=dg.BackfillPolicy.single_run())
    def bars() -> None: ...

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = (
            dg.Definitions([bars])
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": "a",
                    "dagster/asset_partition_range_end": "c",
                },
            )
        )
        messages = [one.message for one in instance.all_logs(run.run_id)]
    assert seen == [("in between", 0)]
    assert messages.index("in between") < messages.index("Materialized value bars.")
