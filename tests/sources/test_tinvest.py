"""T-Invest's client against its server on loopback: each fact that is known of the API."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import logging
import re
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from api_server import EACH_FAULT, Fault
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tinvest_server import (
    CONTRACT,
    MOSCOW,
    PERIODS,
    TOKEN,
    Candle,
    Listing,
    TInvestServer,
    made,
)

from stock_assets.calendars import get_calendar
from stock_assets.errors import SourceError
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources import tinvest
from stock_assets.sources.fetching import fetch_slice, fetched_slice
from stock_assets.sources.making import make_source
from stock_assets.sources.tinvest_candles import INTERVALS, WINDOW_DAYS, spans
from stock_assets.sources.tinvest_instruments import read_symbol
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stock_assets.sources.rules import Judged

UID = "e6123145-9665-43e0-8413-cd61b8aa9b13"
FIGI = "BBG004730N88"
DAY = dt.timedelta(days=1)
FIRST, LAST = dt.date(2024, 3, 4), dt.date(2024, 3, 15)
SESSIONS = get_calendar("XMOS").between(FIRST, LAST)
REAL_A_MINUTE = dict(tinvest._A_MINUTE)


def at(day: dt.date, hour: int = 7, minute: int = 0) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute), dt.UTC)


def sber(**more: Any) -> Listing:
    listing = Listing("SBER", UID, FIGI, **more)
    made(listing, "DAY", [at(day) for day in SESSIONS])
    return listing


def others(count: int, times: Sequence[dt.datetime], interval: str = "DAY") -> list[Listing]:
    found = []
    for number in range(count):
        listing = Listing(f"T{number:03d}", f"{number:08d}-0000-4000-8000-000000000000")
        made(listing, interval, times)
        found.append(listing)
    return found


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINVEST_TOKEN", TOKEN)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API's limits would make minutes of these tests; those about limits set their own."""
    monkeypatch.setattr(tinvest, "_A_MINUTE", dict.fromkeys(REAL_A_MINUTE, 60_000))


@pytest.fixture
def server() -> Iterator[TInvestServer]:
    with TInvestServer([sber()]) as running:
        running.limits = dict.fromkeys(running.limits, 100_000)
        yield running


def settings_of(
    server: TInvestServer, folder: Path, *universe: dict[str, Any] | str, **source: Any
) -> Settings:
    entries = [{"ticker": item} if isinstance(item, str) else item for item in universe]
    own = {
        "kind": "tinvest", "base_url": server.rest, "first_wait": 0.01,
        "requests_per_second": 50, "timeout": 5, **source,
    }  # fmt: skip
    return Settings(
        lake={"path": folder},
        partitions={"first_day": FIRST},
        universe=[{"source": "tinvest", **item} for item in entries or [{"ticker": "SBER"}]],
        sources={"tinvest": own},
    )


def fetch(settings: Settings, first: dt.date | None = FIRST, last: dt.date = LAST) -> Judged:
    return fetch_slice(settings, Slice(first, last, settings.tickers))


def truth(listing: Listing, interval: str = "DAY") -> list[tuple[Any, ...]]:
    """What must come of the candles: daily ones labelled by their date, volume in shares."""
    rows = []
    for item in listing.candles[interval]:
        day = item.time.astimezone(MOSCOW).date()
        start = at(day, 0) if interval == "DAY" else item.time
        prices = (float(value) for value in (item.open, item.high, item.low, item.close))
        rows.append((day, start, *prices, float(item.lots * (listing.lot or 0))))
    return sorted(rows)


def numbers(found: Judged, ticker: str = "SBER") -> list[tuple[Any, ...]]:
    columns = ("day", "start", "open", "high", "low", "close", "volume")
    return found.candles.filter(pl.col("ticker") == ticker).select(columns).rows()


# How it is asked


def test_candles_are_asked_for_as_the_contract_says(server: TInvestServer, tmp_path: Path) -> None:
    fetch(settings_of(server, tmp_path))

    request = server.seen[-1]
    assert (request.method, request.path) == (
        "POST", f"/rest{CONTRACT}MarketDataService/GetCandles",
    )  # fmt: skip
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert "stock-assets" in request.headers["user-agent"]
    assert json.loads(request.body) == {
        "instrumentId": UID,
        "from": "2024-03-04T00:00:00Z",
        "to": "2024-03-15T12:00:00Z",
        "interval": "CANDLE_INTERVAL_DAY",
        "candleSourceType": "CANDLE_SOURCE_EXCHANGE",
    }


def test_the_address_is_the_documented_one_and_a_setting(
    server: TInvestServer, tmp_path: Path
) -> None:
    default = Settings(universe=[{"ticker": "SBER", "source": "tinvest"}]).sources["tinvest"]
    assert default.base_url == "https://invest-public-api.tbank.ru/rest"
    assert settings_of(server, tmp_path).sources["tinvest"].base_url == server.rest


@pytest.mark.parametrize("base_url", ["http://invest-public-api.tbank.ru/rest", "ftp://x/rest"])
def test_the_token_is_not_sent_over_an_open_road(
    server: TInvestServer, tmp_path: Path, base_url: str
) -> None:
    with pytest.raises(SourceError, match=r"\[sources.tinvest\] base_url is not https"):
        fetch(settings_of(server, tmp_path, base_url=base_url))


