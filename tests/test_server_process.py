"""A server ends with whoever started it, however that is asked to end."""

from __future__ import annotations

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
import pathlib, signal, subprocess, sys
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
def end(*_):
    other.terminate()
    other.wait()
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end if sys.argv[1] == "obeys" else signal.SIG_IGN)
pathlib.Path("ready").write_text(str(other.pid))
signal.pause()
"""
STARTER = """
import os, pathlib, sys
from stock_assets import server_process
server_process._ENDS_IN = 0.5
code = server_process.run_until_asked(
    [sys.executable, "server.py", sys.argv[1]], dict(os.environ), pathlib.Path.cwd()
)
print("ended", code)
"""


@pytest.mark.parametrize(
    ("number", "server", "to_all"),
    [
        (signal.SIGTERM, "obeys", False),
        (signal.SIGHUP, "obeys", False),
        (signal.SIGINT, "obeys", True),
        (signal.SIGINT, "deaf", True),
    ],
)
def test_a_server_ends_with_its_own_processes(
    tmp_path: Path, number: signal.Signals, server: str, *, to_all: bool
) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, server],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ready = tmp_path / "ready"
    deadline = time.monotonic() + 60
    while not (ready.exists() and ready.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if to_all:
        os.killpg(starter.pid, number)
    else:
        starter.send_signal(number)
    said, _ = starter.communicate(timeout=60)
    assert said == "ended 3\n"
    assert not psutil.pid_exists(int(ready.read_text()))


def test_the_code_of_a_server_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_until_asked([sys.executable, "-c", "exit(7)"], dict(os.environ), tmp_path) == 7
    assert signal.getsignal(signal.SIGTERM) == before
