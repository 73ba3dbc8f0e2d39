"""Looking at the inbox: which files are whole by now, what is in them, which are refused and why.

A file counts as whole when two looks find it unchanged and it says of itself that it is. It is
then read once, tickers and days only; what that found is noted, and the file is not opened again
until its bytes change. Numbers for its receipt, and what it changes in the lake, are found out
here too. What follows from it is the automation's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.errors import SourceError, StockAssetsError
from stock_assets.lake.schemas import Candles
from stock_assets.settings import FilesSettings
from stock_assets.slices import Slice
from stock_assets.sources.expansion import refuse_bomb
from stock_assets.sources.files import FilesSource
from stock_assets.sources.inbox import (
    UNREAD_FOLDER,
    Inbox,
    Note,
    Place,
    State,
    content_hash,
    is_growing,
    sources_of,
    stamp_of,
    unreadable_name,
)
from stock_assets.sources.receipts import Arrived, Contents
from stock_assets.sources.rules import judge

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stock_assets.lake.store import Lake
    from stock_assets.settings import Settings

    Cell = tuple[dt.date, str]

JUDGED_BYTES = 32 * 2**20
"""Up to this size a file's rows are compared with the lake; a larger one counts as all changed.

The look has to be quick: reading a gigabyte whole takes longer than a sensor may."""

LOOK_SECONDS = 15.0
"""So long a look goes on opening files; the others are for the next one."""

_UNSETTLED = dt.timedelta(days=10)
"""Older sessions have settled, whatever the source."""


def look(
    inbox: Inbox, settings: Settings, state: State, now: dt.datetime
) -> tuple[State, list[str]]:
    """What is known of the inbox at `now` (UTC), and what to tell people: once for each content.

    A file that vanishes, or changes while it is read, is looked at again at the next look.
    """
    said = settings.model_dump(mode="json", include={"universe", "sources"})
    universe = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    before = state.notes
    if universe != state.universe:
        # A ticker was added perhaps: what was refused may be welcome now.
        before = {name: note for name, note in before.items() if note.state != "refused"}
    looking = _Look(inbox, settings, sources_of(settings), now, time.monotonic() + LOOK_SECONDS)
    files, folders = looking.files(), inbox.unread_folders(looking.sources)
    if not files and not folders and not before:
        return state, []
    notes: dict[str, Note] = {}
    news: list[str] = []
    for file in [*sorted(folders), *files]:
        name = inbox.name(file)
        look_at = looking.at_folder if file in folders else looking.at
        note = look_at(file, before.get(name))
        if note is None:
            continue
        notes[name] = note
        told = state.notes.get(name)
        if note.state == "refused" and (told is None or told.why != note.why):
            news.append(f"inbox: {name!r} asks for nothing: {note.why}")
    owed = (*state.owed, *_lost(inbox, state.notes, notes))
    return state.model_copy(update={"notes": notes, "owed": owed, "universe": universe}), news


def _lost(inbox: Inbox, before: Mapping[str, Note], notes: Mapping[str, Note]) -> list[Arrived]:
    """What was read of files that hold something else now, or are gone without being filed."""
    gone = [
        note.arrived
        for name, note in before.items()
        if note.arrived is not None
        and (
            (now := notes.get(name)) is None
            or now.arrived is None
            or now.arrived.digest != note.arrived.digest
        )
    ]
    if not gone:
        return []
    filed = {receipt.label for _, receipt in inbox.filed.receipts()}
    return [item for item in gone if item.label not in filed]


@dataclass(frozen=True)
class _Look:
    """One look at the files."""

    inbox: Inbox
    settings: Settings
    sources: Mapping[str, Path]
    now: dt.datetime
    until: float
    """By the monotonic clock, when to open no more files."""

    def files(self) -> list[Path]:
        """All files in the inbox, in the folders in it that sources read, and on the way there."""
        folders = self.inbox.folders(self.sources)
        return [file for folder in folders for file in self.inbox.files(folder)]

    def at_folder(self, _folder: Path, note: Note | None) -> Note:
        """What is known of a folder that no source reads, whatever it holds."""
        found = Note(state="refused", stamp="folder", since=self.now, why=UNREAD_FOLDER)
        return note if note is not None and note.why == found.why else found

    def at(self, file: Path, note: Note | None) -> Note | None:
        """What is known of a file now, `note` having been known before; None when it is gone."""
        stamp = stamp_of(file)
        if note is not None and note.stamp == stamp:
            if note.state != "settling" or is_growing(file, self.now.timestamp()):
                return note
            if time.monotonic() > self.until:
                return note
            found = self._examined(file, note)
            if (stamp := stamp_of(file)) == note.stamp:
                return found
        if stamp is None:
            return None
        before = None if note is None else note.arrived
        return Note(state="settling", stamp=stamp, since=self.now, arrived=before)

    def _examined(self, file: Path, note: Note) -> Note:
        """What a whole file is."""
        try:
            arrived = self._arrived(file, note)
        except (StockAssetsError, OSError) as error:
            return Note(state="refused", stamp=note.stamp, since=note.since, why=str(error))
        return Note(state="waiting", stamp=note.stamp, since=note.since, arrived=arrived)

    def _arrived(self, file: Path, note: Note) -> Arrived:
        if (why := unreadable_name(file)) is not None:
            raise SourceError(why)
        owners = [name for name, path in self.sources.items() if path in (file, file.parent)]
        if not owners:
            message = (
                f"no source of the settings reads {file.parent}; add [sources.inbox] with "
                f'kind = "files" and path = "{file.parent}", and tickers with source = "inbox"'
            )
            raise SourceError(message)
        refuse_bomb(file, f"file {str(file)!r}")
        digest = content_hash(file)
        size, changed, _ = map(int, note.stamp.split(":"))
        if note.arrived is not None and note.arrived.digest == digest:
            return note.arrived.model_copy(update={"modified": changed})  # only touched
        found: dict[str, Contents] = {}
        names: set[str] | None = set()
        refusals = []
        for owner in owners:
            source = _source(self.settings, owner)
            try:
                touched = source.touched(file)
            except StockAssetsError as error:
                refusals.append(str(error))
                continue
            if touched is None:
                refusals.append("it holds no rows")
                continue
            names = None if touched.names is None or names is None else names | set(touched.names)
            found[owner] = Contents(
                rows=int(touched.days["rows"].sum()),
                held_back=_held_back(touched.days, source, self.settings, self.now),
                first=touched.first,
                last=touched.last,
                tickers=touched.tickers,
                reading=source.reading,
            )
        if not found:
            raise SourceError("; ".join(dict.fromkeys(refusals)))
        return Arrived(
            name=self.inbox.name(file),
            digest=digest,
            bytes=size,
            modified=changed,
            arrived=self.now,
            names=None if names is None else tuple(sorted(names)),
            sources=found,
        )


def _source(settings: Settings, name: str) -> FilesSource:
    own = settings.sources[name]
    assert isinstance(own, FilesSettings)
    return FilesSource(name, own, settings)


def _held_back(
    days: pl.DataFrame, source: FilesSource, settings: Settings, now: dt.datetime
) -> int:
    """Rows of sessions that are not over at `now`."""
    late = days.filter(pl.col("day") > (now - _UNSETTLED).date())
    return sum(
        rows
        for ticker, day, rows in late.select("ticker", "day", "rows").iter_rows()
        if source.settles_at(settings.instrument(ticker).exchange, day) > now
    )


@dataclass(frozen=True)
class Changes:
    """What files that wait would change in the lake."""

    candles: frozenset[Cell]
    """Cells whose candles change; of a large file the corners of what it touches."""
    set_aside: frozenset[Cell]
    """Cells of which rows would be set aside that are not yet."""
    files: dict[str, Arrived]
    """The files with the numbers of their rows, by name; without those that are gone."""


def changes(
    inbox: Inbox, settings: Settings, files: Mapping[str, Arrived], lake: Lake, now: dt.datetime
) -> Changes:
    """Compare files that wait with the lake, the later ones last: they came after all it holds.

    Where that takes too long for a look, the rest counts as changed, as large files do.
    Raises `SourceError` when one cannot be read any more.
    """
    counted = dict(files)
    until = time.monotonic() + LOOK_SECONDS
    stamps = {name: stamp_of(inbox.root / name) for name in files}
    cells: set[Cell] = set()
    aside: set[Cell] = set()
    for source_name in sources_of(settings):
        source = _source(settings, source_name)
        candles, quarantine = [], []
        for name, arrived in sorted(files.items(), key=lambda item: item[1].order):
            own = arrived.sources.get(source_name)
            if own is None or name not in counted:
                continue
            if arrived.bytes > JUDGED_BYTES or time.monotonic() > until:
                cells |= {(day, ticker) for day in (own.first, own.last) for ticker in own.tickers}
                continue
            place = Place(inbox.root / name, arrived.label, is_known=True)
            instruments = [settings.instrument(ticker) for ticker in own.tickers]
            try:
                raw = source.rows_of(place)
            except SourceError:
                if stamps[name] == stamp_of(place.path):
                    raise
                counted.pop(name, None)  # taken away just now: the next look tells
                continue
            found = judge(
                raw,
                instruments,
                Slice(None, own.last, own.tickers),
                now=now,
                settles_at=source.settles_at,
                later_files_revise=True,
            )
            candles.append(found.candles)
            quarantine.append(found.quarantine)
            reasons = dict(found.quarantine["reason"].value_counts(sort=True).iter_rows())
            counted[name] = _with(
                counted[name],
                source_name,
                {"quarantined": reasons, "held_back": found.held_back},
            )
        if candles:
            cells |= _new_candles(pl.concat(candles), lake)
            aside |= _new_rejects(pl.concat(quarantine), lake)
    return Changes(frozenset(cells), frozenset(aside), counted)


def with_quarantined(arrived: Arrived, lake: Lake) -> Arrived:
    """A large file's numbers completed: what of it was set aside, from the lake."""
    if arrived.bytes <= JUDGED_BYTES:
        return arrived
    for name, own in arrived.sources.items():
        area = Slice(own.first, own.last, own.tickers)
        held = lake.read("quarantine", area, columns=["source", "file", "reason"])
        ours = held.filter(source=name, file=arrived.label)
        reasons = dict(ours["reason"].value_counts(sort=True).iter_rows())
        arrived = _with(arrived, name, {"quarantined": reasons})
    return arrived


