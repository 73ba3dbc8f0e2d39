"""A sensor on the inbox: what is dropped there is run, and then filed away with a receipt.

Each tick looks at the folder, asks for the cells that whole new files change and for what is built
on them (`downstream.py`), and files the files away once runs over those cells have succeeded, its
own or anybody's. Files that come together are one batch; the next one waits until it is done, and
until no other run makes candles of its exchanges: what changes is found by comparing with the lake.
All that is known lies in the inbox (`sources/inbox.py`), so a daemon that is killed anywhere, or a
tick that is lost, is made up for by the next tick (docs/adr/0021).

Which files are whole and what is in them is `sources/arrivals.py`'s.
"""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from filelock import Timeout

from stock_assets.automation.batches import BatchRuns, range_of
from stock_assets.automation.downstream import Cell, Rectangle, around, built_on
from stock_assets.automation.gaps import first_of
from stock_assets.automation.jobs import Jobs, unfinished_runs
from stock_assets.errors import SourceError
from stock_assets.lake.store import Lake
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.arrivals import (
    JUDGED_BYTES,
    Changes,
    changes,
    differences,
    look,
    with_quarantined,
)
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.inbox import Batch, Inbox, State, repeated, stamp_of
from stock_assets.sources.receipts import Arrived, Receipt

RETRIES = (dt.timedelta(minutes=1), dt.timedelta(minutes=10))
"""How long after a failure a batch is asked for again; then it is a person's turn."""

PATIENCE = dt.timedelta(minutes=1)
"""For so long whole files wait for others that are still being written, to be one run with them."""


LONG_LOOK_SECONDS = 10.0
"""After a look that took longer, what follows is decided in the next: a tick has to be quick."""


@dataclass
class Tick:
    """What one tick found out."""

    requests: list[dg.RunRequest] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """What was filed, in words."""
    waits_for: str = ""
    """Why nothing is asked for although files wait."""


