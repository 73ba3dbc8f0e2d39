"""The inbox on disk: which files wait in it, what is known of them, and what counts of them.

`<lake.path>/inbox` holds what people dropped; `filed/` in it holds what was filed away
(`receipts.py`); `.state.json` says what is known of the files that wait. A source of kind files
whose path lies in the inbox reads both: a file counts the same before and after it is filed. Of
two files with the same candle the later one has it: the one that was seen whole later, then the
one changed later, then by name.

How rows are read is in `files.py`; when to run what, and when to file, is the automation's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from stock_assets.errors import SourceError
from stock_assets.settings import FilesSettings
from stock_assets.sources.expansion import refuse_bomb
from stock_assets.sources.receipts import Arrived, Filed, Receipt, label_of, write_whole
from stock_assets.sources.tables import SUFFIXES, has_suffix, is_parquet, stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stock_assets.settings import Settings
    from stock_assets.slices import Slice

_log = logging.getLogger(__name__)

SETTLED_SECONDS = 5.0
"""A file that changed more recently may still be being written."""

_FOOTER_WAIT = 120.0
"""For so many seconds an empty file, or a Parquet without its footer, may still be growing."""

UNREAD_FOLDER = (
    "it is a folder, and no source reads it; move its files to where one does, or make it the path "
    "of a source"
)
"""Why a folder that was dropped counts for nothing."""

_FILED, _STATE, _LOCK = "filed", ".state.json", ".lock"
_PARTIAL = (".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".filepart", ".!ut")
"""How the names of downloads and copies in progress end."""
_FOOTER = b"PAR1"


class Note(BaseModel):
    """What is known of a file that waits."""

    model_config = ConfigDict(frozen=True)

    state: Literal["settling", "refused", "waiting"]
    stamp: str
    """Size and times of the bytes that this was said of."""
    since: dt.datetime
    why: str = ""
    """Why it is refused."""
    arrived: Arrived | None = None
    """Of a waiting file; of a settling one what it held before."""


class Batch(BaseModel):
    """Files that came together, and the runs that bring them to the lake."""

    model_config = ConfigDict(frozen=True)

    name: str
    asked: dt.datetime
    ranges: tuple[tuple[str, str], ...]
    """First and last cell of each run."""
    files: dict[str, str]
    """Name -> digest."""
    why: str
    attempt: int = 1
    failed: dt.datetime | None = None
    """When the last attempt was seen to have failed."""


class State(BaseModel):
    """What is known of the inbox between two looks at it."""

    notes: dict[str, Note] = {}
    batch: Batch | None = None
    """What is being run."""
    given_up: tuple[Batch, ...] = ()
    """What failed too often: filed once somebody's run over it succeeds."""
    owed: tuple[Arrived, ...] = ()
    """Files that were overwritten or taken away before they were filed: a run may have read them,
    and the lake must forget what nobody says any more."""
    universe: str = ""
    """Fingerprint of the settings by which files were refused."""


@dataclass(frozen=True)
class Place:
    """A file to read, and what its rows say they come from."""

    path: Path
    label: str
    is_known: bool
    """Whether it was read once: then it must be readable now."""


@dataclass(frozen=True)
class Waiting:
    """A file that was dropped and is not filed yet."""

    file: str
    state: str
    why: str


