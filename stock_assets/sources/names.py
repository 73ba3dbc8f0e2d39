"""Whose rows are: what a file's name says beside a ticker, and names other than the ticker's.

An instrument's `symbol` is what the files call it today, its `formerly` what they called it before,
each until its last day. A name may be one instrument's on some days and another's on others; rows
of days on which it was nobody's are a stranger's, and are at fault rather than anybody's past.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stock_assets.settings import Instrument

NAME = "__name__"
"""The column that holds what a row is called."""

_DAY = dt.timedelta(days=1)

_ABOUT_ROWS = (
    r"\d+|\d{1,4}(?:s|m|min|h|d|w|mo|y)|daily|hourly|minutes?|weekly|candles?|ohlcv?|prices?|quotes?"
    r"|history|historical|hist|data|stock|adjusted|raw|full|all|max|new|part\d*"
)
_ABOUT_MARKET = (
    r"[smhdw]\d{0,3}|mn1?|us|uk|de|ru|jp|hk|eu|me|moex|micex|tqbr|xmos|nyse|nasdaq|xnys|xnas|lse"
)
_SAID_BESIDE = re.compile(rf"(?:[-_](?:{_ABOUT_ROWS})|_(?:{_ABOUT_MARKET}))+", re.IGNORECASE)
"""What may stand behind a ticker in a file's name: days, an interval, a market, common words."""

_SYMBOL = re.compile(
    r"[A-Z]{1,5}|(?i:usdt?|usdc|eur|rub|gbp|jpy|chf|cny|cnh|cad|aud|nzd|hkd|inr|try|kzt|btc|eth|xau|xag)"
)
"""A currency, a class of shares or another ticker, in capitals as these are written."""


def is_said_of(name: str, ticker: str, *, in_any_case: bool = False) -> bool:
    """Whether a file called `name` is of `ticker`, with something about its rows behind it.

    After a hyphen only what says so for sure: there stand currencies and classes of shares. After
    an underscore anything, but for a first word that looks like such.
    """
    begins, rest = name[: len(ticker)], name[len(ticker) :]
    if begins != ticker and not (in_any_case and begins.casefold() == ticker.casefold()):
        return False
    if _SAID_BESIDE.fullmatch(rest):
        return True
    first = re.split(r"[-_]", rest[1:], maxsplit=1)[0]
    return rest.startswith("_") and not _SYMBOL.fullmatch(first)


@dataclass(frozen=True)
class _Span:
    """Days, both included, on which a name was a ticker's."""

    ticker: str
    first: dt.date
    last: dt.date


@dataclass(frozen=True)
class OtherNames:
    """The other names of a source's instruments; falsy where there are none."""

    tickers: frozenset[str]
    """Every ticker of the source: a name that is one is its own but for another's days."""
    spans: tuple[tuple[str, tuple[_Span, ...]], ...]
    """Each name, and whose it was."""
    beginnings: tuple[tuple[str, str, dt.date], ...]
    """Tickers that had another name before: the ticker, that name and its last day."""

    @classmethod
    def of(cls, instruments: Iterable[Instrument]) -> OtherNames:
        """Those that the settings of `instruments` tell."""
        instruments = list(instruments)
        spans: dict[str, list[_Span]] = {}
        beginnings = []
        for item in instruments:
            first = dt.date.min
            for former in item.formerly:
                spans.setdefault(former.symbol, []).append(_Span(item.ticker, first, former.until))
                first = former.until + _DAY
            if item.formerly:
                last = item.formerly[-1]
                beginnings.append((item.ticker, last.symbol, last.until))
            if item.source_symbol != item.ticker:
                # Before it was listed the symbol may have been another's: whose former name it is.
                since = max(first, item.listed or first)
                today = _Span(item.ticker, since, dt.date.max)
                spans.setdefault(item.source_symbol, []).append(today)
        return cls(
            frozenset(item.ticker for item in instruments),
            tuple((name, tuple(found)) for name, found in spans.items()),
            tuple(beginnings),
        )

    def __bool__(self) -> bool:
        return bool(self.spans)

    @property
    def names(self) -> list[str]:
        """The names that are no tickers themselves."""
        return [name for name, _ in self.spans if name not in self.tickers]

    def owners(self, name: str) -> set[str]:
        """The tickers whose name it was on some days."""
        return {span.ticker for other, spans in self.spans if other == name for span in spans}

    def of_tickers(self, tickers: Collection[str]) -> list[str]:
        """All other names of `tickers`."""
        return [name for name, spans in self.spans if any(span.ticker in tickers for span in spans)]

    def usual(self, name: pl.Expr) -> pl.Expr:
        """The ticker that goes by a name, as long as the day is not known."""
        known = {other: spans[0].ticker for other, spans in self.spans if other not in self.tickers}
        return name.replace(known) if known else name

    def resolved(self, keys: pl.DataFrame) -> pl.DataFrame:
        """`keys` (NAME, ticker, day, fault, ...) with each day's ticker, and without NAME.

        A row under a name that was nobody's on its day keeps the ticker that goes by that name, and
        says so in `fault`.
        """
        day, name = pl.col("day"), pl.col(NAME)
        owner = pl.col("ticker").cast(pl.String)
        why: list[pl.Expr] = []
        for other, spans in self.spans:
            ours = pl.lit(value=False)
            for span in spans:
                theirs = (name == other) & day.is_between(pl.lit(span.first), pl.lit(span.last))
                owner = pl.when(theirs).then(pl.lit(span.ticker)).otherwise(owner)
                ours |= theirs
            if other not in self.tickers:
                told = "; ".join(
                    f"of {span.ticker} from {span.first} to {span.last}"
                    if span.first > dt.date.min
                    else f"of {span.ticker} until {span.last}"
                    for span in spans
                )
                words = pl.lit(f"day: {other} is the name {told} in the settings, not on this day")
                why.append(pl.when((name == other) & ~ours).then(words))
        for ticker, former, until in self.beginnings:
            words = pl.lit(f"day: {ticker} is called {former} until {until} in the settings")
            early = (name == ticker) & (owner == ticker) & (day <= until)
            why.append(pl.when(early).then(words))
        fault = pl.concat_str("fault", *why, separator="; ", ignore_nulls=True)
        return keys.with_columns(
            owner.cast(keys.schema["ticker"]).alias("ticker"),
            pl.when(fault != "").then(fault).alias("fault"),
        ).drop(NAME)
