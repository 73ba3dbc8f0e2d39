"""A deterministic market for demos and tests, with what real markets have.

- A common factor moves all tickers, each by its own beta.
- Volatility clusters: the log-variances of the factor and of each ticker are autoregressive, and a
  fall of the factor raises its own (leverage), after Taylor (1986) and Harvey & Shephard (1996).
- Tails are fat: shocks are Student-t with 6 degrees of freedom, and a ticker jumps now and then.
- A part of each day happens overnight, as a gap; what happens on a closed day waits for the next
  session's opening. Calendars are each ticker's own.
- Inside the session the price is a Brownian bridge from the day's open to its close, wilder at
  both ends; candles hold its first, highest, lowest and last price.
- Volume clusters and rises with volatility. Tickers without an exchange have none, as currencies.
- From `regime_change` on volatility is multiplied, the factor weighs more, drift turns down and
  volume up.

A candle is the same however it is asked for. Each random stream is keyed by (seed, name, purpose)
and drawn in the order of the days since the market began, so that a later end changes no earlier
draw; each session's bridge is keyed by (seed, ticker, day). Sums run in that order in plain floats,
because a vectorised exponential may differ in the last bit with the length of its array.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import WEEKDAYS, Calendar, get_calendar
from stock_assets.sources.base import RAW_SCHEMA, quote_parsed, settles_with_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stock_assets.lake.splits import Split
    from stock_assets.settings import Instrument, SimulatedSettings
    from stock_assets.slices import Slice

_STEPS = 6
"""Steps of the path within an hour."""
_TAIL = 6
_TAIL_SCALE = math.sqrt((_TAIL - 2) / _TAIL)  # unit variance
_SATURDAY = 6
_LARGEST_SHOCK = 4.0
_LARGEST_LOG_VOLATILITY = 1.4

_FACTOR_VOLATILITY = 0.0085
_PERSISTENCE, _LOG_VOLATILITY_NOISE, _LEVERAGE = 0.97, 0.13, 0.6
_OWN_PERSISTENCE, _OWN_NOISE = 0.97, 0.12
_OVERNIGHT_SHARE = 0.25
"""Of a day's variance."""
_WEEKEND_SCALE = 0.25
_JUMP_CHANCE, _JUMP_SIZE = 0.008, 4.0
_DRIFT, _REGIME_DRIFT = 0.0003, -0.0010
_REGIME_BETA, _REGIME_VOLUME = 1.4, 1.6


@dataclass(frozen=True)
class _Character:
    """What sets a ticker apart, drawn once from its name."""

    beta: float
    own_volatility: float
    first_price: float
    first_volume: float
    decimals: int


@dataclass(frozen=True)
class _Factor:
    """The market's state on each calendar day since it began."""

    overnight: list[float]
    daytime: list[float]
    log_volatility: list[float]
    scale: list[float]
    """Multiplier of volatility: 1, or the regime's, smaller on weekends."""


