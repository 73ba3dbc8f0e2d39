"""What is forecast of one ticker, and what one has to know to rely on it: `stock-assets forecast`.

Gathers what the lake holds of it: probabilities come from `forecasting/distribution.py`, how such
forecasts did from `forecasting/scoring.py`. How it is drawn on a terminal is in `console.py`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar
from stock_assets.errors import LakeError, SliceError
from stock_assets.forecast_inputs import blocked_cells
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.distribution import PriceDistributions
from stock_assets.forecasting.in_force import ordered_states
from stock_assets.forecasting.live_check import live_scores_start, live_verdict, recent_scores
from stock_assets.forecasting.orders import order_words
from stock_assets.forecasting.scoring import summarise
from stock_assets.lake.dividends import read_dividends
from stock_assets.lake.splits import splits_in_force
from stock_assets.lake.store import Lake
from stock_assets.lake.undeclared import before_and_after
from stock_assets.lake.views import rows
from stock_assets.settings import command_line
from stock_assets.sources.settling import latest_settled

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from pathlib import Path

    import duckdb

    from stock_assets.forecasting.distribution import Floats
    from stock_assets.settings import Settings

TABLES_READ = ("forecasts", "models", "orders", "scores", "bars", "drift")
"""What `outlook` needs of the lake."""

_SHOWN = 12


@dataclass(frozen=True)
class LevelChances:
    """How likely a level is, by the session ahead; 0 to 1."""

    price: float
    ends_beyond: float
    touched: float
    """Roughly, on the way there: see `PriceDistributions.probability_touch`."""


@dataclass(frozen=True)
class HorizonOutlook:
    """The closing price some sessions ahead. Each range is (low, high)."""

    horizon: int
    target_day: dt.date
    median: float
    range_50: tuple[float, float]
    range_80: tuple[float, float]
    range_90: tuple[float, float]
    sigma: float
    """Standard deviation of the log return to the target day."""
    above: LevelChances | None
    below: LevelChances | None
    """The levels that were asked for."""


@dataclass(frozen=True)
class Outlook:
    """The forecast of a ticker made on one day. Prices are in that day's shares."""

    ticker: str
    exchange: str
    day: dt.date
    held_from: dt.date | None
    """Earlier day whose forecast stands for it: its own prices cannot be right."""
    last_price: float
    """At the close of the day, or of the earlier one."""
    currency: str
    model: str
    model_version: int | None
    model_since: dt.date | None
    """Day it was put in force; None for the baseline."""
    model_sessions: int | None
    """Sessions it had been in force on the forecast's day; None for the baseline."""
    model_reason: str
    """Why it answers."""
    horizons: tuple[HorizonOutlook, ...]
    warnings: tuple[str, ...]
    """What to know before relying on it: it is old, shares have changed, or such forecasts fail."""
    record: str
    """How such forecasts did lately, with no more claimed than tests bear."""


@dataclass(frozen=True)
class Question:
    """What is asked about a ticker; a level is None where none is."""

    ticker: str
    day: dt.date | None = None
    """The forecast's day; None: the latest."""
    horizon: int | None = None
    """One session ahead only; None: all that were forecast."""
    above: float | None = None
    below: float | None = None
    settings_file: Path | None = None
    """Named in what is advised to type; None where it is the usual one."""

    def command(self, *words: str) -> str:
        """What to type at a prompt."""
        return command_line(self.settings_file, *words)


