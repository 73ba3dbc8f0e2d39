"""How often a host may be asked: one limit for all threads and all runs of a lake.

The next free moment stands in a small file beside a lock, so that processes share it; requests are
spaced evenly, and a host that says "not before" is heard by everyone, also by those who had a
moment before that already (docs/adr/0020 says why this is ours). What is sent, and what an answer
means, is in `http.py`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_HOLD = 900.0
"""Seconds that a host is obeyed for at once. A moment further ahead was written by a clock that has
been set back since."""


_POLL = 0.005
"""Seconds between two tries for the lock, which nobody holds for as much as one."""


class RateLimit:
    """At most `rate` requests a second under one name, whoever sends them."""

    def __init__(self, folder: Path, name: str, rate: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{name}.next"
        self._held_file = folder / f"{name}.held"
        # Local to each thread: one that threads share lets them all in, for it may be re-entered.
        self._lock = FileLock(folder / f"{name}.lock", thread_local=True)
        self._spacing = 1.0 / rate

    def wait(self) -> float:
        """Take the next free moment and sleep until it is there; the seconds slept."""
        slept = 0.0
        while True:
            with self._lock.acquire(poll_interval=_POLL):
                now = time.time()
                mine = _moment(self._file, now)
                self._file.write_text(repr(mine + self._spacing), encoding="ascii")
            if mine > now:
                time.sleep(mine - now)
                slept += mine - now
            # Without the lock: everyone who sends comes by here.
            if _moment(self._held_file, now) <= mine:
                return slept
            # Held while this one slept: its moment is given up for one after the hold.

    def hold(self, seconds: float) -> None:
        """Let nobody send for so long: the host asked for it."""
        with self._lock.acquire(poll_interval=_POLL):
            now = time.time()
            until = now + min(seconds, LONGEST_HOLD)
            if until > _moment(self._file, now):
                self._file.write_text(repr(until), encoding="ascii")
            if until > _moment(self._held_file, now):
                draft = self._held_file.with_suffix(".draft")
                draft.write_text(repr(until), encoding="ascii")
                draft.replace(self._held_file)  # whole for those who read it without the lock

    def held_for(self) -> float:
        """Seconds until the next request may be sent."""
        now = time.time()
        return max(0.0, _moment(self._file, now) - now)


def _moment(file: Path, now: float) -> float:
    """What `file` says, where that is ahead; else `now`."""
    try:
        moment = float(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        # Never asked before, or killed while writing: a moment's spacing is lost, no more.
        return now
    return now if moment > now + LONGEST_HOLD else max(now, moment)