@pytest.mark.parametrize(
    ("symbol", "asked"),
    [
        ("", {"idType": "INSTRUMENT_ID_TYPE_TICKER", "id": "SBER", "classCode": "TQBR"}),
        ("SBER_TQBR", {"idType": "INSTRUMENT_ID_TYPE_TICKER", "id": "SBER", "classCode": "TQBR"}),
        (FIGI, {"idType": "INSTRUMENT_ID_TYPE_FIGI", "id": FIGI}),
        (UID, {"idType": "INSTRUMENT_ID_TYPE_UID", "id": UID}),
    ],
)
def test_a_symbol_is_a_ticker_with_or_without_its_board_a_figi_or_a_uid(
    server: TInvestServer, tmp_path: Path, symbol: str, asked: dict[str, str]
) -> None:
    found = fetch(settings_of(server, tmp_path, {"ticker": "SBER", "symbol": symbol}))
    assert server.asked("ShareBy") == [asked]
    assert numbers(found) == truth(server.listings[0])


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("GLDRUB_TOM", ("TICKER", "GLDRUB_TOM", "TQBR")),
        ("GLDRUB_TOM_CETS", ("TICKER", "GLDRUB_TOM", "CETS")),
        ("RU000A105EX7", ("TICKER", "RU000A105EX7", "TQBR")),
        ("TCS00A106YF0", ("FIGI", "TCS00A106YF0", "")),
        (UID.upper(), ("UID", UID.upper(), "")),
        ("SBER_TQBR", ("TICKER", "SBER", "TQBR")),
    ],
)
def test_what_looks_alike_is_told_apart(symbol: str, name: tuple[str, str, str]) -> None:
    found = read_symbol(symbol, "TQBR")
    assert (found.kind, found.text, found.class_code) == name


@pytest.fixture
def fund() -> list[Listing]:
    """A ticker on two boards, neither of a share."""
    boards = []
    for board, uid, lot in (("SPBXM", "1", 100), ("TQTF", "2", 1)):
        listing = Listing("TMOS", f"fund-{uid}", class_code=board, lot=lot, kind="etf")
        made(listing, "DAY", [at(day) for day in SESSIONS[int(uid) :]])
        boards.append(listing)
    return boards


def test_a_fund_is_found_among_all_boards_of_its_ticker(
    fund: list[Listing], tmp_path: Path
) -> None:
    with TInvestServer(fund) as server:
        settings = settings_of(server, tmp_path, {"ticker": "TMOS", "symbol": "TMOS_TQTF"})
        found = fetch(settings)
    assert numbers(found, "TMOS") == truth(fund[1])
    assert server.asked("FindInstrument") == [{"query": "TMOS"}]
    assert server.asked("GetCandles")[0]["instrumentId"] == "fund-2"


def test_a_ticker_that_is_on_other_boards_only_is_answered_with_them(
    fund: list[Listing], tmp_path: Path
) -> None:
    with (
        TInvestServer(fund) as server,
        pytest.raises(
            SourceError, match=r"TMOS: .* no instrument TMOS_TQBR.*TMOS_SPBXM, TMOS_TQTF"
        ),
    ):
        fetch(settings_of(server, tmp_path, "TMOS"))


@pytest.mark.parametrize("first", [None, FIRST])
def test_an_unknown_ticker_is_named_with_the_fix(
    server: TInvestServer, tmp_path: Path, first: dt.date | None
) -> None:
    with pytest.raises(SourceError, match=r"SBRE: .*knows no instrument SBRE_TQBR.*TICKER_CLASS"):
        fetch(settings_of(server, tmp_path, "SBRE", "SBER"), first)
    assert len(server.asked("FindInstrument")) == 1


def test_a_former_symbol_that_is_unknown_says_that_it_is_one(
    server: TInvestServer, tmp_path: Path
) -> None:
    formerly = [{"symbol": "OLD", "until": dt.date(2024, 3, 6)}]
    with pytest.raises(SourceError, match="OLD is a former symbol"):
        fetch(settings_of(server, tmp_path, {"ticker": "SBER", "formerly": formerly}))


def test_an_instrument_is_asked_for_once(tmp_path: Path) -> None:
    listing = Listing("SBER", UID)
    made(listing, "1_MIN", (at(day) for day in SESSIONS))
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path, interval="1m"))
    assert len(server.asked("ShareBy")) == 1
    assert len(server.asked("GetCandles")) == 12
    assert found.candles.height == len(SESSIONS)


@pytest.mark.parametrize(("own", "said", "used"), [(100, 10, 10), (100, None, 100), (7, 0, 7)])
def test_volume_is_in_lots_and_the_api_knows_their_size_best(
    tmp_path: Path, own: int, said: int | None, used: int
) -> None:
    listing = sber(lot=said)
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path, {"ticker": "SBER", "lot": own}))
    assert found.candles["volume"].to_list() == [
        item.lots * used for item in listing.candles["DAY"]
    ]


def test_without_any_lot_the_volume_is_not_guessed(tmp_path: Path) -> None:
    with (
        TInvestServer([sber(lot=None)]) as server,
        pytest.raises(SourceError, match=r"SBER: .*give the ticker's lot"),
    ):
        fetch(settings_of(server, tmp_path))


@pytest.mark.parametrize(("interval", "day"), [("1d", "2024-03-06"), ("1h", "2024-03-11")])
def test_history_begins_where_the_instruments_card_says(
    tmp_path: Path, interval: str, day: str
) -> None:
    # The second is half past midnight in Moscow.
    listing = sber(first_day="2024-03-06T07:00:00Z", first_minute="2024-03-10T21:30:00Z")
    with TInvestServer([listing]) as server:
        fetch(settings_of(server, tmp_path, interval=interval), None)
    start = dt.datetime.fromisoformat(server.asked("GetCandles")[0]["from"])
    assert start.astimezone(MOSCOW).date() == dt.date.fromisoformat(day)