def build_inbox_sensor(settings: Settings, grid: Grid, jobs: Jobs) -> dg.SensorDefinition:
    """The sensor over `<lake.path>/inbox`."""

    @dg.sensor(
        name="inbox",
        job=jobs.daily,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Runs what a file dropped in {settings.inbox_dir} changes, then files it.",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        found = tick(settings, grid, context.instance, dt.datetime.now(tz=dt.UTC))
        for line in found.warnings:
            context.log.warning("%s", line)
        for line in found.done:
            context.log.info("%s", line)
        if found.requests:
            return dg.SensorResult(run_requests=found.requests)
        filed = f"filed {len(found.done)} files" if found.done else "no new file is whole"
        return dg.SkipReason(found.waits_for or filed)

    return inbox


def tick(settings: Settings, grid: Grid, instance: dg.DagsterInstance, now: dt.datetime) -> Tick:
    """One look at the inbox at `now` (UTC), and what follows from it.

    Raises `SourceError` when the folder or what is known of it cannot be read or written.
    """
    inbox = Inbox(settings.inbox_dir)
    if not inbox.root.is_dir():
        return Tick()
    try:
        # A tick that took too long for the daemon may still be going on.
        with inbox.lock():
            known = inbox.state()
            found, state = _Looked(inbox, settings, grid, instance, now).at(known)
            if state != known:
                # Before anything is asked for: whoever asks again finds what has been asked.
                inbox.save(state)
    except Timeout:
        return Tick(waits_for="the look before is still going on")
    except OSError as error:
        message = f"inbox: {error}; make {inbox.root} readable and writable for this user"
        raise SourceError(message) from error
    return found


class _Looked:
    """One tick's work. Steps take what is known and return what is known then."""

    def __init__(
        self,
        inbox: Inbox,
        settings: Settings,
        grid: Grid,
        instance: dg.DagsterInstance,
        now: dt.datetime,
    ) -> None:
        self._inbox = inbox
        self._settings = settings
        self._grid = grid
        self._instance = instance
        self._now = now
        self._runs = BatchRuns(instance, grid)
        self._lake = Lake(settings.lake_dir)
        self._found = Tick()

    def at(self, state: State) -> tuple[Tick, State]:
        """The whole of a tick."""
        state = self._concluded(state)
        began = time.monotonic()
        state, said = look(self._inbox, self._settings, state, self._now)
        self._found.warnings += said
        if time.monotonic() - began > LONG_LOOK_SECONDS:
            self._found.waits_for = "a long look at new files; what they change is for the next"
        elif state.batch is None:
            state = self._decided(state)
        if state.batch is not None:
            self._found.requests = self._runs.requests(state.batch)
        return self._found, state

    # What was asked for, and has become of it.

    def _concluded(self, state: State) -> State:
        """File what runs have brought to the lake; ask again for what failed, or give it up."""
        open_batches = []
        for batch in state.given_up:
            left, runs = self._runs.left(batch)
            if left:
                open_batches.append(batch)
            else:
                state = self._with_filed(state, batch, runs)
        state = state.model_copy(update={"given_up": tuple(open_batches)})
        batch = state.batch
        if batch is None:
            return state
        left, runs = self._runs.left(batch)
        if not left:
            return self._with_filed(state, batch, runs).model_copy(update={"batch": None})
        own = self._runs.own(batch, batch.attempt)
        if not left.issubset(map(range_of, own)) or not all(run.is_finished for run in own):
            return state
        bad = next(run for run in own if range_of(run) in left)
        name = f"{batch.why}: run {bad.run_id} "
        if bad.status == dg.DagsterRunStatus.CANCELED:
            return self._gave_up(state, batch, name + "was canceled")
        if batch.attempt > len(RETRIES):
            return self._gave_up(state, batch, f"{name}failed, the attempt no. {batch.attempt}")
        wait = RETRIES[batch.attempt - 1]
        if batch.failed is None:
            self._found.warnings.append(f"{name}failed; it is asked for again in {wait}")
            batch = batch.model_copy(update={"failed": self._now})
        elif self._now - batch.failed >= wait:
            batch = batch.model_copy(update={"failed": None, "attempt": batch.attempt + 1})
        return state.model_copy(update={"batch": batch})

    def _gave_up(self, state: State, batch: Batch, what: str) -> State:
        self._found.warnings.append(
            f"{what}; the files stay until a run over their cells succeeds: mend the cause and "
            "run the slice, or drop a corrected file"
        )
        given_up = (*state.given_up, batch)
        return state.model_copy(update={"batch": None, "given_up": given_up})

    def _with_filed(self, state: State, batch: Batch, runs: tuple[str, ...]) -> State:
        files = {
            name: note.arrived
            for name, digest in batch.files.items()
            if (note := state.notes.get(name)) is not None
            and note.state == "waiting"
            and note.arrived is not None
            and note.arrived.digest == digest
        }
        return self._filed(state, files, runs)

    def _filed(self, state: State, files: Mapping[str, Arrived], runs: tuple[str, ...]) -> State:
        """File files away, each under its receipt; one with the content of another as its copy."""
        notes = dict(state.notes)
        receipts = [receipt for _, receipt in self._inbox.filed.receipts()] if files else []
        for name, arrived in sorted(files.items(), key=lambda item: item[1].order):
            path = self._inbox.root / name
            # A file that is gone may have been filed by a tick that was killed then.
            if stamp_of(path) not in (None, notes[name].stamp):
                continue
            # Not of itself, if it has been filed by a tick that was killed then.
            earlier = [receipt for receipt in receipts if receipt.order < arrived.order]
            copy = repeated(arrived.digest, arrived.named, earlier)
            counted = with_quarantined(arrived, self._lake)
            receipt = Receipt(
                **dict(counted),
                filed=self._now,
                runs=() if copy else runs,
                duplicate_of=copy or "",
            )
            if self._inbox.filed.file_away(path, receipt) is None:
                continue
            del notes[name]
            receipts.append(receipt)
            was = f"a copy of {copy}" if copy else _numbers(receipt)
            self._found.done.append(f"inbox: filed {name}: {was}")
        return state.model_copy(update={"notes": notes})

    # What to ask for.

    def _decided(self, state: State) -> State:
        """Make a batch of the files that are whole, and file at once what brings nothing new."""
        stuck = {item for batch in state.given_up for item in batch.files.items()}
        fresh = {
            name: note.arrived
            for name, note in state.notes.items()
            if note.state == "waiting"
            and note.arrived is not None
            and (name, note.arrived.digest) not in stuck
        }
        receipts = [item for _, item in self._inbox.filed.receipts()] if fresh else []
        copies = {
            name: item
            for name, item in fresh.items()
            if repeated(item.digest, item.named, receipts)
        }
        state = self._filed(state, copies, ())
        fresh = {name: item for name, item in fresh.items() if name not in copies}
        if not fresh and not state.owed:
            return state
        if waits_for := self._waits_for(state, fresh):
            self._found.waits_for = waits_for
            return state
        found = changes(self._inbox, self._settings, fresh, self._lake, self._now)
        notes = {
            name: note.model_copy(update={"arrived": found.files.get(name, note.arrived)})
            for name, note in state.notes.items()
        }
        rectangles, again = self._rectangles(found, self._forgotten(state.owed), state.given_up)
        ranges = self._ranges(rectangles)
        state = state.model_copy(update={"notes": notes, "owed": ()})
        if not ranges:
            return self._filed(state, found.files, ())
        files = {name: item.digest for name, item in found.files.items()}
        for batch in again:
            files |= {name: it for name, it in batch.files.items() if name not in files}
        key = json.dumps([self._now.isoformat(), sorted(files.items()), ranges])
        batch = Batch(
            name=hashlib.sha256(key.encode()).hexdigest()[:16],
            asked=self._now,
            ranges=ranges,
            files=files,
            why=_why(files),
        )
        given_up = tuple(item for item in state.given_up if item not in again)
        return state.model_copy(update={"batch": batch, "given_up": given_up})

    def _waits_for(self, state: State, fresh: Mapping[str, Arrived]) -> str:
        """Why it is too early to decide; empty when it is not."""
        growing = [name for name, note in state.notes.items() if note.state == "settling"]
        oldest = min((item.arrived for item in fresh.values()), default=self._now)
        if growing and self._now - oldest < PATIENCE:
            return f"{first_of(growing)} may still be being written"
        exchanges = {
            self._settings.instrument(ticker).exchange
            for item in (*fresh.values(), *state.owed)
            for ticker in item.tickers
            if ticker in self._settings.instruments
        }
        for run in unfinished_runs(self._instance, "candles"):
            area = self._runs.slice(run)
            names = area.tickers if area else ()
            theirs = {self._settings.instrument(name).exchange for name in names}
            if exchanges & theirs:
                return f"run {run.run_id} is making candles that new ones are to be compared with"
        return ""

    def _forgotten(self, owed: Sequence[Arrived]) -> set[Cell]:
        """Cells that runs may have read from files which were changed or taken away since."""
        found: set[Cell] = set()
        for item in owed:
            for own in item.sources.values():
                known = tuple(name for name in own.tickers if name in self._settings.instruments)
                if not known:
                    continue
                if item.bytes > JUDGED_BYTES:
                    found |= {(day, name) for day in (own.first, own.last) for name in known}
                    continue
                area = Slice(own.first, own.last, known)
                try:
                    judged = fetch_slice(self._settings, area, now=self._now)
                except SourceError as error:
                    self._found.warnings.append(
                        f"inbox: {item.name} is not what it was before it was filed, and what it "
                        f"may have left in the lake cannot be found out: {error}"
                    )
                    continue
                found |= differences(judged.candles, judged.quarantine, self._lake, area)
        return found

    def _rectangles(
        self, found: Changes, forgotten: Collection[Cell], given_up: Sequence[Batch]
    ) -> tuple[list[Rectangle], list[Batch]]:
        """What to run of each exchange, and what was given up on one of them, which runs along."""
        cells: dict[str, set[Cell]] = {}
        tickers_of = self._exchanges()
        for exchange, tickers in tickers_of.items():
            theirs = frozenset(tickers)
            changed = {cell for cell in found.candles.union(forgotten) if cell[1] in theirs}
            own = {cell for cell in found.set_aside if cell[1] in theirs}
            if changed:
                first = min(day for day, _ in changed)
                own |= _corners(built_on(changed, self._built(first, tickers), tickers))
            if own:
                cells[exchange] = own
        again = []
        for batch in given_up:
            asked: dict[str, set[Cell]] = {}
            for cell in self._runs.days_and_tickers(batch):
                exchange = self._settings.instrument(cell[1]).exchange
                asked.setdefault(exchange, set()).add(cell)
            if asked.keys() & cells.keys():
                again.append(batch)
                for exchange, own in asked.items():
                    cells.setdefault(exchange, set()).update(own)
        return [around(own, tickers_of[name]) for name, own in sorted(cells.items())], again

    def _exchanges(self) -> dict[str, list[str]]:
        """The tickers of each exchange, in the order of the partitions."""
        found: dict[str, list[str]] = {}
        for item in self._settings.universe:
            found.setdefault(item.exchange, []).append(item.ticker)
        return found

    def _built(self, first: dt.date, tickers: Sequence[str]) -> set[Cell]:
        """Cells of an exchange with bars, from a day on."""
        area = Slice(first, dt.date.max, tuple(tickers))
        return set(self._lake.read("bars", area, columns=["day", "ticker"]).iter_rows())

    def _ranges(self, rectangles: Sequence[Rectangle]) -> tuple[tuple[str, str], ...]:
        """First and last cell of each run: one for all exchanges whose days are the same.

        Days that are no partition yet are left out: their schedule asks for them.
        """
        known = self._grid.days()
        by_days: dict[tuple[dt.date, dt.date], list[str]] = {}
        for item in rectangles:
            first = self._grid.partition_day(item.first)
            last = min(self._grid.partition_day(item.last), known[-1])
            if first <= last:
                by_days.setdefault((first, last), []).extend(item.tickers)
        found = []
        for (first, last), tickers in sorted(by_days.items()):
            for area in self._grid.runs(self._grid.slice(first, last, tickers)):
                tags = self._grid.tags(area)
                found.append((tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
        return tuple(found)


def _corners(item: Rectangle) -> set[Cell]:
    return {(item.first, item.tickers[0]), (item.last, item.tickers[-1])}


def _why(files: Collection[str]) -> str:
    what = "a file" if len(files) == 1 else f"{len(files)} files"
    return f"inbox: {what}: {first_of(sorted(files))}" if files else "inbox: a file was taken away"


def _numbers(receipt: Receipt) -> str:
    own = receipt.sources.values()
    rows_in, candles = sum(it.rows for it in own), sum(it.candles for it in own)
    aside = sum(sum(it.quarantined.values()) for it in own)
    held = sum(it.held_back for it in own)
    runs = f"run {', '.join(receipt.runs)}" if receipt.runs else "the lake held them already"
    return f"{rows_in} rows, {candles} candles, {aside} set aside, {held} held back; {runs}"
