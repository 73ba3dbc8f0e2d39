"""Which column of a file is which: the settings' names first, sane guesses for the rest.

Only names are looked at. A name is recognised whole, so that Yahoo's `Adj Close` is never taken
for the close.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stock_assets.errors import SourceError
from stock_assets.sources.base import PRICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.settings import FilesSettings

_SYNONYMS: dict[str, tuple[str, ...]] = {
    # Names as `_plain` writes them, the likelier first.
    "ticker": ("ticker", "symbol", "secid", "instrument", "name"),
    "timestamp": (
        "timestamp", "datetime", "date time", "begin", "start", "open time", "gmt time", "ts",
    ),
    "date": ("date", "tradedate", "trade date", "day"),
    "time": ("time",),
    "open": ("open", "o", "open price", "first"),
    "high": ("high", "h", "high price", "max"),
    "low": ("low", "l", "low price", "min"),
    "close": ("close", "c", "close price", "last"),
    "volume": ("volume", "vol", "v"),
}  # fmt: skip
_SINGLE_PRICE = ("price", "rate", "curs", "value")


@dataclass(frozen=True)
class Columns:
    """The file's names of our columns."""

    stamp: tuple[str, ...]
    """One column with the timestamp, or two: the date and the time."""
    open: str
    high: str
    low: str
    close: str
    volume: str | None
    ticker: str | None


def recognised(names: Sequence[str], settings: FilesSettings) -> int:
    """How many of `names` mean something to us."""
    known = {name for words in _SYNONYMS.values() for name in words} | {*_SINGLE_PRICE}
    mapped = set(settings.columns.values())
    return sum(name in mapped or _plain(name) in known for name in names)


def find_columns(names: Sequence[str], settings: FilesSettings, source: str, label: str) -> Columns:
    """The columns of a file with these `names`.

    Raises `SourceError` naming what is missing, what was found and the setting that mends it.
    """
    for ours, theirs in settings.columns.items():
        if theirs not in names:
            message = (
                f"{label} has no column {theirs!r}, which [sources.{source}.columns] names for "
                f"{ours}; the file's columns are {_listed(names)}"
            )
            raise SourceError(message)
    found = _matched(names, settings.columns)
    stamp = _stamp(found, settings)
    missing = [name for name in PRICES if name not in found]
    if not stamp:
        missing.insert(0, "timestamp")
    if missing:
        lines = ", ".join(f'{name} = "..."' for name in missing)
        message = (
            f"{label} has no column that is recognisably {' or '.join(missing)}; its columns are "
            f"{_listed(names)}. Name them in the settings: [sources.{source}.columns] {lines}"
        )
        raise SourceError(message)
    return Columns(
        stamp=stamp,
        open=found["open"],
        high=found["high"],
        low=found["low"],
        close=found["close"],
        volume=found.get("volume"),
        ticker=found.get("ticker"),
    )


def _matched(names: Sequence[str], named: dict[str, str]) -> dict[str, str]:
    """Our name -> the file's: what is `named`, else the likeliest synonym."""
    found = dict(named)
    by_plain: dict[str, str] = {}
    for name in names:
        if name not in found.values():
            by_plain.setdefault(_plain(name), name)
    for ours, words in _SYNONYMS.items():
        match = next((by_plain[word] for word in words if word in by_plain), None)
        if match is not None:
            found.setdefault(ours, match)
    if "close" not in found and (word := next((w for w in _SINGLE_PRICE if w in by_plain), None)):
        found["close"] = by_plain[word]
    # A single-price series: its price is all four.
    if "close" in found and not {"open", "high", "low"} & found.keys():
        found |= dict.fromkeys(("open", "high", "low"), found["close"])
    return found


def _stamp(found: dict[str, str], settings: FilesSettings) -> tuple[str, ...]:
    """What the settings name, else a timestamp, else a date with its time, else either."""
    named = settings.columns
    if "timestamp" in found and ("timestamp" in named or not {"date", "time"} & named.keys()):
        return (found["timestamp"],)
    return tuple(found[name] for name in ("date", "time") if name in found)


def _plain(name: str) -> str:
    """`<DATE>`, `Date_Time`, ` Open ` -> date, date time, open."""
    return re.sub(r"[\s_]+", " ", name.strip().strip("<>\ufeff")).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
