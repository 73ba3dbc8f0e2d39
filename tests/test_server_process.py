"""A server ends with whoever started it, however that is asked to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from stock_assets.server_process import run_until_asked

if TYPE_CHECKING:
    from pathlib import Path

# A server with a process of its own, which it ends when it is asked to end itself.
SERVER = """
import pathlib, signal, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.5)
    other.kill()
    other.wait()
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end if sys.argv[1] == "obeys" else signal.SIG_IGN)
pathlib.Path("ready").write_text(str(other.pid))
while True:
    time.sleep(0.05)  # pause() would miss a signal that comes just before it
"""
STARTER = """
import os, pathlib, sys
from stock_assets import server_process
server_process._ENDS_IN = 0.5
try:
    code = server_process.run_until_asked(
        [sys.executable, "server.py", sys.argv[1]], dict(os.environ), pathlib.Path.cwd()
    )
except KeyboardInterrupt:
    code = "by Ctrl-C"
print("ended", code)
"""
ELSEWHERE = """
import pathlib, signal, threading, time
def ask_of_this_thread():
    while not pathlib.Path("ready").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(120)
threading.Thread(target=ask_of_this_thread, daemon=True).start()
"""
"""The signal comes to a thread that is not the main one, as the system may have it."""
HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Whatever started the tests: in the background of a script, all would ignore Ctrl-C."""
TERM, HUP, INT = signal.SIGTERM, signal.SIGHUP, signal.SIGINT


class Started:
    """The starter, in a group of its own, once its server is there."""

    def __init__(
        self,
        folder: Path,
        server: str,
        *,
        nohup: bool = False,
        beside: str = "",
        program: str = SERVER,
    ) -> None:
        (folder / "server.py").write_text(program)
        self.process = subprocess.Popen(
            [*(["nohup"] if nohup else []), sys.executable, "-c", HEARS + beside + STARTER, server],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.ready = folder / "ready"
        deadline = time.monotonic() + 60
        while not (self.ready.exists() and self.ready.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ends(self) -> str:
        """What it said in the end, when the server's own process is gone too."""
        said, _ = self.process.communicate(timeout=60)
        assert not psutil.pid_exists(int(self.ready.read_text()))
        return said.strip()

    def clear(self) -> None:
        """End whatever lives still."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("numbers", "server", "said"),
    [
        ([TERM], "obeys", "ended 3"),
        ([HUP], "obeys", "ended 3"),
        ([HUP, HUP, TERM], "obeys", "ended 3"),
        ([INT], "obeys", "ended by Ctrl-C"),
        ([INT], "deaf", "ended by Ctrl-C"),
        ([INT, INT, TERM], "deaf", "ended by Ctrl-C"),
    ],
)
def test_a_server_ends_with_its_own_processes(
    tmp_path: Path, numbers: list[signal.Signals], server: str, said: str
) -> None:
    started = Started(tmp_path, server)
    try:
        for number in numbers:
            if number is INT:
                for member in (started.process, *psutil.Process(started.process.pid).children()):
                    member.send_signal(number)
            else:
                started.process.send_signal(number)
            time.sleep(0.1)
        assert started.ends() == said
    finally:
        started.clear()


def test_under_nohup_a_hangup_ends_nothing(tmp_path: Path) -> None:
    started = Started(tmp_path, "obeys", nohup=True)
    try:
        for member in (started.process, *psutil.Process(started.process.pid).children()):
            member.send_signal(HUP)
        time.sleep(1)
        assert started.process.poll() is None
        started.process.send_signal(TERM)
        assert started.ends() == "ended 3"
    finally:
        started.clear()


def test_the_code_of_a_server_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_until_asked([sys.executable, "-c", "exit(7)"], dict(os.environ), tmp_path) == 7
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_server_is_asked_to_end_whichever_thread_hears_of_it(tmp_path: Path) -> None:
    started = Started(tmp_path, "obeys", beside=ELSEWHERE)
    try:
        assert started.ends() == "ended 3"
    finally:
        started.clear()


DAGSTERS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
pathlib.Path("ready").write_text(str(2**22 + 1))
try:
    time.sleep(120)
except KeyboardInterrupt:
    sys.exit(3)
"""
"""A server that takes SIGTERM for SIGINT, as Dagster's do."""
IN_THE_BACKGROUND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


def test_what_a_script_started_in_the_background_ends_when_it_is_asked(tmp_path: Path) -> None:
    """Such a process ignores Ctrl-C, and goes on doing so."""
    started = Started(tmp_path, "obeys", beside=IN_THE_BACKGROUND, program=DAGSTERS)
    try:
        os.killpg(started.process.pid, INT)
        time.sleep(0.5)
        assert started.process.poll() is None
        started.process.send_signal(TERM)
        assert started.ends() == "ended 3"
    finally:
        started.clear()
