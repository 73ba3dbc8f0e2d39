"""A run whose process was killed is reported as failed, whoever started it; a living one is not."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from stock_assets.instance.run_launcher import PROCESS_TAG, RunProcess
from stock_assets.launch import close_abandoned_runs

LAUNCHED = """
# What a code server's child process does, with a run that goes on until it is killed.
import json, multiprocessing, queue, time
import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin,
)
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.impl import start_run_in_subprocess
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster._serdes import serialize_value

@dg.op
def goes_on(context):
    print(context.run_id, flush=True)
    time.sleep(120)

@dg.job(executor_def=dg.in_process_executor)
def endless():
    goes_on()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(
            endless, tags={GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": "s"})}
        )
        location = RegisteredCodeLocationOrigin("here")
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "r"), "endless")
        arguments = ExecuteExternalJobArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=instance.get_ref()
        )
        job = ReconstructableJob.for_file(__file__, "endless")
        start_run_in_subprocess(
            serialize_value(arguments), job, queue.Queue(), multiprocessing.Event()
        )
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "run_launcher:\n"
        "  module: stock_assets.instance.run_launcher\n"
        "  class: WatchingRunLauncher\n"
    )
    return folder


@pytest.fixture(scope="module")
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


def monitor(instance: dg.DagsterInstance) -> None:
    """One look of the daemon's."""
    daemon = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    errors = list(execute_run_monitoring_iteration(daemon, logging.getLogger("monitor")))
    assert errors == [None] * len(errors)


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.slow
def test_a_launched_run_is_failed_once_its_process_was_killed_and_not_before(
    home: Path, instance: dg.DagsterInstance
) -> None:
    script = home / "launched.py"
    script.write_text(LAUNCHED)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script)],
        env={**os.environ, "DAGSTER_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        monitor(instance)
        assert status(instance, run_id) == dg.DagsterRunStatus.STARTED

        process.send_signal(signal.SIGKILL)
        process.stdout.read()
        # Not waited for yet: it stays in the table of processes until its parent asks.
        monitor(instance)
    assert status(instance, run_id) == dg.DagsterRunStatus.FAILURE


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> dg.DagsterRun:
    @dg.job
    def nothing() -> None: ...

    return instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_killed_command_is_found_by_the_daemon_and_by_the_next_command(
    instance: dg.DagsterInstance,
) -> None:
    here = socket.gethostname()
    living = started(instance, {PROCESS_TAG: f"{here}:{os.getpid()}"})
    first = started(instance, {PROCESS_TAG: f"{here}:{ended_pid()}"})
    monitor(instance)
    second = started(instance, {PROCESS_TAG: f"{here}:{ended_pid()}"})
    assert close_abandoned_runs(instance) == [second.run_id]

    for run, expected in (
        (living, dg.DagsterRunStatus.STARTED),
        (first, dg.DagsterRunStatus.FAILURE),
        (second, dg.DagsterRunStatus.FAILURE),
    ):
        assert status(instance, run.run_id) == expected


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {PROCESS_TAG: "another-machine:1"},
        {GRPC_INFO_TAG: '{"host": "code-server", "port": 4000}'},
    ],
)
def test_what_runs_elsewhere_is_not_judged(
    instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    run = started(instance, tags)
    instance.report_engine_event("begun", run, EngineEventData.in_process(ended_pid()))
    monitor(instance)
    assert close_abandoned_runs(instance) == []
    assert status(instance, run.run_id) == dg.DagsterRunStatus.STARTED


def test_another_process_under_the_same_number_is_not_the_runs() -> None:
    """After a restart, and always in a container, numbers are given again."""
    began = psutil.Process().create_time()
    assert not RunProcess(os.getpid(), began + 1).is_gone()
    assert RunProcess(os.getpid(), began - 60).is_gone()
