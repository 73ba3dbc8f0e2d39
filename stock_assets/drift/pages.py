"""The folder of drift pages: what a page is called, saving it, and removing old ones.

How a page is drawn is in `reports.py`, the index of all in `index.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from stock_assets.errors import LakeError

if TYPE_CHECKING:
    from collections.abc import Collection

    from stock_assets.settings import Settings

_REMEDY = "make the folder writable, free space, or change lake.path"

_PAGE = re.compile(r"(?P<day>\d{4}-\d{2}-\d{2})(?:_(?P<ticker>.+))?\.html")


@dataclass(frozen=True, order=True)
class Page:
    """A page that has been saved."""

    day: dt.date
    ticker: str
    """Empty: the page of the universe."""
    path: Path


def folder(settings: Settings) -> Path:
    """Where the pages, their scripts and the index are."""
    return settings.reports_dir / "drift"


def page_file(settings: Settings, day: dt.date, ticker: str | None = None) -> Path:
    """The page of `day`, of one ticker or of the universe, whether it has been saved or not."""
    # Names of tickers have characters that names of files may not have.
    name = day.isoformat() + (f"_{quote(ticker, safe='')}" if ticker else "")
    return folder(settings) / f"{name}.html"


def index_file(settings: Settings) -> Path:
    """The index of all pages."""
    return folder(settings) / "index.html"


def link(page: Path) -> str:
    """The address of a page as seen from its neighbours."""
    return quote(page.name)


def served_at(settings: Settings, page: Path) -> str:
    """The address at which people open a page that `stock-assets dev` serves."""
    path = quote(page.relative_to(settings.reports_dir).as_posix())
    return f"{settings.reports_address}/{path}"


def saved_pages(settings: Settings) -> list[Page]:
    """The pages that are there, sorted. Other files are none, whoever put them there."""
    found = []
    for path in folder(settings).glob("*.html"):
        parts = _PAGE.fullmatch(path.name)
        if parts is None:
            continue
        try:
            day = dt.date.fromisoformat(parts["day"])
        except ValueError:
            continue
        ticker = unquote(parts["ticker"] or "")
        if path == page_file(settings, day, ticker or None):
            found.append(Page(day, ticker, path))
    return sorted(found)


def remove_pages(settings: Settings, day: dt.date, written: Collection[Path]) -> list[Path]:
    """Remove what `written` (pages of `day`) replace, and pages that are too old to be kept.

    Others of that day are of tickers that have not drifted after all. Too old is a page of a day
    more than `drift.keep_pages` before the newest page's that was drawn as long ago: one of the
    past that somebody asked for stays for a while as well. Returns what was removed.

    Raises `LakeError` when one cannot be removed.
    """
    pages = saved_pages(settings)
    keep = settings.drift.keep_pages
    last, drawn = dt.date.min, 0.0
    if isinstance(keep, int) and pages:
        last = pages[-1].day - dt.timedelta(keep)
        drawn = time.time() - dt.timedelta(keep).total_seconds()
    removed = [
        page.path
        for page in pages
        if page.path not in written
        and (page.day == day or (page.day < last and _drawn_at(page.path) < drawn))
    ]
    for path in removed:
        try:
            # Another run may have been faster.
            path.unlink(missing_ok=True)
        except OSError as error:
            message = f"drift page {path} cannot be removed ({error.strerror}); {_REMEDY}"
            raise LakeError(message) from error
    return removed


def _drawn_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        # Another run may have been faster.
        return math.inf


def save_whole(text: str, path: Path) -> None:
    """Write beside the place, then rename: a reader sees what was there before or all of it.

    Raises `LakeError` when it cannot be written.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False
        ) as file:
            partial = Path(file.name)
            file.write(text)
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        message = f"drift page {path} cannot be written ({error.strerror}); {_REMEDY}"
        raise LakeError(message) from error
    finally:
        if partial is not None:
            # Where even this fails, so has the writing, and that is told.
            with contextlib.suppress(OSError):
                partial.unlink()
