"""What people order to be in force: promoting a model, rolling back to an earlier one.

An order is a row of `Orders` that counts from a day on, and an input of every decision from then
on (docs/adr/0014). What rows and orders mean together is in `in_force.py`; asking people is the
command line's.
"""

from __future__ import annotations

import bisect
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from stock_assets.calendars import union_sessions
from stock_assets.errors import ModelError, SliceError
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.in_force import History, InForce, ordered_states
from stock_assets.lake.schemas import Orders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.forecasting.registry import Registered

Action = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Order:
    """One row of `Orders`."""

    day: dt.date
    ordered_at: dt.datetime
    ordered_by: str
    why: str
    action: Action
    model: str
    trained_day: dt.date | None = None
    model_version: int | None = None

    @classmethod
    def of(  # noqa: PLR0913
        cls,
        action: Action,
        target: Registered | None,
        *,
        day: dt.date,
        at: dt.datetime,
        by: str,
        why: str,
    ) -> Order:
        """An order of the model `target` (None: the baseline) from `day` on.

        Raises `ModelError` for a model that was trained later than that, which the forecasts of
        that day could not have known, and for one without words why.
        """
        if not why.strip():
            raise ModelError("an order needs a reason that others will understand: --why '...'")
        if target is None:
            return cls(day, at, by, why, action, BASELINE)
        record = target.record
        if record.day > day:
            message = (
                f"model {record.model_id} was trained on {record.day}, after the first day it "
                f"would serve ({day}); choose an earlier model or --from {record.day}"
            )
            raise ModelError(message)
        return cls(day, at, by, why, action, record.model_id, record.day, target.version)

    def row(self) -> pl.DataFrame:
        """The order as a row of `Orders`."""
        return pl.DataFrame([self.__dict__], schema=Orders.create_empty().schema)


def order_words(orders: pl.DataFrame | None) -> dict[dt.date, str]:
    """The reason of each day from which an order counts: of several, the latest given."""
    if orders is None:
        return {}
    return {
        row["day"]: f"{row['action']} ordered by {row['ordered_by']} on "
        f"{row['ordered_at']:%Y-%m-%d %H:%M} UTC: {row['why']}"
        for row in orders.sort(Orders.primary_key()).iter_rows(named=True)
    }


def effective_day(
    exchanges: Sequence[str], first: dt.date, forecast: dt.date | None, wanted: dt.date | None
) -> dt.date:
    """The day from which an order counts: the next forecasts', or `wanted` if that is later.

    `first` is the first day of the partitions, `forecast` the last day that has forecasts. Raises
    `SliceError` when the day wanted has forecasts already: history is not ordered anew.
    """
    sessions = union_sessions(tuple(exchanges))
    after = first if forecast is None else max(first, forecast + dt.timedelta(1))
    place = bisect.bisect_left(sessions, after)
    if place == len(sessions):
        raise SliceError(f"the calendars end before {after}; no session is left to order for")
    following = sessions[place]
    if wanted is not None and wanted < following:
        message = (
            f"--from {wanted}: forecasts up to {forecast} are made already, and stay as they are; "
            f"use {following} or later"
        )
        raise SliceError(message)
    return wanted or following


def succession(models: pl.DataFrame, orders: pl.DataFrame, last: dt.date) -> list[InForce]:
    """What one can go back to as of `last`: the models in force one after the other, present last.

    `models` and `orders` are all rows of `Models` and `Orders`. The baseline of the beginning is
    among them. A rollback takes away what it left, so that the next one goes further back and
    never forth again. Where tickers had different models on a day, the one that newcomers would
    get counts.
    """
    ordered = ordered_states(orders)
    action = dict(orders.sort(Orders.primary_key()).select("day", "action").iter_rows())
    history = History(ordered)
    found = [InForce()]
    by_day: dict[dt.date, list[dict[str, object]]] = {day: [] for day in ordered}
    changes = models.sort("day", "ticker").filter(
        pl.col("attempted_day").ne_missing(pl.col("attempted_day").shift(1).over("ticker"))
        | pl.col("model").ne_missing(pl.col("model").shift(1).over("ticker"))
    )
    for row in changes.iter_rows(named=True):
        by_day.setdefault(row["day"], []).append(row)
    for day in sorted(by_day):
        if day > last:
            break
        history.reach(day)
        for row in by_day[day]:
            history.record(str(row["ticker"]), InForce.of_row(row))
        state = history.state("")
        earlier = [item.model for item in found[:-1]]
        if state.model == found[-1].model:
            continue
        if action.get(day) == "rollback" and state.model in earlier:
            while found[-1].model != state.model:
                found.pop()
        else:
            found.append(state)
    return found


def rollback_target(states: Sequence[InForce]) -> InForce:
    """The model before the present one, of a `succession`.

    Raises `ModelError` when there is nothing before.
    """
    if len(states) == 1:
        message = (
            f"{states[0].model} is all that was ever in force: there is nothing to roll back to; "
            "name a model with --to, or promote one"
        )
        raise ModelError(message)
    return states[-2]