class SimulatedSource:
    """The market of one `SimulatedSettings`."""

    def __init__(self, name: str, own: SimulatedSettings) -> None:
        self.name = name
        self._own = own

    def fetch(self, instruments: Sequence[Instrument], area: Slice) -> pl.DataFrame:
        """Candles of every session within `area`, from the market's first day on."""
        first = max(self._own.begin, area.first_date or self._own.begin)
        if area.last_date < first:
            return RAW_SCHEMA.to_frame()
        factor = self._factor((area.last_date - self._own.begin).days + 1)
        frames = [self._candles(item, factor, first, area.last_date) for item in instruments]
        return pl.concat([RAW_SCHEMA.to_frame(), *frames])

    def splits(self, instruments: Sequence[Instrument]) -> Sequence[Split]:  # noqa: ARG002
        """None: nothing is split here."""
        return ()

    def settles_at(self, exchange: str, day: dt.date) -> dt.datetime:
        """With the session: what lies here is taken for final then."""
        return settles_with_session(exchange, day)

    def quote(self, rows: pl.DataFrame) -> pl.Series:
        """Nothing was read: the row is its values."""
        return quote_parsed(rows)

    # The state of the market, day by day.

    def _stream(self, *purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._key(*purpose), 0]))

    def _key(self, *purpose: str) -> int:
        text = "\x1f".join((str(self._own.seed), *purpose)).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")

    def _shocks(self, days: int, *purpose: str) -> list[float]:
        drawn: NDArray[np.float64] = self._stream(*purpose).standard_t(_TAIL, days)
        shocks: list[float] = (drawn * _TAIL_SCALE).tolist()
        return shocks

    def _normals(self, days: int, *purpose: str) -> list[float]:
        normals: list[float] = self._stream(*purpose).standard_normal(days).tolist()
        return normals

    def _in_regime(self, day: dt.date) -> bool:
        return self._own.regime_change is not None and day >= self._own.regime_change

    def _factor(self, days: int) -> _Factor:
        night, noon = self._shocks(days, "factor", "night"), self._shocks(days, "factor", "noon")
        noise = self._normals(days, "factor", "volatility")
        factor = _Factor([], [], [], [])
        level = 0.0
        for number in range(days):
            day = self._own.begin + dt.timedelta(number)
            scale = self._own.regime_volatility if self._in_regime(day) else 1.0
            if day.isoweekday() >= _SATURDAY:
                scale *= _WEEKEND_SCALE
            sigma = _FACTOR_VOLATILITY * scale * math.exp(_bounded(level))
            factor.overnight.append(sigma * math.sqrt(_OVERNIGHT_SHARE) * night[number])
            factor.daytime.append(sigma * math.sqrt(1 - _OVERNIGHT_SHARE) * noon[number])
            factor.log_volatility.append(level)
            factor.scale.append(scale)
            fall = max(-_LARGEST_SHOCK, min(_LARGEST_SHOCK, noon[number]))
            fresh = math.sqrt(1 - _LEVERAGE**2) * noise[number] - _LEVERAGE * fall
            level = _PERSISTENCE * level + _LOG_VOLATILITY_NOISE * fresh
        return factor

    def _character(self, instrument: Instrument) -> _Character:
        beta, volatility, price, volume = self._stream(instrument.ticker, "character").random(4)
        if instrument.exchange == WEEKDAYS:
            # Currencies and metals: calmer, and nearly apart from the market of shares.
            first = math.exp(0.5 + 6.5 * price)
            return _Character(
                beta=0.5 * beta - 0.2,
                own_volatility=0.004 + 0.003 * volatility,
                first_price=first,
                first_volume=0.0,
                decimals=max(2, 4 - math.floor(math.log10(first))),
            )
        return _Character(
            beta=0.7 + 0.6 * beta,
            own_volatility=0.007 + 0.006 * volatility,
            first_price=math.exp(3.5 + 2.5 * price),
            first_volume=math.exp(9 + 3 * volume),
            decimals=2,
        )

    def _candles(
        self, instrument: Instrument, factor: _Factor, first: dt.date, last: dt.date
    ) -> pl.DataFrame:
        ticker = instrument.ticker
        calendar = get_calendar(instrument.exchange)
        sessions = set(calendar.between(self._own.begin, last))
        character = self._character(instrument)
        days = len(factor.scale)
        night, noon = self._shocks(days, ticker, "night"), self._shocks(days, ticker, "noon")
        noise = self._normals(days, ticker, "volatility")
        trade = self._normals(days, ticker, "volume")
        jumps = self._normals(days, ticker, "jump size")
        chances: list[float] = self._stream(ticker, "jump chance").random(days).tolist()

        rows: list[tuple[object, ...]] = []
        hours = _hours(calendar)
        price, level, activity, waiting = math.log(character.first_price), 0.0, 0.0, 0.0
        for number in range(days):
            day = self._own.begin + dt.timedelta(number)
            regime = self._in_regime(day)
            beta = character.beta * (_REGIME_BETA if regime else 1.0)
            if day not in sessions:
                waiting += beta * (factor.overnight[number] + factor.daytime[number])
                continue
            scale = factor.scale[number]
            own = character.own_volatility * scale * math.exp(_bounded(level))
            common = _FACTOR_VOLATILITY * scale * math.exp(_bounded(factor.log_volatility[number]))
            gap = waiting + beta * factor.overnight[number]
            gap += own * math.sqrt(_OVERNIGHT_SHARE) * night[number]
            if chances[number] < _JUMP_CHANCE:
                gap += _JUMP_SIZE * own * jumps[number]
            change = beta * factor.daytime[number] + (_REGIME_DRIFT if regime else _DRIFT)
            change += own * math.sqrt(1 - _OVERNIGHT_SHARE) * noon[number]
            sigma = math.sqrt((beta * common) ** 2 + own**2)
            stir = abs(gap + change) / sigma
            activity = 0.85 * activity + 0.15 * trade[number] + 0.1 * (stir - 1)
            if day >= first:
                volume = character.first_volume * (_REGIME_VOLUME if regime else 1.0)
                volume *= math.exp(activity + 0.5 * _bounded(level))
                width = sigma * math.sqrt(1 - _OVERNIGHT_SHARE)
                path = self._path(ticker, day, price + gap, change, width, len(hours))
                rows += _session(path, day, hours, volume, character.decimals)
            price += gap + change
            waiting = 0.0
            level = _OWN_PERSISTENCE * level + _OWN_NOISE * noise[number]
        return self._frame(ticker, rows, calendar)

    def _path(  # noqa: PLR0913, PLR0917
        self, ticker: str, day: dt.date, opening: float, change: float, width: float, hours: int
    ) -> list[float]:
        """Log prices from `opening` to `opening + change`, `_STEPS` steps an hour."""
        steps = hours * _STEPS
        key = [self._key(ticker, "path"), day.toordinal()]
        drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal(steps)
        # Trading is wildest at the open and the close: variance of each step, in all one.
        shares = _smile(steps)
        walk, at = [0.0], 0.0
        for share, normal in zip(shares, drawn.tolist(), strict=True):
            at += math.sqrt(share) * normal
            walk.append(at)
        path, passed = [opening], 0.0
        for share, here in zip(shares, walk[1:], strict=True):
            passed += share
            path.append(opening + change * passed + width * (here - passed * at))
        return path

    def _frame(
        self, ticker: str, rows: list[tuple[object, ...]], calendar: Calendar
    ) -> pl.DataFrame:
        names = ("day", "hour", "open", "high", "low", "close", "volume", "row")
        types = {name: RAW_SCHEMA.get(name, pl.Int64()) for name in names}
        frame = pl.DataFrame(rows, schema=types, orient="row")
        if calendar.name == WEEKDAYS:
            frame = frame.with_columns(pl.lit(None, pl.Float64).alias("volume"))
        if self._own.interval == "1d":
            frame = frame.group_by("day", maintain_order=True).agg(
                pl.col("open").first(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("close").last(),
                pl.when(pl.col("volume").count() > 0).then(pl.col("volume").sum()).alias("volume"),
                pl.col("row").first(),
            )
            start = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        else:
            clock = pl.col("day").cast(pl.Datetime("us")) + pl.duration(hours="hour")
            start = clock.dt.replace_time_zone(calendar.timezone).dt.convert_time_zone("UTC")
        return frame.select(
            pl.lit(ticker).alias("ticker"),
            "day",
            pl.lit(self._own.interval).alias("interval"),
            start.alias("start"),
            "open",
            "high",
            "low",
            "close",
            "volume",
            pl.lit(self.name).alias("source"),
            pl.lit("").alias("file"),
            "row",
            pl.lit(None, pl.String).alias("fault"),
        )


def _bounded(level: float) -> float:
    return max(-_LARGEST_LOG_VOLATILITY, min(_LARGEST_LOG_VOLATILITY, level))


@functools.cache
def _smile(steps: int) -> tuple[float, ...]:
    """Shares of `steps` equal parts of a session, in all one, the first and last the largest."""
    weights = [1 + 2 * ((2 * step + 1) / steps - 1) ** 2 for step in range(steps)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def _hours(calendar: Calendar) -> range:
    """Local hours in which candles start: the last six full ones before an exchange closes.

    All known exchanges are open then. A calendar that ends at midnight has office hours instead.
    """
    if calendar.close == dt.time(0):
        return range(8, 16)
    return range(calendar.close.hour - 6, calendar.close.hour)


def _session(
    path: list[float], day: dt.date, hours: range, volume: float, decimals: int
) -> list[tuple[object, ...]]:
    """One row a candle: day, hour, open, high, low, close, volume, number in the day."""
    prices = [round(math.exp(point), decimals) for point in path]
    inside = [prices[number * _STEPS : (number + 1) * _STEPS + 1] for number in range(len(hours))]
    # Trade gathers at both ends of the session, and where the price moves.
    moves = [max(part) / min(part) - 1 for part in inside]
    usual = math.fsum(moves) / len(moves) or 1.0
    weights = [
        share * (0.5 + move / usual) for share, move in zip(_smile(len(hours)), moves, strict=True)
    ]
    total = math.fsum(weights)
    return [
        (
            day,
            hour,
            part[0],
            max(part),
            min(part),
            part[-1],
            float(round(volume * weight / total)),
            number,
        )
        for number, (hour, part, weight) in enumerate(
            zip(hours, inside, weights, strict=True), start=1
        )
    ]
