"""What a backtest reads: the lake's history for the days asked, or an error that says what to do.

Only reads. The replay itself is in `forecasting/backtest.py`.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.drift.distances import distances, first_needed
from stock_assets.drift.sound import first_bar_to_judge
from stock_assets.drift.verdict import Signal, signals
from stock_assets.drift.watched import PANEL_FEATURES
from stock_assets.errors import LakeError, SliceError
from stock_assets.forecasting.backtest import PRODUCT, History, data_start, outcome_end
from stock_assets.forecasting.decision import forced_days
from stock_assets.forecasting.labels import LABEL_SESSIONS
from stock_assets.forecasting.scoring import MIN_TEST_DAYS
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, latest_before, rows
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from stock_assets.forecasting.forecaster import Method
    from stock_assets.settings import Settings

MIN_DAYS = MIN_TEST_DAYS + LABEL_SESSIONS
"""Days with bars below which a backtest could say nothing."""


def load_history(
    settings: Settings,
    tickers: Sequence[str],
    first: dt.date,
    last: dt.date,
    *,
    drift: bool = True,
) -> History:
    """The lake's history for a backtest of `first` to `last`; without `drift` none of it.

    All tickers' history, as trainings are pooled. Raises `LakeError` when there are no bars or
    features of `tickers` on those days, `SliceError` when there are too few days of them.
    """
    begin = data_start(settings, first)
    with connect(Lake(settings.lake_dir)) as connection:
        bars = rows(connection, "bars", begin, outcome_end(settings, last))
        features = rows(connection, "features", begin, last)
        asked = pl.col("day").is_between(first, last) & pl.col("ticker").is_in(list(tickers))
        _refuse_too_little(settings, bars.filter(asked), features.filter(asked), first, last)
        said = _signals(connection, settings, first, last) if drift else {}
        models = latest_before(connection, "models", first)
        orders = rows(connection, "orders", None, dt.date.max)
        forced = forced_days(rows(connection, "models", first, last))
        judged = first_bar_to_judge(begin, settings)
        earlier = rows(connection, "bars", judged, begin - dt.timedelta(1))
        return History(features, bars, said, models, orders, forced, earlier)


def newest_day(settings: Settings) -> dt.date:
    """The newest day of the lake's features. Raises `LakeError` when there is none."""
    with connect(Lake(settings.lake_dir)) as connection:
        ((day,),) = connection.sql("select max(day) from features").fetchall()
    if day is None:
        message = f"the lake {settings.lake_dir} holds no features; run `stock-assets run` first"
        raise LakeError(message)
    assert isinstance(day, dt.date)
    return day


def chosen_tickers(settings: Settings, names: Sequence[str] | None) -> tuple[str, ...]:
    """The universe's tickers among `names` (all without any), in its order; `SliceError` if not."""
    unknown = sorted(set(names or ()) - set(settings.tickers))
    if unknown:
        known = ", ".join(settings.tickers[:8]) + (", ..." if len(settings.tickers) > 8 else "")  # noqa: PLR2004
        message = f"ticker(s) {', '.join(unknown)} are not in the universe; use {known}"
        raise SliceError(message)
    return tuple(name for name in settings.tickers if names is None or name in names)


def chosen_models(names: Sequence[str], methods: Mapping[str, Method]) -> tuple[str, ...]:
    """`names` once each, in their order; `SliceError` when one is neither ours nor a method.

    Raises `ModelError` for a method whose libraries are not installed.
    """
    from stock_assets.forecasting.baselines.series import SeriesMethod  # noqa: PLC0415

    unknown = sorted(set(names) - {PRODUCT, *methods})
    if unknown:
        known = ", ".join([PRODUCT, *methods])
        raise SliceError(f"unknown model(s) {', '.join(unknown)}; use some of {known}")
    for name in names:
        method = methods.get(name)
        if isinstance(method, SeriesMethod):
            method.refuse_without_extra()  # now, not after the replays of those before it
    return tuple(dict.fromkeys(names))


def _refuse_too_little(
    settings: Settings,
    bars: pl.DataFrame,
    features: pl.DataFrame,
    first: dt.date,
    last: dt.date,
) -> None:
    for name, frame in (("bars", bars), ("features", features)):
        if frame.is_empty():
            message = (
                f"the lake {settings.lake_dir} holds no {name} from {first} to {last} of the "
                "tickers asked; run "
                f"`stock-assets run --from {settings.partitions.first_day} --assets "
                "candles,quarantine,bars,features` (the first day carries all earlier history), "
                "or ask for other days"
            )
            raise LakeError(message)
    days = bars["day"].n_unique()
    if days < MIN_DAYS:
        message = (
            f"{first} to {last} has bars on {days} days: too few to test anything; "
            f"ask for at least {MIN_DAYS}, better some years"
        )
        raise SliceError(message)


def _signals(
    connection: duckdb.DuckDBPyConnection, settings: Settings, first: dt.date, last: dt.date
) -> dict[dt.date, Signal]:
    """What the markets say by day: from `drift`, else measured the same way."""
    stored = rows(connection, "drift", first, last)
    columns = ["day", "ticker", "exchange", *PANEL_FEATURES]
    days = rows(connection, "features", first, last, columns=["day"])["day"].unique()
    missing = days.filter(~days.is_in(stored["day"].unique().implode()))
    said = signals(stored, settings)
    if len(missing):
        begin, end = missing.min(), missing.max()
        assert isinstance(begin, dt.date)
        assert isinstance(end, dt.date)
        seen = rows(connection, "features", first_needed(begin, settings), end, columns=columns)
        measured = distances(seen, Slice(begin, end, settings.tickers), settings)
        # A day that the lake has evaluated is as live operation saw it, all of its tickers or not.
        said = {**signals(measured, settings), **said}
    return dict(sorted(said.items()))
