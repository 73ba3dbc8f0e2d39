"""Which model is in force: read off `models` and `orders`, by one rule for all who ask.

The outcome of the latest attempt to train counts for everyone, whichever tickers' run made it:
a model is pooled over tickers. Where two runs tried on the same day, each ticker keeps its own.
A person's order counts as the attempt of its day and wins over any other of that day, also where
a row was written before it was given. How orders come about is in `orders.py`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting.baseline import BASELINE
from stock_assets.lake.schemas import Orders

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True)
class InForce:
    """The model that serves a ticker, and what is known of its past."""

    model: str = BASELINE
    model_version: int | None = None
    trained_day: dt.date | None = None
    attempted_day: dt.date | None = None

    @property
    def attempt_order(self) -> dt.date:
        """`attempted_day`, with "never" before all others."""
        return self.attempted_day or dt.date.min

    @classmethod
    def of_row(cls, row: dict[str, object]) -> InForce:
        """From a row of `Models`."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]


def ordered_states(orders: pl.DataFrame | None) -> dict[dt.date, InForce]:
    """What the rows of `Orders` put in force, by the day it counts from, in the order of days.

    Of several orders for one day the latest given counts.
    """
    if orders is None:
        return {}
    given = orders.sort(Orders.primary_key())
    return {
        row["day"]: InForce(row["model"], row["model_version"], row["trained_day"], row["day"])
        for row in given.iter_rows(named=True)
    }


class History:
    """The latest known row of each ticker, as rows are recorded in the order of their days."""

    def __init__(self, ordered: Mapping[dt.date, InForce] | None = None) -> None:
        self._latest: dict[str, InForce] = {}
        self._best: InForce | None = None
        self._order: InForce | None = None
        self._waiting = list((ordered or {}).values())

    def reach(self, day: dt.date) -> None:
        """Let the orders that count by `day` count; days come in their order."""
        while self._waiting and self._waiting[0].attempt_order <= day:
            self._order = self._waiting.pop(0)

    def overrules(self, state: InForce) -> InForce | None:
        """The order that came after all that `state` knows of, if there is one."""
        if self._order is not None and self._order.attempt_order >= state.attempt_order:
            return self._order
        return None

    def record(self, ticker: str, state: InForce) -> None:
        """Add the next row; rows come in the order of their days."""
        self._latest[ticker] = state
        self._best = None

    def state(self, ticker: str) -> InForce:
        """What is in force for `ticker` after all that was recorded."""
        if self._best is None:
            # Sorted, so that among equals the first name decides whatever the order of recording.
            states = [self._latest[name] for name in sorted(self._latest)]
            self._best = max(states, key=lambda item: item.attempt_order, default=InForce())
        if (order := self.overrules(self._best)) is not None:
            return order
        own = self._latest.get(ticker)
        if own is not None and own.attempted_day == self._best.attempted_day:
            return own
        return self._best


def models_in_force(
    cells: pl.DataFrame,
    models: pl.DataFrame,
    orders: pl.DataFrame | None = None,
    unfit: Collection[str] = (),
) -> pl.DataFrame:
    """For each (day, ticker) of `cells`: model and model_version in force at that day's close.

    `models` are rows of `Models`: each ticker's latest before the first day at least, and those
    since; `orders` all rows of `Orders`. A cell's own row says it, unless an order came after it;
    a cell without one (`model` does not run every evening) is served by what was in force after
    the latest decision or order up to its day. Instead of a model in `unfit`, which this code
    cannot serve (`Registry.unfit`), the baseline is, as the next decision will say.
    """
    rows = models.select("day", "ticker", *InForce.__dataclass_fields__).sort("day", "ticker")
    own = {(row["day"], row["ticker"]): InForce.of_row(row) for row in rows.iter_rows(named=True)}
    waiting = list(own.items())
    history = History(ordered_states(orders))
    found: list[tuple[dt.date, str, str, int | None]] = []
    place = 0
    for day, ticker in cells.select("day", "ticker").sort("day", "ticker").iter_rows():
        while place < len(waiting) and waiting[place][0][0] <= day:
            (_, recorded), state = waiting[place]
            history.record(recorded, state)
            place += 1
        history.reach(day)
        row = own.get((day, ticker))
        state = history.state(ticker) if row is None else history.overrules(row) or row
        if state.model in unfit:
            state = InForce()
        found.append((day, ticker, state.model, state.model_version))
    schema = {"day": pl.Date, "ticker": pl.String, "model": pl.String, "model_version": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row")
