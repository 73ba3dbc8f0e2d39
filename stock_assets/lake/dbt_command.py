"""Running dbt: one `build` of the project over one request, in this process.

A process of its own costs its start and imports once more, and nothing of what dbt makes needs it:
DuckDB holds nothing between invocations and Delta commits are whole (docs/adr/0010). What is built
is `dbt_request.py`'s, what the outcome means to Dagster is `assets/transform.py`'s.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_assets.errors import LakeError
from stock_assets.lake.dbt_project import BUILD_ARGUMENTS, DBT_PROJECT_DIR, ensure_manifest
from stock_assets.lake.dbt_request import requested

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stock_assets.lake.dbt_request import DbtRequest

_ONE_AT_A_TIME = threading.Lock()
"""dbt keeps its flags, its adapters and its log in globals, and the request is in the environment:
threads of one process take turns."""

_FAILED = frozenset({"error", "fail", "runtime error"})


@dataclass(frozen=True)
class NodeResult:
    """How one model or test of an invocation ended, in dbt's own words."""

    unique_id: str
    name: str
    status: str
    """success, pass, warn, fail, error or skipped."""
    message: str
    failures: int | None
    """Rows that a test found; None for models."""
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether dbt counts it as a failure: a test that only warns does not fail."""
        return self.status in _FAILED


@dataclass(frozen=True)
class DbtOutcome:
    """What one invocation did: its nodes in the order they ended, and why it failed if it did."""

    results: tuple[NodeResult, ...]
    error: LakeError | None


def build(request: DbtRequest, names: Sequence[str], project: Path = DBT_PROJECT_DIR) -> DbtOutcome:
    """Build the models and run the tests of these names over `request`, and nothing else.

    SIGINT and SIGTERM end the query at work and raise `KeyboardInterrupt`; a commit that has begun
    is finished first. Raises `LakeError` when the project does not parse; a model or test that
    fails is told in the outcome, beside what had ended before it.
    """
    parsed = ensure_manifest(project).with_name("partial_parse.msgpack")
    with _ONE_AT_A_TIME, requested(request) as file, _interrupts_as_dbt_knows_them():
        # What dbt stages goes away with the request, and no other run writes there.
        target = file.parent / "target"
        invoked = _invoke(
            [
                *BUILD_ARGUMENTS,
                "--select",
                *names,
                # Exactly these: tests are named by the caller.
                "--indirect-selection=empty",
                f"--project-dir={project}",
                f"--profiles-dir={project}",
                f"--target-path={target}",
                f"--log-path={target}",
                f"--partial-parse-file-path={parsed}",
                # Nobody reads the files that dbt leaves behind a run.
                "--log-level-file=none",
                "--no-write-json",
            ]
        )
    if invoked.exception is not None and not isinstance(invoked.exception, Exception):
        raise invoked.exception
    found = tuple(_result(item) for item in getattr(invoked.result, "results", ()))
    return DbtOutcome(found, None if invoked.success else _error(found, invoked.exception))


def _invoke(arguments: list[str]) -> Any:
    """The result of one dbt command; what it kept in DuckDB's memory is let go."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415
    from dbt.cli.main import dbtRunner  # noqa: PLC0415

    try:
        return dbtRunner().invoke(arguments)
    finally:
        # dbt-duckdb would hand the same in-memory database to the next invocation.
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]


def _result(item: Any) -> NodeResult:
    return NodeResult(
        unique_id=item.node.unique_id,
        name=item.node.name,
        status=str(item.status),
        message=str(item.message or ""),
        failures=item.failures,
        seconds=item.execution_time,
    )


def _error(results: tuple[NodeResult, ...], exception: BaseException | None) -> LakeError:
    reasons = [f"{item.name}: {item.message}" for item in results if item.failed]
    if exception is not None:
        reasons.append(str(exception))
    error = LakeError("dbt build failed\n" + "\n".join(reasons))
    error.__cause__ = exception
    return error


@contextlib.contextmanager
def _interrupts_as_dbt_knows_them() -> Iterator[None]:
    """SIGINT and SIGTERM as `KeyboardInterrupt`, whatever a signal means to the caller.

    On that exception dbt cancels its queries and waits for its threads; any other would leave them
    at work behind our back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    handlers = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
