"""The universe and its sources, as settings: one class a kind of source, one for an instrument.

What they mean is in `sources/`; how they are read from TOML and the environment is in
`settings.py`, which is also where everything else looks for these names.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stock_assets.calendars import CBR, WEEKDAYS, get_calendar
from stock_assets.errors import SettingsError

_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=^&-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Interval = Literal["1m", "2m", "5m", "10m", "15m", "30m", "1h", "4h", "1d"]


class Section(BaseModel):
    """A part of the settings: no unknown keys, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FormerSymbol(Section):
    """What the source called an instrument before: its history stays with the instrument."""

    symbol: str
    until: dt.date
    """Last day on which it was traded under that symbol."""


class Instrument(Section):
    """One ticker: what it is, where its candles come from and which calendar it trades by."""

    ticker: str
    source: str
    exchange: str = WEEKDAYS
    """A calendar; left out, the source's own where it has one (moex, tinvest: XMOS; cbr: CBR)."""
    currency: str = ""
    symbol: str = ""
    """What the source calls it; the ticker when left out."""
    name: str = ""
    sector: str = ""
    lot: int | None = Field(default=None, ge=1)
    """Shares in a lot, where the source counts volume in lots and does not say it itself."""
    listed: dt.date | None = None
    """First day of trading: rows before it belong to a stranger who had the symbol, and are not
    asked for."""
    delisted: dt.date | None = None
    """Last day of trading: no cell is expected after it."""
    formerly: tuple[FormerSymbol, ...] = ()
    """Earlier symbols, each up to its last day."""

    @field_validator("ticker")
    @classmethod
    def _plain_ticker(cls, value: str) -> str:
        if not _TICKER.fullmatch(value):
            message = (
                f"ticker {value!r} may hold letters, digits and . _ = ^ & - only, starting with "
                "a letter or digit, at most 32 characters"
            )
            raise ValueError(message)
        return value

    @field_validator("exchange")
    @classmethod
    def _known_exchange(cls, value: str) -> str:
        try:
            get_calendar(value)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _days_in_order(self) -> Instrument:
        if self.listed and self.delisted and self.listed > self.delisted:
            message = (
                f"{self.ticker}: listed {self.listed} is after delisted {self.delisted}; swap them"
            )
            raise ValueError(message)
        ends = [former.until for former in self.formerly]
        if ends != sorted(set(ends)):
            raise ValueError(f"{self.ticker}: formerly must be in the order of its days `until`")
        return self

    @property
    def source_symbol(self) -> str:
        """What the source calls it today."""
        return self.symbol or self.ticker

    def is_listed(self, day: dt.date) -> bool:
        """Whether a candle of `day` may be expected."""
        return (self.listed is None or self.listed <= day) and (
            self.delisted is None or day <= self.delisted
        )


class SourceSection(Section):
    """What every source has in common."""

    revisions: int = Field(default=5, ge=0, le=20)
    """Last sessions whose candles are read again at each look after the close, so that what the
    source has corrected is run again; 0: none (docs/adr/0022)."""


class SimulatedSettings(SourceSection):
    """A deterministic market for demos and tests (sources/simulated.py says what it has)."""

    kind: Literal["simulated"]
    seed: int = 7
    begin: dt.date = dt.date(2022, 1, 3)
    """First day of the market."""
    regime_change: dt.date | None = None
    """From this day on volatility is multiplied and the market's mood changes."""
    regime_volatility: float = Field(default=2.5, gt=0)
    interval: Literal["1h", "1d"] = "1h"


