"""An inbox with its lake and its runs: what the tests of the inbox share."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.runs.schema import RunsTable

from stock_assets.automation.inbox import Tick, tick
from stock_assets.automation.jobs import DAILY_JOB
from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import Lake
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.settings import Settings, load_settings
from stock_assets.sources.fetching import fetched_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from stock_assets.slices import Slice

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAA", "BBB", "CCC"]
source = "inbox"
exchange = "XMOS"
[[universe]]
ticker = "USA"
source = "inbox"
exchange = "XNYS"
[sources.inbox]
kind = "files"
path = "data/inbox"
"""

HEADER = "Date,Open,High,Low,Close,Volume"
Asked = tuple[str, str]
"""First and last cell of a run that was asked for."""


class Box:
    """An inbox, its lake, and runs that are played: candles are real, bars stand for the rest."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, toml: str = SETTINGS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "settings.toml"
        self.instance = instance
        self.now = dt.datetime.now(tz=dt.UTC) - dt.timedelta(hours=2)
        self.configure(toml)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.warnings: list[str] = []
        self.done: list[str] = []
        self.waits_for = ""

    def configure(self, toml: str) -> None:
        self.file.write_text(toml)
        self.settings: Settings = load_settings(self.file)
        self.grid = Grid.of(self.settings)
        self.lake = Lake(self.settings.lake_dir)
        self.folder = self.settings.inbox_dir

    # Dropping files.

    def drop(self, name: str, content: str | bytes | Sequence[str], *, age: float = 60) -> Path:
        """A file; given lines, of daily candles. It was written `age` seconds ago."""
        file = self.folder / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, str):
            file.write_text(content)
        else:
            file.write_text("\n".join([HEADER, *content]) + "\n")
        self.touch(file, age)
        return file

    def touch(self, file: Path, age: float = 60) -> None:
        past = self.now.timestamp() - age
        os.utime(file, (past, past))

    # The sensor, and the runs that it asks for.

    def tick(self, seconds: float = 15) -> list[dg.RunRequest]:
        self.now += dt.timedelta(seconds=seconds)
        found: Tick = tick(self.settings, self.grid, self.instance, self.now)
        self.warnings += found.warnings
        self.done += found.done
        self.waits_for = found.waits_for
        return found.requests

    def asks(self) -> list[Asked]:
        """What two looks ask for: one to see, one to find unchanged."""
        return [_ends(request) for _ in range(2) for request in self.tick()]

    def serve(self) -> list[Asked]:
        """Ticks until nothing is asked for any more, each request run at once."""
        asked = []
        quiet = 0
        while quiet < 2:  # two looks at a file before anything is asked for it
            requests = self.tick()
            for request in requests:
                asked.append(_ends(request))
                self.run(request)
            quiet = 0 if requests else quiet + 1
        return asked

    def run(
        self,
        request: dg.RunRequest,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    ) -> str:
        """Play a run; one that does not succeed leaves nothing."""
        tags = request.tags
        if status == dg.DagsterRunStatus.SUCCESS:
            self.work(self.grid.slice_of_range(tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
        return self.record(tags, status)

    def record(self, tags: dict[str, str], status: dg.DagsterRunStatus, **more: Any) -> str:
        run = dg.DagsterRun(
            job_name=DAILY_JOB, run_id=str(uuid.uuid4()), tags=dict(tags), status=status, **more
        )
        self.instance.add_run(run)
        self.now += dt.timedelta(seconds=1)
        with self.instance.run_storage.connect() as runs:  # it was made by the box's clock
            made = self.now.replace(tzinfo=None)
            runs.execute(
                RunsTable.update()
                .where(RunsTable.c.run_id == run.run_id)
                .values(create_timestamp=made)
            )
        return run.run_id

    def work(self, area: Slice) -> None:
        """What a run over a slice leaves in the lake."""
        with fetched_slice(self.settings, area) as judged:
            self.lake.write("quarantine", judged.quarantine, area)
            self.lake.write("candles", judged.candles, area)
        cells = judged.candles.select("day", "ticker").unique()
        exchanges = {item.ticker: item.exchange for item in self.settings.universe}
        types = TABLES["bars"].create_empty().schema
        filling: dict[pl.DataType, object] = {pl.Float64(): 1.0, pl.Int64(): 1, pl.String(): "-"}
        rows = [
            {**{name: filling.get(dtype) for name, dtype in types.items()}, "day": d, "ticker": t}
            for d, t in cells.iter_rows()
            if get_calendar(exchanges[t]).is_session(d)
        ]
        self.lake.write("bars", pl.DataFrame(rows, schema=types), area)

    # What there is.

    def waiting(self) -> list[str]:
        return sorted(
            item.name
            for item in self.folder.iterdir()
            if item.is_file() and not item.name.startswith(".")
        )

    def receipts(self) -> dict[str, dict[str, Any]]:
        """Receipts by the name of their file, as they lie on disk."""
        found = {}
        for file in sorted(self.folder.glob("filed/*/*/receipt.json")):
            receipt = json.loads(file.read_text())
            assert (file.parent / receipt["name"]).is_file()
            found[receipt["name"]] = receipt
        return found

    def closes(self, ticker: str) -> dict[str, float]:
        held = self.lake.read("candles").filter(ticker=ticker)
        return {f"{day:%m-%d}": close for day, close in held.select("day", "close").iter_rows()}

    def tables(self) -> dict[str, pl.DataFrame]:
        return {name: self.lake.read(name) for name in ("candles", "quarantine", "bars")}


def _ends(request: dg.RunRequest) -> Asked:
    return request.tags[RANGE_START_TAG][5:], request.tags[RANGE_END_TAG][5:]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def new_box(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., Box]:
    """Makes boxes. Those of a test share their runs."""
    instance.run_storage.wipe()
    return lambda name="box", toml=SETTINGS: Box(tmp_path / name, instance, toml)


@pytest.fixture
def box(new_box: Callable[..., Box]) -> Box:
    return new_box()
