"""The limit of a host, shared by threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from stock_assets.sources.limits import RateLimit

if TYPE_CHECKING:
    from pathlib import Path

RATE = 50.0
SPACING = 1 / RATE

TAKE = """
import sys, time
from pathlib import Path
from stock_assets.sources.limits import RateLimit
limit = RateLimit(Path(sys.argv[1]), "host", {rate})
for _ in range(10):
    limit.wait()
    print(time.time())
"""


def closest(moments: list[float]) -> float:
    ordered = sorted(moments)
    return min(after - before for before, after in pairwise(ordered))


def test_threads_take_turns_at_the_rate(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path, "host", RATE)

    def take(_: int) -> float:
        limit.wait()
        return time.time()

    began = time.time()
    with ThreadPoolExecutor(8) as pool:
        moments = list(pool.map(take, range(25)))
    assert time.time() - began >= 24 * SPACING
    # A thread may be late, so that the next one follows it sooner: never two slots at once.
    assert len(moments) == 25
    assert sum(after - before < SPACING / 4 for before, after in pairwise(sorted(moments))) < 5


def test_processes_share_the_rate(tmp_path: Path) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE.format(rate=RATE), str(tmp_path)],
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    moments = [float(line) for one in programs for line in one.communicate(timeout=60)[0].split()]
    assert len(moments) == 30
    assert max(moments) - min(moments) >= 29 * SPACING * 0.9


def test_a_hold_is_heard_by_everyone_and_a_shorter_one_does_not_end_it(tmp_path: Path) -> None:
    mine, theirs = (RateLimit(tmp_path, "host", RATE) for _ in range(2))
    mine.hold(0.4)
    theirs.hold(0.1)
    assert 0.2 < theirs.held_for() <= 0.4
    began = time.monotonic()
    theirs.wait()
    assert time.monotonic() - began > 0.2


@pytest.mark.parametrize("content", ["", "nonsense", "9e99"])
def test_what_a_killed_process_or_a_clock_set_back_left_behind_holds_nobody(
    tmp_path: Path, content: str
) -> None:
    limit = RateLimit(tmp_path, "host", RATE)
    (tmp_path / "host.next").write_text(content)
    assert limit.held_for() == 0
    assert limit.wait() < SPACING


def test_a_hold_is_obeyed_by_those_who_had_their_moment_before_it(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path, "host", 3)
    sent: list[float] = []

    def send() -> None:
        limit.wait()
        sent.append(time.time())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not sent:
        time.sleep(0.001)
    another_process = RateLimit(tmp_path, "host", 3)
    another_process.hold(0.8)
    until = time.time() + 0.79
    for thread in threads:
        thread.join()

    assert len(sent) == 4
    assert sum(moment < until for moment in sent) == 1
    assert max(sent) - until >= 0.6  # and are spaced after it


def test_the_longest_of_two_holds_counts(tmp_path: Path) -> None:
    limit = RateLimit(tmp_path, "host", 100)
    limit.hold(0.2)
    limit.hold(0.05)
    began = time.monotonic()
    assert limit.held_for() > 0.1
    limit.wait()
    assert time.monotonic() - began > 0.15


def test_a_moment_far_ahead_is_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    for end in ("next", "held"):
        (tmp_path / f"host.{end}").write_text(repr(time.time() + 10_000))
    assert RateLimit(tmp_path, "host", 100).wait() == 0.0
