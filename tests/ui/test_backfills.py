"""Backfills through the real daemon and GraphQL: runs, re-execution, cancel and retries.

One server for all of it, on a lake whose runs may have four cells only. Each test has cells or
assets of its own.
"""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from stock_assets.calendars import get_calendar
from stock_assets.graph import asset_names
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid, cell_key
from stock_assets.settings import PROJECT_DIR, SETTINGS_VARIABLE

from .conftest import Server, clean_environment, free_ports, running_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

CELLS_PER_RUN = 4
INGEST = ("candles", "quarantine")
"""The assets of the cheapest step."""
FINAL = {"SUCCESS", "FAILURE", "CANCELED"}
_ENDS_IN = 280

_BACKFILL = """mutation($it: LaunchBackfillParams!) { done: launchPartitionBackfill(
  backfillParams: $it) { __typename ... on LaunchBackfillSuccess { id: backfillId }
  ... on PythonError { message } } }"""
_CANCEL_BACKFILL = """mutation($it: String!) { done: cancelPartitionBackfill(backfillId: $it) {
  __typename ... on CancelBackfillSuccess { id: backfillId } ... on PythonError { message } } }"""
_RETRY_BACKFILL = """mutation($it: ReexecutionParams!) { done: reexecutePartitionBackfill(
  reexecutionParams: $it) { __typename ... on LaunchBackfillSuccess { id: backfillId }
  ... on PythonError { message } } }"""
_RERUN = """mutation($it: ReexecutionParams!) { done: launchRunReexecution(reexecutionParams: $it) {
  __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }"""
_CANCEL_RUN = """mutation($it: String!) { done: terminateRun(runId: $it) {
  __typename ... on TerminateRunSuccess { run { id } } ... on TerminateRunFailure { message }
  ... on PythonError { message } } }"""
_RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
  id status startTime endTime tags { key value } stepStats { stepKey status materializations {
  assetKey { path } } } } } } }"""


@dataclass(frozen=True)
class Run:
    """One run as the UI is told of it."""

    id: str
    status: str
    cells: tuple[str, str]
    """First and last key of its range."""
    began: float | None
    ended: float | None
    steps: dict[str, str | None]
    tags: dict[str, str]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Run:
        tags = {tag["key"]: tag["value"] for tag in answer["tags"]}
        steps = {step["stepKey"]: step["status"] for step in answer["stepStats"]}
        cells = tags.get(RANGE_START_TAG, ""), tags.get(RANGE_END_TAG, "")
        return cls(
            answer["id"],
            answer["status"],
            cells,
            answer["startTime"],
            answer["endTime"],
            steps,
            tags,
        )


@dataclass(frozen=True)
class Daemon:
    """What a person asks of a running server, and what comes of it."""

    server: Server
    settings_file: Path

    @property
    def days(self) -> tuple[dt.date, ...]:
        return Grid.of(self.server.settings).days()

    def keys(self, days: Iterable[int], *tickers: str) -> list[str]:
        return [cell_key(self.days[day], ticker) for day, ticker in product(days, tickers)]

    def do(self, mutation: str, it: Any) -> dict[str, Any]:
        done: dict[str, Any] = self.server.ask(mutation, it=it)["done"]
        assert done["__typename"].endswith("Success"), done
        return done

    def backfill(self, assets: Sequence[str], keys: Iterable[str], **more: Any) -> str:
        """Launch a backfill as the UI's dialog does; its id."""
        selection = [{"path": [name]} for name in assets]
        # In no order: a selection is a set.
        names = sorted(keys, key=lambda key: key[::-1])
        wanted = {"assetSelection": selection, "partitionNames": names, **more}
        return self.do(_BACKFILL, wanted)["id"]

    def runs(self, **wanted: Any) -> list[Run]:
        """Runs with these tags (or ids), the first submitted first."""
        if "ids" not in wanted:
            wanted = {"tags": [{"key": key, "value": value} for key, value in wanted.items()]}
        else:
            wanted = {"runIds": wanted["ids"]}
        answer = self.server.ask(_RUNS, filter=wanted)
        return [Run.of(found) for found in reversed(answer["runsOrError"]["results"])]

    def runs_of(self, backfill: str) -> list[Run]:
        return self.runs(**{"dagster/backfill": backfill})

    def wait_backfill(self, backfill: str) -> str:
        """The status of a backfill to which nothing more will happen."""

        def ended() -> str | None:
            query = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
              ... on PartitionBackfill { status endTimestamp } } }"""
            found = self.server.ask(query, id=backfill)["partitionBackfillOrError"]
            return found["status"] if found["endTimestamp"] else None

        return str(self.server.wait(f"backfill {backfill}", ended, _ENDS_IN))

    def rerun(self, run: str, strategy: str) -> Run:
        """Re-execute a run and wait for the end."""
        asked = {"parentRunId": run, "strategy": strategy}
        return self.wait_run(self.do(_RERUN, asked)["run"]["id"])

    def wait_run(self, run: str) -> Run:
        def ended() -> Run | None:
            (found,) = self.runs(ids=[run])
            return found if found.status in FINAL else None

        found: Run = self.server.wait(f"run {run}", ended, _ENDS_IN)
        return found

    def cells(self, asset: str, status: str, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that the UI shows with this status: materialized or failed."""
        query = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
          ... on AssetNode { assetPartitionStatuses { ... on MultiPartitionStatuses { ranges {
          primaryDimStartKey primaryDimEndKey secondaryDim { ... on DefaultPartitionStatuses {
          materializedPartitions failedPartitions materializingPartitions } } } } } } } }"""
        answer = self.server.ask(query, path=[asset])["assetNodeOrError"]
        found = set()
        for stretch in answer["assetPartitionStatuses"]["ranges"]:
            first, last = stretch["primaryDimStartKey"], stretch["primaryDimEndKey"]
            for day in self.days:
                if first <= day.isoformat() <= last:
                    of_day = stretch["secondaryDim"][f"{status}Partitions"]
                    found |= {cell_key(day, ticker) for ticker in of_day}
        return found & set(keys)

    def give(self, ticker: str) -> None:
        """Make the file that the ticker's source reads: without it, its runs fail."""
        rows = [f"{day},10,11,9,10.5,100" for day in self.days]
        file = self.settings_file.with_name(f"{ticker}.csv")
        file.write_text("\n".join(["date,open,high,low,close,volume", *rows]))

    def program(self, *arguments: str) -> str:
        """A command of Dagster's own on the lake; what it printed."""
        home = self.server.settings.dagster_home
        done = subprocess.run(
            [Path(sys.executable).with_name("dagster"), *arguments],
            cwd=home,
            env={
                **clean_environment(),
                "DAGSTER_HOME": str(home),
                "STOCK_ASSETS_EVENT_LOG": str(home / "history" / "runs"),
                SETTINGS_VARIABLE: str(self.settings_file),
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Two simulated tickers, and two whose files are not there yet."""
    calendar = get_calendar("XMOS")
    first = calendar.back(calendar.latest_closed(dt.datetime.now(tz=dt.UTC)), 12)
    port, reports_port = free_ports()
    file = tmp_path_factory.mktemp("daemon") / "market.toml"
    of_files = "\n".join(
        f'[[universe]]\nticker = "{name}"\nsource = "{name}"\nexchange = "XMOS"\n'
        f'[sources.{name}]\nkind = "files"\npath = "{name}.csv"'
        for name in ("MMM", "NNN")
    )
    file.write_text(
        f"""
[lake]
path = "data"
[partitions]
first_day = {first}
cells_per_run = {CELLS_PER_RUN}
[[universe]]
tickers = ["AAA", "BBB"]
source = "sample"
exchange = "XMOS"
{of_files}
[sources.sample]
kind = "simulated"
begin = {first - dt.timedelta(days=700)}
interval = "1d"
[forecast]
min_training_rows = 300
[server]
port = {port}
reports_port = {reports_port}
"""
    )
    with running_server(file) as server:
        yield Daemon(server, file)


def test_a_backfill_too_large_for_a_run_is_worked_off_in_the_order_of_its_days(
    daemon: Daemon,
) -> None:
    keys = daemon.keys(range(9, 12), "AAA", "BBB")
    backfill = daemon.backfill(INGEST, keys)
    assert daemon.wait_backfill(backfill) == "COMPLETED_SUCCESS"
    runs = daemon.runs_of(backfill)
    assert [run.cells for run in runs] == [(keys[0], keys[3]), (keys[4], keys[5])]
    whys = [run.tags["stock_assets/why"] for run in runs]
    assert whys == [f"part {number} of 2 (partitions.cells_per_run)" for number in (1, 2)]
    # One at a time, each after the one before it.
    times = [at for run in runs for at in (run.began, run.ended)]
    assert times == sorted(times)
    for asset in INGEST:
        assert daemon.cells(asset, "materialized", daemon.keys(range(13), "AAA", "BBB")) == set(
            keys
        )


def test_what_a_backfill_did_not_get_done_is_asked_for_again_and_nothing_else(
    daemon: Daemon,
) -> None:
    good, bad = daemon.keys([5], "AAA", "BBB"), daemon.keys([6], "AAA", "BBB", "MMM")
    backfill = daemon.backfill(INGEST, [*good, *bad])
    assert daemon.wait_backfill(backfill) == "COMPLETED_FAILED"
    runs = daemon.runs_of(backfill)
    assert [(run.cells, run.status) for run in runs] == [
        ((good[0], good[-1]), "SUCCESS"),
        ((bad[0], bad[-1]), "FAILURE"),
    ]
    assert daemon.cells("candles", "materialized", good + bad) == set(good)
    assert daemon.cells("candles", "failed", good + bad) == set(bad)

    daemon.give("MMM")
    again = {"parentRunId": backfill, "strategy": "FROM_FAILURE"}
    retried = daemon.do(_RETRY_BACKFILL, again)["id"]
    assert daemon.wait_backfill(retried) == "COMPLETED_SUCCESS"
    (run,) = daemon.runs_of(retried)
    assert run.cells == (bad[0], bad[-1])
    assert daemon.cells("candles", "materialized", good + bad) == {*good, *bad}


def test_a_run_that_may_be_retried_is_with_its_whole_range(daemon: Daemon) -> None:
    keys = daemon.keys([5, 6], "NNN")
    tags = [{"key": "dagster/max_retries", "value": "1"}]
    backfill = daemon.backfill(INGEST, keys, tags=tags)

    def failed() -> bool:
        return any(run.status == "FAILURE" for run in daemon.runs_of(backfill))

    daemon.server.wait("the failure", failed, _ENDS_IN)
    daemon.give("NNN")

    def retried() -> list[Run] | None:
        runs = daemon.runs_of(backfill)
        return runs if len(runs) > 1 and all(run.status in FINAL for run in runs) else None

    # Not the backfill's own end: a look of the daemon in which the retry ends calls it failed, as
    # Dagster takes the cells before it takes the runs.
    runs = daemon.server.wait("the retry", retried, _ENDS_IN)
    assert [run.status for run in runs] == ["FAILURE", "SUCCESS"]
    assert {run.cells for run in runs} == {(keys[0], keys[-1])}
    assert daemon.cells("candles", "materialized", keys) == set(keys)


def test_a_cancelled_backfill_is_completed_by_re_executing_its_run(daemon: Daemon) -> None:
    """The whole graph: cancelled in the model, failed there, completed from the failure."""
    # The first days: only they bring the history with them on which a model is trained.
    keys = daemon.keys(range(4), "AAA", "BBB")
    first, later = keys[:4], keys[4:]
    registry = daemon.server.settings.mlflow_dir
    registry.mkdir()

    def in_model() -> bool:
        # Not the step's beginning alone: an interrupt in the middle of an import may get lost in
        # it, and Dagster then ends the run minutes later.
        return f"{registry} is in use by another run" in daemon.server.log.read_text() and any(
            run.steps.get("model") == "IN_PROGRESS" for run in daemon.runs_of(backfill)
        )

    # The registry is somebody else's for now: the run waits in its `model` to be cancelled there.
    with FileLock(registry / "registry.lock"):
        backfill = daemon.backfill(asset_names(), keys)
        daemon.server.wait("the model's step", in_model, _ENDS_IN)
        daemon.do(_CANCEL_BACKFILL, backfill)
        assert daemon.wait_backfill(backfill) == "CANCELED"
    runs = daemon.runs_of(backfill)
    assert [run.status for run in runs] == ["CANCELED", "CANCELED"]
    assert [run.cells for run in runs] == [(first[0], first[-1]), (later[0], later[-1])]
    assert runs[1].steps == {}
    assert daemon.cells("candles", "materialized", keys) == set(first)
    for asset in ("model", "forecasts", "scores"):
        assert daemon.cells(asset, "materializing", keys) == set()
        assert daemon.cells(asset, "materialized", keys) == set()
    lake = daemon.server.lake
    candles = lake.read("candles")
    assert lake.version("forecasts") is None
    shutil.rmtree(registry)

    # A file where the registry's folder belongs.
    registry.write_text("")
    failed = daemon.rerun(runs[0].id, "ALL_STEPS")
    assert failed.status == "FAILURE"
    assert failed.cells == runs[0].cells
    assert failed.steps["model"] == "FAILURE"
    assert daemon.cells("features", "materialized", keys) == set(first)
    assert daemon.cells("model", "failed", keys) == set(first)

    registry.unlink()
    done = daemon.rerun(failed.id, "FROM_FAILURE")
    assert done.status == "SUCCESS"
    assert done.cells == runs[0].cells
    assert {"model", "forecasts", "scores"} <= {*done.steps}
    assert not {"ingest", "transform"} & {*done.steps}
    for asset in asset_names():
        if asset not in INGEST:
            assert daemon.cells(asset, "materialized", keys) == set(first)
    assert lake.read("candles").equals(candles)
    made = lake.read("forecasts").select("day", "ticker").unique()
    assert {cell_key(day, ticker) for day, ticker in made.iter_rows()} == set(first)


def test_the_backfill_of_a_job_works_on_all_cells_of_its_range(daemon: Daemon) -> None:
    """Stock Dagster makes a range's run work on its first cell only (dagster-io/dagster 28861)."""
    keys = daemon.keys([7, 8], "AAA", "BBB")
    repository = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "stock_assets",
    }
    selector = {
        "partitionSetName": "daily_slice_partition_set",
        "repositorySelector": repository,
    }
    backfill = daemon.backfill(INGEST, keys, selector=selector)
    assert daemon.wait_backfill(backfill) == "COMPLETED_SUCCESS"
    (run,) = daemon.runs_of(backfill)
    assert run.cells == (keys[0], keys[-1])
    assert daemon.cells("candles", "materialized", keys) == set(keys)


def test_the_command_that_backfills_a_job_makes_a_run_of_a_rectangle(daemon: Daemon) -> None:
    """And that run, cancelled, leaves nothing in progress."""
    keys = daemon.keys([7, 8], "AAA", "BBB")
    workspace = str(PROJECT_DIR / "workspace.yaml")
    said = daemon.program(
        *("job", "backfill", "-w", workspace, "-j", "daily_slice", "--noprompt"),
        *("--partitions", ",".join(keys), "--tags", '{"asked": "by command"}'),
    )
    assert "Launched backfill job" in said
    (run,) = daemon.runs(asked="by command")
    assert run.cells == (keys[0], keys[-1])

    def started() -> bool:
        return daemon.runs(ids=[run.id])[0].status == "STARTED"

    daemon.server.wait("the run", started, _ENDS_IN)
    assert daemon.cells("forecasts", "materializing", keys) == set(keys)
    daemon.do(_CANCEL_RUN, run.id)
    assert daemon.wait_run(run.id).status == "CANCELED"
    for asset in ("features", "forecasts"):
        assert daemon.cells(asset, "materializing", keys) == set()
        assert daemon.cells(asset, "materialized", keys) == set()


def test_the_command_that_materializes_a_range_means_the_rectangle(daemon: Daemon) -> None:
    keys = daemon.keys([7, 8], "MMM", "NNN")
    daemon.give("MMM")
    daemon.give("NNN")
    daemon.program(
        *("asset", "materialize", "-m", "stock_assets.definitions"),
        *("--select", ",".join(INGEST), "--partition-range", f"{keys[0]}...{keys[-1]}"),
    )
    assert daemon.cells("candles", "materialized", keys) == set(keys)