@pytest.mark.parametrize("said", [None, "1970-01-01T00:00:00Z", "soon"])
def test_a_card_without_a_beginning_asks_for_one(tmp_path: Path, said: str | None) -> None:
    with TInvestServer([sber(first_day=said)]) as server:
        with pytest.raises(SourceError, match=r"SBER: .*give \[sources.tinvest\] begin"):
            fetch(settings_of(server, tmp_path), None)
        found = fetch(settings_of(server, tmp_path, begin=FIRST), None)
    assert numbers(found) == truth(server.listings[0])


# Intervals and windows


@pytest.mark.parametrize("interval", sorted(INTERVALS))
def test_each_interval_is_asked_for_within_its_period(tmp_path: Path, interval: str) -> None:
    name = INTERVALS[interval].removeprefix("CANDLE_INTERVAL_")
    last = LAST
    first = last - dt.timedelta(days=int(WINDOW_DAYS[interval] * 2.5))
    sessions = get_calendar("XMOS").between(first, last)
    listing = Listing("SBER", UID)
    hours = (8, 16) if interval != "1d" else (7,)
    made(listing, name, (at(day, hour) for day in sessions for hour in hours))
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path, interval=interval), first, last)
    assert numbers(found) == truth(listing, name)
    assert found.quarantine.is_empty()
    requests = server.asked("GetCandles")
    assert len(requests) >= 3
    assert {item["interval"] for item in requests} == {INTERVALS[interval]}
    for item in requests:
        start, end = (dt.datetime.fromisoformat(item[key]) for key in ("from", "to"))
        assert end - start <= PERIODS[name][0]


@pytest.mark.parametrize("interval", sorted(INTERVALS))
def test_a_windows_candles_fit_into_one_answer(interval: str) -> None:
    """Were they to be cut off at the API's `limit`, nothing would tell."""
    period, most = PERIODS[INTERVALS[interval].removeprefix("CANDLE_INTERVAL_")]
    count, unit = int(interval[:-1]), interval[-1]
    length = dt.timedelta(minutes=count * {"m": 1, "h": 60, "d": 1440}[unit])
    days = dt.timedelta(days=WINDOW_DAYS[interval])
    assert days <= period
    assert days / length <= most


DAYS = st.dates(dt.date(2000, 1, 1), dt.date(2026, 12, 31))


@given(first=DAYS, length=st.integers(0, 400), interval=st.sampled_from(sorted(INTERVALS)))
def test_spans_cover_the_windows_days_once_and_keep_to_the_period(
    first: dt.date, length: int, interval: str
) -> None:
    span = Window("SBER", "SBER", first, first + dt.timedelta(length))
    now = at(dt.date(2030, 1, 1))
    period = PERIODS[INTERVALS[interval].removeprefix("CANDLE_INTERVAL_")][0]
    found = [
        item for window in span.cut(WINDOW_DAYS[interval]) for item in spans(window, interval, now)
    ]
    assert all(start < end <= start + period for start, end in found)
    if interval == "1d":
        dates = [
            start.date() + dt.timedelta(n)
            for start, end in found
            for n in range((end.date() - start.date()).days + 1)
        ]
        assert dates == [first + dt.timedelta(n) for n in range(length + 1)]
        for start, end in found:
            assert start.astimezone(MOSCOW).date() == start.date()
            assert end.astimezone(MOSCOW).date() == end.date()
    else:
        bounds = [found[0][0], *(end for _, end in found)]
        assert [start for start, _ in found] == bounds[:-1]
        for moment, day in ((bounds[0], first), (bounds[-1], span.last + DAY)):
            assert moment.astimezone(MOSCOW).replace(tzinfo=None) == dt.datetime.combine(
                day, dt.time(0)
            )


@given(
    minutes=st.integers(0, 10 * 24 * 60),
    interval=st.sampled_from(sorted(INTERVALS)),
)
def test_nothing_of_the_future_is_asked_for(minutes: int, interval: str) -> None:
    now = at(FIRST, 0) + dt.timedelta(minutes=minutes)
    today = now.astimezone(MOSCOW).date()
    for start, end in spans(Window("SBER", "SBER", today, today), interval, now):
        assert start < end <= now


def test_a_day_of_25_hours_is_asked_for_in_two(tmp_path: Path) -> None:
    """On 2014-10-26 clocks were set back: more than the day that may be asked for at once."""
    sunday = dt.date(2014, 10, 26)
    listing = Listing("SBER", UID)
    # The first and the last minute of it, and the one where the two requests meet.
    midnight = at(sunday - DAY, 20)
    made(
        listing, "1_MIN",
        (midnight, midnight + DAY, midnight + DAY + dt.timedelta(minutes=59)),
    )  # fmt: skip
    with TInvestServer([listing]) as server:
        server.border = True
        settings = settings_of(server, tmp_path, interval="1m")
        raw = make_source("tinvest", settings, resume=False).fetch(
            settings.universe, Slice(sunday, sunday, ("SBER",))
        )
    assert len(server.asked("GetCandles")) == 2
    assert raw["start"].to_list() == [item.time for item in listing.candles["1_MIN"]]
    assert raw["day"].unique().to_list() == [sunday]


def test_candles_at_the_borders_of_windows_come_once(tmp_path: Path) -> None:
    listing = Listing("SBER", UID)
    midnights = [at(day - DAY, 21) for day in SESSIONS]
    made(listing, "5_MIN", sorted({*midnights, *(at(day) for day in SESSIONS)}))
    with TInvestServer([listing]) as server:
        server.border = True
        found = fetch(settings_of(server, tmp_path, interval="5m"))
    assert numbers(found) == truth(listing, "5_MIN")
    assert found.quarantine.is_empty()


