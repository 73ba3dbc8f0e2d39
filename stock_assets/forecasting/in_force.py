"""Which model is in force: read off the rows of `models`, by one rule for decisions and forecasts.

The outcome of the latest attempt to train counts for everyone, whichever tickers' run made it:
a model is pooled over tickers. Where two runs tried on the same day, each ticker keeps its own.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from stock_assets.forecasting.baseline import BASELINE


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


class History:
    """The latest known row of each ticker, as rows are recorded in the order of their days."""

    def __init__(self) -> None:
        self._latest: dict[str, InForce] = {}
        self._best: InForce | None = None

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
        own = self._latest.get(ticker)
        if own is not None and own.attempted_day == self._best.attempted_day:
            return own
        return self._best


def models_in_force(cells: pl.DataFrame, models: pl.DataFrame) -> pl.DataFrame:
    """For each (day, ticker) of `cells`: model and model_version in force at that day's close.

    `models` are rows of `Models`: each ticker's latest before the first day at least, and those
    since. A cell's own row says it; a cell without one (`model` does not run every evening) is
    served by what was in force after the latest decision up to its day.
    """
    rows = models.select("day", "ticker", *InForce.__dataclass_fields__).sort("day", "ticker")
    own = {(row["day"], row["ticker"]): InForce.of_row(row) for row in rows.iter_rows(named=True)}
    waiting = list(own.items())
    history = History()
    found: list[tuple[dt.date, str, str, int | None]] = []
    place = 0
    for day, ticker in cells.select("day", "ticker").sort("day", "ticker").iter_rows():
        while place < len(waiting) and waiting[place][0][0] <= day:
            (_, recorded), state = waiting[place]
            history.record(recorded, state)
            place += 1
        state = own.get((day, ticker)) or history.state(ticker)
        found.append((day, ticker, state.model, state.model_version))
    schema = {"day": pl.Date, "ticker": pl.String, "model": pl.String, "model_version": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row")
