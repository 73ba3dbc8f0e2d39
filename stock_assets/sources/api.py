"""What the sources that ask an API have in common: windows, pieces, and rows made of answers.

An API's own module says how to ask for one window of one symbol and what its bytes mean; how often
and how patiently is `http.py`'s, what is kept until the lake has it is `journal.py`'s.
"""

from __future__ import annotations

import datetime as dt
import difflib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar
from zoneinfo import ZoneInfo

import polars as pl

from stock_assets.source_settings import ApiSection
from stock_assets.sources.base import (
    NUMBERS,
    RAW_SCHEMA,
    quote_parsed,
    settles_with_session,
)
from stock_assets.sources.journal import Journal
from stock_assets.sources.windows import Window, windows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Instrument, Settings
    from stock_assets.slices import Slice
    from stock_assets.sources.http import Client

Own = TypeVar("Own", bound=ApiSection)

MOSCOW = ZoneInfo("Europe/Moscow")

PARSED_SCHEMA = pl.Schema(
    {
        "day": pl.Date(),
        "start": pl.Datetime("us", "UTC"),  # null where not readable
        **{name: pl.Float64() for name in NUMBERS},
        "fault": pl.String(),  # what could not be read and why; else null
        "raw": pl.String(),  # the row as it came, as JSON
    }
)
"""One row of an answer as the API's module understands it, in the order of the answer."""


def evening_of_moscow(exchange: str, day: dt.date) -> dt.datetime:
    """When (UTC) Moscow's trading day is over with its evening session, and shown to everyone.

    The evening session ends at 23:50, the delay of public data is 15 minutes.
    """
    night = dt.datetime.combine(day + dt.timedelta(1), dt.time(0, 5), tzinfo=MOSCOW)
    return max(night.astimezone(dt.UTC), settles_with_session(exchange, day))


def most_alike(symbol: str, offered: Iterable[str]) -> list[str]:
    """The few of `offered` that look like `symbol`, the nearest first; none where none does."""
    return difflib.get_close_matches(symbol.upper(), sorted(set(offered)), 3)


