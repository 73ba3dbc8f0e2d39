"""Bars and features computed a second time, without SQL: what dbt's models must agree with.

Bars are Polars group-bys. Features walk a dense grid of (session, ticker) per exchange, one window
after the other, in plain float arithmetic: slow, simple, and with nothing in common with windows in
SQL over integers but the definitions in schemas.py.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stock_assets.calendars import get_calendar

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from stock_assets.settings import Instrument

Split = tuple[str, "dt.date", float, float]
"""Ticker, day, shares before, shares after."""

Dividend = tuple[str, "dt.date", float]
"""Ticker, ex-date, amount."""

_MINUTES = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}


def bars(
    candles: pl.DataFrame,
    instruments: Iterable[Instrument],
    splits: Iterable[Split],
    dividends: Iterable[Dividend] = (),
    suspected: Mapping[tuple[str, dt.date], float] = MappingProxyType({}),
) -> pl.DataFrame:
    """The bar of each day and ticker of `candles`; which are `suspected` is given."""
    known = {item.ticker: item for item in instruments}
    rows = []
    for (day, ticker), group in candles.group_by("day", "ticker"):
        interval = max(group["interval"].unique().to_list(), key=_MINUTES.__getitem__)
        of_day = group.filter(pl.col("interval") == interval).sort("start")
        factor = math.prod(
            after / before
            for name, split_day, before, after in splits
            if name == ticker and split_day <= day
        )
        paid = _dividend_factor(candles, splits, dividends, ticker, day)
        volumes = of_day["volume"].drop_nulls()
        volume = float(volumes.sum()) if len(volumes) else None
        raw = {
            "open": of_day["open"][0],
            "high": of_day["high"].max(),
            "low": of_day["low"].min(),
            "close": of_day["close"][-1],
        }
        rows.append(
            {
                "day": day,
                "ticker": ticker,
                "exchange": known[ticker].exchange,
                "currency": known[ticker].currency,
                **{name: price * factor * (paid or 1.0) for name, price in raw.items()},
                "volume": None if volume is None else volume / factor,
                "realised_variance": _realised(group),
                **{f"raw_{name}": price for name, price in raw.items()},
                "raw_volume": volume,
                "split_factor": factor,
                "dividend_factor": paid,
                "suspected_split": suspected.get((ticker, day)),
                "interval": interval,
                "candles": of_day.height,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None).sort("day", "ticker")


def _dividend_factor(candles, splits, dividends, ticker, day) -> float | None:
    """Each dividend by itself, from the last close before it in the shares that were paid for."""
    found = None
    for name, ex_date, amount in dividends:
        before = candles.filter(pl.col("ticker") == ticker, pl.col("day") < ex_date)
        if name != ticker or ex_date > day or before.is_empty():
            continue
        last = before.filter(pl.col("day") == before["day"].max())
        length = max(_MINUTES[interval] for interval in last["interval"])
        close = last.filter(pl.col("interval").replace_strict(_MINUTES) == length)
        price = close.sort("start")["close"][-1]
        for split_ticker, split_day, old, new in splits:
            if split_ticker == ticker and last["day"][0] < split_day <= ex_date:
                price *= old / new
        found = (found or 1.0) * price / (price - amount)
    return found


def _realised(candles: pl.DataFrame) -> float | None:
    """Squared returns of the finest intraday candles of five minutes or more; None under ten."""
    intraday = sorted({_MINUTES[name] for name in candles["interval"] if name != "1d"})
    if not intraday:
        return None
    finest = next((minutes for minutes in intraday if minutes >= 5), intraday[-1])
    name = next(name for name, minutes in _MINUTES.items() if minutes == finest)
    chosen = candles.filter(pl.col("interval") == name).sort("start")
    if chosen.height < 10:
        return None
    prices = [chosen["open"][0], *chosen["close"]]
    return math.fsum(math.log(b / a) ** 2 for a, b in pairwise(prices))


def features(of_bars: pl.DataFrame) -> pl.DataFrame:
    """The features of each bar that lies on a session of its exchange."""
    parts = [
        _exchange(str(exchange), group.sort("day", "ticker"))
        for (exchange,), group in of_bars.group_by("exchange")
    ]
    return pl.concat(parts, how="vertical_relaxed").sort("day", "ticker")


def _exchange(exchange: str, of_bars: pl.DataFrame) -> pl.DataFrame:
    calendar = get_calendar(exchange)
    days = calendar.between(of_bars["day"].min(), of_bars["day"].max())
    rows: list[dict[str, object]] = []
    for (ticker,), group in of_bars.group_by("ticker"):
        rows += _ticker(exchange, str(ticker), group, days)
    by_day: dict[dt.date, list[dict[str, object]]] = {}
    for row in rows:
        by_day.setdefault(row["day"], []).append(row)
    for of_day in by_day.values():
        _market(of_day)
    for ticker in {row["ticker"] for row in rows}:
        _beta({row["day"]: row for row in rows if row["ticker"] == ticker}, days)
    return pl.DataFrame(rows, infer_schema_length=None)


def _ticker(
    exchange: str, ticker: str, group: pl.DataFrame, days: tuple[dt.date, ...]
) -> list[dict[str, object]]:
    by_day = {row["day"]: row for row in group.iter_rows(named=True)}
    size = len(days)
    names = ("open", "high", "low", "close", "volume", "realised_variance")
    grid = {name: np.full(size, np.nan) for name in names}
    for index, day in enumerate(days):
        for name in names:
            value = by_day.get(day, {}).get(name)
            grid[name][index] = np.nan if value is None else value
    open_, high, low, close, volume, realised = (grid[name] for name in names)
    jumps = [k for k, day in enumerate(days) if by_day.get(day, {}).get("suspected_split")]
    ret, gap, since, log_variance = (np.full(size, np.nan) for _ in range(4))
    for index in range(size):
        earlier = [k for k in range(max(0, index - 30), index) if not np.isnan(close[k])]
        if np.isnan(close[index]) or not earlier:
            continue
        previous = earlier[-1]
        since[index] = (days[index] - days[previous]).days
        if index in jumps:
            continue
        ret[index] = math.log(close[index]) - math.log(close[previous])
        gap[index] = math.log(open_[index]) - math.log(close[previous])
        reach_now = math.log(high[index] / low[index])
        if not np.isnan(realised[index]):
            variance = gap[index] ** 2 + realised[index]
        elif high[index] > low[index]:
            inner_now = math.log(close[index] / open_[index])
            garman_klass = reach_now**2 / 2 - (2 * math.log(2) - 1) * inner_now**2
            parkinson_now = reach_now**2 / (4 * math.log(2))
            variance = gap[index] ** 2 + max(garman_klass, parkinson_now / 10)
        else:
            variance = ret[index] ** 2
        log_variance[index] = math.log(max(variance, 1e-8))
    reach, inner = np.log(high) - np.log(low), np.log(close) - np.log(open_)
    rogers = np.log(high / close) * np.log(high / open_) + np.log(low / close) * np.log(low / open_)
    log_volume = np.array([math.log(v) if v > 0 else np.nan for v in volume])

    rows = []
    for index in (k for k in range(size) if not np.isnan(close[k])):

        # Levels from before a suspected split are in other shares: they are missing.
        anew = max((jump for jump in jumps if jump <= index), default=0)
        levels = {"volume": log_volume, "close": close, "high": high, "low": low}
        levels = {
            name: np.where(np.arange(size) < anew, np.nan, of) for name, of in levels.items()
        }

        def window(values: np.ndarray, sessions: int, at: int = index) -> np.ndarray | None:
            """What there is of the last sessions, None when that is less than half."""
            found = values[max(0, at - sessions + 1) : at + 1]
            found = found[~np.isnan(found)]
            return found if len(found) >= sessions / 2 else None

        def of(values, sessions, compute):
            found = window(values, sessions)
            return None if found is None else float(compute(found))

        def rms(found: np.ndarray) -> float:
            return float(np.sqrt(np.mean(found**2)))

        def parkinson(found: np.ndarray) -> float:
            return rms(found) / math.sqrt(4 * math.log(2))

        ewma = _ewma(ret[max(0, index - 99) : index + 1])
        rows.append(
            {
                "day": days[index],
                "ticker": ticker,
                "exchange": exchange,
                "ret_1d": _plain(ret[index]),
                **{f"ret_{n}d": of(ret, n, np.sum) for n in (5, 21, 63)},
                "gap_1d": _plain(gap[index]),
                "intraday_1d": _plain(inner[index]),
                "range_1d": _plain(reach[index]),
                "vol_ewma": ewma,
                **{f"vol_close_{n}": of(ret, n, rms) for n in (5, 21, 63, 252)},
                "log_variance_1d": _plain(log_variance[index]),
                **{f"log_variance_{n}": of(log_variance, n, np.mean) for n in (5, 21, 63, 252)},
                **{f"vol_parkinson_{n}": of(reach, n, parkinson) for n in (5, 21, 63)},
                "vol_garman_klass_21": of(
                    reach**2 / 2 - (2 * math.log(2) - 1) * inner**2,
                    21,
                    lambda v: math.sqrt(max(0.0, np.mean(v))),
                ),
                "vol_rogers_satchell_21": of(rogers, 21, lambda v: math.sqrt(max(0.0, np.mean(v)))),
                "vol_gap_21": of(gap, 21, rms),
                "range_std_21": of(reach, 21, lambda v: np.std(v, ddof=1)),
                "downside_share_21": of(
                    ret, 21, lambda r: np.sum(r[r < 0] ** 2) / s if (s := np.sum(r**2)) else np.nan
                ),
                "worst_21": of(ret, 21, np.min),
                "best_21": of(ret, 21, np.max),
                "volume_z_63": of(
                    levels["volume"],
                    63,
                    lambda v, now=log_volume[index]: (
                        (now - np.mean(v)) / s if (s := np.std(v, ddof=1)) > 1e-12 else np.nan
                    ),
                ),
                "volume_ratio_5_63": _minus(
                    of(levels["volume"], 5, np.mean), of(levels["volume"], 63, np.mean)
                ),
                "high_dist_63": _distance(levels["close"], levels["high"], np.nanmax, 63, index),
                "high_dist_252": _distance(levels["close"], levels["high"], np.nanmax, 252, index),
                "low_dist_252": _distance(levels["close"], levels["low"], np.nanmin, 252, index),
                "days_since_bar": None if np.isnan(since[index]) else int(since[index]),
                **{f"days_ahead_{n}": _days_ahead(exchange, days[index], n) for n in (1, 5)},
                "weekday": days[index].isoweekday(),
                "bars_252": int(np.sum(~np.isnan(close[max(0, index - 251) : index + 1]))),
            }
        )
    return [
        {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()}
        for row in rows
    ]


def _days_ahead(exchange: str, day: dt.date, count: int) -> int:
    calendar = get_calendar(exchange)
    planned = {*calendar.after(day, 30), *calendar.unforeseen}
    return (sorted(item for item in planned if item > day)[count - 1] - day).days


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _distance(close, extremes, extreme, sessions, index):
    """Log of close over the window's extreme; None when less than half of it has a bar."""
    window = extremes[max(0, index - sessions + 1) : index + 1]
    if np.sum(~np.isnan(window)) < sessions / 2:
        return None
    return math.log(close[index] / extreme(window))