class FilesSettings(SourceSection):
    """CSV or Parquet files: one a ticker (the file's name), or one with a ticker column."""

    kind: Literal["files"]
    path: Path
    """A file, or a folder whose .csv, .txt, .csv.gz and .parquet files are read."""
    interval: Interval | None = None
    """What one row is; guessed from the smallest usual distance when left out."""
    timezone: str = "UTC"
    """The zone of timestamps that carry none."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our name -> the file's: ticker, timestamp, date, time, open, high, low, close, volume."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo  # noqa: PLC0415

        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            message = f"unknown timezone {value!r}; use an IANA name such as 'Europe/Moscow' or UTC"
            raise ValueError(message) from None
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        names = {"ticker", "timestamp", "date", "time", "open", "high", "low", "close", "volume"}
        if unknown := set(value) - names:
            message = f"unknown column name(s) {sorted(unknown)}; ours are {sorted(names)}"
            raise ValueError(message)
        return value


class ApiSection(SourceSection):
    """What every market-data API has in common (sources/http.py does what these say)."""

    base_url: str
    interval: Interval = "1d"
    begin: dt.date | None = None
    """Nothing older is fetched; None: all that the source has."""
    requests_per_second: float = Field(default=4.0, ge=0.05, le=50)
    """To the whole host, by all runs of this lake together."""
    connections: int = Field(default=4, ge=1, le=32)
    """Requests under way at once."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds for one answer, slow bodies included."""
    attempts: int = Field(default=6, ge=1, le=20)
    """Times that a request is sent before the slice fails."""
    first_wait: float = Field(default=1.0, ge=0)
    """Seconds at most before the second time; doubles up to a minute, drawn at random."""
    user_agent: str = "Mozilla/5.0 (compatible; stock-assets; forecasting lakehouse)"
    keep_raw: bool = False
    """Whether answers are kept, gzipped, in <lake.path>/raw once their candles are stored."""


class MoexSettings(ApiSection):
    """Moscow Exchange ISS: shares, funds and indices, without a key (sources/moex.py)."""

    kind: Literal["moex"]
    base_url: str = "https://iss.moex.com/iss"
    interval: Literal["1m", "10m", "1h", "1d"] = "1d"
    as_traded: bool = True
    """Whether candles that the exchange has rewritten for later splits are brought back to what was
    traded, as declared splits (lake.splits) expect them."""


class TInvestSettings(ApiSection):
    """T-Invest API; the token is read from the environment (sources/tinvest.py)."""

    kind: Literal["tinvest"]
    base_url: str = "https://invest-public-api.tbank.ru/rest"
    interval: Literal["1m", "2m", "5m", "10m", "15m", "30m", "1h", "4h", "1d"] = "1d"
    class_code: str = "TQBR"
    """Board of symbols that say none: SBER_TQBR, a FIGI or a uid say their own."""
    token_variable: str = "TINVEST_TOKEN"  # noqa: S105 - its name, not the token
    """Name of the environment variable that holds the token."""

    @field_validator("token_variable")
    @classmethod
    def _name_of_a_variable(cls, value: str) -> str:
        if not _VARIABLE.fullmatch(value):
            # Never what was given: it may be the token itself.
            message = (
                "must be the name of an environment variable, such as TINVEST_TOKEN; the token "
                "itself belongs into that variable"
            )
            raise ValueError(message)
        return value

    ca_bundle: Path | None = None
    """PEM file of certificate authorities to trust beside the usual ones; relative to this file."""
    requests_per_second: float = Field(default=8.0, ge=0.05, le=50)


class CbrSettings(ApiSection):
    """Bank of Russia: precious metals and exchange rates, RUB (sources/cbr.py)."""

    kind: Literal["cbr"]
    base_url: str = "https://www.cbr.ru"
    interval: Literal["1d"] = "1d"
    requests_per_second: float = Field(default=2.0, ge=0.05, le=50)
    connections: int = Field(default=1, ge=1, le=32)


ApiSettings = MoexSettings | TInvestSettings | CbrSettings

SourceSettings = Annotated[
    SimulatedSettings | FilesSettings | MoexSettings | TInvestSettings | CbrSettings,
    Field(discriminator="kind"),
]

BUILT_IN_SOURCES: dict[str, MoexSettings | TInvestSettings | CbrSettings] = {
    "moex": MoexSettings(kind="moex"),
    "tinvest": TInvestSettings(kind="tinvest"),
    "cbr": CbrSettings(kind="cbr"),
}
"""Sources that a universe may name without defining them: their defaults suffice."""

OWN_CALENDARS = {"moex": ("XMOS", "RUB"), "tinvest": ("XMOS", "RUB"), "cbr": (CBR, "RUB")}
"""Kind of source -> exchange and currency of an instrument of it that says none."""