def test_the_last_day_of_daily_candles_is_included_and_the_last_minute_of_others_not(
    server: TInvestServer, tmp_path: Path
) -> None:
    one = settings_of(server, tmp_path)
    made(server.listings[0], "HOUR", [at(FIRST, 20), at(FIRST, 21)])
    day = [FIRST]
    assert fetch(one, FIRST, FIRST).candles["day"].to_list() == day
    hours = fetch(settings_of(server, tmp_path, interval="1h"), FIRST, FIRST).candles
    assert hours["start"].to_list() == [at(FIRST, 20)]


def test_a_range_without_candles_is_empty_and_no_error(
    server: TInvestServer, tmp_path: Path
) -> None:
    weekend = dt.date(2024, 3, 9)
    assert fetch(settings_of(server, tmp_path), weekend, weekend + DAY).candles.is_empty()


def test_a_slice_that_ends_in_the_future_asks_up_to_now(
    server: TInvestServer, tmp_path: Path
) -> None:
    today = dt.datetime.now(tz=MOSCOW).date()
    for interval in ("1d", "1h"):
        settings = settings_of(server, tmp_path, interval=interval)
        fetch(settings, today - 3 * DAY, today + 30 * DAY)
    for request in server.asked("GetCandles"):
        assert dt.datetime.fromisoformat(request["to"]) <= dt.datetime.now(tz=dt.UTC)
    seen = len(server.seen)
    assert fetch(settings, today + 5 * DAY, today + 9 * DAY).candles.is_empty()
    assert len(server.seen) == seen


# What its rows mean


def test_the_recorded_candle_of_sber_is_read_to_the_kopeck(tmp_path: Path) -> None:
    """The hour from 12:00 UTC on 2021-03-01, as T-Invest gave it."""
    hour = at(dt.date(2021, 3, 1), 12)
    prices = (Decimal("271.75"), Decimal("272.7"), Decimal("271.5"), Decimal("272.54"))
    listing = Listing("SBER", UID, FIGI, candles={"HOUR": [Candle(hour, *prices, lots=171876)]})
    with TInvestServer([listing]) as server:
        settings = settings_of(server, tmp_path, interval="1h")
        found = fetch(settings, hour.date(), hour.date())
    assert numbers(found) == [(dt.date(2021, 3, 1), hour, 271.75, 272.7, 271.5, 272.54, 1718760.0)]


@pytest.mark.parametrize("hour", [7, 0, -3])
def test_a_daily_candle_is_of_its_date_whatever_hour_it_carries(tmp_path: Path, hour: int) -> None:
    """07:00Z was ten o'clock in Moscow, 00:00Z is newer; 21:00Z would be Moscow's midnight."""
    listing = Listing("SBER", UID)
    moments = [at(day, 0) + dt.timedelta(hours=hour) for day in SESSIONS]
    made(listing, "DAY", moments)
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path))
    wanted = SESSIONS if hour >= 0 else SESSIONS[1:]  # that of the first is of the day before
    assert found.candles["day"].to_list() == list(wanted)
    assert found.candles["start"].to_list() == [at(day, 0) for day in wanted]


def test_two_daily_candles_of_one_date_are_one_and_the_later_wins(tmp_path: Path) -> None:
    listing = Listing("SBER", UID)
    made(listing, "DAY", [at(FIRST, 0), at(FIRST, 7)])
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path))
    assert found.candles["open"].to_list() == [float(listing.candles["DAY"][1].open)]
    assert found.quarantine["reason"].str.contains("a later row").to_list() == [True]


def forming(candle: Candle) -> Candle:
    return Candle(
        candle.time, candle.open, candle.high, candle.low, candle.close, candle.lots,
        is_complete=False,
    )  # fmt: skip


def test_a_forming_daily_candle_never_comes_out(server: TInvestServer, tmp_path: Path) -> None:
    """Not even of a day that is long over by the clock: the API has the last word."""
    candles = server.listings[0].candles["DAY"]
    candles[-1] = forming(candles[-1])
    found = fetch(settings_of(server, tmp_path))
    assert numbers(found) == truth(server.listings[0])[:-1]
    assert found.quarantine.is_empty()
    assert found.held_back == 0


def test_of_a_day_with_a_forming_candle_nothing_comes_out(tmp_path: Path) -> None:
    listing = Listing("SBER", UID)
    times = [at(day, hour) for day in SESSIONS for hour in (7, 8, 9)]
    candles = made(listing, "HOUR", times)
    candles[-1] = forming(candles[-1])
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path, interval="1h"))
    assert numbers(found) == truth(listing, "HOUR")[:-3]
    assert found.quarantine.is_empty()


def rows_of(
    server: TInvestServer, folder: Path, *candles: object, interval: str = "1d"
) -> pl.DataFrame:
    """What the source makes of these candles in an answer."""
    source = make_source("tinvest", settings_of(server, folder, interval=interval))
    card = {"instrument": server.listings[0].card()}
    bodies = [json.dumps(card).encode(), json.dumps({"candles": candles}).encode()]
    return source.rows(Window("SBER", "SBER", FIRST, LAST), bodies)