def outlook(
    connection: duckdb.DuckDBPyConnection, settings: Settings, question: Question, now: dt.datetime
) -> Outlook:
    """Answer from a connection that sees `TABLES_READ`.

    Raises `SliceError` for a ticker, day or horizon without a forecast, `LakeError` when there is
    none of the ticker at all yet.
    """
    ticker, exchange = question.ticker, _exchange(settings, question.ticker)
    forecasts = stored_forecast(connection, settings, question)
    made = forecasts.row(0, named=True)
    day: dt.date = made["day"]
    note = made["note"]
    warnings = [
        *([f"not forecast from the prices of {day}: {note}"] if note else []),
        *_splits_since(settings, ticker, day, now),
        *_suspected_since(connection, ticker, day, now),
        *_dividends_ahead(settings, ticker, forecasts),
    ]
    if question.day is None:
        warnings = [*_staleness(connection, settings, question, day, now), *warnings]
    since, reason = _why_this_model(connection, ticker, day, made["model"])
    record, failures = _record(connection, settings, exchange, day)
    return Outlook(
        ticker=ticker,
        exchange=exchange,
        day=day,
        held_from=made["held_from"],
        last_price=made["last_price"],
        currency=made["currency"],
        model=made["model"],
        model_version=made["model_version"],
        model_since=since,
        model_sessions=None if since is None else _sessions_between(exchange, since, day),
        model_reason=reason,
        horizons=_horizons(forecasts, question),
        warnings=(*warnings, *failures),
        record=record,
    )


def _exchange(settings: Settings, ticker: str) -> str:
    if ticker in settings.instruments:
        return settings.instrument(ticker).exchange
    by_capitals = {name.upper(): name for name in settings.tickers}
    close = difflib.get_close_matches(ticker.upper(), by_capitals, n=1)
    hint = (
        f"did you mean {by_capitals[close[0]]}?"
        if close
        else f"use one of {', '.join(settings.tickers[:_SHOWN])}"
        + (", ..." if len(settings.tickers) > _SHOWN else "")
    )
    raise SliceError(f"ticker {ticker!r} is not in the universe of these settings; {hint}")


def stored_forecast(
    connection: duckdb.DuckDBPyConnection, settings: Settings, question: Question
) -> pl.DataFrame:
    """The rows of `forecasts` that are asked for, one a horizon.

    Raises `SliceError` and `LakeError` as `outlook` does.
    """
    ticker, day = question.ticker, question.day
    exchange = _exchange(settings, ticker)
    days = [
        found
        for (found,) in connection.execute(
            "select distinct day from forecasts where ticker = ? order by day", [ticker]
        ).fetchall()
    ]
    if not days:
        message = (
            f"there is no forecast of {ticker} in the lake yet; make one with: "
            f"{question.command('run')} (all days), or "
            f"{question.command('run', '--from', 'DAY', '--to', 'DAY')}"
        )
        raise LakeError(message)
    if day is not None and day not in days:
        faults = _faults(connection, ticker, day, day)
        raise SliceError(_no_forecast_on(ticker, day, days, exchange, faults))
    day = day or days[-1]
    found = rows(connection, "forecasts", day, day, tickers=[ticker])
    if question.horizon is None:
        return found
    chosen = found.filter(pl.col("horizon") == question.horizon)
    if chosen.is_empty():
        there = ", ".join(str(item) for item in found["horizon"])
        message = (
            f"no forecast of {ticker} looks {question.horizon} session(s) ahead on {day}; "
            f"--horizon may be {there}"
        )
        raise SliceError(message)
    return chosen


def _faults(
    connection: duckdb.DuckDBPyConnection, ticker: str, first: dt.date, last: dt.date
) -> dict[dt.date, str]:
    """Why the ticker's prices of a day cannot be right, by day."""
    found = blocked_cells(connection, first, last, [ticker])
    return dict(found.select("day", "why").iter_rows())


def _no_forecast_on(
    ticker: str, day: dt.date, days: list[dt.date], exchange: str, faults: dict[dt.date, str]
) -> str:
    why = faults.get(day) or get_calendar(exchange).why_closed(day)
    earlier = [known for known in days if known < day]
    near = earlier[-1] if earlier else days[0]
    return (
        f"no forecast of {ticker} was made on {day}"
        + (f" ({why})" if why else "")
        + f"; the nearest {'before' if earlier else 'after'} it: --day {near}"
    )


