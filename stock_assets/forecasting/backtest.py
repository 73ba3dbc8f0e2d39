"""Replays: what each method would have forecast, day by day, with nothing known but the past.

The product's own line is decided and forecast by the functions that live runs use; a method is
refitted on the cadence. Frames go in and come out: what the lake holds is read in
`backtest_inputs.py`, forecasts are scored by `protocol.py`, drawn in `backtest_report.py`.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.calendars import get_calendar, union_sessions
from stock_assets.drift.sound import sound_rows
from stock_assets.forecasting.baseline import lookback_start
from stock_assets.forecasting.decision import decide
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.labels import LABEL_SESSIONS, labels
from stock_assets.forecasting.protocol import FORECAST_COLUMNS
from stock_assets.forecasting.registry import Registered, Registry, TrainingRecord

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stock_assets.drift.verdict import Signal
    from stock_assets.forecasting.forecaster import Method
    from stock_assets.forecasting.model import VolatilityModel
    from stock_assets.settings import Settings

    Say = Callable[[str], None]

PRODUCT = "product"
"""The product's own line: trained, carried, gated and forecast as live operation does."""

DEFAULT_MODELS = (PRODUCT, "ewma", "ewma-gaussian", "garch", "har", "linear")
"""What a backtest compares when nobody says otherwise."""


@dataclass(frozen=True)
class History:
    """What the lake holds for a backtest, from `data_start` of its first day on.

    May reach beyond the last day, for the outcomes: replays see no row dated later than their day.
    """

    features: pl.DataFrame
    """Rows of `Features`, all tickers."""
    bars: pl.DataFrame
    """Rows of `Bars`, all tickers."""
    drift: Mapping[dt.date, Signal]
    """What the markets say, of each day that has something measured."""
    models: pl.DataFrame
    """Each ticker's latest row of `Models` before the first day: what was in force then."""
    orders: pl.DataFrame | None = None
    """All rows of `Orders`: what people had put in force is history too."""
    forced: Mapping[dt.date, str] = field(default_factory=dict)
    """Days on which a training was tried that the decision does not call for, and why."""
    earlier: pl.DataFrame | None = None
    """Rows of `Bars` before those: they say which prices of these cannot be right."""


@dataclass(frozen=True)
class Replay:
    """What the product would have said of the tickers asked for."""

    forecasts: pl.DataFrame
    """Rows of `Forecasts`, but for the versions of tables that were read."""
    decisions: pl.DataFrame
    """Rows of `Models`."""


class ReplayRegistry(Registry):
    """A registry in memory over the user's own, which is read and never written.

    A model's name is its inputs: one that live operation made is the one that a replay would make.
    """

    def __init__(self, own: Registry) -> None:
        super().__init__(own.folder)
        self._made: dict[str, tuple[VolatilityModel, Registered]] = {}

    def find(self, model_id: str) -> Registered | None:
        """The model called `model_id`, made in this replay or by live operation."""
        made = self._made.get(model_id)
        return made[1] if made else super().find(model_id)

    def load(self, model_id: str) -> VolatilityModel:
        """The model called `model_id`."""
        made = self._made.get(model_id)
        return made[0] if made else super().load(model_id)

    def register(self, model: VolatilityModel, record: TrainingRecord, **_: object) -> Registered:
        """Keep `model` for the rest of the replay."""
        registered = Registered(len(self._made) + 1, record)
        self._made[record.model_id] = (model, registered)
        return registered

    def note_trigger(self, *_: object) -> None:
        """Nothing: a replay asks for no training of the user's."""

    def set_alias(self, *_: object, **__: object) -> bool:
        """Refuse: a replay moves nothing that serves."""
        raise AssertionError("a replay must not move an alias")


def data_start(settings: Settings, first: dt.date) -> dt.date:
    """The first day of data that a replay from `first` on looks at."""
    sessions = union_sessions(settings.exchanges)
    window = max(0, bisect.bisect_left(sessions, first) - settings.forecast.window)
    return lookback_start(settings.exchanges, sessions[window])


def outcome_end(settings: Settings, last: dt.date) -> dt.date:
    """The day on which the outcomes of `last`'s forecasts are known."""
    ends = [get_calendar(name).after(last, LABEL_SESSIONS) for name in settings.exchanges]
    return max((days[-1] for days in ends if days), default=last)