def written(**more: Any) -> dict[str, Any]:
    price = {"units": "271", "nano": 750000000}
    whole = {
        **dict.fromkeys(("open", "high", "low", "close"), price), "volume": "5",
        "time": "2024-03-05T07:00:00Z", "isComplete": True,
    }  # fmt: skip
    return {key: value for key, value in {**whole, **more}.items() if value is not ...}


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, None),
        ({"candleSourceType": "CANDLE_SOURCE_EXCHANGE"}, None),
        ({"volume": 5}, None),
        ({"time": "2024-03-05T07:00:00.123456789Z"}, None),
        ({"isComplete": ...}, "isComplete: is missing"),
        ({"open": ...}, "open: is missing"),
        ({"low": {"units": "1", "nano": -5}}, "low: .*differ in sign"),
        ({"volume": "many"}, "volume: .*no whole number"),
        ({"volume": ...}, "volume: is missing"),
        ({"time": "yesterday"}, "time: 'yesterday' is no moment"),
        ({"time": "2024-03-05T07:00:00"}, "time: .* is no moment in UTC"),
        ({"time": "9999-12-31T23:59:59Z"}, "time: .* is no moment"),
        ({"time": ...}, "time: None is no moment"),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_its_row(
    server: TInvestServer, tmp_path: Path, more: dict[str, Any], fault: str | None
) -> None:
    candle = written(**more)
    found = rows_of(server, tmp_path, written(time="2024-03-04T07:00:00Z"), candle)
    assert found["fault"][0] is None
    assert json.loads(found["raw"][1]) == candle
    if fault is None:
        assert found["fault"][1] is None
        assert found.row(1)[:2] == (dt.date(2024, 3, 5), at(dt.date(2024, 3, 5), 0))
        assert found["volume"][1] == 50.0
    else:
        assert re.search(fault, found["fault"][1])


@pytest.mark.parametrize("candle", [None, 5, "x", [1]])
def test_a_row_that_is_no_candle_is_filed_with_the_row_before(
    server: TInvestServer, tmp_path: Path, candle: object
) -> None:
    found = rows_of(server, tmp_path, written(), candle)
    assert found["day"].to_list() == [dt.date(2024, 3, 5)] * 2
    assert found["fault"].to_list() == [None, "candle: is no object"]


def test_a_negative_price_keeps_its_sign_and_is_quarantined(tmp_path: Path) -> None:
    cent = Decimal("-0.01")
    candle = Candle(at(FIRST), Decimal(1), Decimal(2), cent, Decimal(1), lots=1)
    listing = Listing("SBER", UID, candles={"DAY": [candle]})
    with TInvestServer([listing]) as server:
        found = fetch(settings_of(server, tmp_path))
    assert found.candles.is_empty()
    assert found.quarantine["reason"].str.contains("low -0.01 is not above zero").all()
    raw = json.loads(found.quarantine["raw"][0])
    assert raw["low"] == {"units": "-0", "nano": -10000000}
    assert found.quarantine["file"].to_list() == ["GetCandles SBER_TQBR"]


def test_a_days_candles_are_final_once_the_evening_session_is_over(
    server: TInvestServer, tmp_path: Path
) -> None:
    source = make_source("tinvest", settings_of(server, tmp_path))
    assert source.settles_at("XMOS", LAST) == at(LAST, 21, 5)


# Refusals


@pytest.mark.parametrize("as_number", [False, True])
@pytest.mark.parametrize("status", [401, 400, 500])
def test_a_refused_token_is_final_and_says_what_to_do(
    server: TInvestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int,
    *, as_number: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("TINVEST_TOKEN", "t.another-token-than-theirs")
    server.token_status, server.code_as_number = status, as_number
    words = r"SBER: the token in TINVEST_TOKEN is wrong or has expired.*three months.*40003"
    with pytest.raises(SourceError, match=words):
        fetch(settings_of(server, tmp_path))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("code", "grpc", "said", "words"),
    [
        (40002, 7, "insufficient privileges", r"has no right to this.*read-only is enough"),
        (30014, 3, "The maximum request period", r"mistake of this program; report it.*30014"),
        (50002, 5, "Instrument not found", r"knows no instrument SBER_TQBR"),
        (12001, 12, "Method is unimplemented", r"mend \[sources.tinvest\] base_url"),
        (30070, 3, "`from` can't be", r"refused the request \(`from` can't be.*30070"),
        (0, 3, "odd", r"refused the request \(odd"),
        (0, 7, "denied", r"has no right to this"),
    ],
)
def test_a_final_refusal_is_explained_and_not_asked_again(
    server: TInvestServer, tmp_path: Path, code: int, grpc: int, said: str, words: str
) -> None:
    server.refuse = (code, grpc, said)
    with pytest.raises(SourceError, match=rf"source tinvest: SBER: .*{words}"):
        fetch(settings_of(server, tmp_path))
    assert len(server.asked("GetCandles")) == 1


@pytest.mark.parametrize(
    ("code", "grpc"),
    [(70001, 13), (70002, 13), (70003, 13), (80002, 8), (0, 14), (0, 4), (0, 13), (70001, 3)],
)
def test_internal_errors_and_limits_are_tried_again(
    server: TInvestServer, tmp_path: Path, code: int, grpc: int
) -> None:
    server.refuse, server.says_limits = (code, grpc, "later"), False
    with pytest.raises(SourceError, match=r"SBER.*was tried 3 times.*later"):
        fetch(settings_of(server, tmp_path, attempts=3))
    assert len(server.asked("GetCandles")) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_alone_that_passes_is_tried_again(
    server: TInvestServer, tmp_path: Path, status: int
) -> None:
    server.fail_next(Fault("status", status), Fault("status", status))
    assert numbers(fetch(settings_of(server, tmp_path))) == truth(server.listings[0])
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", 415), r"SBER.*answered 415"),
        (Fault("status", 404), r"SBER: .*mend \[sources.tinvest\] base_url"),
        (Fault("status", 401), r"SBER: the token in TINVEST_TOKEN is wrong"),
        (Fault("html", 403), r"SBER.*answered 403 .*DDOS-GUARD"),
    ],
)
def test_a_status_alone_that_stays_is_final(
    server: TInvestServer, tmp_path: Path, fault: Fault, words: str
) -> None:
    server.fail_next(fault)
    with pytest.raises(SourceError, match=words):
        fetch(settings_of(server, tmp_path))
    assert len(server.seen) == 1


