"""Moscow Exchange ISS: candles of shares, funds and indices, without a key.

What a candle's row means and how pages are asked for. How ISS's answers are read is in `iss.py`,
what else it is asked about securities in `moex_reference.py`; the contract: docs/sources/moex.md.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.errors import SourceError
from stock_assets.settings import MoexSettings
from stock_assets.sources import moex_calendar, moex_splits
from stock_assets.sources.api import (
    MOSCOW,
    PARSED_SCHEMA,
    ApiSource,
    evening_of_moscow,
    most_alike,
)
from stock_assets.sources.base import NUMBERS, PRICES
from stock_assets.sources.http import Client, PassingTroubleError
from stock_assets.sources.iss import Table, number_of, read_tables, tables_of, wants
from stock_assets.sources.moex_reference import INTERVALS, Reference, path_of
from stock_assets.sources.rules import DAILY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Instrument, Settings
    from stock_assets.sources.http import Answer
    from stock_assets.sources.moex_boards import Span
    from stock_assets.sources.windows import Window

_FIELDS = (*NUMBERS, "value", "begin")
_REWRITTEN = "rewritten"
"""Our table at the head of a piece: the splits for which ISS rewrote the piece's candles."""
_PROBED = dt.timedelta(days=30)


class MoexSource(ApiSource[MoexSettings]):
    """Candles of MOEX ISS. Of each security, each day is of the board that was the main one."""

    # About ten pages of 500 candles a piece.
    window_days: ClassVar[dict[str, int]] = {"1m": 7, "10m": 60, "1h": 365, DAILY: 3660}

    def __init__(
        self, name: str, own: MoexSettings, settings: Settings, *, resume: bool = True
    ) -> None:
        super().__init__(name, own, settings, resume=resume)
        self.reference = Reference(name, own)

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """After the evening session: a day's candle goes on until its end."""
        return evening_of_moscow(exchange, day)

    def splits(self, instruments: Sequence[Instrument]) -> Sequence[Split]:
        """What ISS declares, where candles are taken as traded."""
        if not self.own.as_traded:
            return ()
        with self.connect() as client:
            client.finish_by = self.finish_by
            return self.reference.splits(client, instruments)

    def connect(self) -> Client:
        """Connections to ISS."""
        return Client(self.name, self.own, self.own.base_url, self.limits_dir)

    def beginning(self, client: Client, window: Window) -> dt.date | None:
        """First day of any main board's candles."""
        spans = self.reference.boards_by_day(client, window)
        return spans[0].first if spans else None

    def ask(self, client: Client, window: Window) -> list[bytes]:
        """The pages of the window's candles, after a table of what ISS rewrote in them."""
        assert window.first is not None
        pages = []
        for span in self.reference.spans(client, window, window.first, window.last):
            pages += self._pages(client, window, span)
        rewritten = self.reference.rewritten(client, window) if pages and self.own.as_traded else ()
        if rewritten:
            table = {_REWRITTEN: moex_splits.as_table(rewritten)}
            pages.insert(0, json.dumps(table).encode())
        return pages

    def rows(self, window: Window, bodies: Sequence[bytes]) -> pl.DataFrame:
        """Candles, each `begin` once: the later row, on the later page, is the newer one."""
        values: dict[str, list[Any]] = {name: [] for name in _FIELDS}
        raws: list[str] = []
        splits: tuple[Split, ...] = ()
        for body in bodies:
            tables = tables_of(body)
            if _REWRITTEN in tables:
                splits = moex_splits.declared(tables[_REWRITTEN])
                continue
            page = tables["candles"]
            for name in _FIELDS:
                values[name] += page.column(name)
            raws += [json.dumps(row, ensure_ascii=False) for row in page.records()]
        found = pl.DataFrame(
            {
                **{name: _numbers(values[name]) for name in (*NUMBERS, "value")},
                "begin": _texts(values["begin"]),
                "fault": pl.Series(_faults(values), dtype=pl.String),
                "raw": pl.Series(raws, dtype=pl.String),
            }
        )
        found = self._dated(found, window)
        if splits:
            found = moex_splits.as_traded(found, splits)
        inside = pl.col("day").is_between(pl.lit(window.first), pl.lit(window.last))
        return found.filter(inside).select(PARSED_SCHEMA.names())

    @property
    def reading(self) -> str:
        """Where it asks, and whether candles are brought back to what was traded."""
        return super().reading + ("" if self.own.as_traded else " as ISS has them")

    def file(self, window: Window) -> str:
        """The address that all boards' candles of the symbol have in common."""
        return f"{window.symbol}/candles"

    def probe(self, client: Client) -> str:
        """The last candle of the Moscow Exchange index, and where our calendar differs."""
        today = dt.datetime.now(tz=MOSCOW).date()
        anonymous = True

        def read(answer: Answer) -> list[dict[str, Any]]:
            nonlocal anonymous
            anonymous = answer.headers.get("x-micexpassport-marker", "denied") != "granted"
            return wants("candles", "begin", "close", make=Table.records)(answer)

        path = "/engines/stock/markets/index/boards/SNDX/securities/IMOEX/candles.json"
        asked = {"from": str(today - _PROBED), "till": str(today), "interval": "24"}
        candles = self.reference.get(client, path, read, asked)
        if not candles:
            raise SourceError(f"source {self.name}: no candle of IMOEX in the last 30 days")
        if self.own.as_traded:
            self.reference.splits(client, ())  # no candle is fetched without them
        last = candles[-1]
        said = [
            f"IMOEX {last['close']} on {str(last['begin'])[:10]}",
            "anonymous, so that the current day is about 15 minutes late"
            if anonymous
            else "logged in, without delay",
        ]
        calendar = get_calendar("XMOS")
        try:
            days = self.reference.trading_days(client, today - _PROBED, today + _PROBED)
        except SourceError as error:
            # Candles are what a source is for: it answers, though its calendar does not.
            said.append(f"its calendar could not be read ({error})")
        else:
            differences = moex_calendar.calendar_differences(days, calendar)
            said.append(moex_calendar.in_words(differences, calendar))
        return "; ".join(said)

    def look_up(self, client: Client, window: Window) -> None:
        """Ask for its boards, where it is none of today's shares."""
        self.reference.look_up(client, window)

    def nearest(self, client: Client, window: Window) -> list[str]:
        """Among the codes of all shares."""
        return most_alike(window.symbol, self.reference.shares(client))

    def _pages(self, client: Client, window: Window, span: Span) -> list[bytes]:
        """The pages of the span's candles, up to the first empty one."""
        path = path_of(span.board, window.symbol, "candles")
        asked = {
            "from": str(span.first),
            "till": str(span.last),
            "interval": str(INTERVALS[self.own.interval]),
        }
        pages: list[bytes] = []
        known: set[Any] = set()
        start = 0
        while True:
            body, begins, total = self.reference.get(
                client,
                path,
                functools.partial(_page, start=start),
                {**asked, "start": str(start)},
            )
            if not begins:
                return pages
            # One known row alone is a border repeated at the end; a whole page of them never ends.
            if len(begins) > 1 and known.issuperset(begins):
                message = (
                    f"source {self.name}: ticker {window.ticker}: {path} sends the same candles "
                    f"again from row {start} on; the pages of ISS have changed, or something "
                    "between us answers in its place"
                )
                raise SourceError(message)
            known.update(begins)
            pages.append(body)
            start += len(begins)
            if total == start:
                return pages

    def _dated(self, found: pl.DataFrame, window: Window) -> pl.DataFrame:
        """Rows with day and start, the superseded ones left out."""
        stamp = pl.col("begin").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
        found = found.with_columns(stamp.alias("stamp"))
        found = found.filter(pl.col("stamp").is_null() | pl.col("stamp").is_last_distinct())
        day = pl.col("stamp").dt.date()
        if self.own.interval == DAILY:
            start = day.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        else:
            # The hour that did not exist in 2011 and the one that came twice in 2014 are of nights.
            start = (
                pl.col("stamp")
                .dt.replace_time_zone(MOSCOW.key, ambiguous="earliest", non_existent="null")
                .dt.convert_time_zone("UTC")
            )
        unreadable = pl.when(start.is_null()).then(
            pl.format("begin '{}' is no time of Moscow", pl.col("begin").fill_null("null"))
        )
        fault = pl.concat_str("fault", unreadable, separator="; ", ignore_nulls=True)
        return found.with_columns(
            day.forward_fill().fill_null(pl.lit(window.first)).alias("day"),
            start.alias("start"),
            pl.when(fault != "").then(fault).alias("fault"),
        )


