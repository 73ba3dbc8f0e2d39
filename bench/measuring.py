"""Running a command and measuring what it and all processes below it cost.

What the numbers are compared with, and how they are printed, is not decided here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PAUSE = 0.05
_NEWS_EVERY = 60.0
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

    @property
    def cost(self) -> dict[str, float]:
        """What is kept of it: seconds of wall and CPU time, bytes of memory at the peak."""
        return {"wall": self.wall, "cpu": self.cpu, "peak_bytes": self.peak_bytes}

    def cpu_between(self, first: float, last: float) -> tuple[float, float]:
        """CPU seconds between two moments: of the process itself, and of those below it."""
        own_first, below_first = _used_at(self.samples, first)
        own_last, below_last = _used_at(self.samples, last)
        return own_last - own_first, below_last - below_first


def _used_at(samples: Sequence[Sample], moment: float) -> tuple[float, float]:
    """CPU seconds up to a moment, interpolated between samples."""
    place = bisect_left(samples, moment, key=lambda sample: sample.moment)
    if place == 0:
        return 0.0, 0.0
    if place == len(samples):
        return samples[-1].own, samples[-1].below
    before, after = samples[place - 1], samples[place]
    share = (moment - before.moment) / (after.moment - before.moment)
    return (
        before.own + share * (after.own - before.own),
        before.below + share * (after.below - before.below),
    )


class Watch:
    """Looks at a process and all below it every `pause` seconds, on systems with /proc.

    With a `name`, says every minute on stderr how far it is.
    """

    def __init__(self, process: int, *, pause: float = _PAUSE, name: str | None = None) -> None:
        self.samples: list[Sample] = []
        self.peak_bytes = 0
        """Largest sum of resident memory since the start, or since `forget_peak`."""
        self._process, self._pause, self._name = process, pause, name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()

    def forget_peak(self) -> None:
        """Measure the peak of memory from now on."""
        self.peak_bytes = 0

    def cpu_since(self, moment: float) -> float:
        """CPU seconds of all processes from `moment` (since the epoch) until now."""
        return sum(_used_at(self.samples, time.time())) - sum(_used_at(self.samples, moment))

    def _look(self) -> None:
        own = below = 0.0
        began = told = time.time()
        while not self._done.wait(self._pause):
            found = _tree(self._process)
            if self._process not in found:
                return
            memory = sum(resident for _, _, resident in found.values())
            self.peak_bytes = max(self.peak_bytes, memory)
            own = max(own, found[self._process][0])
            # Time of processes that ended has moved to whoever waited for them; between the two a
            # glance may miss it, so that the sum never falls.
            waited = sum(waited for _, waited, _ in found.values())
            running = sum(used for name, (used, _, _) in found.items() if name != self._process)
            below = max(below, running + waited)
            now = time.time()
            self.samples.append(Sample(now, own, below))
            if self._name and now - told >= _NEWS_EVERY:
                told = now
                say(f"{self._name}: {now - began:.0f} s so far, {own + below:.0f} s of CPU")


def measured(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    name: str | None = None,
) -> Usage:
    """Run `command` in `folder` to its end. Raises `RuntimeError` with what it said if it fails.

    CPU in all and the time are the kernel's; the course of both over time, and memory, are looked
    at every 50 ms. `name` is what a long command is called when it says how far it is.
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        began = time.time()
        process = subprocess.Popen(  # noqa: S603
            command, stdout=stdout, stderr=stderr, env=dict(environment), cwd=folder
        )
        with Watch(process.pid, name=name) as watch:
            _, status, used = os.wait4(process.pid, 0)
            ended = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = (err.read_text() + out.read_text())[-_SHOWN:]
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    cpu = used.ru_utime + used.ru_stime
    # Not ru_maxrss: a child begins with the peak of the process that forked it.
    return Usage(began, ended, cpu, watch.peak_bytes, out.read_text(), watch.samples)


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


def say(text: str) -> None:
    """Tell whoever waits; stdout is for the report."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
