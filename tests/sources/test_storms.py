"""The three clients under a thousand requests of faults, up to the lake and with their limits.

Each storm runs the asset that a run runs, with each fault alone and with all of them at random. It
ends in the lake that calm weather leaves, or in a run that has failed by name and has written
nothing.

Time is played: whoever waits for a limit puts the clock forward, and the server tells the time by
that clock. So the limits are those of the settings, the server measures them to the request, and
minutes take seconds. What is slow to answer is slow in earnest.

Bad luck cannot be: no question meets more faults in a row than `IN_A_ROW`, and each has `ATTEMPTS`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg
import ingest_run
import polars as pl
import pytest
from api_server import EACH_FAULT, ApiServer, Fault
from cbr_server import GUARD, CbrServer, Currency
from ingest_run import ingested
from moex_server import Iss
from moex_server import Listing as Board
from moex_server import candle as iss_candle
from tinvest_server import TOKEN, Candle, Listing, TInvestServer, made

from stock_assets.calendars import CBR, get_calendar
from stock_assets.lake.store import Lake
from stock_assets.settings import Settings
from stock_assets.sources import limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ingest_run import Tables


pytestmark = pytest.mark.slow

LAST = dt.date(2026, 6, 30)
CONNECTIONS, ATTEMPTS, IN_A_ROW = 4, 20, 12
SHARE = 0.6
"""Of all requests: there must be many of them, and a fault is done sooner than an answer."""

PATIENCE = 1.0
"""Seconds for an answer: a busy machine has that; what is slow on purpose is slower."""

SLOW = Fault("slow", seconds=PATIENCE + 0.5)
FAULTS = (*EACH_FAULT, Fault("trickle", seconds=0.0), SLOW)
# Each slow answer is waited for: few of them, so that a storm does not take minutes.
WEATHER = (*FAULTS[:-1] * 20, SLOW)
SHARES = {fault: 0.02 if fault is SLOW else SHARE for fault in FAULTS}
TICKERS = tuple(f"T{number:02}" for number in range(len(FAULTS)))
"""One for each fault, or a group of them."""


@dataclass
class Market:
    """An API with a market behind it, some of whose candles break the rules."""

    kind: str
    serve: Callable[[], ApiServer]
    interval: str
    begin: dt.date
    candles: str
    """What addresses of candles have in them."""
    tickers: tuple[str, ...] = TICKERS
    base: str = ""
    faults: dict[Fault, Fault] = field(default_factory=dict)
    """Faults that look otherwise here."""

    def settings(self, lake: Path, server: ApiServer, **own: Any) -> Settings:
        return Settings(
            lake={"path": lake},
            partitions={"first_day": LAST},
            universe=[{"tickers": list(self.tickers), "source": self.kind}],
            sources={
                self.kind: {
                    "kind": self.kind, "base_url": f"{server.url}{self.base}",
                    "interval": self.interval, "begin": self.begin,
                    "connections": CONNECTIONS, "timeout": PATIENCE, "attempts": ATTEMPTS,
                    # At once: the limit alone is what holds requests back.
                    "first_wait": 0, **own,
                }
            },
        )  # fmt: skip

    def groups(self) -> list[tuple[str, ...]]:
        """The tickers in as many groups as there are faults."""
        size = len(self.tickers) // len(FAULTS)
        return [self.tickers[at * size : (at + 1) * size] for at in range(len(FAULTS))]


def moex() -> Market:
    """A candle of a minute on each session of months: weeks of two pages, the second one empty."""
    begin = dt.date(2025, 11, 20)
    days = get_calendar("XMOS").between(begin, LAST)

    def rows(place: int) -> list[list[Any]]:
        found = [
            iss_candle(f"{day} 1{place}:00:00", 100.0 * place + at + 10, minutes=1)
            for at, day in enumerate(days)
        ]
        for odd in found[place::50]:
            odd[2] = odd[3] - 1  # its high is below its low
        found[place + 7][1] = None
        return found

    iss = Iss(
        {
            ticker: [Board("TQBR", {1: rows(at)}, is_primary=1, history_from="2013-03-25")]
            for at, ticker in enumerate(TICKERS)
        }
    )
    return Market("moex", iss.serve, "1m", begin, "/candles.json", base="/iss")


def t_invest() -> Market:
    """A few candles of a minute a day, and each day is a question."""
    begin = dt.date(2026, 5, 1)
    days = get_calendar("XMOS").between(begin, LAST)
    times = [dt.datetime.combine(day, dt.time(8, 0), dt.UTC) for day in days]
    listings = []
    for at, ticker in enumerate(TICKERS):
        listing = Listing(ticker, f"{at:08d}-0000-4000-8000-000000000000")
        found = made(listing, "1_MIN", times)
        for odd in range(at, len(found), 20):
            good = found[odd]
            found[odd] = Candle(good.time, good.open, good.low - 1, good.low, Decimal(0), good.lots)
        listings.append(listing)

    def serve() -> TInvestServer:
        server = TInvestServer(listings)
        # The user's other programs take the rest: less than we would ask for in a minute.
        server.limits = {"MarketDataService": 120, "InstrumentsService": 40}
        return server

    return Market("tinvest", serve, "1m", begin, "GetCandles", base="/rest")


def bank_of_russia() -> Market:
    """Many currencies since 1992, in windows of four years, with records of closed days."""
    begin = dt.date(1992, 7, 1)
    days = [*get_calendar(CBR).between(begin, LAST)[::60], dt.date(2026, 6, 28)]
    tickers = tuple(f"C{number:02}" for number in range(48))
    currencies = {
        ticker: Currency(
            f"R{at:05}",
            {day: round((at + 1.5) * (1 + n / 100), 2) for n, day in enumerate(days)},
            10 ** (at % 4),
        )
        for at, ticker in enumerate(tickers)
    }

    def serve() -> CbrServer:
        server = CbrServer({}, currencies)
        server.burst = 10  # a second: what users measured
        return server

    turned_away = {Fault("html"): Fault("html", 403, body=GUARD)}
    return Market(
        "cbr", serve, "1d", begin, "XML_dynamic", tickers,
        faults=turned_away,
    )  # fmt: skip


MARKETS = {"moex": moex, "tinvest": t_invest, "cbr": bank_of_russia}


Ingest = Callable[..., dg.ExecuteInProcessResult]


@dataclass
class Calm:
    """A market, and the lake that calm weather leaves of it."""

    market: Market
    tables: Tables


class Clock:
    """Time that passes for those who wait, and at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        until = self._now + seconds
        with self._lock:
            self._now = max(self._now, until)


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    """The clock of the limits."""
    played = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "time", played)
        patch.setenv("TINVEST_TOKEN", TOKEN)
        yield played


