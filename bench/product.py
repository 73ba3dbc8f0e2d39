"""`stock-assets` as a user runs it, on one lake, measured.

What is run, how often and what it is compared with is the parts' affair.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import Usage, measured
from steps import Cost, costs_of_steps

from stock_assets.calendars import get_calendar
from stock_assets.graph import STEPS
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

_OURS = ("STOCK_ASSETS_", "DAGSTER_")


def clean_environment() -> dict[str, str]:
    """The environment without a developer's own settings, which would change what is run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def program(name: str) -> str:
    """A program of this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder and those below it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def first_of(days: int, last: dt.date) -> dt.date:
    """The Moscow session from which on there are `days` up to `last`."""
    return get_calendar("XMOS").back(last, days - 1)


@dataclass
class Run:
    """One measured `stock-assets run`."""

    usage: Usage
    steps: dict[str, Cost]

    @property
    def cost(self) -> dict[str, Any]:
        """What is kept of it: the whole, its steps, and the assets' own work."""
        work = sum((self.steps[name] for name in STEPS), Cost())
        steps = {name: asdict(cost) for name, cost in self.steps.items()}
        return {**self.usage.cost, "work": asdict(work), "steps": steps}


class Product:
    """`stock-assets` on the lake of one settings file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settings: Settings = load_settings(file)
        self.lake = Lake(self.settings.lake_dir)

    @property
    def log_bytes(self) -> int:
        """Bytes of the event log on disk."""
        return bytes_below(self.settings.dagster_home / "history")

    def run(self, first: dt.date, last: dt.date, assets: Iterable[str] = ()) -> Run:
        """Materialize the days; all assets when none is named."""
        options = ["--from", f"{first}", "--to", f"{last}", "--json"]
        if names := ",".join(assets):
            options += ["--assets", names]
        usage = self.command("run", *options)
        (outcome,) = json.loads(usage.stdout)
        shard = self.settings.dagster_home / "history" / "runs" / f"{outcome['run_id']}.db"
        return Run(usage, costs_of_steps(shard, usage, STEPS))

    def command(self, name: str, *options: str) -> Usage:
        """Run one command of the command line."""
        command = [program("stock-assets"), name, "--settings", str(self.file), *options]
        called = f"stock-assets {name}"
        return measured(command, clean_environment(), self.file.parent, name=called)

    def empty(self) -> None:
        """Remove the lake and all beside it, if it is there."""
        shutil.rmtree(self.settings.lake.path, ignore_errors=True)

    @property
    def _copy(self) -> Path:
        return self.settings.lake.path.with_name("saved")

    def save(self) -> None:
        """Keep a copy of all that the lake's folder holds."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.settings.lake.path, self._copy)

    def restore(self) -> None:
        """Put the copy back in the lake's place, and on the disk.

        Else the first to sync a file, SQLite as a run begins, waits for gigabytes that a lake of
        years has on the disk long since.
        """
        self.empty()
        shutil.copytree(self._copy, self.settings.lake.path)
        os.sync()