def _why_this_model(
    connection: duckdb.DuckDBPyConnection, ticker: str, day: dt.date, model: str
) -> tuple[dt.date | None, str]:
    """The day the model was put in force (None for the baseline), and the reason."""
    given = rows(connection, "orders", None, day)
    words = order_words(given)
    ordered = [(begin, state.model, words[begin]) for begin, state in ordered_states(given).items()]
    if model == BASELINE:
        return None, _why_the_baseline(connection, ticker, day, ordered)
    # Any ticker's row: one that was not traded on that day, or is newer, has none of its own.
    put = connection.execute(
        "select day, reason from models where model = ? and day <= ? "
        "and decision in ('trained', 'ordered') order by day desc, ticker limit 1",
        [model, day],
    ).fetchall()
    # Where `model` has not run since an order was given, no row says so yet.
    obeyed = [(begin, reason) for begin, name, reason in ordered if name == model]
    nothing = (None, "its decision is not in the table models")
    return max([*obeyed, *put], key=lambda item: item[0], default=nothing)


def _why_the_baseline(
    connection: duckdb.DuckDBPyConnection,
    ticker: str,
    day: dt.date,
    ordered: list[tuple[dt.date, str, str]],
) -> str:
    """What kept it there by the latest decision or order, or how it comes to answer for a model."""
    latest = connection.execute(
        "select day, model, reason from models where ticker = ? and day <= ? "
        "order by day desc limit 1",
        [ticker, day],
    ).fetchall()
    _, model, reason = max(
        [*ordered[-1:], *latest], key=lambda item: item[0], default=(None, BASELINE, None)
    )
    if model != BASELINE:
        return (
            f"{model} was in force and did not answer: too little was known of {ticker}, or other "
            "code had trained it"
        )
    return reason or "no model was in force, or too little was known"


def _horizons(forecasts: pl.DataFrame, question: Question) -> tuple[HorizonOutlook, ...]:
    distributions = PriceDistributions.of(forecasts)
    ranges = {
        level: list(zip(*(ends.tolist() for ends in distributions.interval(level)), strict=True))
        for level in (0.5, 0.8, 0.9)
    }
    above = _chances(question.above, distributions, distributions.probability_above)
    below = _chances(question.below, distributions, distributions.probability_below)
    return tuple(
        HorizonOutlook(
            horizon=row["horizon"],
            target_day=row["target_day"],
            median=row["price_q50"],
            range_50=ranges[0.5][place],
            range_80=ranges[0.8][place],
            range_90=ranges[0.9][place],
            sigma=row["sigma"],
            above=above[place],
            below=below[place],
        )
        for place, row in enumerate(forecasts.iter_rows(named=True))
    )


def _chances(
    price: float | None, distributions: PriceDistributions, beyond: Callable[[float], Floats]
) -> list[LevelChances | None]:
    """One of each forecast."""
    if price is None:
        return [None] * len(distributions.last_price)
    ends, touched = beyond(price).tolist(), distributions.probability_touch(price).tolist()
    return [LevelChances(price, *chances) for chances in zip(ends, touched, strict=True)]