@pytest.fixture(scope="module", params=MARKETS)
def calm(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    clock: Clock,
    ingest: Ingest,
) -> Calm:
    market = MARKETS[request.param]()
    with serving(market, clock) as server:
        settings = market.settings(tmp_path_factory.mktemp("calm"), server)
        assert ingest(settings).success
    found = ingested(settings)
    for name, table in found.items():
        assert table["ticker"].n_unique() == len(market.tickers), name
    return Calm(market, found)


@contextlib.contextmanager
def serving(market: Market, clock: Clock) -> Iterator[ApiServer]:
    with market.serve() as server:
        server.clock = clock.time
        yield server


@pytest.fixture(scope="module")
def ingest() -> Iterator[Ingest]:
    """Runs `candles` and `quarantine` over all of history, of all tickers or some."""
    with dg.DagsterInstance.ephemeral() as instance:

        def run(settings: Settings, tickers: Sequence[str] = ()) -> dg.ExecuteInProcessResult:
            return ingest_run.ingest(settings, instance, LAST, LAST, tickers)

        yield run


def assert_equal(found: Tables, wanted: Tables) -> None:
    for name, table in wanted.items():
        assert table.height
        assert found[name].equals(table), name


def assert_within_limits(server: ApiServer, settings: Settings) -> None:
    """Over any stretch of time, short or long.

    Turns are spaced evenly, and nobody sends before its turn. A thread may be late with one
    request, so that what comes within a stretch is its own turns, and one late request of each
    thread at most: that is the limiter's design, and more cannot be on any machine.
    """
    (own,) = settings.sources.values()
    assert server.most_beyond(own.requests_per_second) <= 1 + CONNECTIONS
    if isinstance(server, TInvestServer):
        assert server.refused_for_rate == 0, "in any minute as the API counts them"
        assert 0 <= server.least_left <= CONNECTIONS, "told to wait, and waited"


def test_a_storm_of_all_faults_leaves_the_lake_of_calm_weather(
    calm: Calm, clock: Clock, ingest: Ingest, tmp_path: Path
) -> None:
    market = calm.market
    with serving(market, clock) as server:
        settings = market.settings(tmp_path, server)
        weather = [market.faults.get(fault, fault) for fault in WEATHER]
        server.fail_at_random(SHARE, *weather, in_a_row=IN_A_ROW)
        assert ingest(settings).success
        assert len(server.seen) >= 1000
        assert {item.fault for item in server.seen} == {"", *(fault.kind for fault in FAULTS)}
        assert_within_limits(server, settings)
    assert_equal(ingested(settings), calm.tables)


def test_storms_of_each_fault_alone_leave_the_lake_of_calm_weather(
    calm: Calm, clock: Clock, ingest: Ingest, tmp_path: Path
) -> None:
    market = calm.market
    with serving(market, clock) as server:
        settings = market.settings(tmp_path, server)
        for fault, tickers in zip(FAULTS, market.groups(), strict=True):
            server.fail_at_random(SHARES[fault], market.faults.get(fault, fault), in_a_row=IN_A_ROW)
            before = len(server.seen)
            assert ingest(settings, tickers).success, fault
            met = [item.fault for item in server.seen[before:]]
            assert set(met) == {"", fault.kind}
        assert len(server.seen) >= 1000
        assert_within_limits(server, settings)
    assert_equal(ingested(settings), calm.tables)


def test_a_storm_that_is_too_much_fails_visibly_writes_nothing_and_is_gone_on_from(
    calm: Calm, clock: Clock, ingest: Ingest, tmp_path: Path
) -> None:
    market = calm.market
    first, second = market.groups()[:2]
    with serving(market, clock) as server:
        settings = market.settings(tmp_path, server, attempts=1)
        assert ingest(settings, first).success
        whole = len(server.seen)  # questions of a group: all groups have as many
        before = {name: Lake(settings.lake_dir).version(name) for name in calm.tables}

        server.fail_at_random(0.5, *EACH_FAULT, within=market.candles)
        failed = ingest(settings, second)
        assert not failed.success
        assert not failed.get_asset_materialization_events()
        (failure,) = [event for event in failed.all_node_events if event.is_step_failure]
        assert any(ticker in str(failure.event_specific_data) for ticker in second)
        assert {name: Lake(settings.lake_dir).version(name) for name in calm.tables} == before

        server.fail_at_random(0)
        asked = len(server.seen)
        assert ingest(settings, second).success
        assert len(server.seen) - asked < whole, "what it got before is not asked for again"
    wanted = {
        name: rows.filter(pl.col("ticker").is_in([*first, *second]))
        for name, rows in calm.tables.items()
    }
    assert_equal(ingested(settings), wanted)
