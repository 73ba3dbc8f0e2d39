"""A server that runs as a process of its own, and ends when whoever started it is to end.

Only the passing on of signals belongs here; which server that is, is `cli.py`'s affair.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ENDS_IN = 5.0
"""Seconds after Ctrl-C in which a server that was told so itself is expected to end."""


class _AskedToEndError(BaseException):
    """A signal asks this process to end."""


def run_until_asked(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a server until it ends by itself, or this process is asked to; its exit code.

    SIGTERM (`kill`, `docker stop`, systemd) and SIGHUP reach this process alone: the server is
    asked in turn, and waited for, as it has processes of its own to end. Ctrl-C reaches all that
    the terminal runs. Call it in the main thread.
    """
    before = {
        number: signal.signal(number, _be_asked) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with subprocess.Popen(command, env=environment, cwd=folder) as server:  # noqa: S603 - ours
            try:
                return server.wait()
            except KeyboardInterrupt:
                _wait_or_ask(server)
            except _AskedToEndError:
                server.terminate()
            return server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_asked(_number: int, _frame: object) -> NoReturn:
    raise _AskedToEndError


def _wait_or_ask(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(_ENDS_IN)
    except subprocess.TimeoutExpired:
        server.terminate()