def _page(answer: Answer, start: int) -> tuple[bytes, list[Any], int | None]:
    """The page's bytes, its candles' begins, and how many there are in all where ISS says so."""
    begins = wants("candles", *_FIELDS, make=lambda table: table.column("begin"))(answer)
    cursor = read_tables(answer).get("candles.cursor")
    total = cursor.column("TOTAL")[0] if cursor and cursor.rows else None
    if not begins and total is not None and total > start:
        raise PassingTroubleError(f"it sent no candle after {start} of {total}")
    return answer.body, begins, total


def _numbers(values: list[Any]) -> pl.Series:
    return pl.Series([number_of(value) for value in values], dtype=pl.Float64)


def _texts(values: list[Any]) -> pl.Series:
    texts = [None if value is None else str(value) for value in values]
    return pl.Series(texts, dtype=pl.String)


def _faults(values: dict[str, list[Any]]) -> list[str | None]:
    """What of each row's numbers is missing or is none; a volume may be missing."""
    found: list[list[str]] = [[] for _ in values["begin"]]
    for name in NUMBERS:
        for place, value in enumerate(values[name]):
            if number_of(value) is not None:
                continue
            if name in PRICES and value is None:
                found[place].append(f"{name} is missing")
            elif name in PRICES or isinstance(value, str | bool):
                found[place].append(f"{name} '{value}' is not a number")
    return ["; ".join(said) or None for said in found]
