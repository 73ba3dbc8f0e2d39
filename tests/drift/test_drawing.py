"""The process that draws: it answers, says why it cannot, and is never left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import polars as pl
import pytest

from stock_assets.drift.drawing import Drawer
from stock_assets.drift.evidently_page import Drawing
from stock_assets.errors import StockAssetsError

from .fake_evidently import write_package

ROWS = pl.DataFrame({"ret_1d": [1.0, None, 3.0]})
DRAWING = Drawing(ROWS, ROWS.head(2), {"ret_1d": 0.5})


@pytest.fixture(autouse=True)
def fake_evidently(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_package(tmp_path)))


def is_running(pid: int) -> bool:
    """A process that is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_it_answers_again_and_again_whatever_libraries_print():
    with Drawer() as drawer:
        pages = [drawer.draw(DRAWING) for _ in range(3)]
        pid = drawer._process.pid

    assert pages == ["['ret_1d'] (2, 1) (3, 1)"] * 3
    assert not is_running(pid)


def test_starting_twice_is_starting_once():
    with Drawer() as drawer:
        drawer.start()
        pid = drawer._process.pid
        drawer.start()
        assert drawer.draw(DRAWING)
        assert drawer._process.pid == pid


def test_an_error_of_evidently_is_told_whole_and_the_process_goes_on(monkeypatch):
    monkeypatch.setenv("ORDER", "raise")
    with Drawer() as drawer:
        for _ in range(2):
            with pytest.raises(StockAssetsError, match="no such histogram") as told:
                drawer.draw(DRAWING)
            assert "Traceback" in str(told.value.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "told"),
    [("die", "code 3.*out of luck"), ("broken", "code 1.*no module named plotly")],
)
def test_a_process_that_dies_is_told_with_its_last_words(monkeypatch, order, told):
    monkeypatch.setenv("ORDER", order)
    with Drawer() as drawer:
        drawer.start()
        pid = drawer._process.pid
        with pytest.raises(StockAssetsError, match=rf"(?s)draws drift pages .*{told}"):
            drawer.draw(DRAWING)
        assert not is_running(pid)
        monkeypatch.delenv("ORDER")
        assert drawer.draw(DRAWING), "the next page gets a process of its own"


def test_a_process_that_was_killed_before_it_was_asked_is_told():
    with Drawer() as drawer:
        drawer.draw(DRAWING)
        drawer._process.kill()
        drawer._process.wait()
        with pytest.raises(StockAssetsError, match=r"signal 9 .*lack of memory"):
            drawer.draw(DRAWING)


def test_a_process_that_cannot_be_started_is_told(monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with Drawer() as drawer, pytest.raises(StockAssetsError, match=r"started \(Cannot allocate"):
        drawer.draw(DRAWING)


def test_a_run_that_is_cancelled_while_it_waits_leaves_no_process(monkeypatch):
    monkeypatch.setenv("ORDER", "sleep")

    def cancel(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        with pytest.raises(KeyboardInterrupt), Drawer() as drawer:  # noqa: PT012
            drawer.start()
            pid = drawer._process.pid
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            drawer.draw(DRAWING)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not is_running(pid)


def test_the_process_of_a_run_that_was_killed_ends_by_itself():
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import time
                from stock_assets.drift.drawing import Drawer
                drawer = Drawer()
                drawer.start()
                print(drawer._process.pid, flush=True)
                time.sleep(60)
                """
            ),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    pid = int(run.stdout.readline())
    assert is_running(pid)
    run.kill()
    run.communicate()

    assert gone(pid)


def test_ctrl_c_reaches_the_run_and_not_the_process():
    with Drawer() as drawer:
        drawer.draw(DRAWING)
        os.kill(drawer._process.pid, signal.SIGINT)
        time.sleep(0.2)
        assert drawer.draw(DRAWING)


def test_a_drawer_that_nobody_asked_starts_nothing():
    with Drawer() as drawer:
        pass
    assert drawer._process is None