class Inbox:
    """The inbox folder. One process looks and files (the sensor's), any may read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.filed = Filed(self.root / _FILED)

    def lock(self) -> FileLock:
        """Held by the one who looks and files. Raises `Timeout` at once when another does."""
        return FileLock(self.root / _LOCK, timeout=0)

    def state(self) -> State:
        """What was known at the last look."""
        file = self.root / _STATE
        try:
            return State.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except ValueError as error:
            message = f"{file} cannot be read: {str(error).splitlines()[0]}; remove it"
            raise SourceError(f"{message}: the inbox is then looked at anew") from None

    def save(self, state: State) -> None:
        """Keep what is known."""
        write_whole(self.root / _STATE, state.model_dump_json(indent=1))

    def name(self, path: Path) -> str:
        """A file's path in the inbox, in letters that any text may hold."""
        return os.fsencode(path.relative_to(self.root)).decode("utf-8", "backslashreplace")

    def files(self, folder: Path | None = None) -> Iterator[Path]:
        """What lies in a folder of the inbox (default: itself) and is no download in progress."""
        items = _entries(folder or self.root)
        names = {item.name for item in items}
        for item in items:
            if item.is_dir(follow_symlinks=False) or item.name.startswith((".", "~")):
                continue
            partial = any(item.name + ending in names for ending in _PARTIAL)
            path = Path(item.path)
            if not partial and not stem(path).lower().endswith(_PARTIAL):
                yield path

    def folders(self, sources: Mapping[str, Path]) -> list[Path]:
        """The inbox, the folders in it that sources read, and those on the way there."""
        read = map(_folder, sources.values())
        inside = {one for folder in read for one in (folder, *folder.parents)}
        return sorted({self.root, *(one for one in inside if one.is_relative_to(self.root))})

    def unread_folders(self, sources: Mapping[str, Path]) -> set[Path]:
        """Folders that were dropped, whose files no source reads."""
        looked_into = self.folders(sources)
        found = {
            Path(item.path)
            for folder in looked_into
            for item in _entries(folder)
            if item.is_dir(follow_symlinks=False) and not item.name.startswith((".", "~"))
        }
        return found.difference(looked_into, [self.root / _FILED])

    def waiting(self, settings: Settings) -> list[Waiting]:
        """What has been dropped and is not filed yet, and why."""
        state = self.state()
        running = state.batch.files if state.batch else {}
        failed = {name for batch in state.given_up for name in batch.files}
        sources = sources_of(settings)
        found = [
            Waiting(self.name(folder), "refused", UNREAD_FOLDER)
            for folder in sorted(self.unread_folders(sources))
        ]
        for folder in self.folders(sources):
            for file in self.files(folder):
                name = self.name(file)
                note = state.notes.get(name)
                if note is not None and note.state == "refused":
                    found.append(Waiting(name, "refused", note.why))
                elif name in running:
                    found.append(Waiting(name, "running", "filed once its run has succeeded"))
                elif name in failed:
                    why = "its run failed; filed once a run over its cells has succeeded"
                    found.append(Waiting(name, "failed", why))
                elif note is not None and note.state == "settling":
                    why = (
                        "seen once; read when `stock-assets dev` finds it unchanged at another look"
                    )
                    found.append(Waiting(name, "settling", why))
                else:
                    found.append(Waiting(name, "new", "looked at while `stock-assets dev` runs"))
        return found

    def places(
        self,
        path: Path,
        source: str,
        reading: str,
        area: Slice,
        ticker_of: Callable[[Path], str | None],
    ) -> list[Place]:
        """The files at a source's path that may touch a slice, the later ones last."""
        # Those that wait before the filed: one that is filed in between is then found twice, not
        # never.
        waiting = [file for file in self.files_at(path) if unreadable_name(file) is None]
        state = self.state()
        filed = list(self.filed.receipts())
        receipts = [receipt for _, receipt in filed]
        found: list[tuple[tuple[float, int, str], Place]] = []
        for entry, receipt in filed:
            original = self.filed.original(entry, receipt.name)
            ours = self._is_at(receipt.name, path) and not receipt.duplicate_of
            if ours and receipt.may_touch(source, reading, area, ticker_of(original)):
                _refuse_changed(original, receipt)
                found.append((receipt.order, Place(original, receipt.label, is_known=True)))
        unknown = []
        for file in waiting:
            note, stamp = state.notes.get(self.name(file)), stamp_of(file)
            if note is None or note.stamp != stamp or note.state == "settling":
                unknown.append(file)
            elif (arrived := note.arrived) is not None and not repeated(
                arrived.digest, ticker_of(file), receipts
            ):
                place = Place(file, arrived.label, is_known=True)
                if arrived.may_touch(source, reading, area, ticker_of(file)):
                    found.append((arrived.order, place))
        for file, digest, changed in _whole(unknown):
            if not repeated(digest, ticker_of(file), receipts):
                place = Place(file, label_of(file.name, digest), is_known=False)
                found.append(((float("inf"), changed, self.name(file)), place))
        return [place for _, place in sorted(found, key=lambda item: item[0])]

    def files_at(self, path: Path) -> Iterator[Path]:
        """What waits at a source's path: the files of a folder, or the one file."""
        folder = _folder(path)
        return (file for file in self.files(folder) if path in (file, folder))

    def holds(self, path: Path) -> bool:
        """Whether there is anything at all to read at a source's path."""
        notes = self.state().notes
        waiting = any(
            (note := notes.get(self.name(file))) is None or note.state != "refused"
            for file in self.files_at(path)
            if unreadable_name(file) is None
        )
        return waiting or any(self._is_at(item.name, path) for _, item in self.filed.receipts())

    def _is_at(self, name: str, path: Path) -> bool:
        file = self.root / name
        return path in (file, file.parent)


