"""Storms over the inbox: whatever comes in whatever order, and whoever is killed, the truth is one.

The truth is told twice: by a fold over what was dropped, in plain Python, and by a lake that is
loaded from all files at once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from stock_assets.calendars import get_calendar
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.inbox import Inbox, stamp_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

TICKERS = ("AAA", "BBB", "CCC")


def line(day: dt.date, close: float) -> str:
    return f"{day},{close},{close + 1},{close / 2},{close},7"


def fresh_lake(box: Any, new_box: Callable[..., Any], name: str = "fresh") -> Any:
    """A lake loaded in one run from all that the inbox holds and has filed."""
    other = new_box(name)
    shutil.rmtree(other.folder)
    shutil.copytree(box.folder, other.folder)
    last = other.grid.days()[-1]
    other.work(Slice(None, last, other.settings.tickers))
    return other


def assert_same_lakes(one: Any, other: Any) -> None:
    for name, table in one.tables().items():
        assert table.equals(other.tables()[name]), name


class Storm:
    """Somebody who drops, corrects, copies, renames and takes away files, by chance."""

    def __init__(self, box: Any, seed: int) -> None:
        self.box = box
        self.chance = random.Random(seed)
        calendar = get_calendar("XMOS")
        first = box.grid.sessions[0]
        self.days = calendar.between(first, calendar.after(first, 8)[-1])
        self.said: dict[tuple[str, dt.date], float] = {}
        self.count = 0

    def rows(self) -> list[dt.date]:
        start = self.chance.randrange(len(self.days))
        return list(self.days[start : start + self.chance.randint(1, 5)])

    def drop(self) -> None:
        """A whole file of one ticker: what it says is the truth from now on."""
        self.count += 1
        ticker = self.chance.choice(TICKERS)
        lines = []
        for day in self.rows():
            close = self.said.get((ticker, day))
            if close is None or self.chance.random() < 0.4:
                close = float(self.chance.randint(2, 99))
            self.said[ticker, day] = close
            lines.append(line(day, close))
        if self.chance.random() < 0.2:
            lines.append(f"{self.days[0]},1,0.1,5,1.5,7")  # breaks the rules
        # The later file is the one changed later, whatever its name.
        self.box.drop(
            f"{ticker}_{self.chance.randrange(10**6)}.csv", lines, age=60 - self.count / 50
        )

    def copy(self) -> None:
        if files := self.files():
            file = self.chance.choice(files)
            ticker = file.name.split("_")[0]
            target = file.with_name(f"{ticker}_{self.chance.randrange(10**6)}.csv")
            shutil.copy2(file, target)

    def rename(self) -> None:
        if files := self.files():
            file = self.chance.choice(files)
            ticker = file.name.split("_")[0]
            file.rename(file.with_name(f"{ticker}_{self.chance.randrange(10**6)}.csv"))

    def half(self) -> None:
        """A file that is being written, and is then finished elsewhere: it never says anything."""
        self.box.drop("AAA_9.csv.part", [line(self.days[0], 77)])
        self.box.drop("BBB_half.csv", "Date,Open,High,Low,Close,Vol", age=0)

    def files(self) -> list[Path]:
        return [
            self.box.folder / name
            for name in self.box.waiting()
            if name.endswith(".csv") and "half" not in name
        ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_storm_ends_in_the_truth(seed: int, new_box: Callable[..., Any]) -> None:
    box = new_box()
    storm = Storm(box, seed)
    for _ in range(14):
        for _ in range(storm.chance.randint(0, 3)):
            storm.drop()
        for act in (storm.copy, storm.half):
            if storm.chance.random() < 0.3:
                act()
        for request in box.tick():
            bad = storm.chance.random() < 0.2
            box.run(request, dg.DagsterRunStatus.FAILURE if bad else dg.DagsterRunStatus.SUCCESS)
    for _ in range(10):
        box.tick(900)
        box.serve()
    assert not storm.files()
    held = box.lake.read("candles").select("ticker", "day", "close").rows()
    assert {(ticker, day): close for ticker, day, close in held} == storm.said
    assert_same_lakes(box, fresh_lake(box, new_box))


@pytest.mark.slow
def test_a_hundred_files_at_once_are_one_run(new_box: Callable[..., Any]) -> None:
    names = [f"T{number:03}" for number in range(100)]
    box = new_box()
    toml = box.file.read_text()
    box.configure(toml.replace('["AAA", "BBB", "CCC"]', json.dumps(names)))
    days = get_calendar("XMOS").between(box.grid.sessions[0], box.grid.sessions[9])
    for name in names:
        box.drop(f"{name}.csv", [line(day, 5) for day in days])
        box.drop(f"{name}_copy.csv", [line(day, 5) for day in days])
    assert len(box.serve()) == 1
    copies = [bool(item["duplicate_of"]) for item in box.receipts().values()]
    assert (len(copies), sum(copies)) == (200, 100)
    assert box.lake.read("candles").height == 100 * len(days)


def restore(kept: Path, folder: Path) -> None:
    """The inbox as it was: a copy's files have other times, of which the state must know."""
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    inbox = Inbox(folder)
    state = inbox.state()
    notes = {
        name: note.model_copy(update={"stamp": stamp_of(folder / name)})
        for name, note in state.notes.items()
    }
    inbox.save(state.model_copy(update={"notes": notes}))


