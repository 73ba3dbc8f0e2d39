"""Sessions that were computed once, kept in the user's cache folder.

Computing an exchange's sessions costs two seconds of pandas and holiday rules, in every command.
A file here is only a copy: one that is missing or damaged is computed anew, and where none can be
written every command computes. What sessions are, and where they are wrong, is `calendars.py`'s.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CACHE_VARIABLE = "XDG_CACHE_HOME"
"""Environment variable of the folder that holds caches; ~/.cache where it is not set."""


class KnownSessions(NamedTuple):
    """What a package knows of an exchange: its zone, its closing time there, its sessions."""

    timezone: str
    close: dt.time
    days: tuple[dt.date, ...]


def remembered(depends_on: Sequence[str], compute: Callable[[], KnownSessions]) -> KnownSessions:
    """What `compute` returns, from its file where it was computed before.

    `depends_on` must be all that the result depends on, the release of the code of `compute`
    included, which nothing here can see: another value of it is another file.
    """
    folder = _folder()
    if folder is None:
        return compute()
    stamp = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()[:16]
    file = folder / f"calendar-{stamp}.json"
    found = _read(file)
    if found is None:
        found = compute()
        _write(file, found)
    return found


def _folder() -> Path | None:
    """Where the files are; None for a user without a home."""
    try:
        base = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "stock-assets"


def _read(file: Path) -> KnownSessions | None:
    """The sessions in `file`; None when they are not there, or not whole."""
    try:
        content = json.loads(file.read_bytes())
        timezone, close, days = content["timezone"], content["close"], content["days"]
        if content["digest"] != _digest(timezone, close, days):
            return None
        return KnownSessions(
            timezone, dt.time.fromisoformat(close), tuple(map(dt.date.fromisoformat, days))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, found: KnownSessions) -> None:
    """Put the file in its place at once: other processes may read and write it meanwhile."""
    close, days = found.close.isoformat(), [day.isoformat() for day in found.days]
    content = {
        "timezone": found.timezone,
        "close": close,
        "days": days,
        "digest": _digest(found.timezone, close, days),
    }
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as draft:
            json.dump(content, draft)
        Path(name).replace(file)


def _digest(timezone: str, close: str, days: Sequence[str]) -> str:
    return hashlib.sha256(" ".join([timezone, close, *days]).encode()).hexdigest()