def _ewma(returns: np.ndarray) -> float | None:
    """Newest last; at least half of the weight of 100 sessions must have a return."""
    squares = weights = 0.0
    for age, value in enumerate(reversed(returns.tolist())):
        if not math.isnan(value):
            squares += 0.94**age * value**2
            weights += 0.94**age
    return math.sqrt(squares / weights) if weights >= sum(0.94**k for k in range(100)) / 2 else None


def _market(of_day: list[dict[str, object]]) -> None:
    def having(name: str) -> np.ndarray:
        return np.array([row[name] for row in of_day if row[name] is not None], dtype=float)

    def mean(values: np.ndarray) -> float | None:
        return float(np.mean(values)) if len(values) else None

    def rms(values: np.ndarray) -> float | None:
        return float(np.sqrt(np.mean(values**2))) if len(values) else None

    returns = having("ret_1d")
    market = {
        "market_tickers": len(of_day),
        "market_ret_1d": mean(returns),
        "market_ret_5d": mean(having("ret_5d")),
        "market_vol_ewma": rms(having("vol_ewma")),
        "market_range_21": rms(having("vol_parkinson_21")),
        **{
            f"market_{name}": mean(having(name))
            for name in (
                *("log_variance_1d", "log_variance_5", "log_variance_21", "log_variance_63"),
                "volume_z_63",
            )
        },
        "market_dispersion": float(np.std(returns, ddof=1)) if len(returns) > 1 else None,
        "market_up_share": mean((returns > 0).astype(float)),
    }
    for row in of_day:
        row.update(market)
        row["relative_ret_5d"] = _minus(row["ret_5d"], market["market_ret_5d"])
        for name, of in (("rank_ret_21d", "ret_21d"), ("rank_vol_ewma", "vol_ewma")):
            others, own = having(of), row[of]
            if own is None or len(others) < 2:
                row[name] = None
            else:
                below, same = np.sum(others < own), np.sum(others == own)
                row[name] = float((below + (same - 1) / 2) / (len(others) - 1))


def _beta(rows: dict[dt.date, dict[str, object]], days: tuple[dt.date, ...]) -> None:
    for index, day in enumerate(days):
        if day not in rows:
            continue
        past = [rows[d] for d in days[max(0, index - 62) : index + 1] if d in rows]
        pairs = [(r["ret_1d"], r["market_ret_1d"]) for r in past if r["ret_1d"] is not None]
        rows[day]["beta_63"] = None
        if len(pairs) >= 63 / 2:
            own, market = np.array(pairs).T
            spread = np.sum((market - market.mean()) ** 2)
            if spread > 1e-20:
                slope = np.sum((own - own.mean()) * (market - market.mean())) / spread
                rows[day]["beta_63"] = float(slope)
