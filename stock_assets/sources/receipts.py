"""What is known of a file of the inbox, and the files that were filed away with a receipt.

A filed file has a folder of its own, `filed/<day>/<time>-<hash>`, with the original under its own
name and `receipt.json`. The receipts are what counts; `index.jsonl` is a copy of them in one file,
so that a run need not open thousands, and may be removed at any time. Which files wait, and the
order in which all of them count, is in `inbox.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, computed_field

from stock_assets.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stock_assets.slices import Slice

_RECEIPT = "receipt.json"
_INDEX = "index.jsonl"
_ONE_DAY = dt.timedelta(1)


class Contents(BaseModel):
    """What one source found in a file."""

    model_config = ConfigDict(frozen=True)

    rows: int
    """Rows of the source's tickers."""
    held_back: int = 0
    """Of sessions that were not over when the file came."""
    quarantined: dict[str, int] = {}
    """Rows set aside, by reason."""
    first: dt.date
    last: dt.date
    tickers: tuple[str, ...]
    reading: str
    """Fingerprint of the settings by which the days were read."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def candles(self) -> int:
        """Good rows of sessions that were over."""
        return self.rows - self.held_back - sum(self.quarantined.values())


class Arrived(BaseModel):
    """A file of the inbox that has been read once."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Path in the inbox."""
    digest: str
    """SHA-256 of its bytes."""
    bytes: int
    modified: int
    """Nanoseconds since 1970."""
    arrived: dt.datetime
    """When it was seen whole; kept for good, because it decides which file is the later one."""
    names: tuple[str, ...] | None
    """What its ticker column holds; None where its name tells the ticker."""
    sources: dict[str, Contents]

    @property
    def order(self) -> tuple[float, int, str]:
        """Of two files with the same candle the one with the larger order has it."""
        return self.arrived.timestamp(), self.modified, self.name

    @property
    def tickers(self) -> tuple[str, ...]:
        """Of all sources that read it."""
        return tuple(sorted({name for own in self.sources.values() for name in own.tickers}))

    @property
    def named(self) -> str | None:
        """The ticker that its name tells; None where a column does."""
        return self.tickers[0] if self.names is None else None

    @property
    def label(self) -> str:
        """What it is called in `quarantine`: two files of one name are two files."""
        return label_of(self.name, self.digest)

    def may_touch(self, source: str, reading: str, area: Slice, named: str | None) -> bool:
        """Whether rows of it may lie in the slice; `named` is the ticker that its name tells.

        A day more on each side, for a ticker may have moved to an exchange with another clock.
        """
        wanted = set(area.tickers)
        own = self.sources.get(source)
        touched = wanted.intersection((named,) if self.names is None else self.names)
        if not touched:
            return False
        if own is None or own.reading != reading or not touched.issubset(own.tickers):
            return True  # it has not been read by these settings: its days are not known
        begins = area.first_date is None or own.last + _ONE_DAY >= area.first_date
        return begins and own.first - _ONE_DAY <= area.last_date


class Receipt(Arrived):
    """What became of a file that was filed away."""

    filed: dt.datetime
    runs: tuple[str, ...] = ()
    """Runs that brought its candles to the lake; none where the lake held them already."""
    duplicate_of: str = ""
    """The entry with the same content; this one is not read."""


def label_of(name: str, digest: str) -> str:
    """A file's name with as much of its hash as tells it from others of that name."""
    return f"{Path(name).name} ({digest[:8]})"


class Filed:
    """The folder of filed files. One process files, any may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def receipts(self) -> Iterator[tuple[str, Receipt]]:
        """All entries with their receipts, by entry: in the order in which they were filed."""
        index = self._index()
        for entry in self._entries():
            receipt = index.get(entry) or self._read(entry)
            if receipt is not None and self.original(entry, receipt.name).exists():
                yield entry, receipt

    def original(self, entry: str, name: str) -> Path:
        """Where a filed file lies."""
        return self.folder / entry / Path(name).name

    def file_away(self, path: Path, receipt: Receipt) -> str | None:
        """Move a file here; the entry's name. None when the file is not what the receipt says.

        The receipt is written first and the file is moved in one step, so that it is at any moment
        either in the inbox or here; whoever is killed in between does the same again.
        """
        key = hashlib.sha256(f"{receipt.name}\0{receipt.digest}".encode()).hexdigest()
        entry = f"{receipt.arrived:%Y-%m-%d}/{receipt.arrived:%H%M%S}-{key[:16]}"
        target = self.original(entry, receipt.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = receipt.model_dump_json(indent=1)
        write_whole(target.with_name(_RECEIPT), text)
        try:
            if not target.exists():
                path.rename(target)
        except FileNotFoundError:  # somebody took it just now
            _forget(target.parent)
            return None
        found = target.stat()
        if (found.st_size, found.st_mtime_ns) != (receipt.bytes, receipt.modified):
            # Written anew just before it was moved: it is another file, and waits like one.
            if not path.exists():
                target.rename(path)
                _forget(target.parent)
            return None
        line = json.dumps({"entry": entry, **json.loads(text)})
        with (self.folder / _INDEX).open("a", encoding="utf-8") as index:
            index.write(line + "\n")
        return entry

    def _entries(self) -> list[str]:
        try:
            days = sorted(item.name for item in os.scandir(self.folder) if item.is_dir())
        except FileNotFoundError:
            return []
        return [
            f"{day}/{name}"
            for day in days
            for name in sorted(item.name for item in os.scandir(self.folder / day))
        ]

    def _index(self) -> dict[str, Receipt]:
        try:
            text = (self.folder / _INDEX).read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        found = {}
        for line in text.splitlines():
            try:
                raw = json.loads(line)
                found[raw["entry"]] = Receipt.model_validate(raw)
            except (ValueError, KeyError, TypeError):
                continue  # left unfinished by a killed process: the receipt itself is read
        return found

    def _read(self, entry: str) -> Receipt | None:
        """The receipt of an entry; None for a folder that somebody else made."""
        file = self.folder / entry / _RECEIPT
        try:
            return Receipt.model_validate_json(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            message = (
                f"{file} cannot be read: {str(error).splitlines()[0]}; move the file beside it "
                f"back to {self.folder.parent}, and remove the folder"
            )
            raise SourceError(message) from None


def _forget(entry: Path) -> None:
    (entry / _RECEIPT).unlink()
    entry.rmdir()


def write_whole(file: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees all of it, or what was there before."""
    draft = file.with_name(f".{file.name}.draft")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