def _folder(path: Path) -> Path:
    """The folder that a source reads from: its path, unless that names a file."""
    return path.parent if has_suffix(path) and not path.is_dir() else path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing where there is none."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda item: item.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def sources_of(settings: Settings) -> dict[str, Path]:
    """Sources of files that read from the inbox, by name, with the path that each reads."""
    return {
        name: source.path.resolve()
        for name, source in settings.sources.items()
        if isinstance(source, FilesSettings) and reads_inbox(settings, source)
    }


def reads_inbox(settings: Settings, own: FilesSettings) -> bool:
    """Whether a source's files are those of the inbox."""
    return own.path.resolve().is_relative_to(settings.inbox_dir.resolve())


def unreadable_name(file: Path) -> str | None:
    """Why a file cannot be one of candles, by its looks; None when it may be."""
    try:
        file.name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8 text; rename it"
    if file.is_symlink():
        return "it is a link; put the file itself there"
    if not has_suffix(file):
        return f"its name ends in none of {', '.join(SUFFIXES)}; export it as one of them"
    return None


def stamp_of(file: Path) -> str | None:
    """What changes when a file's bytes do; None when it is gone."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return None
    # The time of the last change of anything, for a copy may keep the time of its original.
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def age(file: Path, now: float) -> float:
    """Seconds since the file changed; endless of one from the future, and of one that is gone."""
    try:
        since = now - file.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return since if since >= 0 else float("inf")


def is_growing(file: Path, now: float) -> bool:
    """Whether the file says of itself that there is more to come."""
    if age(file, now) < SETTLED_SECONDS:
        return True
    if age(file, now) >= _FOOTER_WAIT:
        return False
    size = file.stat().st_size
    if size == 0 or not is_parquet(file):
        return size == 0
    with file.open("rb") as stream:
        stream.seek(max(0, size - len(_FOOTER)))
        return stream.read() != _FOOTER


def content_hash(file: Path) -> str:
    """SHA-256 of the file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def repeated(digest: str, named: str | None, receipts: list[Receipt]) -> str | None:
    """The filed file with the same content, also under another name; None when there is none.

    `named` is the ticker that the name tells, where names tell it: then it must be the same.
    """
    for receipt in receipts:
        same_ticker = receipt.names is not None or receipt.tickers == (named,)
        if receipt.digest == digest and same_ticker and not receipt.duplicate_of:
            return receipt.label
    return None


def _whole(files: list[Path]) -> Iterator[tuple[Path, str, int]]:
    """Files that nobody has looked at yet, with hash and time of change; no half-written ones.

    A file that was dropped just now is waited for: whoever copies one and runs its slice means it.
    """
    stamps = {file: stamp for file in files if (stamp := stamp_of(file)) is not None}
    youngest = min((age(file, time.time()) for file in stamps), default=SETTLED_SECONDS)
    time.sleep(max(0.0, SETTLED_SECONDS - youngest))
    for file, stamp in stamps.items():
        try:
            if stamp_of(file) != stamp or is_growing(file, time.time()):
                _log.warning("inbox: %r is still being written; left for later", file.name)
                continue
            refuse_bomb(file, f"inbox: file {str(file)!r}")
            digest = content_hash(file)
            changed = file.lstat().st_mtime_ns
        except FileNotFoundError:
            continue  # taken away, or filed: then the one who filed it has the word
        except SourceError as error:
            # What is dropped here must not stop the others; `stock-assets status` shows it.
            _log.warning("%s", error)
            continue
        yield file, digest, changed


def _refuse_changed(original: Path, receipt: Receipt) -> None:
    if original.stat().st_size != receipt.bytes:
        message = (
            f"inbox: {original} is not the file that its receipt tells of (it had "
            f"{receipt.bytes:,} bytes): put the original back there; a corrected one goes into "
            "the inbox"
        )
        raise SourceError(message)
