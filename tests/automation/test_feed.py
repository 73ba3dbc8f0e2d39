"""A feed replayed with corrections, splits and dividends ends in the truth, and so did each day.

Whatever a source says, moves and takes back in whatever order, after each look the lake is what one
would work out by hand from what was known then, and it can still be asked for that later. The looks
are the schedule's and the runs are played (`market.py`); what befell the shares comes from the
modules that dbt's bars are joined with. The same through dbt: tests/assets/test_source_splits.py.
"""

from __future__ import annotations

import datetime as dt
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stock_assets.automation.schedules import LOOKS
from stock_assets.lake.actions import (
    _with_factors,
    dividend_rows,
    otherwise_adjusted,
    prices_of,
    split_rows,
)
from stock_assets.lake.dbt_request import build_request
from stock_assets.lake.history import versions_at
from stock_assets.lake.splits import Split, keep, unheard
from stock_assets.lake.views import prepare, register_views, rows
from stock_assets.sources.files import FilesSource

from .market import MOSCOW, SETTINGS, TICKERS, Market, date

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stock_assets.settings import Instrument
    from stock_assets.slices import Slice
    from stock_assets.sources.rules import Judged

Day = dt.date
Cell = tuple[Day, str]
Known = dict[str, dict[tuple, float]]
"""Table -> the numbers of its rows by key."""

TABLES = ("candles", "quarantine", "bars", "forecasts", "scores")
BEGIN = date("06-08")
ALWAYS = ("CCC", dt.date(2020, 1, 9))
"""A list of splits is never without it, unless the source is silent."""


class Feed(Market):
    """A market whose source declares splits beside its candles, and a person dividends."""

    toml = SETTINGS.replace('path = "data"', 'path = "data"\ndividends = "dividends.csv"')
    price = "close"

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.dividends: dict[tuple[str, Day], float] = {}
        self.splits = {ALWAYS: (Fraction(1), Fraction(3))}
        self.silent = False
        self._file = folder / "dividends.csv"
        self.write_dividends()
        super().__init__(folder, instance)

    def write_dividends(self) -> None:
        lines = [f"{name},{day},{paid}" for (name, day), paid in self.dividends.items()]
        self._file.write_text("\n".join(["ticker,date,amount", *lines]) + "\n")

    def declared(self, instruments: Sequence[Instrument]) -> list[Split]:
        """What the source answers when it is asked for splits."""
        names = {item.ticker for item in instruments}
        every = {} if self.silent else self.splits
        return [Split(*key, *shares) for key, shares in every.items() if key[0] in names]

    def hear(self, judged: Judged) -> None:
        new = unheard(self.lake, judged.splits, TICKERS)
        if new:
            keep(self.lake, new, dt.datetime.now(tz=dt.UTC))

    def adjusted(self, bars: pl.DataFrame, area: Slice) -> pl.DataFrame:
        request = build_request(self.settings, area)
        before = (area.first_date or Day.min + dt.timedelta(1)) - dt.timedelta(1)
        # The real run refuses to put bars beside others that are adjusted otherwise.
        assert otherwise_adjusted(request, self.lake, None, before) == {}
        splits, dividends = split_rows(request), dividend_rows(request, prices_of(self.lake))
        bare = bars.drop("split_factor", "dividend_factor")
        factors = _with_factors(bare, splits, dividends)
        return factors.with_columns(
            close=pl.col("raw_close") * pl.col("split") * pl.col("dividend"),
            split_factor=pl.col("split"),
            dividend_factor=pl.col("dividend"),
        ).select(bars.columns)

    def held(self, moment: dt.datetime | None = None) -> Known:
        """The lake's numbers now, or as they were at a moment."""
        versions = {} if moment is None else versions_at(self.lake, moment, TABLES)
        with duckdb.connect(":memory:") as connection:
            prepare(connection)
            register_views(connection, self.lake, TABLES, versions=versions)

            def numbers(table: str, key: Sequence[str], *values: str) -> dict[tuple, float]:
                found = rows(connection, table, None, Day.max, columns=[*key, *values])
                return {
                    (value, *(row[name] for name in key)): row[value]
                    for row in found.iter_rows(named=True)
                    for value in values
                }

            cell, step = ("day", "ticker"), ("day", "ticker", "horizon")
            aside = rows(connection, "quarantine", None, Day.max, columns=list(cell))
            return {
                "candles": numbers("candles", cell, "close"),
                "quarantine": dict.fromkeys(aside.iter_rows(), 1.0),
                "bars": numbers("bars", cell, "raw_close", "split_factor", "dividend_factor",
                                "close"),
                "forecasts": numbers("forecasts", step, "last_price"),
                "scores": numbers("scores", step, "actual_price"),
            }  # fmt: skip


