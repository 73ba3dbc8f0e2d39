"""A server that runs as a process of its own, and ends when whoever started it is to end.

Only the passing on of signals belongs here; which server that is, is `cli.py`'s affair.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ENDS_IN = 150.0
"""Seconds after Ctrl-C in which a server that was told so itself is expected to end.

`dagster dev` gives its webserver, which waits for open browsers, and its daemon a minute each
before it kills them; asked once more it would leave them behind.
"""

_LOOKS_UP_AFTER = 1.0
"""Seconds."""


class _Passing:
    """Handlers that pass on what this process is asked.

    None raises: waiting for the server goes on, however often one comes.
    """

    def __init__(self) -> None:
        self.server: subprocess.Popen[bytes] | None = None
        self.asked = False
        self.interrupted = False

    def ask(self, _number: int, _frame: object) -> None:
        """Ask the server to end; one that is about to start, as soon as it is there."""
        self.asked = True
        if self.server is not None:
            self.server.terminate()

    def interrupt(self, _number: int, _frame: object) -> None:
        """Ctrl-C, which the server has had too: ask it only if it does not heed that."""
        if self.interrupted:
            return
        self.interrupted = True
        later = threading.Timer(_ENDS_IN, self.ask, (signal.SIGINT, None))
        later.daemon = True
        later.start()


def _wait_for(server: subprocess.Popen[bytes]) -> int:
    """Its exit code, once it ends.

    The system may hand a signal to any thread; Python handles it in the main one, but wakes that
    one up only if it was the one that got it. So the main thread looks up by itself now and then.
    """
    waiting = threading.Thread(target=server.wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(timeout=_LOOKS_UP_AFTER)
    return server.wait()


def run_until_asked(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a server until it ends by itself, or this process is asked to; its exit code.

    SIGTERM (`kill`, `docker stop`, systemd) and SIGHUP reach this process alone: the server is
    asked in turn, and waited for, as it has processes of its own to end. What was ignored before
    (SIGHUP under nohup) stays ignored, by both. Ctrl-C reaches all that the terminal runs; it is
    raised as `KeyboardInterrupt` once the server has ended. Call it in the main thread.
    """
    passing = _Passing()
    wanted = {
        signal.SIGTERM: passing.ask,
        signal.SIGHUP: passing.ask,
        signal.SIGINT: passing.interrupt,
    }
    before = {number: signal.getsignal(number) for number in wanted}
    for number, handler in wanted.items():
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    # Dagster takes a SIGTERM for what SIGINT is to it. Where that is ignored, as of what a script
    # starts in the background, the server is to heed it, out of reach of the terminal's Ctrl-C.
    deaf = before[signal.SIGINT] is signal.SIG_IGN
    try:
        if deaf:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        passing.server = subprocess.Popen(  # noqa: S603 - ours
            command, env=environment, cwd=folder, start_new_session=deaf
        )
        if deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if passing.asked:
            passing.server.terminate()
        code = _wait_for(passing.server)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if passing.interrupted:
        raise KeyboardInterrupt
    return code
