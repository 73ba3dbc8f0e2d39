"""A universe whose sources, lake and runs a test plays, evening by evening."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, ClassVar

import dagster as dg
import polars as pl

from stock_assets.automation.jobs import DAILY_JOB
from stock_assets.automation.schedules import LOOKS, look
from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.store import Lake
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid
from stock_assets.settings import load_settings
from stock_assets.slices import WHY_TAG, Slice
from stock_assets.sources.fetching import fetch_slice

if TYPE_CHECKING:
    from pathlib import Path

    from stock_assets.sources.rules import Judged

SETTINGS = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAA", "BBB", "CCC"]
source = "mine"
exchange = "XMOS"
[[universe]]
ticker = "USA"
source = "mine"
exchange = "XNYS"
[sources.mine]
kind = "files"
path = "candles"
"""
TICKERS = ("AAA", "BBB", "CCC")
MOSCOW = get_calendar("XMOS")

Asked = tuple[str, str, str]
"""First day, last day, why."""


def date(text: str) -> dt.date:
    return dt.date.fromisoformat(f"2026-{text}")


class Market:
    """Sources, lake and runs of one universe, and its clock.

    Runs are played: candles and quarantine come from the real source; bars have a candle's close,
    forecasts the sum of all closes of the exchange up to their day, which is what they depend on,
    scores the close they are scored by, all in the cells where the real ones would be.
    """

    toml: ClassVar[str] = SETTINGS
    price: ClassVar[str] = "raw_close"
    """The column of bars that forecasts are made of."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "candles").mkdir()
        (folder / "settings.toml").write_text(self.toml)
        self.settings = load_settings(folder / "settings.toml")
        self.grid = Grid.of(self.settings)
        self.lake = Lake(self.settings.lake_dir)
        self.folder = folder / "candles"
        self.instance = instance
        self.now = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
        self.published: dict[tuple[dt.date, str], str] = {}

    def publish(self, day: dt.date | str, *tickers: str, close: float | str = 1.5) -> None:
        """Have the source hold candles of a day, of all of Moscow unless told."""
        day = date(day) if isinstance(day, str) else day
        for ticker in tickers or TICKERS:
            self.published[day, ticker] = f"{day},1,2,0.5,{close},7"
        self._write(*tickers)

    def withdraw(self, day: str, *tickers: str) -> None:
        """Have the source lose the candles of a day."""
        for ticker in tickers:
            del self.published[date(day), ticker]
        self._write(*tickers)

    def _write(self, *tickers: str) -> None:
        for ticker in tickers or TICKERS:
            lines = [row for (_, name), row in sorted(self.published.items()) if name == ticker]
            text = "\n".join(["Date,Open,High,Low,Close,Volume", *lines])
            (self.folder / f"{ticker}.csv").write_text(text + "\n")

    def run(self, first: dt.date, last: dt.date, tickers: tuple[str, ...] = TICKERS) -> None:
        """What a run over the slice leaves in the lake, its scores apart where none are due."""
        area = self.grid.slice(first, last, tickers)
        judged = fetch_slice(self.settings, area, now=self.now)
        candles = judged.candles
        self.hear(judged)
        self.lake.write("quarantine", judged.quarantine, area)
        self.lake.write("candles", candles, area)
        cells = [
            cell
            for cell in sorted(candles.select("day", "ticker").unique().iter_rows())
            if self.calendar(cell[1]).is_session(cell[0])
        ]
        closes = {(row["day"], row["ticker"]): row["close"] for row in candles.to_dicts()}
        bars = [{"day": day, "ticker": name, "raw_close": closes[day, name]} for day, name in cells]
        self.lake.write("bars", self.adjusted(rows_of("bars", bars), area), area)
        known = self.lake.read("bars").filter(pl.col("ticker").is_in(tickers))
        totals = {day: known.filter(pl.col("day") <= day)[self.price].sum() for day, _ in cells}
        forecasts = [
            {"day": day, "ticker": ticker, "horizon": step, "target_day": target}
            | {"last_price": totals[day]}
            for day, ticker in cells
            for step, target in enumerate(self.calendar(ticker).after(day, 5), start=1)
        ]
        self.lake.write("forecasts", rows_of("forecasts", forecasts), area)
        made = self.lake.read("forecasts").filter(pl.col("ticker").is_in(tickers))
        scores = [
            {"day": row["target_day"], "ticker": row["ticker"], "horizon": row["horizon"]}
            | {"forecast_day": row["day"], "actual_price": closes[row["target_day"], row["ticker"]]}
            for row in made.iter_rows(named=True)
            if (row["target_day"], row["ticker"]) in set(cells)
        ]
        self.lake.write("scores", rows_of("scores", scores), area)

    def hear(self, judged: Judged) -> None:
        """What a run keeps of what sources declare: nothing, for files declare nothing."""

    def adjusted(self, bars: pl.DataFrame, area: Slice) -> pl.DataFrame:  # noqa: ARG002
        """The bars of a slice with what befell the shares: nothing."""
        return bars

    @staticmethod
    def calendar(ticker: str):
        return get_calendar("XNYS" if ticker == "USA" else "XMOS")

    def look(self, at: dt.datetime, exchange: str = "XMOS") -> list[dg.RunRequest] | str:
        """What the schedule of an exchange makes of one tick."""
        self.now = at
        found = look(exchange, self.settings, self.grid, self.instance, now=at, tick=at)
        return str(found.skip_message) if isinstance(found, dg.SkipReason) else found

    def start(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        return self.instance.add_run(
            dg.DagsterRun(
                job_name=DAILY_JOB, run_id=str(uuid.uuid4()), tags=dict(request.tags), status=status
            )
        )

    def serve(self, requests: list[dg.RunRequest] | str, *, fails: bool = False) -> list[Asked]:
        """Have the requests run to their end; what was asked."""
        asked = []
        for request in requests if isinstance(requests, list) else []:
            area = self.area(request)
            if not fails:
                self.run(area.first_date or self.grid.sessions[0], area.last_date, area.tickers)
            end = dg.DagsterRunStatus.FAILURE if fails else dg.DagsterRunStatus.SUCCESS
            self.start(request, end)
            days = self.grid.days_of(area)
            asked.append((f"{days[0]:%m-%d}", f"{days[-1]:%m-%d}", request.tags[WHY_TAG]))
        return asked

    def area(self, request: dg.RunRequest) -> Slice:
        return self.grid.slice_of_range(request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG])

    def evening(self, day: str, *, fails: bool = False) -> list[list[Asked]]:
        """All looks of an evening, each with what it asked for; runs end before the next look."""
        return [
            self.serve(self.look(MOSCOW.closes_at(date(day)) + delay), fails=fails)
            for delay in LOOKS
        ]

    def hold_until(self, day: str) -> None:
        """An ordinary past: every day up to `day` published and run."""
        for found in MOSCOW.between(self.grid.sessions[0], date(day)):
            self.publish(found)
        self.now = MOSCOW.closes_at(date(day)) + LOOKS[0]
        self.run(self.grid.sessions[0], date(day))


def rows_of(table: str, keys: list[dict[str, object]]) -> pl.DataFrame:
    """Rows of a table with these keys and any numbers."""
    schema = TABLES[table].create_empty().schema
    texts = {"model": "baseline", "exchange": "", "currency": "", "interval": "1d"}
    fill: dict[str, object] = {}
    for name, kind in schema.items():
        fill[name] = texts.get(name) if kind == pl.String else 1 if kind.is_integer() else None
        if kind == pl.Float64:
            fill[name] = 1.0
        if kind == pl.Boolean:
            fill[name] = True
    return pl.DataFrame([{**fill, **key} for key in keys], schema=schema)
