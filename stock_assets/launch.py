"""Starting Dagster on a lake: its home folder, and a slice as one run in this process.

What is run is in `graph.py`; what a person types is in `cli.py`.
"""

import contextlib
import datetime as dt
import hashlib
import io
import logging
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._utils.error import SerializableErrorInfo
from filelock import FileLock

from stock_assets.errors import LakeError, StockAssetsError
from stock_assets.instance.backfills import limit_cells_per_run
from stock_assets.instance.batching import enable_event_batching
from stock_assets.instance.run_launcher import PROCESS_TAG, command_process, ended_words
from stock_assets.partitions import Grid
from stock_assets.settings import PROJECT_DIR, SETTINGS_VARIABLE, Settings
from stock_assets.slices import Slice

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.3

_WRITTEN_WITHOUT_A_MARK = frozenset(
    {
        "e16835e067635d33992f0425ac6cd44b75b2dd1b0d1b793eb79e98a64b99a5ad",
        "edf812b4ad2668cb644e1661dbfc0b391ca7873eed8511fb6d7c3fc3aef352b4",
        "c94bc7f8c687c788e1c4f483fe28b25d0e837ca359137039ecee40b02108c88c",
        "eb9e44e86c41019bbbce2f032be4b4fdffa7f337952a60b018d66a4297b1db08",
    }
)
"""SHA-256 of each dagster.yaml that lakes were given before `_mark` was written above it."""

Listener = Callable[[str, str], None]
"""Told (step, what happened) as a run goes on: started, succeeded, failed."""


@dataclass
class RunOutcome:
    """How one run ended, and what a person needs to know of it."""

    run_id: str
    success: bool
    seconds: float
    exit_code: int = 0
    """0, or that of the first error (errors.py)."""
    errors: list[str] = field(default_factory=list)
    failed_checks: list[tuple[str, str, str]] = field(default_factory=list)
    """(asset, check, description) of checks that did not pass."""


def prepare_home(settings: Settings, settings_file: Path | None = None) -> Path:
    """Make the lake's Dagster home and point this process, and those it starts, at it.

    Its dagster.yaml is the project's until a person changes it there.
    Raises `LakeError` when the folder cannot be made.
    """
    home = settings.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings.inbox_dir.mkdir(parents=True, exist_ok=True)
        _install(PROJECT_DIR / "dagster.yaml", home / "dagster.yaml")
    except OSError as error:
        message = (
            f"cannot write to {home}: {error.strerror or error}; "
            "make the folder writable or change lake.path in the settings"
        )
        raise LakeError(message) from error
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["STOCK_ASSETS_EVENT_LOG"] = str(home / "history" / "runs")
    if settings_file is not None:
        os.environ[SETTINGS_VARIABLE] = str(settings_file.resolve())
    # The daemon, which cuts backfills into runs, loads no settings.
    limit_cells_per_run(settings.partitions.cells_per_run)
    enable_event_batching()
    return home


def _install(source: Path, target: Path) -> None:
    """Copy `source`, but over nothing that a person has changed.

    Atomically, and only what is new: a running daemon may be reading it.
    """
    ours = source.read_bytes()
    content = _mark(ours) + ours
    if target.exists():
        found = target.read_bytes()
        if found == content:
            return
        if not _written_by_us(found):
            _log.warning("%s is not as stock-assets wrote it: left alone", target)
            return
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    draft.write_bytes(content)
    draft.replace(target)


def _mark(content: bytes) -> bytes:
    """The first line of a file that we write: who changes what follows has it to himself."""
    digest = hashlib.sha256(content).hexdigest()
    return (
        f"# Written, and kept up to date until you change it, by stock-assets: {digest}\n".encode()
    )