def test_a_wrong_address_is_named(server: TInvestServer, tmp_path: Path) -> None:
    words = r"SBER: .*/rest/v2/.* is no method .* mend \[sources.tinvest\] base_url"
    with pytest.raises(SourceError, match=words):
        fetch(settings_of(server, tmp_path, base_url=f"{server.rest}/v2"))
    assert len(server.seen) == 1


def test_every_error_of_the_catalogue_is_final_or_tried_again(
    server: TInvestServer, tmp_path: Path, shared_data: Path
) -> None:
    catalogue = json.loads(
        (shared_data.parent / "apis" / "tinvest" / "api_errors.json").read_text(encoding="utf-8")
    )
    grpc_of = {
        "INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8,
        "FAILED_PRECONDITION": 9, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14,
        "UNAUTHENTICATED": 16,
    }  # fmt: skip
    server.says_limits = False
    source = make_source("tinvest", settings_of(server, tmp_path, attempts=2, first_wait=0))
    window = Window("SBER", "SBER", FIRST, LAST)
    with source.connect() as client:
        for code, entry in catalogue.items():
            server.refuse = (int(code), grpc_of[entry["type"]], entry["message"])
            seen = len(server.asked("GetCandles"))
            with pytest.raises(SourceError) as raised:
                source.ask(client, window)
            passing = entry["type"] in {"INTERNAL", "RESOURCE_EXHAUSTED"}
            assert len(server.asked("GetCandles")) - seen == (2 if passing else 1), (code, entry)
            assert passing or "SBER" in str(raised.value)
            assert code in str(raised.value) or code == "50002"
            assert entry["message"] in str(raised.value)


# Trouble


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [*EACH_FAULT, Fault("slow", seconds=0.6), Fault("trickle", seconds=0.01)],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
def test_trouble_once_changes_nothing(
    server: TInvestServer, tmp_path: Path, fault: Fault, place: int
) -> None:
    settings = settings_of(server, tmp_path, timeout=0.4)
    if place:  # at the candles instead of the instrument
        source = make_source("tinvest", settings)
        with source.connect() as client:
            source._look_up(client, Window("SBER", "SBER", FIRST, LAST))
            server.fail_next(fault)
            body = source.ask(client, Window("SBER", "SBER", FIRST, LAST))[-1]
        assert len(json.loads(body)["candles"]) == len(SESSIONS)
    else:
        server.fail_next(fault)
        assert numbers(fetch(settings)) == truth(server.listings[0])
    assert [item.fault for item in server.seen].count(fault.kind) == 1


@pytest.mark.parametrize(
    "body", ["{}", '{"candles": {}}', "[]", "null", '"x"', '{"candles": null}']
)
def test_json_that_is_no_answer_is_not_taken_for_emptiness(
    server: TInvestServer, tmp_path: Path, body: str
) -> None:
    settings = settings_of(server, tmp_path, attempts=2)
    source = make_source("tinvest", settings)
    window = Window("SBER", "SBER", FIRST, LAST)
    with source.connect() as client:
        source._look_up(client, window)
        server.fail_next(*[Fault("status", 200, body=body)] * 2)
        with pytest.raises(SourceError, match="not whole, or no answer to this"):
            source.ask(client, window)


def test_a_page_of_html_that_stays_is_told_as_one(server: TInvestServer, tmp_path: Path) -> None:
    server.fail_at_random(1.0, Fault("html"))
    with pytest.raises(SourceError, match=r"SBER.*text/html, not JSON .*DDOS-GUARD"):
        fetch(settings_of(server, tmp_path, attempts=2))


# Limits