class Killed(BaseException):
    """As `kill -9` at one point: nothing of the tick is told to Dagster."""


STEPS = ("rename", "replace", "mkdir", "open", "unlink")


def killing(patch: pytest.MonkeyPatch, at: int, *, after: bool) -> list[str]:
    """Have the `at`-th step on the file system be the last one; the steps that were made."""
    made: list[str] = []
    for name in STEPS:
        stock = getattr(Path, name)

        def step(
            self: Path, *args: Any, _name: str = name, _stock: Any = stock, **more: Any
        ) -> Any:
            if _name == "open" and args[:1] not in (("w",), ("a",)):
                return _stock(self, *args, **more)
            made.append(_name)
            if len(made) - 1 == at and not after:
                raise Killed
            found = _stock(self, *args, **more)
            if len(made) - 1 == at:
                raise Killed
            return found

        patch.setattr(Path, name, step)
    return made


@pytest.mark.slow
def test_killed_anywhere_between_run_and_receipt_nothing_is_lost_and_nothing_comes_twice(
    new_box: Callable[..., Any], tmp_path: Path
) -> None:
    box = new_box()
    days = get_calendar("XMOS").between(box.grid.sessions[0], box.grid.sessions[2])
    box.drop("AAA.csv", [line(day, 5) for day in days])
    box.drop("BBB.csv", [line(day, 6) for day in days])
    box.drop("BBB_copy.csv", [line(day, 6) for day in days], age=30)
    (request,) = [*box.tick(), *box.tick()]
    run = box.run(request)
    kept = tmp_path / "kept"
    shutil.copytree(box.folder, kept)
    area = Slice(None, days[-1], TICKERS)
    whole = fetch_slice(box.settings, area)
    steps = 1_000
    at, after = 0, False
    while at < steps:
        restore(kept, box.folder)
        with pytest.MonkeyPatch.context() as patch:
            made = killing(patch, at, after=after)
            try:
                box.tick()
                steps = len(made)
            except Killed:
                pass
        # In between, a run reads the same.
        assert fetch_slice(box.settings, area).candles.equals(whole.candles), (at, after)
        assert [*box.tick(), *box.tick()] == []
        assert box.waiting() == []
        receipts = box.receipts()
        assert sorted(receipts) == ["AAA.csv", "BBB.csv", "BBB_copy.csv"], (at, after)
        assert receipts["AAA.csv"]["runs"] == [run]
        assert receipts["BBB.csv"]["runs"] == [run]
        assert receipts["BBB_copy.csv"]["duplicate_of"].startswith("BBB.csv")
        assert fetch_slice(box.settings, area).candles.equals(whole.candles), (at, after)
        at, after = (at + 1, False) if after else (at, True)
    assert at > 10


KILLED = """
import datetime as dt, os, signal, sys
from pathlib import Path
import dagster as dg
from stock_assets.automation.inbox import tick
from stock_assets.partitions import Grid
from stock_assets.settings import load_settings

settings = load_settings(Path(sys.argv[1]))
stock = Path.rename
def rename(self, target):
    stock(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = rename
with dg.DagsterInstance.local_temp(sys.argv[2]) as instance:
    now = dt.datetime.fromtimestamp(float(sys.argv[3]), dt.UTC)
    tick(settings, Grid.of(settings), instance, now)
"""


@pytest.mark.slow
def test_a_daemon_killed_while_it_files_is_made_up_for_by_the_next(
    new_box: Callable[..., Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    box = new_box()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        box.instance = instance
        days = get_calendar("XMOS").between(box.grid.sessions[0], box.grid.sessions[2])
        box.drop("AAA.csv", [line(day, 5) for day in days])
        box.drop("BBB.csv", [line(day, 6) for day in days])
        (request,) = [*box.tick(), *box.tick()]
        box.run(request)
        now = str(box.now.timestamp() + 15)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(box.file), str(home), now],
            check=False, capture_output=True, text=True, env=dict(os.environ),
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert box.waiting() == ["BBB.csv"]
        box.now += box.now.resolution * 30_000_000
        assert box.asks() == []
        assert sorted(box.receipts()) == ["AAA.csv", "BBB.csv"]
        assert_same_lakes(box, fresh_lake(box, new_box))
