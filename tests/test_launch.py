"""Starting Dagster on a lake; the runs themselves are in tests/graph."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest

from stock_assets.errors import ModelError
from stock_assets.instance import backfills
from stock_assets.launch import _mark, prepare_home, run_slice
from stock_assets.partitions import Grid
from stock_assets.settings import PROJECT_DIR, load_settings

OPENED_AT_ONCE = r"""
import multiprocessing, os, sys
from pathlib import Path
from stock_assets.launch import open_instance

def open_at_once(barrier, home):
    os.environ["DAGSTER_HOME"] = home
    barrier.wait()
    with open_instance() as instance:
        assert instance.get_runs_count() == 0

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    for number in range(3):
        home = Path(sys.argv[1], str(number))
        home.mkdir()
        (home / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\n"
            "event_log_storage:\n"
            "  module: stock_assets.instance.event_log\n"
            "  class: BatchedSqliteEventLogStorage\n"
            f"  config: {{base_dir: {home / 'history' / 'runs'}}}\n"
        )
        barrier = fork.Barrier(4)
        openers = [fork.Process(target=open_at_once, args=(barrier, str(home))) for _ in range(4)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert [opener.exitcode for opener in openers] == [0] * 4
"""


@pytest.mark.slow
def test_processes_that_open_a_new_home_at_once_all_find_its_tables(tmp_path: Path) -> None:
    """Dagster alone fails here with "table run_tags already exists"."""
    script = tmp_path / "opened_at_once.py"
    script.write_text(OPENED_AT_ONCE)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_processes_without_settings_are_told_how_many_cells_a_run_may_have(tmp_path: Path) -> None:
    settings = load_settings()
    lake = settings.lake.model_copy(update={"path": tmp_path})
    partitions = settings.partitions.model_copy(update={"cells_per_run": 1234})
    told = settings.model_copy(update={"lake": lake, "partitions": partitions})
    with mock.patch.dict(os.environ):
        prepare_home(told)
        code = "from stock_assets.instance import backfills; print(backfills.cells_per_run())"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
    assert done.stdout.strip() == "1234"
    assert backfills.cells_per_run() == settings.partitions.cells_per_run == 100_000


def _prepared(lake: Path) -> Path:
    """The dagster.yaml of a lake that a command was started on."""
    settings = load_settings()
    at = settings.lake.model_copy(update={"path": lake})
    with mock.patch.dict(os.environ):
        return prepare_home(settings.model_copy(update={"lake": at})) / "dagster.yaml"


def test_the_dagster_yaml_of_a_lake_is_the_projects_and_kept_up_to_date(tmp_path: Path) -> None:
    file = _prepared(tmp_path)
    ours = (PROJECT_DIR / "dagster.yaml").read_bytes()
    assert file.read_bytes() == _mark(ours) + ours
    older = b"telemetry: {enabled: false}\n"
    file.write_bytes(_mark(older) + older)
    assert _prepared(tmp_path).read_bytes() == _mark(ours) + ours


def test_a_dagster_yaml_that_a_person_changed_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = _prepared(tmp_path)
    assert not caplog.messages
    changed = file.read_text().replace("max_concurrent_runs: 1", "max_concurrent_runs: 2")
    for own in (changed, "storage: {postgres: {postgres_url: {env: ADDRESS}}}\n", ""):
        file.write_text(own)
        caplog.clear()
        assert _prepared(tmp_path).read_text() == own
        assert caplog.messages == [f"{file} is not as stock-assets wrote it: left alone"]


@pytest.mark.parametrize(
    ("raised", "said", "code"),
    [
        (ModelError("model m is gone; restore it"), "model m is gone; restore it", 5),
        (ValueError("no number"), "FileNotFoundError: rest.json", 1),
    ],
)
def test_a_failed_step_is_told_by_our_error_though_another_caused_it(
    tmp_path: Path, raised: Exception, said: str, code: int
) -> None:
    @dg.asset
    def forecasts() -> None:
        raise raised from FileNotFoundError("rest.json")

    settings = load_settings()
    lake = settings.lake.model_copy(update={"path": tmp_path})
    grid = Grid.of(settings.model_copy(update={"lake": lake}))
    day = grid.sessions[0]
    with dg.DagsterInstance.ephemeral() as instance:
        area = grid.slice(day, day, settings.tickers)
        outcome = run_slice(dg.Definitions([forecasts]), instance, grid, area)
    assert (outcome.errors, outcome.exit_code) == ([f"forecasts: {said}"], code)
