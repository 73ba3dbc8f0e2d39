"""Dagster's own launcher, which also knows whether a run's process is still there.

A process that is killed cannot say that its run has ended. The code server sees it, if it lives;
after a power cut, or when all of `stock-assets dev` was killed, nobody does: the run is "started"
for ever, keeps its place in the queue, and whatever waits for it waits for ever. Dagster's run
monitoring asks the launcher of each started run, at once when the daemon starts and every two
minutes then, and reports it as failed; the stock launcher has no answer. In dagster.yaml:

    run_launcher:
      module: stock_assets.instance.run_launcher
      class: WatchingRunLauncher

Runs that have not begun or are being cancelled are Dagster's own affair: it waits three minutes.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from dagster._serdes import ConfigurableClassData

PROCESS_TAG = "stock_assets/process"
"""host:pid of the command that is itself the process of a run."""

_CLOCK_CORRECTION = 10.0
"""Seconds by which a clock may be set forward without making a process look younger than its run.

Set further while a run goes on, its run is reported as failed although it ends well.
"""

_LOCAL = frozenset({"localhost", "127.0.0.1"})


@dataclass(frozen=True)
class RunProcess:
    """The process that works on a run, on this machine."""

    pid: int
    seen: float
    """When it is known to have been there: a number is given to another process some day."""

    def is_gone(self) -> bool:
        """Whether it has ended."""
        try:
            found = psutil.Process(self.pid)
            younger = found.create_time() > self.seen + _CLOCK_CORRECTION
            return younger or found.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def command_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunProcess | None:
    """The command that is itself the process of the run; None if there is none on this machine."""
    host, _, pid = run.tags.get(PROCESS_TAG, "").rpartition(":")
    record = instance.get_run_record_by_id(run.run_id) if host == socket.gethostname() else None
    return None if record is None else RunProcess(int(pid), record.create_timestamp.timestamp())


def launched_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunProcess | None:
    """The process that a code server of this machine started for the run; None if none did."""
    if json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host") not in _LOCAL:
        return None
    # The first thing that it says.
    found = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, ascending=True
    )
    for record in found.records:
        event = record.event_log_entry.get_dagster_event()
        if (pid := event.engine_event_data.metadata.get("pid")) is not None:
            return RunProcess(int(str(pid.value)), record.timestamp)
    return None


class WatchingRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher`, for which the daemon fails the runs whose process is gone."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, object]
    ) -> Self:
        """Build the launcher; it has no settings."""
        del config_value
        return cls(inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: it is the point of it."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run is there; one that is not known counts as there."""
        instance = self._instance
        process = launched_process(instance, run) or command_process(instance, run)
        if process is None or not process.is_gone():
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, ended_words(process))


def ended_words(process: RunProcess) -> str:
    """What is said of a run whose process is gone."""
    return f"process {process.pid} ended before the run did; run the slice again"