def test_the_documented_limits_are_kept_without_being_told(
    server: TInvestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REAL_A_MINUTE == {"market data": 600, "instruments": 200}
    monkeypatch.setattr(tinvest, "_A_MINUTE", {"market data": 1200, "instruments": 600})
    server.says_limits = False
    listings = others(12, [at(day) for day in SESSIONS])
    server.listings = listings
    fetch(settings_of(server, tmp_path, *(item.ticker for item in listings), connections=8))
    for method, rate in (("GetCandles", 20), ("ShareBy", 10)):
        moments = [item.moment for item in server.seen if item.path.endswith(method)]
        assert len(moments) == 12
        assert moments[-1] - moments[0] >= 11 / rate - 0.05


@pytest.mark.slow
def test_the_last_requests_of_a_minute_are_left_alone(tmp_path: Path) -> None:
    """Told by each answer how many are left, it stops before the API has to refuse one."""
    listings = others(20, [at(day) for day in SESSIONS])
    with TInvestServer(listings, minute=1.5) as server:
        server.limits = {"MarketDataService": 12, "InstrumentsService": 1000}
        server.spoken_limit = True
        found = fetch(settings_of(server, tmp_path, *(item.ticker for item in listings)))
    assert server.refused_for_rate == 0
    assert found.candles.height == 20 * len(SESSIONS)
    moments = [item.moment for item in server.seen if item.path.endswith("GetCandles")]
    assert moments[-1] - moments[0] > 1.5


@pytest.mark.slow
def test_processes_hear_of_each_others_limits(server: TInvestServer, tmp_path: Path) -> None:
    server.limits["MarketDataService"] = 5  # the first answer leaves as many as may be under way
    server.minute = 6.0  # long enough for a busy machine to come that far within it
    while time.monotonic() % server.minute > 0.5:
        time.sleep(0.01)
    settings = settings_of(server, tmp_path)
    fetch(settings)
    with make_source("tinvest", settings).connect() as client:
        held = client.held_for("market data")
        assert held > 1.5
        assert client.held_for("instruments") < 1
    program = "import sys, time; from pathlib import Path\n" + textwrap.dedent("""\
        from stock_assets.sources.limits import RateLimit
        RateLimit(Path(sys.argv[1]), sys.argv[2], 1000).wait()
        print(time.time())
    """)
    until = time.time() + held
    limits = tmp_path / "fetched" / "limits"
    name = next(limits.glob("*-market data.held")).name.removesuffix(".held")
    said = subprocess.run(
        [sys.executable, "-c", program, str(limits), name],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert float(said.stdout) >= until - 0.1


def test_a_refusal_for_too_many_requests_waits_for_the_reset(
    server: TInvestServer, tmp_path: Path
) -> None:
    body = json.dumps({"code": 8, "message": "Request limit exceeded", "description": "80002"})
    server.fail_next(
        Fault("status", 429, body=body, headers=(("x-ratelimit-reset", "1"),)),
    )
    began = time.monotonic()
    assert numbers(fetch(settings_of(server, tmp_path))) == truth(server.listings[0])
    assert time.monotonic() - began >= 1.0
    assert server.seen[1].moment - server.seen[0].moment >= 1.0


@pytest.mark.parametrize("kind", ["drop", "cut"])
def test_what_is_left_is_heard_of_an_answer_that_breaks_off(
    server: TInvestServer, tmp_path: Path, kind: str
) -> None:
    server.limits = dict.fromkeys(server.limits, 3)  # fewer than connections
    source = make_source("tinvest", settings_of(server, tmp_path, attempts=1))
    with source.connect() as client:
        server.fail_next(Fault(kind))
        with pytest.raises(SourceError):
            source._look_up(client, Window("SBER", "SBER", FIRST, LAST))
        assert client.held_for("instruments") > 0


def test_a_probe_says_what_is_left(server: TInvestServer, tmp_path: Path) -> None:
    server.limits = {"MarketDataService": 600, "InstrumentsService": 200}
    server.spoken_limit = True
    source = make_source("tinvest", settings_of(server, tmp_path))
    with source.connect() as client:
        said = source.probe(client)
    assert said == (
        "the token is accepted; SBER_TQBR is SBER Inc.; 599 of 600 market data requests left this "
        "minute; 199 of 200 instruments requests left this minute"
    )


def test_a_probe_without_a_universe_of_its_own_asks_for_a_share_that_all_know(
    server: TInvestServer, tmp_path: Path
) -> None:
    sample = {"kind": "simulated"}
    own = settings_of(server, tmp_path).sources["tinvest"].model_dump()
    settings = Settings(
        lake={"path": tmp_path}, universe=[{"ticker": "AAA", "source": "sample"}],
        sources={"tinvest": own, "sample": sample},
    )  # fmt: skip
    source = make_source("tinvest", settings)
    with source.connect() as client:
        assert "SBER_TQBR" in source.probe(client)


# The token


@pytest.mark.parametrize(
    "value", [None, "", "  ", "t.short", "t.with a space in it", "т.кириллица"]
)
def test_without_a_token_it_says_how_to_set_one(
    server: TInvestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TINVEST_TOKEN")
    if value is not None:
        monkeypatch.setenv("MY_TOKEN", value)
    with pytest.raises(
        SourceError, match=r"source tinvest: .*MY_TOKEN .*export MY_TOKEN="
    ) as raised:
        fetch(settings_of(server, tmp_path, token_variable="MY_TOKEN"))
    assert not server.seen
    assert not value or not value.strip() or value not in str(raised.value)


def test_a_token_read_from_a_file_may_end_with_its_line(
    server: TInvestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINVEST_TOKEN", f"{TOKEN}\r\n")
    assert numbers(fetch(settings_of(server, tmp_path))) == truth(server.listings[0])


def everything_in(folder: Path) -> bytes:
    """All that is on disk, unpacked where it is packed."""
    found = b""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            found += file.name.encode() + file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    found += b"".join(packed.read(name) for name in packed.namelist())
    return found


def told(error: BaseException) -> str:
    """An error with all that it came from, and the locals' reprs a debugger would show."""
    return "".join(traceback.TracebackException.from_exception(error).format()) + repr(error)


def test_the_token_is_in_no_log_error_repr_or_file(
    server: TInvestServer, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    settings = settings_of(server, tmp_path, keep_raw=True, attempts=2)
    texts = [repr(settings), str(settings)]
    source = make_source("tinvest", settings)
    client = source.connect()
    texts += [repr(source), repr(client), repr(vars(source)), repr(client._http.headers)]
    client.close()
    with fetched_slice(settings, Slice(FIRST, LAST, ("SBER",))):
        texts.append(everything_in(tmp_path).decode("latin-1"))  # while pieces are there
    # Now an API that repeats what it was sent: refused, refused for good, and as an answer.
    server.echo = True
    repeating = Fault("status", 200, body=json.dumps({"instrument": TOKEN, "candles": [TOKEN]}))
    for trouble in ((70001, 13, "internal"), (40002, 7, "no"), (30061, 3, "odd")):
        server.refuse = trouble
        with pytest.raises(SourceError, match=re.escape("[secret]")) as raised:
            fetch(settings)
        texts.append(told(raised.value))
    server.refuse = None
    server.fail_next(repeating, repeating)
    with pytest.raises(SourceError) as raised:
        fetch(settings)
    texts.append(told(raised.value))
    server.fail_next(Fault("status", 302, headers=(("Location", f"/?token={TOKEN}"),)))
    with pytest.raises(SourceError) as raised:
        fetch(settings)
    texts.append(told(raised.value))

    assert any(record.name.startswith("httpcore") for record in caplog.records)
    assert any(record.name.startswith("httpx") for record in caplog.records)
    assert any(record.name.startswith("stock_assets") for record in caplog.records)
    texts += [caplog.text, *map(repr, caplog.records), *capfd.readouterr()]
    texts += [str(vars(record)) for record in caplog.records]
    texts.append(everything_in(tmp_path).decode("latin-1"))
    assert "[secret]" in caplog.text
    assert not [text for text in texts if TOKEN in text or TOKEN[4:-4] in text]


def test_a_quarantined_row_that_repeats_the_token_is_stored_without_it(
    server: TInvestServer, tmp_path: Path
) -> None:
    source = make_source("tinvest", settings_of(server, tmp_path))
    window = Window("SBER", "SBER", FIRST, LAST)
    body = json.dumps({"candles": [written(comment=TOKEN)]})
    with source.connect() as client:
        source._look_up(client, window)
        server.fail_next(Fault("status", 200, body=body))
        bodies = source.ask(client, window)
    assert source.rows(window, bodies)["raw"].str.contains_any(["[secret]"]).all()
    assert TOKEN.encode() not in b"".join(bodies)


# Certificates


def certificates(folder: Path) -> tuple[Path, Any]:
    """An authority's PEM file, and a server's context with a certificate that it signed."""

    def sign(
        name: str, key: Any, issuer: str, signer: Any, *extensions: tuple[Any, bool]
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = dt.datetime.now(tz=dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
            )
        )
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA256())

    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = sign(
        "Own Root CA", root_key, "Own Root CA", root_key,
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), True),
    )  # fmt: skip
    own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = sign("127.0.0.1", key, "Own Root CA", root_key, (own, False))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + leaf.public_bytes(pem))
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "root.pem", context


def test_an_unknown_authority_is_trusted_by_a_setting_only(tmp_path: Path) -> None:
    root, context = certificates(tmp_path)
    with TInvestServer([sber()], ssl_context=context) as server:
        assert server.rest.startswith("https")
        words = r"SBER.*certificate of .*give its PEM file as \[sources.tinvest\] ca_bundle"
        began = time.monotonic()
        with pytest.raises(SourceError, match=words):
            fetch(settings_of(server, tmp_path, first_wait=5))
        assert time.monotonic() - began < 3  # not tried again
        assert not server.seen  # the token was not sent
        found = fetch(settings_of(server, tmp_path, ca_bundle=root))
        assert numbers(found) == truth(server.listings[0])


def test_the_usual_authorities_stay_trusted_beside_ones_own(
    server: TInvestServer, tmp_path: Path
) -> None:
    root, _ = certificates(tmp_path)
    usual = make_source("tinvest", settings_of(server, tmp_path))._trusted()
    more = make_source("tinvest", settings_of(server, tmp_path, ca_bundle=root))._trusted()
    assert usual is True
    assert isinstance(more, ssl.SSLContext)
    assert (more.verify_mode, more.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert more.cert_store_stats()["x509_ca"] > 50


@pytest.mark.parametrize("content", [None, b"", b"not a certificate", b"\xff\xfe"])
def test_a_bundle_that_cannot_be_read_is_named(
    server: TInvestServer, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=r"\[sources.tinvest\] ca_bundle: .*bundle.pem"):
        fetch(settings_of(server, tmp_path, ca_bundle=file))


# Killed


@pytest.mark.slow
def test_a_killed_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    listings = others(10, [at(day) for day in SESSIONS], "1_MIN")
    tickers = [item.ticker for item in listings]
    program = textwrap.dedent("""\
        import datetime as dt, json, sys
        from stock_assets.settings import Settings
        from stock_assets.slices import Slice
        from stock_assets.sources.fetching import fetched_slice
        settings = Settings(**json.loads(sys.argv[1]))
        area = Slice(dt.date(2024, 3, 4), dt.date(2024, 3, 15), settings.tickers)
        with fetched_slice(settings, area):
            print("whole")
    """)
    with TInvestServer(listings) as server:
        server.limits = dict.fromkeys(server.limits, 100_000)
        settings = settings_of(server, tmp_path, *tickers, interval="1m", requests_per_second=40)
        given = settings.model_dump(mode="json", include={"lake", "partitions", "sources"})
        given["universe"] = [{"ticker": name, "source": "tinvest"} for name in tickers]
        child = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(given)], stdout=subprocess.PIPE
        )
        folder = tmp_path / "fetched" / "tinvest"
        while len(list(folder.glob("*.zip"))) < 20:
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.communicate()[0] == b""
        time.sleep(0.3)
        finished = len(list(folder.glob("*.zip")))
        before = [window_of(item) for item in server.asked("GetCandles")]
        with fetched_slice(settings, Slice(FIRST, LAST, settings.tickers)) as found:
            after = [window_of(item) for item in server.asked("GetCandles")[len(before) :]]
    assert 20 <= finished < 120
    assert len(after) == 120 - finished
    assert len(set(before) & set(after)) <= 4  # those under way when it died
    for listing in listings:
        assert numbers(found, listing.ticker) == truth(listing, "1_MIN")
    assert not list(folder.glob("*.zip"))


def window_of(request: dict[str, Any]) -> tuple[str, str]:
    return request["instrumentId"], request["from"]


def test_threads_wait_for_one_look_up(server: TInvestServer, tmp_path: Path) -> None:
    source = make_source("tinvest", settings_of(server, tmp_path))
    server.fail_next(Fault("slow", seconds=0.2))
    window = Window("SBER", "SBER", FIRST, LAST)
    found = []
    with source.connect() as client:
        threads = [
            threading.Thread(target=lambda: found.append(source._look_up(client, window)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    assert len(server.seen) == 1
