"""Fixtures that more than one test package uses."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

# Before anything loads them. Workers and the processes of tests are more than there are processors
# already, and threads that wait for one cost a tenth of all; tests/proofs/test_reproducible.py is
# about answers with many.
for _pool in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

# Lakes and logs of tests are in memory where there is much of it: each commit of each of their
# databases waits for the disk several times, half of what tests of the event log took.
_MEMORY = Path("/dev/shm")
_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_ROOM = 8 * 2**30
"""Bytes: several times what a run of all tests has there; what failed is kept until the next."""


def _is_roomy() -> bool:
    if not _MEMORY.is_dir() or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    limit = _CONTAINER.read_text().strip() if _CONTAINER.is_file() else "max"
    memory = min(psutil.virtual_memory().available, int(limit) if limit.isdigit() else sys.maxsize)
    return shutil.disk_usage(_MEMORY).free >= _ROOM and memory >= 2 * _ROOM


if _is_roomy():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

REPOSITORY = Path(__file__).resolve().parent.parent

# The fake servers of market-data APIs: plain modules, which tests and programs of tests import.
sys.path.append(str(REPOSITORY / "tests" / "servers"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real candles; tests that need it skip on machines without them."""
    folder = Path(os.environ.get("STOCK_ASSETS_SHARED", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "moex_daily_dev_tqbr.parquet").exists():
        pytest.skip(f"real candles are not on this machine ({folder}); set STOCK_ASSETS_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own STOCK_ASSETS_... variables must not change what a test sees."""
    for name in list(os.environ):
        if name.startswith("STOCK_ASSETS_") and name != "STOCK_ASSETS_SHARED":
            monkeypatch.delenv(name)


LONGEST = (
    "graph",
    "ui.test_backfills",
    "proofs.test_random_walk",
    "ui.test_live_day",
    "automation.test_evenings",
    "real.test_real_input",
    "dbt.test_models",
    "graph_later",
    "ui.test_browser",
    "sources.test_storms",
    "bench.test_bars",
    "automation.test_feed",
)
"""Groups of tests that take more than a minute, the longest first.

Those that mostly wait (those of the UI) stand apart, so that they do not wait together.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tier a test is of, on which worker it runs and when.

    Tests on real candles are of the slow tier wherever they stand. A file's tests share a worker,
    so that its fixtures are made once. What takes long begins first: no worker is left with it at
    the end.
    """
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("xdist_group") is None:
            group = item.path.relative_to(REPOSITORY / "tests").with_suffix("").as_posix()
            item.add_marker(pytest.mark.xdist_group(group.replace("/", ".")))
    files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_place(item), item.path not in files))


def _place(item: pytest.Item) -> int:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    (group,) = marker.args
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Give the memory back, unless somebody has to look at what failed.

    Not test by test, as pytest can: the next one would have the same path, which MLflow remembers.
    """
    if exitstatus == 0 and _is_controller(session) and "PYTEST_DEBUG_TEMPROOT" in os.environ:
        folders = session.config._tmp_path_factory
        shutil.rmtree(folders.getbasetemp(), ignore_errors=True)


def _is_controller(session: pytest.Session) -> bool:
    return not hasattr(session.config, "workerinput")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Where nothing may be skipped (CI), a skip is a failure that says why."""
    outcome = yield
    report = outcome.get_result()
    if (
        report.skipped
        and os.environ.get("STOCK_ASSETS_FORBID_SKIPS")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be: {report.longrepr}"
