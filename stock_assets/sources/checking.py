"""Whether a source answers, and knows its tickers: asked of each without touching the lake.

What a source says of itself is its own module's; how it is shown is `sources_commands.py`'s.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stock_assets.errors import SourceError, UnknownSymbolError
from stock_assets.sources.api import MOSCOW, ApiSource
from stock_assets.sources.files import FilesSource
from stock_assets.sources.making import make_source
from stock_assets.sources.windows import windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.settings import Instrument, Settings
    from stock_assets.sources.http import Client
    from stock_assets.sources.windows import Window


@dataclass(frozen=True)
class Configured:
    """A source as the settings have it."""

    name: str
    kind: str
    where: str
    """Address or path; empty for a simulated one."""
    interval: str
    """Length of its candles; empty where it is guessed from the files."""
    tickers: tuple[str, ...]
    requests_per_second: float | None


@dataclass(frozen=True)
class Unknown:
    """A symbol of the universe that its source does not know: every slice with it fails."""

    ticker: str
    symbol: str
    nearest: tuple[str, ...]
    """Symbols that the source has and that look most like it; empty where none does."""
    why: str
    """What a run would fail with."""


@dataclass(frozen=True)
class Checked:
    """How a source was when it was asked."""

    name: str
    answers: bool
    said: str
    """What it is like, or why it does not answer and what to do."""
    seconds: float
    waits: float
    """Seconds for which the host's limit holds requests back at the moment."""
    unknown: tuple[Unknown, ...] = ()
    """Of an API that answers."""


def configured(settings: Settings) -> list[Configured]:
    """The sources of the settings, by name."""
    found = []
    for name, own in sorted(settings.sources.items()):
        where = getattr(own, "base_url", None) or getattr(own, "path", "")
        found.append(
            Configured(
                name,
                own.kind,
                str(where),
                own.interval or "",
                tuple(item.ticker for item in settings.universe if item.source == name),
                getattr(own, "requests_per_second", None),
            )
        )
    return found


def check(name: str, settings: Settings) -> Checked:
    """Ask one source, and an API for each symbol of its tickers.

    Raises `SettingsError` when the settings have none of that name.
    """
    source = make_source(name, settings, resume=False)
    began = time.monotonic()
    waits = 0.0
    unknown: tuple[Unknown, ...] = ()
    try:
        if isinstance(source, ApiSource):
            with source.connect() as client:
                waits = client.held_for()
                said = _probed(source, client)
                own = [item for item in settings.universe if item.source == name]
                unknown = _unknown(source, client, own)
        elif isinstance(source, FilesSource):
            said = _of_files(source)
        else:
            said = "simulated: always there"
        answers = True
    except SourceError as error:
        said, answers = str(error), False
    return Checked(name, answers, said, time.monotonic() - began, waits, unknown)


def _probed(source: ApiSource[Any], client: Client) -> str:
    try:
        return source.probe(client)
    except UnknownSymbolError:
        return "it knows nothing of the ticker that it was tried with"  # which is told below


def _unknown(
    source: ApiSource[Any], client: Client, instruments: Sequence[Instrument]
) -> tuple[Unknown, ...]:
    """Which symbols, former ones too, the API does not know."""
    today = dt.datetime.now(tz=MOSCOW).date()

    def ask(window: Window) -> Unknown | None:
        try:
            source.look_up(client, window)
        except UnknownSymbolError as error:
            nearest = tuple(source.nearest(client, window))
            return Unknown(window.ticker, window.symbol, nearest, str(error))
        return None

    windows = [window for item in instruments for window in windows_of(item, None, today)]
    found = client.map(ask, windows, what="symbols", name=lambda window: window.ticker)
    return tuple(item for item in found if item is not None)


def _of_files(source: FilesSource) -> str:
    files = source.files()
    if not files:
        return "there is a file, but none with rows of its tickers; `stock-assets status` says why"
    newest = max(files, key=lambda file: file.stat().st_mtime)
    changed = dt.datetime.fromtimestamp(newest.stat().st_mtime, tz=dt.UTC)
    plural = "" if len(files) == 1 else "s"
    said = f"{len(files)} file{plural}; {newest.name} changed last, {changed:%Y-%m-%d %H:%M} UTC"
    missing = source.without_rows()
    return f"{said}; no row is of {', '.join(missing)}" if missing else said