def differences(
    candles: pl.DataFrame, quarantine: pl.DataFrame, lake: Lake, area: Slice
) -> frozenset[Cell]:
    """Cells of a slice in which the lake says otherwise than its sources."""
    held = lake.read("candles", area)
    key = ["day", "ticker"]
    changed = [
        candles.join(held, on=held.columns, how="anti", nulls_equal=True).select(key),
        held.join(candles, on=held.columns, how="anti", nulls_equal=True).select(key),
    ]
    rejects = lake.read("quarantine", area)
    # Not by file and row: those of a file that is gone may be another's now.
    content = [*key, "source", "raw"]
    changed += [
        quarantine.join(rejects, on=content, how="anti").select(key),
        rejects.join(quarantine, on=content, how="anti").select(key),
    ]
    return frozenset(pl.concat(changed).unique().iter_rows())


def _with(arrived: Arrived, source: str, numbers: Mapping[str, object]) -> Arrived:
    own = arrived.sources[source].model_copy(update=dict(numbers))
    return arrived.model_copy(update={"sources": {**arrived.sources, source: own}})


def _new_candles(candles: pl.DataFrame, lake: Lake) -> set[Cell]:
    """Cells of candles that the lake has not, or has otherwise."""
    latest = candles.unique(Candles.primary_key(), keep="last")
    if latest.is_empty():
        return set()
    held = lake.read("candles", _around(latest))
    new = latest.join(held, on=held.columns, how="anti", nulls_equal=True)
    return set(new.select("day", "ticker").iter_rows())


def _new_rejects(quarantine: pl.DataFrame, lake: Lake) -> set[Cell]:
    """Cells with rows set aside that are new to the lake: one with the same reason is not."""
    if quarantine.is_empty():
        return set()
    content = ["day", "ticker", "source", "reason"]
    held = lake.read("quarantine", _around(quarantine), columns=content)
    new = quarantine.join(held, on=content, how="anti")
    return set(new.select("day", "ticker").iter_rows())


def _around(rows: pl.DataFrame) -> Slice:
    first, last = rows["day"].min(), rows["day"].max()
    assert isinstance(first, dt.date)
    assert isinstance(last, dt.date)
    return Slice(first, last, tuple(rows["ticker"].unique().sort()))