class ApiSource(ABC, Generic[Own]):
    """Candles of an API on the network. Made for one fetch; threads share it within that."""

    window_days: ClassVar[dict[str, int]]
    """Longest window of each interval, in days: what is lost when a run dies in the middle."""

    def __init__(self, name: str, own: Own, settings: Settings, *, resume: bool = True) -> None:
        self.name = name
        self.own = own
        self.limits_dir = settings.fetched_dir / "limits"
        self.journal = Journal(settings.fetched_dir / name, resume=resume)
        self.raw_dir = settings.raw_dir / name if own.keep_raw else None
        self._exchanges = {item.ticker: item.exchange for item in settings.universe}
        self._windows: dict[str, list[Window]] = {}
        self.finish_by: float | None = None
        """Until when (`time.monotonic`) answers are waited for; None: as long as it takes."""

    @abstractmethod
    def connect(self) -> Client:
        """Connections to the API. Raises `SourceError` where what it needs is missing."""

    @abstractmethod
    def beginning(self, client: Client, window: Window) -> dt.date | None:
        """First day of which the API has candles of the window's symbol; None when it has none.

        Asked for windows that begin with the source. Raises `UnknownSymbolError` for a symbol that
        the API does not know.
        """

    @abstractmethod
    def ask(self, client: Client, window: Window) -> list[bytes]:
        """The answers, whole and checked, that hold the window's candles.

        Raises `UnknownSymbolError` for a symbol that the API does not know.
        """

    @abstractmethod
    def rows(self, window: Window, bodies: Sequence[bytes]) -> pl.DataFrame:
        """Rows (`PARSED_SCHEMA`) of such answers; what is not of the window's days is left out."""

    @abstractmethod
    def file(self, window: Window) -> str:
        """What the rows' request is called in `quarantine`: the same however it was cut."""

    @abstractmethod
    def probe(self, client: Client) -> str:
        """Ask for something small; how the API is, in words. Raises `SourceError`."""

    @abstractmethod
    def look_up(self, client: Client, window: Window) -> None:
        """Ask whether the API knows the window's symbol. Raises `UnknownSymbolError`."""

    @abstractmethod
    def nearest(self, client: Client, window: Window) -> list[str]:
        """Symbols that the API has, and that look most like one that it does not know."""

    def splits(self, instruments: Sequence[Instrument]) -> Sequence[Split]:  # noqa: ARG002
        """None: unless the API tells them."""
        return ()

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """From when on (UTC) the API's candles of a session are final."""
        return settles_with_session(exchange, day)

    def fetch(self, instruments: Sequence[Instrument], area: Slice) -> pl.DataFrame:
        """Rows of `instruments` within `area`, by instrument, then as the API gave them."""
        last = min(area.last_date, dt.datetime.now(tz=MOSCOW).date())
        first = area.first_date
        if self.own.begin is not None:
            first = max(first or self.own.begin, self.own.begin)
        spans = [span for item in instruments for span in windows_of(item, first, last)]
        with self.connect() as client:
            client.finish_by = self.finish_by
            known = client.map(
                lambda span: self._begun(client, span), spans, what="tickers", name=_ticker
            )
            days = self.window_days[self.own.interval]
            windows = [piece for span in known if span is not None for piece in span.cut(days)]
            for window in windows:
                self._windows.setdefault(window.ticker, []).append(window)
            parts = client.map(
                lambda window: self._fetched(client, window),
                windows,
                what="pieces",
                name=_ticker,
            )
        found = [part for part in parts if part.height]
        return pl.concat(found) if found else RAW_SCHEMA.to_frame()

    def quote(self, rows: pl.DataFrame) -> pl.Series:
        """The rows as the API gave them, from the kept answers; as parsed where those are gone."""
        wanted = rows.select("ticker", "day", "file", "row").unique()
        found = []
        for ticker, day in wanted.select("ticker", "day").unique().iter_rows():
            for window in self._windows[ticker]:
                if window.first is not None and window.first <= day <= window.last:
                    bodies = self.journal.read(self._key(window))
                    if bodies is not None:
                        made = self._named(window, self.rows(window, bodies))
                        found.append(made.filter(pl.col("day") == day))
        texts = quote_parsed(rows).alias("parsed")
        if not found:
            return texts.alias("raw")
        key = ["ticker", "day", "file", "row"]
        raws = pl.concat(found).select(*key, "raw").unique(key, keep="last")
        joined = (
            rows.select(key)
            .with_columns(texts)
            .join(raws, on=key, how="left", maintain_order="left")
        )
        return joined.select(pl.coalesce("raw", "parsed").alias("raw")).to_series()

    def _begun(self, client: Client, span: Window) -> Window | None:
        if span.first is not None:
            return span
        start = self.beginning(client, span)
        if start is None or start > span.last:
            return None
        return Window(span.ticker, span.symbol, start, span.last)

    def _fetched(self, client: Client, window: Window) -> pl.DataFrame:
        bodies = self.journal.answers(
            self._key(window),
            lambda: self.ask(client, window),
            settles=self.settles_at(self._exchanges[window.ticker], window.last),
        )
        return self._named(window, self.rows(window, bodies)).select(RAW_SCHEMA.names())

    @property
    def reading(self) -> str:
        """What of the settings decides what a piece holds: another reading asks anew."""
        return self.own.base_url

    def _key(self, window: Window) -> str:
        asked = f"{self.file(window)} {self.own.interval} {window.first}..{window.last}"
        return f"{asked} of {self.reading}"

    def _named(self, window: Window, parsed: pl.DataFrame) -> pl.DataFrame:
        """`RAW_SCHEMA` and `raw`: a row's number is its place within its day."""
        return parsed.with_columns(
            pl.lit(window.ticker).alias("ticker"),
            pl.lit(self.own.interval).alias("interval"),
            pl.lit(self.name).alias("source"),
            pl.lit(self.file(window)).alias("file"),
            pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("day").alias("row"),
        )


def _ticker(window: Window) -> str:
    return window.ticker