def cells_of(
    settings: Settings, tickers: Sequence[str], first: dt.date, last: dt.date
) -> pl.DataFrame:
    """day, ticker of all sessions of the tickers' exchanges from `first` to `last`."""
    cells = [
        (day, ticker)
        for ticker in tickers
        for day in get_calendar(settings.instrument(ticker).exchange).between(first, last)
    ]
    schema = {"day": pl.Date, "ticker": pl.String}
    return pl.DataFrame(cells, schema=schema, orient="row").sort("day", "ticker")


def replay_product(  # noqa: PLR0913
    history: History,
    settings: Settings,
    tickers: Sequence[str],
    first: dt.date,
    last: dt.date,
    *,
    registry: ReplayRegistry,
    say: Say,
) -> Replay:
    """Decide and forecast each session from `first` to `last`, as evening runs would have.

    Decided for the whole universe, whose sessions and trainings do not depend on who is asked for;
    forecasts and decisions are given of `tickers`. What was in force before `first` is
    `history.models`. The same history gives the same rows.
    """

    def training_data(begin: dt.date, end: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
        seen = pl.col("day").is_between(begin, min(end, last))
        bars = history.bars.filter(pl.col("day") <= min(end, last))
        if history.earlier is not None:
            bars = pl.concat([history.earlier, bars])
        return sound_rows(history.features.filter(seen), bars, begin, settings)

    known, decided = history.models, []
    everyone = cells_of(settings, settings.tickers, first, last)
    # Year by year, which decides the same as all at once, so that there is something to say.
    for (year,), part in everyone.group_by(pl.col("day").dt.year(), maintain_order=True):
        found = decide(
            part,
            known,
            history.drift,
            training_data,
            registry,
            settings,
            orders=history.orders,
            forced=history.forced,
        )
        decided.append(found.rows)
        known = pl.concat([known, found.rows]).filter(
            pl.col("day") == pl.col("day").max().over("ticker")
        )
        kept = sum(attempt.accepted for attempt in found.attempts)
        say(f"  {PRODUCT} {year}: {len(found.attempts)} trainings, {kept} put in force")
    decisions = pl.concat(decided)
    begin = lookback_start(settings.exchanges, first)
    seen = pl.col("day").is_between(begin, last)
    asked = pl.col("ticker").is_in(list(tickers))
    forecasts = make_forecasts(
        everyone.filter(asked),
        history.bars.filter(seen),
        history.features.filter(seen),
        pl.concat([history.models, decisions]),
        registry.load,
        settings.forecast.horizons,
        LakeVersions(0, 0, None),
        orders=history.orders,
        unfit=registry.unfit(),
    )
    return Replay(forecasts, decisions.filter(asked))


def replay_method(  # noqa: PLR0913, PLR0917
    method: Method,
    history: History,
    settings: Settings,
    tickers: Sequence[str],
    first: dt.date,
    last: dt.date,
    *,
    say: Say,
) -> pl.DataFrame:
    """`FORECAST_COLUMNS` of each cell with a bar from `first` to `last`, refitted on the cadence.

    A fit gets the rows known on its day, over the window that the model trains on. The forecasts
    up to the next fit are asked for at once, with the rows known on the last of their days: not to
    look beyond a forecast's own day is the method's part (`Forecaster.forecast`).
    """
    exchanges = history.bars.select("day", "ticker", "exchange")
    cells = cells_of(settings, tickers, first, last).join(exchanges, on=["day", "ticker"])
    labelled = labels(history.bars)
    parts = []
    for begin, end in _blocks(settings, first, last):
        part = cells.filter(pl.col("day").is_between(begin, end))
        if part.is_empty():
            continue
        start = data_start(settings, begin)
        forecaster = method.fit(_known(history.features, labelled, start, begin), begin)
        known = _known(history.features, labelled, start, end)
        parts.append(forecaster.forecast(part, known, settings.forecast.horizons))
        say(f"  {method.name} {begin} to {end}")
    return pl.concat([part.select(FORECAST_COLUMNS) for part in parts])


def _blocks(settings: Settings, first: dt.date, last: dt.date) -> Iterator[tuple[dt.date, dt.date]]:
    """First and last day of each stretch of sessions between two fits."""
    sessions = union_sessions(settings.exchanges)
    days = sessions[bisect.bisect_left(sessions, first) : bisect.bisect_right(sessions, last)]
    for place in range(0, len(days), settings.forecast.cadence):
        block = days[place : place + settings.forecast.cadence]
        yield block[0], block[-1]


def _known(features: pl.DataFrame, labelled: pl.DataFrame, start: dt.date, day: dt.date) -> Known:
    return Known(
        features.filter(pl.col("day").is_between(start, day)),
        labelled.filter((pl.col("day") >= start) & (pl.col("label_end") <= day)),
    )
