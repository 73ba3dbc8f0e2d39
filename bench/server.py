"""Dagster's real webserver and daemon on a lake, and the questions the UI asks them.

Ours is `stock-assets dev`; stock is `dagster dev` with the same definitions, but with Dagster's own
event log and its own cutting of backfills. What is asked for and timed is the parts' affair.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml
from measuring import Watch
from product import clean_environment, program

from stock_assets.settings import PROJECT_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stock_assets.settings import Settings

_HOST = "127.0.0.1"
_STARTS_IN = 300
_ANSWERS_IN = 120
_PAUSE = 0.5
"""Seconds between two glances at the processes: a server has hundreds of threads."""
_SHOWN = 4000
_STATUS_EVERY = 30.0
"""Seconds between two questions how a backfill stands whose runs work."""
_FINAL = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
_SUCCEEDED = {"COMPLETED", "COMPLETED_SUCCESS"}

STOCK_SWITCHES = {
    "STOCK_ASSETS_ONE_RUN_BACKFILLS": "0",
    "STOCK_ASSETS_KEPT_PARTITION_HASH": "0",
    "STOCK_ASSETS_KEPT_RANGE_KEYS": "0",
    "DAGSTER_EVENT_BATCH_SIZE": "0",
}
"""What turns our changes of Dagster off, wherever the definitions load."""


class Server:
    """A running server: what the UI asks it, and what its processes cost."""

    def __init__(self, url: str, log: Path, watch: Watch) -> None:
        self._url, self._log, self.watch = url, log, watch
        self._asks_again = 0.0

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of one GraphQL answer. Raises `RuntimeError` for an error in it."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self._url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_ANSWERS_IN) as answer:  # noqa: S310
            content = json.load(answer)
        if "errors" in content:
            raise RuntimeError(f"GraphQL: {content['errors']}\n{self.last_words()}")
        return content["data"]

    def last_words(self) -> str:
        """The end of what the server has said."""
        return self._log.read_text(errors="replace")[-_SHOWN:]

    def loaded(self) -> bool:
        """Whether the definitions are there. Raises `RuntimeError` when they cannot be loaded."""
        try:
            answer = self.ask(
                """{ workspaceOrError { ... on Workspace { locationEntries {
                  loadStatus locationOrLoadError { __typename ... on PythonError { message } }
                } } } }"""
            )
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        entries = answer["workspaceOrError"]["locationEntries"]
        for entry in entries:
            error = entry["locationOrLoadError"] or {}
            if error.get("__typename") == "PythonError":
                raise RuntimeError(error["message"])
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def stop_automation(self) -> None:
        """Switch schedules and sensors off: only what is asked for here shall run."""
        found = self.ask(
            """{ repositoriesOrError { ... on RepositoryConnection { nodes {
              sensors { id } schedules { id }
            } } } }"""
        )
        (repository,) = found["repositoriesOrError"]["nodes"]
        for kind, mutation in (("sensors", "stopSensor"), ("schedules", "stopRunningSchedule")):
            for item in repository[kind]:
                stop = f"mutation($id: String!) {{ {mutation}(id: $id) {{ __typename }} }}"
                answer = self.ask(stop, id=item["id"])[mutation]["__typename"]
                if answer.endswith("Error"):
                    raise RuntimeError(f"{mutation}: {answer}")

    def launch_backfill(self, assets: Sequence[str], cells: Sequence[str]) -> str:
        """Ask for a backfill as the UI's dialog does: every cell by its key. Returns its id."""
        answer = self.ask(
            """mutation LaunchPartitionBackfill($backfillParams: LaunchBackfillParams!) {
              launchPartitionBackfill(backfillParams: $backfillParams) { __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on PythonError { message }
                ... on UnauthorizedError { message } } }""",
            backfillParams={
                "partitionNames": list(cells),
                "assetSelection": [{"path": [name]} for name in assets],
            },
        )["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise RuntimeError(f"the backfill was refused: {answer}")
        return str(answer["backfillId"])

    def backfill_runs(self, backfill: str) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the backfill is over, and its runs: status, startTime, endTime.

        Raises `RuntimeError` when it, or one of its runs, did not succeed.
        """
        runs = self.ask(
            """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs {
                results { runId status startTime endTime } } } }""",
            filter={"tags": [{"key": "dagster/backfill", "value": backfill}]},
        )["runsOrError"]["results"]
        failed = [run for run in runs if run["status"] in ("FAILURE", "CANCELED")]
        # To say how a backfill of 65,000 cells stands, the webserver reads all its cells: a second
        # of CPU, which whoever measures should not spend every second.
        working = not runs or any(run["status"] != "SUCCESS" for run in runs)
        if working and not failed and time.monotonic() < self._asks_again:
            return False, runs
        self._asks_again = time.monotonic() + _STATUS_EVERY
        found = self.ask(
            """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
                ... on PartitionBackfill { status error { message } } } }""",
            id=backfill,
        )["partitionBackfillOrError"]
        over = found["status"] in _FINAL
        if failed or (over and found["status"] not in _SUCCEEDED):
            raise RuntimeError(
                f"backfill {found['status']} ({found['error']}), failed runs: {failed}\n"
                + self.last_words()
            )
        return over, runs


@contextmanager
def serving(settings: Settings, file: Path, *, stock: bool) -> Iterator[Server]:
    """A server of the lake of `file`, loaded and without automation; killed in the end."""
    port, reports_port = _free_ports()
    environment = clean_environment()
    if stock:
        _stock_home(settings.dagster_home)
        environment |= {
            "DAGSTER_HOME": str(settings.dagster_home),
            "STOCK_ASSETS_SETTINGS": str(file),
            **STOCK_SWITCHES,
        }
        command = [program("dagster"), "dev", "-w", str(PROJECT_DIR / "workspace.yaml")]
        command += ["-h", _HOST, "-p", str(port)]
    else:
        environment["STOCK_ASSETS_SERVER__REPORTS_PORT"] = str(reports_port)
        command = [program("stock-assets"), "dev", "--settings", str(file)]
        command += ["--host", _HOST, "--port", str(port)]
    log = file.with_name("server.log")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=file.parent,
            start_new_session=True,
        )
    try:
        with Watch(process.pid, pause=_PAUSE) as watch:
            server = Server(f"http://{_HOST}:{port}", log, watch)
            deadline = time.monotonic() + _STARTS_IN
            while not server.loaded():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server does not answer:\n{server.last_words()}")
                time.sleep(_PAUSE)
            server.stop_automation()
            yield server
    finally:
        # Code servers outlive a polite request by seconds, and hold their memory and ports.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stock_home(home: Path) -> None:
    """A Dagster home with our dagster.yaml, but for what plugs our own classes in."""
    home.mkdir(parents=True, exist_ok=True)
    ours = yaml.safe_load((PROJECT_DIR / "dagster.yaml").read_text(encoding="utf-8"))
    stock = {
        key: value
        for key, value in ours.items()
        if not str(value.get("module", "")).startswith("stock_assets")
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(stock), encoding="utf-8")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((_HOST, 0))
        other.bind((_HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]
