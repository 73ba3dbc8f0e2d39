"""What every market-data source is: the protocol and the shape of its rows.

How a source gets its rows is its own module's, making one by name is `making.py`'s; whether a row
is a good candle is `rules.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from stock_assets.calendars import get_calendar

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Instrument
    from stock_assets.slices import Slice

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")

RAW_SCHEMA = pl.Schema(
    {
        # The cell the row belongs to. A row whose own day or ticker cannot be read is filed by the
        # source in the cell of the row before it, and says so in `fault`.
        "ticker": pl.String(),
        "day": pl.Date(),  # session date in the exchange's zone
        "interval": pl.String(),
        "start": pl.Datetime("us", "UTC"),  # null where not readable; daily: the day at 00:00
        "open": pl.Float64(),  # numbers are null where missing or not readable
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "source": pl.String(),
        "file": pl.String(),  # relative to the source's path; empty where there are no files
        "row": pl.Int64(),  # from 1, headers not counted; unique within (day, ticker, file)
        "fault": pl.String(),  # what could not be read and why, each null price included; else null
    }
)
"""One row as a source gives it, unjudged, in the order of the source."""


def settles_with_session(exchange: str, day: dt.date) -> dt.datetime:
    """When the session of `day` is over (UTC): for sources whose candles are final by then."""
    return get_calendar(exchange).closes_at(day)


class Source(Protocol):
    """Where candles come from."""

    name: str

    def fetch(self, instruments: Sequence[Instrument], area: Slice) -> pl.DataFrame:
        """Rows (`RAW_SCHEMA`) of `instruments` dated within `area`, in the source's own order.

        The same rows whatever else is asked for along with them. Raises `SourceError` when the
        source cannot be read at all; a bad row is given like any other, with its `fault`.
        """
        ...

    def splits(self, instruments: Sequence[Instrument]) -> Sequence[Split]:
        """The splits of `instruments` that the source declares, of whichever days.

        Only such as its candles have not been adjusted for. Raises `SourceError` like `fetch`.
        """
        ...

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """From when on (UTC) the candles of a session are final: never before it is over."""
        ...

    def quote(self, rows: pl.DataFrame) -> pl.Series:
        """`rows` of this source, fetched before, as they were read: one JSON text for each.

        Apart from `fetch` because only the few rows that end in quarantine need it.
        """
        ...


def quote_parsed(rows: pl.DataFrame) -> pl.Series:
    """JSON of what was understood of each row: all there is where a source has no text."""
    columns = ("ticker", "interval", "start", *NUMBERS)
    return rows.select(pl.struct(columns).struct.json_encode().alias("raw")).to_series()