class Truth:
    """What the lake must say, worked out slowly from what has been said so far."""

    def __init__(self) -> None:
        self.said: dict[Cell, float] = {}
        self.heard: dict[tuple[str, Day], Fraction] = {}
        self.paid: dict[tuple[str, Day], float] = {}

    def hear(self, feed: Feed, until: Day) -> None:
        """A look: closed sessions' candles, a list of splits unless it is empty, the file."""
        closes = {cell: float(row.split(",")[4]) for cell, row in feed.published.items()}
        self.said = {cell: close for cell, close in closes.items() if cell[0] <= until}
        if not feed.silent:
            self.heard = {key: after / before for key, (before, after) in feed.splits.items()}
        self.paid = dict(feed.dividends)

    def shares(self, ticker: str, day: Day) -> Fraction:
        """What a share of the beginning has become by a day."""
        count = Fraction(1)
        for (name, split_day), ratio in self.heard.items():
            if name == ticker and split_day <= day:
                count *= ratio
        return count

    def reinvested(self, ticker: str, day: Day, until: Day) -> float:
        """What who reinvests all dividends up to a day has of a share by then."""
        factor = 1.0
        for (name, ex_day), amount in self.paid.items():
            before = [at for at, other in self.good() if other == ticker and at < ex_day]
            if name != ticker or ex_day > min(day, until) or not before:
                continue
            close = self.said[max(before), ticker]
            worth = close * float(self.shares(ticker, max(before)) / self.shares(ticker, ex_day))
            factor *= worth / (worth - amount)
        return factor

    def good(self) -> list[Cell]:
        return [cell for cell, close in self.said.items() if close <= 2.0]

    def tables(self, until: Day) -> Known:
        good = sorted(self.good())
        bars: dict[tuple, float] = {}
        for day, name in good:
            raw, split = self.said[day, name], float(self.shares(name, day))
            paid = self.reinvested(name, day, until)
            bars |= {
                ("raw_close", day, name): raw, ("split_factor", day, name): split,
                ("dividend_factor", day, name): paid, ("close", day, name): raw * split * paid,
            }  # fmt: skip
        totals = {
            day: sum(value for key, value in bars.items() if key[0] == "close" and key[1] <= day)
            for day, _ in good
        }
        steps = [
            (day, name, step, target)
            for day, name in good
            for step, target in enumerate(MOSCOW.after(day, 5), start=1)
        ]
        return {
            "candles": {("close", *cell): self.said[cell] for cell in good},
            "quarantine": {cell: 1.0 for cell in self.said if cell not in good},
            "bars": bars,
            "forecasts": {
                ("last_price", day, name, step): totals[day] for day, name, step, _ in steps
            },
            "scores": {
                ("actual_price", target, name, step): self.said[target, name]
                for _, name, step, target in steps
                if (target, name) in good
            },
        }


def assert_same(found: Known, wanted: Known) -> None:
    for name, numbers in wanted.items():
        assert found[name] == pytest.approx(numbers, rel=1e-9), name


BACK = st.integers(-2, 5)
"""Sessions before the last one; below zero: still to come."""
NAMES = st.sampled_from(TICKERS)
RATIOS = st.sampled_from([(1, 2), (2, 1), (1, 3), (3, 2)])
PAID = st.sampled_from([0.02, 0.05])
PLACE = st.integers(0, 9)
EVENTS = st.one_of(
    st.tuples(st.just("day"), st.sampled_from([(), (), ("AAA",), ("BBB", "CCC")])),
    st.tuples(
        st.just("correct"),
        st.tuples(st.integers(0, 4), NAMES, st.sampled_from([0.75, 1.0, 1.25, 1.75, 9.0])),
    ),
    st.tuples(st.just("forming"), st.sampled_from([0.75, 9.0])),
    st.tuples(st.just("split"), st.tuples(NAMES, BACK, RATIOS)),
    st.tuples(st.just("split moved"), st.tuples(PLACE, BACK)),
    st.tuples(st.just("split taken back"), PLACE),
    st.tuples(st.just("silence"), st.none()),
    st.tuples(st.just("dividend"), st.tuples(NAMES, BACK, PAID)),
    st.tuples(st.just("dividend moved"), st.tuples(PLACE, BACK)),
    st.tuples(st.just("dividend taken back"), PLACE),
)


def back(day: Day, sessions: int) -> Day:
    return MOSCOW.back(day, sessions) if sessions >= 0 else MOSCOW.after(day, -sessions)[-1]


