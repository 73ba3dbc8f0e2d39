"""Running one command and measuring what it and all processes below it cost.

What the numbers are compared with, and how they are printed, is not decided here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PAUSE = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHOWN = 3000


@dataclass(frozen=True)
class Sample:
    """CPU seconds used up to a moment, by the process itself and by those below it."""

    moment: float
    """Seconds since the epoch."""
    own: float
    below: float


@dataclass
class Usage:
    """What one command cost."""

    began: float
    ended: float
    cpu: float
    """CPU seconds, user and system, all processes below included."""
    peak_bytes: int
    """Largest sum of resident memory over the command and all processes below it."""
    stdout: str
    samples: list[Sample] = field(repr=False)

    @property
    def wall(self) -> float:
        """Seconds from start to end."""
        return self.ended - self.began

    def cpu_between(self, first: float, last: float) -> tuple[float, float]:
        """CPU seconds between two moments: of the process itself, and of those below it."""
        own_first, below_first = self._at(first)
        own_last, below_last = self._at(last)
        return own_last - own_first, below_last - below_first

    def _at(self, moment: float) -> tuple[float, float]:
        """CPU seconds up to a moment, interpolated between samples."""
        place = bisect_left(self.samples, moment, key=lambda sample: sample.moment)
        if place == 0:
            return 0.0, 0.0
        if place == len(self.samples):
            return self.samples[-1].own, self.samples[-1].below
        before, after = self.samples[place - 1], self.samples[place]
        share = (moment - before.moment) / (after.moment - before.moment)
        return (
            before.own + share * (after.own - before.own),
            before.below + share * (after.below - before.below),
        )


def measured(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Usage:
    """Run `command` in `folder` to its end. Raises `RuntimeError` with what it said if it fails.

    CPU in all and the time are the kernel's; the course of both over time, and memory, are looked
    at every 50 ms (on systems with /proc).
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    samples: list[Sample] = []
    peak = [0]
    done = threading.Event()
    with out.open("w") as stdout, err.open("w") as stderr:
        began = time.time()
        process = subprocess.Popen(  # noqa: S603
            command, stdout=stdout, stderr=stderr, env=dict(environment), cwd=folder
        )
        watcher = threading.Thread(target=_watch, args=(process.pid, done, samples, peak))
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        ended = time.time()
        done.set()
        watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = (err.read_text() + out.read_text())[-_SHOWN:]
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    cpu = used.ru_utime + used.ru_stime
    # ru_maxrss is the largest single process: the floor of what the samples saw.
    memory = max(peak[0], used.ru_maxrss * 1024)
    return Usage(began, ended, cpu, memory, out.read_text(), samples)


def _watch(process: int, done: threading.Event, samples: list[Sample], peak: list[int]) -> None:
    own = below = 0.0
    while not done.wait(_PAUSE):
        found = _tree(process)
        if process not in found:
            return
        peak[0] = max(peak[0], sum(memory for _, _, memory in found.values()))
        own = max(own, found[process][0])
        # Time of processes that ended has moved to whoever waited for them; between the two a
        # glance may miss it, so that the sum never falls.
        waited = sum(waited for _, waited, _ in found.values())
        running = sum(used for name, (used, _, _) in found.items() if name != process)
        below = max(below, running + waited)
        samples.append(Sample(time.time(), own, below))


def _tree(process: int) -> dict[int, tuple[float, float, int]]:
    """(own CPU seconds, those of ended children, resident bytes) of a process and all below it."""
    found: dict[int, tuple[float, float, int]] = {}
    waiting = [process]
    while waiting:
        name = waiting.pop()
        folder = Path("/proc", str(name))
        try:
            # Fields after the command's name, which may hold spaces: proc(5), from field 3 on.
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            tasks = [file.read_text() for file in (folder / "task").glob("*/children")]
        except OSError:
            continue  # it has just ended
        user, system, waited_user, waited_system = (int(text) for text in stat[11:15])
        found[name] = (
            (user + system) / _TICKS,
            (waited_user + waited_system) / _TICKS,
            int(stat[21]) * _PAGE,
        )
        waiting += [int(child) for text in tasks for child in text.split()]
    return found


def middle(values: Sequence[float]) -> float:
    """The median: one busy moment of the machine does not count."""
    return statistics.median(values)