def _written_by_us(found: bytes) -> bool:
    first, newline, rest = found.partition(b"\n")
    if first + newline == _mark(rest):
        return True
    return hashlib.sha256(found).hexdigest() in _WRITTEN_WITHOUT_A_MARK


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The instance of the prepared home; safe for several processes that open it first."""
    # Dagster looks for its tables, then creates those it has not found: two processes that open a
    # new home at once would both create them, and one would fail.
    with FileLock(Path(os.environ["DAGSTER_HOME"]) / "opening.lock"):
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


def run_slice(  # noqa: PLR0913
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    grid: Grid,
    area: Slice,
    *,
    assets: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    listener: Listener | None = None,
) -> RunOutcome:
    """Materialize `area` (its tickers must be neighbours) as one run in this process."""
    close_abandoned_runs(instance)
    job = definitions.resolve_implicit_global_asset_job_def()
    run_id = str(uuid.uuid4())
    process = f"{socket.gethostname()}:{os.getpid()}"
    began = dt.datetime.now(tz=dt.UTC)
    # dbt's own account goes to stdout, where only results belong; the event log has its outcome.
    with _watching(instance, run_id, listener), contextlib.redirect_stdout(io.StringIO()):
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            tags={**grid.tags(area), PROCESS_TAG: process, **(tags or {})},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=_whole_steps(definitions, assets) if assets else None,
            raise_on_error=False,
        )
    seconds = (dt.datetime.now(tz=dt.UTC) - began).total_seconds()
    failures = result.filter_events(lambda event: event.is_step_failure)
    if any(_interrupted(event) for event in failures):
        raise KeyboardInterrupt
    return RunOutcome(
        run_id,
        result.success,
        seconds,
        exit_code=0 if result.success else max([1, *map(_exit_code, failures)]),
        errors=[reason_of(event) for event in failures],
        failed_checks=[
            (found.asset_key.to_user_string(), found.check_name, found.description or "")
            for found in result.get_asset_check_evaluations()
            if not found.passed
        ],
    )


def _whole_steps(definitions: dg.Definitions, assets: Sequence[str]) -> list[dg.AssetKey]:
    """The assets, with those that the same step makes anyway: candles and quarantine."""
    chosen = dg.AssetSelection.assets(*assets).required_multi_asset_neighbors()
    return sorted(chosen.resolve(definitions.resolve_asset_graph()))


def reason_of(event: dg.DagsterEvent) -> str:
    """What a person is told of a failed step."""
    error = _telling_error(event)
    if error is None:
        return f"{event.step_key} failed"
    text = error.message.strip()
    _, _, message = text.partition(": ")
    return f"{event.step_key}: {text if _own_error(error) is None else message}"


def _interrupted(event: dg.DagsterEvent) -> bool:
    """Whether Ctrl-C ended the step; Dagster makes an error of it."""
    error = event.step_failure_data.error
    return error is not None and "DagsterExecutionInterruptedError" in str(error.to_string())


def _exit_code(event: dg.DagsterEvent) -> int:
    """The exit code of the error that ended a step: our own errors say it."""
    error = _telling_error(event)
    own = None if error is None else _own_error(error)
    return StockAssetsError.exit_code if own is None else own.exit_code


def _telling_error(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    """Of an error and its causes the first of ours, which says what to do; else the deepest."""
    error = event.step_failure_data.error
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    ours = (item for item in chain if _own_error(item) is not None)
    return next(ours, chain[-1] if chain else None)


def _own_error(error: SerializableErrorInfo) -> type[StockAssetsError] | None:
    """Our error class that a serialised error is of, if any."""
    name = error.message.strip().partition(":")[0].rsplit(".", 1)[-1]
    family = {cls.__name__: cls for cls in (StockAssetsError, *StockAssetsError.__subclasses__())}
    return family.get(name)


@contextmanager
def _watching(
    instance: dg.DagsterInstance, run_id: str, listener: Listener | None
) -> Iterator[None]:
    """Tell `listener` of the run's steps while the run keeps this thread."""
    if listener is None:
        yield
        return
    words = {
        dg.DagsterEventType.STEP_START: "started",
        dg.DagsterEventType.STEP_SUCCESS: "succeeded",
        dg.DagsterEventType.STEP_FAILURE: "failed",
    }
    done = threading.Event()

    def watch() -> None:
        cursor = None
        while True:
            last = done.wait(_POLL_SECONDS)
            found = instance.get_records_for_run(run_id, cursor=cursor, of_type=set(words))
            cursor = found.cursor
            for record in found.records:
                event = record.event_log_entry.get_dagster_event()
                listener(event.step_key or "", words[event.event_type])
            if last:
                return

    watcher = threading.Thread(target=watch, name="run progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def close_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report as failed the runs of commands that were killed on this machine; return run ids.

    Runs that the daemon launched are for the daemon to judge: it may live in another container.
    """
    closed = []
    for run in instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED])
    ):
        process = command_process(instance, run)
        if process is None or not process.is_gone():
            continue
        instance.report_run_failed(run, ended_words(process))
        closed.append(run.run_id)
    return closed


def dagster_command() -> str:
    """The `dagster` program of this environment."""
    found = shutil.which("dagster", path=str(Path(os.sys.executable).parent))
    return found or "dagster"