def befall(feed: Feed, day: Day, kind: str, about: Any) -> Day:
    """Let it happen; the last closed session after it."""
    if kind == "day":
        day = MOSCOW.after(day, 1)[0]
        feed.publish(day, *about)
    elif kind == "correct":
        sessions, ticker, price = about
        feed.publish(back(day, sessions), ticker, close=price)
    elif kind == "forming":
        feed.publish(MOSCOW.after(day, 1)[0], close=about)
    elif kind == "silence":
        feed.silent = True
    elif kind == "split":
        ticker, sessions, (before, after) = about
        feed.splits[ticker, back(day, sessions)] = (Fraction(before), Fraction(after))
    elif kind == "dividend":
        ticker, sessions, amount = about
        feed.dividends[ticker, back(day, sessions)] = amount
    else:
        change_of_mind(feed.splits if "split" in kind else feed.dividends, day, about)
    return day


def change_of_mind(said: dict[tuple[str, Day], Any], day: Day, about: Any) -> None:
    """One of what was said is moved to another day, or taken back."""
    own = sorted(key for key in said if key != ALWAYS)
    if not own:
        return
    place, *sessions = about if isinstance(about, tuple) else (about,)
    key = own[place % len(own)]
    what = said.pop(key)
    if sessions:
        said[key[0], back(day, *sessions)] = what


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Path, Feed]]:
    """Feeds by the folder of their files: who reads the files hears of its splits."""
    known: dict[Path, Feed] = {}

    def splits(self: FilesSource, instruments: Sequence[Instrument]) -> list[Split]:
        return known[self._own.path].declared(instruments)

    monkeypatch.setattr(FilesSource, "splits", splits)
    return known


A_LOT = [
    [("day", ()), ("split", ("AAA", 2, (1, 2))), ("dividend", ("AAA", 0, 0.05))],
    # Paid by a share of the day on which it became two.
    [("split", ("CCC", 1, (1, 2))), ("dividend", ("CCC", 1, 0.05))],
    [("split moved", (0, 3)), ("correct", (1, "AAA", 0.75)), ("dividend", ("BBB", -1, 0.02))],
    [("silence", None), ("day", ("BBB", "CCC")), ("correct", (2, "AAA", 9.0))],
    [("day", ()), ("dividend moved", (0, 4)), ("split", ("BBB", -2, (3, 2)))],
    [("split taken back", 0), ("forming", 9.0), ("dividend taken back", 1)],
    [("day", ()), ("day", ("AAA",)), ("correct", (4, "AAA", 1.75))],
]
"""Each kind at least once, on days that meddle with each other."""


@pytest.mark.slow
@example(A_LOT)
@given(st.lists(st.lists(EVENTS, min_size=1, max_size=4), min_size=3, max_size=5))
@hypothesis_settings(
    max_examples=5,
    deadline=None,
    # A look and its run take half a second: shrinking would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_feed_ends_as_its_final_truth_and_what_was_known_of_it_can_be_asked(
    tmp_path_factory: pytest.TempPathFactory,
    feeds: dict[Path, Feed],
    news: list[list[tuple[str, Any]]],
) -> None:
    """`news` are what happens before each look."""
    folder = tmp_path_factory.mktemp("feed")
    with dg.DagsterInstance.ephemeral() as instance:
        feed, truth = Feed(folder / "lived", instance), Truth()
        feeds[feed.folder] = feed
        feed.hold_until("06-08")
        day, looked = BEGIN, 0
        truth.hear(feed, day)
        told = [(dt.datetime.now(tz=dt.UTC), truth.tables(day))]
        for happened in [*news, [("correct", (0, "AAA", 1.0))]]:
            then = day
            for kind, about in happened:
                day = befall(feed, day, kind, about)
            feed.write_dividends()
            looked = 1 if day > then else looked + 1
            asked = feed.serve(feed.look(MOSCOW.closes_at(day) + looked * LOOKS[0]))
            assert len(asked) <= 1
            truth.hear(feed, day)
            told.append((dt.datetime.now(tz=dt.UTC), truth.tables(day)))
            time.sleep(0.002)  # commits count milliseconds
            feed.silent = False
            feed.published = {key: row for key, row in feed.published.items() if key[0] <= day}
            feed._write()
        assert feed.serve(feed.look(feed.now)) == [], "each look brought all that there was"

        final = Feed(folder / "final", instance)
        feeds[final.folder] = final
        final.published, final.now = feed.published, feed.now
        final.splits, final.dividends = feed.splits, feed.dividends
        final._write()
        final.write_dividends()
        final.run(final.grid.sessions[0], day)
        assert_same(final.held(), feed.held())
        for moment, known in told:
            assert_same(feed.held(moment), known)