def _staleness(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    question: Question,
    day: dt.date,
    now: dt.datetime,
) -> list[str]:
    """Whether a session has settled since the forecast was made, and what to do about it."""
    ticker = question.ticker
    instrument = settings.instrument(ticker)
    exchange, delisted = instrument.exchange, instrument.delisted
    latest = latest_settled(settings, exchange, now, source=instrument.source)
    calendar = get_calendar(exchange)
    if delisted is not None and calendar.after(day, 1)[0] > delisted:
        return [f"{ticker} is listed until {delisted} in the settings: no price follows"]
    if delisted is not None and delisted < latest:
        latest = calendar.between(calendar.sessions[0], delisted)[-1]
    if latest <= day:
        return []
    found = connection.execute("select max(day) from bars where ticker = ?", [ticker]).fetchall()
    bar = found[0][0]
    behind = _sessions_between(exchange, day, latest)
    plural = "s" if behind > 1 else ""
    faults = _faults(connection, ticker, day, latest)
    if bar is not None and bar > day and bar in faults:
        wrong = min(found for found in faults if found > day)
        what = f"the prices of {bar} cannot be right ({faults[bar]})"
        run = question.command("run", "--from", str(wrong))
        advice = f"once the source has corrected them: {run}"
        return [f"made on {day}, {behind} session{plural} ago: {what}; {advice}"]
    what = (
        f"the lake has bars up to {bar} that were not forecast from"
        if bar is not None and bar > day
        else "newer candles are not in the lake"
    )
    following = calendar.after(day, 1)[0]
    advice = f"next: {question.command('run', '--from', str(following))}"
    return [f"made on {day}, {behind} session{plural} ago: {what}; {advice}"]


def _splits_since(settings: Settings, ticker: str, day: dt.date, now: dt.datetime) -> list[str]:
    """Splits after the forecast's day: its prices, and the levels asked for, are older shares'."""
    found = []
    for split in splits_in_force(settings, Lake(settings.lake_dir)):
        if split.ticker != ticker or not day < split.day <= now.date():
            continue
        factor = float(split.before / split.after)
        if factor == 1:
            continue
        found.append(
            f"split on {split.day}, {split.before} old shares for {split.after} new ones: all "
            f"prices here, and the levels asked for, are in the shares of {day}; times {factor:.6g}"
            " they are in the shares since"
        )
    return found


def _suspected_since(
    connection: duckdb.DuckDBPyConnection, ticker: str, day: dt.date, now: dt.datetime
) -> list[str]:
    """Bars after the forecast's day that look like a split nobody declared."""
    found = rows(connection, "bars", day, now.date(), tickers=[ticker]).filter(
        (pl.col("day") > day) & pl.col("suspected_split").is_not_null()
    )
    return [
        f"prices jumped on {jump} as by a split of {before} old shares into {after} new ones that "
        f"nobody declared: all prices here are in the shares of {day}"
        for jump, ratio in found.select("day", "suspected_split").iter_rows()
        for before, after in [before_and_after(ratio)]
    ]


def _dividends_ahead(settings: Settings, ticker: str, forecasts: pl.DataFrame) -> list[str]:
    """Dividends on the way to the target days: forecasts are of prices that did not pay them."""
    day, last = forecasts["day"][0], forecasts["target_day"].max()
    return [
        f"a share pays {item.amount:g} with the ex-date {item.day}: prices forecast for that day "
        "and later have it added back, and will be lower by so much as traded"
        for item in read_dividends(settings.lake.dividends)
        if item.ticker == ticker and day < item.day <= last
    ]


def _record(
    connection: duckdb.DuckDBPyConnection, settings: Settings, exchange: str, day: dt.date
) -> tuple[str, list[str]]:
    """How the exchange's forecasts did up to the forecast's day, and what has left its band."""
    tickers = [item.ticker for item in settings.universe if item.exchange == exchange]
    first = live_scores_start(exchange, day, settings.scores)
    scores = rows(connection, "scores", first, day, tickers=tickers)
    recent = recent_scores(scores, settings.scores.window)
    if recent.is_empty():
        return f"{exchange}: no forecast had reached its target day by {day}", []
    failures = live_verdict(scores, exchange, settings.scores).failures
    return f"{exchange}: {summarise(recent).sentence}", [
        f"forecasts of {exchange} do not keep their promise: {failure}" for failure in failures
    ]


def _sessions_between(exchange: str, first: dt.date, last: dt.date) -> int:
    """Sessions after `first` up to `last`."""
    calendar = get_calendar(exchange)
    return len(calendar.between(first, last)) - calendar.is_session(first)
