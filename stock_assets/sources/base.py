"""What every market-data source is: the protocol, the shape of its rows, and making one by name.

How a source gets its rows is its own module's; whether a row is a good candle is `rules.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from stock_assets.errors import SettingsError
from stock_assets.settings import FilesSettings, SimulatedSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.settings import Instrument, Settings
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


class Source(Protocol):
    """Where candles come from."""

    name: str

    def fetch(self, instruments: Sequence[Instrument], area: Slice) -> pl.DataFrame:
        """Rows (`RAW_SCHEMA`) of `instruments` dated within `area`, in the source's own order.

        The same rows whatever else is asked for along with them. Raises `SourceError` when the
        source cannot be read at all; a bad row is given like any other, with its `fault`.
        """
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


def make_source(name: str, settings: Settings) -> Source:
    """The source called `name` in the settings. Raises `SettingsError` when there is none."""
    # Here, because the sources' own modules build on this one.
    from stock_assets.sources.files import FilesSource  # noqa: PLC0415
    from stock_assets.sources.simulated import SimulatedSource  # noqa: PLC0415

    found = settings.sources.get(name)
    if isinstance(found, SimulatedSettings):
        return SimulatedSource(name, found)
    if isinstance(found, FilesSettings):
        return FilesSource(name, found, settings)
    message = f"there is no source {name!r}; the settings define {sorted(settings.sources)}"
    raise SettingsError(message)
