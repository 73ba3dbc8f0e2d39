"""Answers of an API between the wire and the lake: what makes a long fetch resumable.

A piece (one symbol over one window) is kept as a zip of the answers' bytes as soon as it is whole.
A run that comes after one that died takes the piece from there; when the candles are in the lake,
the pieces are thrown away, or moved aside where the settings want raw answers kept for audit.
What a piece holds and what its bytes mean is the source's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import threading
import uuid
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FRESH = dt.timedelta(hours=24)
"""For so long an answer may stand in for asking again."""

_ABOUT = "about.json"


@dataclass(frozen=True)
class Piece:
    """A finished piece on disk."""

    key: str
    """What was asked for, in words: unique within the source."""
    file: Path


class Journal:
    """The pieces of one source. Threads and runs may share the folder."""

    def __init__(self, folder: Path, *, resume: bool = True) -> None:
        """Without `resume` everything is asked for anew, and kept in memory alone.

        That is for looks: they must see what is there now, and leave runs' pieces alone.
        """
        self._folder = folder
        self._resume = resume
        self._lock = threading.Lock()
        self._used: dict[str, Piece] = {}
        self._in_memory: dict[str, list[bytes]] = {}

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces that this journal's owner has used so far."""
        with self._lock:
            return tuple(self._used.values())

    def answers(
        self, key: str, fetch: Callable[[], Sequence[bytes]], *, settles: dt.datetime
    ) -> list[bytes]:
        """The bodies of the piece called `key`: kept ones, else what `fetch` brings, then kept.

        From `settles` on (UTC) its candles are final: only a piece asked for after that may be
        taken from a run before. A piece that cannot be read is fetched again.
        """
        if not self._resume:
            looked = list(fetch())
            with self._lock:
                self._in_memory[key] = looked
            return looked
        piece = Piece(key, self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.zip")
        found = self._kept(piece, settles)
        if found is None:
            asked = dt.datetime.now(tz=dt.UTC)
            found = list(fetch())
            self._keep(piece, found, asked)
        with self._lock:
            self._used[key] = piece
        return found

    def read(self, key: str) -> list[bytes] | None:
        """The bodies of a piece that was used; None when another run has cleared it away."""
        with self._lock:
            if key in self._in_memory:
                return self._in_memory[key]
            piece = self._used[key]
        return _bodies(piece)

    def _kept(self, piece: Piece, settles: dt.datetime) -> list[bytes] | None:
        try:
            written = dt.datetime.fromtimestamp(piece.file.stat().st_mtime, tz=dt.UTC)
        except FileNotFoundError:
            return None
        if written < settles:
            return None
        age = dt.datetime.now(tz=dt.UTC) - written
        return _bodies(piece) if dt.timedelta(0) <= age < FRESH else None

    def _keep(self, piece: Piece, bodies: Sequence[bytes], asked: dt.datetime) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = piece.file.with_name(f"{uuid.uuid4().hex}.part")
        about = {"asked": piece.key, "fetched": asked.isoformat()}
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            packed.writestr(_ABOUT, json.dumps(about, ensure_ascii=False))
            for number, body in enumerate(bodies):
                packed.writestr(f"{number:05d}", body)
        # Its age counts from the question: an answer may take minutes, and be of before.
        os.utime(draft, (asked.timestamp(), asked.timestamp()))
        os.replace(draft, piece.file)  # noqa: PTH105 - atomic, also over an older one


def _bodies(piece: Piece) -> list[bytes] | None:
    try:
        with zipfile.ZipFile(piece.file) as packed:
            if json.loads(packed.read(_ABOUT))["asked"] != piece.key:
                return None
            return [packed.read(name) for name in sorted(packed.namelist()) if name != _ABOUT]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return None


def clear(pieces: Sequence[Piece], keep_in: Path | None = None) -> None:
    """Remove pieces whose candles are in the lake; into `keep_in` where that is given.

    A kept piece is `<keep_in>/<day>/<time>-<piece>.zip`, and says what was asked and when. Drafts
    of killed runs go too, once they are old.
    """
    now = dt.datetime.now(tz=dt.UTC)
    for piece in pieces:
        if keep_in is not None:
            folder = keep_in / f"{now:%Y-%m-%d}"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{now:%H%M%S}-{piece.file.name}"
            try:
                shutil.copy2(piece.file, folder / name)
            except FileNotFoundError:
                continue  # another run over the same cells has kept it
        piece.file.unlink(missing_ok=True)
    for folder in {piece.file.parent for piece in pieces}:
        for draft in folder.glob("*.part"):
            _remove_old(draft, now)


def _remove_old(draft: Path, now: dt.datetime) -> None:
    try:
        written = dt.datetime.fromtimestamp(draft.stat().st_mtime, tz=dt.UTC)
    except FileNotFoundError:
        return
    if now - written > FRESH:
        draft.unlink(missing_ok=True)
