"""MOEX ISS by its contract: each recorded or documented fact of the API, and what the client does.

docs/sources/moex.md lists the facts with these tests' names.
"""

from __future__ import annotations

import datetime as dt
import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from api_server import EACH_FAULT, ApiServer, Fault
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from moex_server import CANDLE_COLUMNS, PAGE, Iss, Listing, candle, daily, moex_settings
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from stock_assets.calendars import get_calendar
from stock_assets.errors import SourceError
from stock_assets.lake.splits import Split
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice, fetched_slice
from stock_assets.sources.http import Answer
from stock_assets.sources.iss import tables_of
from stock_assets.sources.moex import MoexSource
from stock_assets.sources.moex_boards import Board, Span, main_boards, one_a_day
from stock_assets.sources.moex_calendar import calendar_differences, in_words, trading_days
from stock_assets.sources.moex_splits import as_traded, is_rewritten
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Build = Callable[..., Settings]

DAY = dt.date(2024, 6, 3)
LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
XMOS = get_calendar("XMOS")
MOSCOW = ZoneInfo("Europe/Moscow")
YEARS = (dt.datetime.fromisoformat("2005-01-01"), dt.datetime.fromisoformat("2026-12-31"))


class Direct:
    """Asks an `Iss` without a network: for what needs hundreds of fetches."""

    def __init__(self, iss: Iss) -> None:
        self.iss = iss
        self.asked: list[tuple[str, dict[str, str]]] = []

    def send(self, method: str, path: str, read: Any, *, params: dict[str, str], **_: Any) -> Any:
        self.asked.append((path, params))
        made = EnvironBuilder(path=f"/iss{path}", method=method, query_string=params)
        response = self.iss.answer(Request(made.get_environ()))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return read(Answer(path, response.status_code, headers, response.get_data()))


@pytest.fixture
def iss() -> Iss:
    """SBER on TQBR, with a candle on each session of June 2024."""
    days = XMOS.between(dt.date(2024, 6, 3), dt.date(2024, 6, 28))
    return Iss({"SBER": [tqbr(daily(days))]})


def tqbr(candles: list[Any], interval: int = 24, **more: Any) -> Listing:
    first = candles[0][6][:10] if candles else None
    return Listing("TQBR", {interval: candles}, is_primary=1, history_from=first, **more)


@pytest.fixture
def server(iss: Iss) -> Iterator[ApiServer]:
    with iss.serve() as served:
        yield served


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def built(url: str, *tickers: str, universe: Any = None, **own: Any) -> Settings:
        every = [{"ticker": item, "source": "moex"} for item in tickers or ("SBER",)]
        return moex_settings(tmp_path / "lake", url, universe or every, **own)

    return built


def source_of(settings: Settings) -> MoexSource:
    own: Any = settings.sources["moex"]
    return MoexSource("moex", own, settings, resume=False)


def window(first: dt.date | None, last: dt.date, symbol: str = "SBER") -> Window:
    return Window(symbol, symbol, first, last)


def june(*tickers: str) -> Slice:
    return Slice(dt.date(2024, 6, 3), dt.date(2024, 6, 28), tickers or ("SBER",))


def closes(frame: pl.DataFrame) -> dict[dt.date, float]:
    return dict(frame.select("day", "close").iter_rows())


def answering(body: bytes, content_type: str = "application/json; charset=utf-8") -> ApiServer:
    return ApiServer(lambda _: Response(body, content_type=content_type))


# What a candle is.


def test_columns_are_taken_by_name_in_any_order(build: Build) -> None:
    columns = ["begin", "volume", "low", "high", "close", "open", "value", "new"]
    row = [f"{DAY} 00:00:00", 700, 1, 4, 3, 2, 2000.5, "?"]
    body = json.dumps({"candles": {"columns": columns, "data": [row]}}).encode()
    found = source_of(build("http://unused")).rows(window(DAY, DAY), [body])
    assert found.select("open", "high", "low", "close", "volume").row(0) == (2, 4, 1, 3, 700)


def test_numbers_come_as_ints_and_floats(build: Build) -> None:
    row = [231, 229.5, 270.8, 200, 229515686974.59998, 919822790, f"{DAY} 00:00:00", None]
    body = json.dumps({"candles": {"columns": CANDLE_COLUMNS, "data": [row]}}).encode()
    found = source_of(build("http://unused")).rows(window(DAY, DAY), [body])
    assert found.select("open", "close", "volume").row(0) == (231.0, 229.5, 919822790.0)
    assert found["fault"].to_list() == [None]


@pytest.mark.parametrize("interval", ["1m", "10m", "1h", "1d"])
def test_interval_is_always_sent_as_iss_numbers_it(
    build: Build, iss: Iss, server: ApiServer, interval: str
) -> None:
    number = {"1m": 1, "10m": 10, "1h": 60, "1d": 24}[interval]
    begin = f"{DAY} {'00' if interval == '1d' else '10'}:00:00"
    iss.securities["SBER"] = [tqbr([candle(begin, 100.0)], number)]
    found = fetch_slice(build(server.url, interval=interval), june(), now=LATE)
    assert found.candles["interval"].to_list() == [interval]
    asked = [item.query["interval"] for item in server.seen if "/candles.json" in item.path]
    assert set(asked) == {str(number)}


@pytest.mark.parametrize(
    ("begin", "hour"),
    [
        ("2010-12-15 10:00:00", 7),  # winter time, UTC+3
        ("2011-03-28 10:00:00", 6),  # UTC+4 for good, as was thought
        ("2012-01-16 10:00:00", 6),
        ("2014-10-24 10:00:00", 6),  # the last session of UTC+4
        ("2014-10-27 10:00:00", 7),  # UTC+3 ever since
        ("2024-06-03 10:00:00", 7),
    ],
)
def test_begin_is_moscow_time_of_its_day(build: Build, begin: str, hour: int) -> None:
    day = dt.date.fromisoformat(begin[:10])
    found = read_one(source_of(build("http://unused", interval="1h")), day, begin)
    assert found["start"].item() == dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)
    assert found["day"].item() == day


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    moment=st.datetimes(*YEARS).map(
        lambda moment: moment.replace(hour=6 + moment.hour % 18, second=0, microsecond=0)
    )
)
def test_every_trading_hour_is_the_instant_that_the_zone_says(moment: dt.datetime) -> None:
    settings = Settings(
        universe=[{"ticker": "SBER", "source": "moex"}],
        sources={"moex": {"kind": "moex", "interval": "1m"}},
    )
    found = read_one(source_of(settings), moment.date(), str(moment))
    assert found["start"].item() == moment.replace(tzinfo=MOSCOW).astimezone(dt.UTC)
    assert found["day"].item() == moment.date()


def read_one(source: MoexSource, day: dt.date, begin: str) -> pl.DataFrame:
    row = [2, 3, 4, 1, 10.0, 5, begin, None]
    body = json.dumps({"candles": {"columns": CANDLE_COLUMNS, "data": [row]}}).encode()
    return source.rows(window(day, day), [body])


def test_a_time_that_moscow_never_had_is_a_fault_of_its_day(build: Build) -> None:
    day = dt.date(2011, 3, 27)
    found = read_one(source_of(build("http://unused", interval="1h")), day, f"{day} 02:30:00")
    assert found["start"].to_list() == [None]
    assert found["fault"].item() == "begin '2011-03-27 02:30:00' is no time of Moscow"


def test_a_daily_candle_is_labelled_with_its_day(build: Build, server: ApiServer) -> None:
    found = fetch_slice(build(server.url), Slice(DAY, DAY, ("SBER",)), now=LATE)
    assert found.candles["start"].item() == dt.datetime(2024, 6, 3, tzinfo=dt.UTC)
    assert found.candles["day"].item() == DAY


def test_what_end_says_does_not_matter(build: Build, iss: Iss, server: ApiServer) -> None:
    for place, row in enumerate(iss.securities["SBER"][0].candles[24]):
        row[7] = [None, "", "2031-01-01 00:00:00", "2024-06-05 23:59:57"][place % 4]
    iss.securities["SBER"][0].candles[24][-1][7] = "2024-06-28 23:59:59"  # of candleborders
    found = fetch_slice(build(server.url), june(), now=LATE)
    assert found.candles.height == len(XMOS.between(june().first_date or DAY, june().last_date))


def test_volume_is_in_shares_whatever_the_lot(build: Build, server: ApiServer) -> None:
    universe = [{"ticker": "SBER", "source": "moex", "lot": 10}]
    settings = build(server.url, universe=universe)
    found = fetch_slice(settings, Slice(DAY, DAY, ("SBER",)), now=LATE)
    assert found.candles["volume"].item() == 100


def test_a_missing_volume_is_a_candle_without_volume(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    rows = iss.securities["SBER"][0].candles[24]
    rows[0][5] = None
    rows[1][5] = float("nan")
    found = fetch_slice(build(server.url), june(), now=LATE)
    assert found.candles["volume"].to_list()[:3] == [None, None, 100.0]
    assert found.quarantine.is_empty()


def test_a_row_with_a_missing_or_odd_price_is_kept_in_quarantine_as_it_came(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    rows = iss.securities["SBER"][0].candles[24]
    rows[0][1] = None
    rows[1][2] = float("nan")
    rows[2][0] = "n/a"
    rows[3][5] = "many"
    found = fetch_slice(build(server.url), june(), now=LATE)
    assert found.quarantine["reason"].to_list() == [
        "close is missing",
        "high 'nan' is not a number",
        "open 'n/a' is not a number",
        "volume 'many' is not a number",
    ]
    assert found.quarantine["file"].unique().to_list() == ["SBER/candles"]
    assert found.candles.height + 4 == len(rows)
    body = json.dumps({"candles": {"columns": CANDLE_COLUMNS, "data": rows}}).encode()
    parsed = source_of(build(server.url)).rows(window(DAY, dt.date(2024, 6, 28)), [body])
    assert parsed["fault"].to_list()[:5] == [*found.quarantine["reason"].to_list(), None]
    assert json.loads(found.quarantine["raw"][2]) == dict(zip(CANDLE_COLUMNS, rows[2], strict=True))


def test_a_row_without_a_readable_begin_goes_with_the_row_before(build: Build) -> None:
    rows = [candle(f"{DAY} 00:00:00", 100.0), candle(f"{DAY} 00:00:00", 101.0)]
    rows[1][6] = "yesterday"
    body = json.dumps({"candles": {"columns": CANDLE_COLUMNS, "data": rows}}).encode()
    found = source_of(build("http://unused")).rows(window(DAY, DAY), [body])
    assert found["day"].to_list() == [DAY, DAY]
    assert found["fault"].to_list() == [None, "begin 'yesterday' is no time of Moscow"]


def test_a_session_of_a_weekend_is_kept_aside_with_the_reason(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    sunday = dt.date(2025, 6, 1)
    iss.securities["SBER"] = [tqbr(daily([sunday, sunday + dt.timedelta(1)]))]
    area = Slice(sunday, sunday + dt.timedelta(1), ("SBER",))
    found = fetch_slice(build(server.url), area, now=LATE)
    assert found.candles["day"].to_list() == [dt.date(2025, 6, 2)]
    assert "Sunday 2025-06-01 is not a session of XMOS" in found.quarantine["reason"].item()


# Which candles are asked for.


def test_bounds_are_days_and_both_included(build: Build, server: ApiServer) -> None:
    first, last = dt.date(2024, 6, 4), dt.date(2024, 6, 6)
    found = fetch_slice(build(server.url), Slice(first, last, ("SBER",)), now=LATE)
    assert list(closes(found.candles)) == [first, dt.date(2024, 6, 5), last]
    pages = [item.query for item in server.seen if item.path.endswith("/candles.json")]
    assert {(page["from"], page["till"]) for page in pages} == {("2024-06-04", "2024-06-06")}


def test_the_last_day_of_an_intraday_window_is_whole(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    rows = [candle(f"{DAY} {hour:02d}:00:00", 100.0 + hour, minutes=60) for hour in range(7, 24)]
    iss.securities["SBER"] = [tqbr(rows, 60)]
    settings = build(server.url, interval="1h")
    found = fetch_slice(settings, Slice(DAY, DAY, ("SBER",)), now=LATE)
    assert found.candles.height == 17
    assert found.candles["start"].max() == dt.datetime(2024, 6, 3, 20, tzinfo=dt.UTC)


def test_a_live_slice_asks_for_the_boards_once_and_for_pages(
    build: Build, server: ApiServer
) -> None:
    """Of a day on today's board, nothing else has to be known."""
    day = dt.date(2024, 6, 28)
    fetch_slice(build(server.url), Slice(day, day, ("SBER",)), now=LATE)
    assert [item.path.rpartition("/")[2] for item in server.seen] == [
        "SBER.json",
        "candles.json",
        "candles.json",
        "splits.json",
    ]


def test_a_polite_name_is_sent_and_answers_may_be_packed(build: Build, server: ApiServer) -> None:
    fetch_slice(build(server.url), june(), now=LATE)
    for seen in server.seen:
        assert "stock-assets" in seen.headers["user-agent"]
        assert "gzip" in seen.headers["accept-encoding"]
        assert seen.query["iss.meta"] == "off"


# Pages.


def minutes(count: int) -> list[Any]:
    first = dt.datetime.fromisoformat("2024-06-03 07:00:00")
    return [
        candle(str(first + dt.timedelta(minutes=place)), 100.0 + place, minutes=1)
        for place in range(count)
    ]


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    count=st.one_of(
        st.sampled_from([0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1]),
        st.integers(0, 3 * PAGE),
    ),
    cursor=st.booleans(),
    repeats_border=st.booleans(),
)
def test_pages_are_read_until_an_empty_one_and_each_candle_once(
    *, count: int, cursor: bool, repeats_border: bool
) -> None:
    rows = minutes(count)
    listing = Listing("TQBR", {1: rows}, is_primary=1, history_from="2020-01-01")
    iss = Iss({"SBER": [listing]}, cursor=cursor, repeats_border=repeats_border)
    settings = Settings(
        universe=[{"ticker": "SBER", "source": "moex"}],
        sources={"moex": {"kind": "moex", "interval": "1m"}},
    )
    source = source_of(settings)
    last = DAY + dt.timedelta(2)
    direct = Direct(iss)
    found = source.rows(window(DAY, last), source.ask(direct, window(DAY, last)))
    assert found["close"].to_list() == [row[1] for row in rows]
    starts = [int(asked["start"]) for path, asked in direct.asked if "candles.json" in path]
    assert starts == sorted(set(starts))
    if not cursor:
        assert starts[-1] >= count  # the last page was empty


def test_a_cursor_spares_the_empty_page(build: Build, iss: Iss, server: ApiServer) -> None:
    iss.cursor = True
    found = fetch_slice(build(server.url), june(), now=LATE)
    assert found.candles.height == len(iss.securities["SBER"][0].candles[24])
    assert sum(item.path.endswith("/candles.json") for item in server.seen) == 1


def test_an_empty_page_before_the_end_that_the_cursor_names_is_asked_again(
    build: Build, iss: Iss
) -> None:
    iss.cursor = True
    rows = iss.securities["SBER"][0].candles[24]
    missing = {"candles": {"columns": CANDLE_COLUMNS, "data": []},
               "candles.cursor": {"columns": ["INDEX", "TOTAL", "PAGESIZE"],
                                  "data": [[0, len(rows), PAGE]]}}  # fmt: skip
    pages = 0

    def answer(request: Request) -> Response:
        nonlocal pages
        pages += request.path.endswith("/candles.json")
        if pages == 1:
            return Response(json.dumps(missing), content_type="application/json")
        return iss.answer(request)

    with ApiServer(answer) as server:
        assert fetch_slice(build(server.url), june(), now=LATE).candles.height == len(rows)


def test_a_candle_that_appears_or_changes_between_two_pages_counts_as_it_was_last(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    rows = minutes(PAGE + 3)
    late = rows.pop()
    iss.securities["SBER"] = [tqbr(rows, 1)]
    iss.repeats_border = True

    def later(start: int) -> None:
        if start == 0:
            rows.append(late)
            rows[PAGE - 1][1] += 0.5  # sent already, and repeated on the next page

    iss.page_sent = later
    area = Slice(DAY, DAY, ("SBER",))
    found = fetch_slice(build(server.url, interval="1m"), area, now=LATE)
    assert found.quarantine.is_empty()
    assert found.candles["close"].to_list() == [row[1] for row in rows]
    assert found.candles.height == PAGE + 3


def test_pages_that_repeat_for_ever_are_an_error(build: Build, iss: Iss, server: ApiServer) -> None:
    iss.ignores_start = True
    with pytest.raises(SourceError, match=r"ticker SBER: .* sends the same candles again"):
        fetch_slice(build(server.url), june(), now=LATE)
    assert len(server.seen) < 5


# Instruments and their boards.


def test_an_unknown_ticker_is_an_error_that_says_what_to_do(
    build: Build, server: ApiServer
) -> None:
    with pytest.raises(SourceError) as caught:
        fetch_slice(build(server.url, "SBERR"), june("SBERR"), now=LATE)
    said = str(caught.value)
    assert "source moex: ticker SBERR: MOEX ISS knows no security 'SBERR'" in said
    assert 'symbol = "..."' in said
    assert not [item for item in server.seen if "candles" in item.path]


def test_a_symbol_stands_for_the_ticker(build: Build, server: ApiServer) -> None:
    universe = [{"ticker": "SBERBANK", "source": "moex", "symbol": "SBER"}]
    settings = build(server.url, universe=universe)
    found = fetch_slice(settings, june("SBERBANK"), now=LATE)
    assert found.candles["ticker"].unique().to_list() == ["SBERBANK"]


def test_a_known_security_without_candles_is_no_error(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    iss.securities["KSGR"] = [tqbr([])]
    for area in (june("KSGR"), Slice(None, june().last_date, ("KSGR",))):
        found = fetch_slice(build(server.url, "KSGR"), area, now=LATE)
        assert found.candles.is_empty()
        assert found.quarantine.is_empty()


def test_a_security_without_a_main_board_is_an_error(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    iss.securities["SBER"] = [Listing("RPMO", market="repo", group=201)]
    with pytest.raises(SourceError, match="ticker SBER: MOEX ISS lists SBER on no main board"):
        fetch_slice(build(server.url), june(), now=LATE)


def test_boards_tell_engine_and_market(build: Build, iss: Iss, server: ApiServer) -> None:
    days = XMOS.between(DAY, dt.date(2024, 6, 28))
    iss.securities["IMOEX"] = [
        Listing("SNDX", {24: daily(days)}, 9, "stock", "index", 1, "1997-09-22")
    ]
    found = fetch_slice(build(server.url, "IMOEX"), june("IMOEX"), now=LATE)
    assert found.candles.height == len(days)
    pages = {item.path for item in server.seen if item.path.endswith("/candles.json")}
    assert pages == {"/iss/engines/stock/markets/index/boards/SNDX/securities/IMOEX/candles.json"}


@pytest.fixture
def two_boards(iss: Iss) -> Iss:
    """SBER as recorded: EQBR to August 2013, TQBR from March, odd lots all the time."""
    eqbr = XMOS.between(dt.date(2011, 11, 21), dt.date(2013, 8, 30))
    today = XMOS.between(dt.date(2013, 3, 25), dt.date(2013, 12, 30))
    every = XMOS.between(dt.date(2011, 11, 21), dt.date(2013, 12, 30))
    iss.securities["SBER"] = [
        Listing("SMAL", {24: daily(every, 9000)}, 21, history_from="2011-11-21",
                history_till="2013-12-30"),
        Listing("EQBR", {24: daily(eqbr, 1000)}, 6, history_from="2011-11-21",
                history_till="2013-08-30"),
        Listing("TQBR", {24: daily(today, 5000)}, 57, is_primary=1, history_from="2013-03-25",
                history_till="2013-12-30"),
    ]  # fmt: skip
    return iss


def test_history_is_whole_over_the_boards_and_no_day_comes_twice(
    build: Build, two_boards: Iss, server: ApiServer
) -> None:
    assert len(two_boards.securities["SBER"]) == 3
    settings = build(server.url)
    found = fetch_slice(settings, Slice(None, dt.date(2013, 12, 30), ("SBER",)), now=LATE)
    assert found.quarantine.is_empty()
    days = found.candles["day"].to_list()
    assert days == list(XMOS.between(dt.date(2011, 11, 21), dt.date(2013, 12, 30)))
    for day, close in closes(found.candles).items():
        assert (1000 <= close < 5000) == (day < dt.date(2013, 3, 25)), day


def test_candles_of_a_board_count_where_they_reach_further_than_its_listing(
    build: Build, two_boards: Iss, server: ApiServer
) -> None:
    """Seen live: TQBR answers with candles of years before there was a TQBR."""
    every = XMOS.between(dt.date(2007, 7, 20), dt.date(2013, 12, 30))
    two_boards.securities["SBER"][2].candles[24] = daily(every, 5000)
    settings = build(server.url)
    found = fetch_slice(settings, Slice(None, dt.date(2013, 12, 30), ("SBER",)), now=LATE)
    assert found.candles["day"].to_list() == list(every)
    assert found.candles["close"].min() == 5000


def test_candleborders_tell_where_an_interval_begins(
    build: Build, two_boards: Iss, server: ApiServer
) -> None:
    rows = [candle(f"2011-12-15 10:{minute:02d}:00", 100, minutes=1) for minute in range(5)]
    two_boards.securities["SBER"][1].candles[1] = rows
    area = Slice(None, dt.date(2011, 12, 20), ("SBER",))
    found = fetch_slice(build(server.url, interval="1m"), area, now=LATE)
    assert found.candles.height == 5
    pages = [item for item in server.seen if item.path.endswith("/candles.json")]
    assert min(page.query["from"] for page in pages) == "2011-12-15"


def test_boards_are_looked_up_once_for_all_windows(
    build: Build, two_boards: Iss, server: ApiServer
) -> None:
    rows = [candle(f"{day} 10:00:00", 100.0, minutes=10) for day in
            XMOS.between(dt.date(2013, 3, 25), dt.date(2013, 12, 30))]  # fmt: skip
    two_boards.securities["SBER"][2].candles[10] = rows
    area = Slice(dt.date(2013, 3, 1), dt.date(2013, 12, 30), ("SBER",))
    found = fetch_slice(build(server.url, interval="10m"), area, now=LATE)
    assert found.candles.height == len(rows)
    cards = [item for item in server.seen if item.path.startswith("/iss/securities/")]
    borders = [item.path for item in server.seen if "candleborders" in item.path]
    assert len(cards) == 1
    assert len(borders) == len(set(borders)) == 2


def test_a_delisted_security_is_read_from_its_last_main_board() -> None:
    boards = Iss({"OLD": [
        Listing("SMAL", history_from="2011-11-21", history_till="2018-01-10", group=21),
        Listing("EQNE", history_from="2011-11-21", history_till="2013-08-30", group=6),
        Listing("EQBR", history_from="2012-06-01", history_till="2013-08-30", group=6),
        Listing("TQBR", history_from="2013-07-08", history_till="2017-05-05"),
    ]})  # fmt: skip
    found = Direct(boards).send(
        "GET",
        "/securities/OLD.json",
        lambda answer: main_boards(tables_of(answer.body)["boards"]),
        params={},
    )
    assert [board.name for board in found] == ["TQBR", "EQBR", "EQNE"]


days_of_spans = st.tuples(st.integers(0, 60), st.integers(0, 30))


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(days_of_spans, max_size=6))
def test_each_day_is_of_the_first_board_that_has_it(given_spans: list[tuple[int, int]]) -> None:
    zero = dt.date(2013, 1, 1)
    held = [
        Span(
            Board(str(number), "stock", "shares", None, None),
            zero + dt.timedelta(first),
            zero + dt.timedelta(first + length),
        )
        for number, (first, length) in enumerate(given_spans)
    ]
    found = one_a_day(held)
    for place in range(-1, 92):
        day = zero + dt.timedelta(place)
        here = [span.board.name for span in found if span.first <= day <= span.last]
        wanted = [span.board.name for span in held if span.first <= day <= span.last]
        assert here == wanted[:1]
    assert found == sorted(found, key=lambda span: span.first)


# The day that is not over.


def test_a_forming_candle_never_reaches_bars(build: Build, iss: Iss, server: ApiServer) -> None:
    last = iss.securities["SBER"][0].candles[24][-1]
    last[1], last[3], last[2] = 276.81, 270.0, 280.0
    last[0] = 275.0
    settings = build(server.url)
    evening = dt.datetime(2024, 6, 28, 23, 59, tzinfo=MOSCOW)
    during = fetch_slice(settings, june(), now=evening.astimezone(dt.UTC))
    assert dt.date(2024, 6, 28) not in closes(during.candles)
    assert during.held_back == 1
    assert during.quarantine.is_empty()

    last[1] = 275.49
    after = dt.datetime(2024, 6, 29, 0, 5, tzinfo=MOSCOW)
    found = fetch_slice(settings, june(), now=after.astimezone(dt.UTC))
    assert closes(found.candles)[dt.date(2024, 6, 28)] == 275.49
    assert found.held_back == 0


def test_a_session_settles_after_the_evening_session_and_the_delay(build: Build) -> None:
    settles = source_of(build("http://unused")).settles_at("XMOS", DAY)
    assert settles == dt.datetime(2024, 6, 4, 0, 5, tzinfo=MOSCOW)
    assert settles > XMOS.closes_at(DAY)


# Trouble.


@pytest.mark.parametrize("fault", EACH_FAULT, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_each_fault_alone_is_got_over_wherever_it_comes(
    build: Build, iss: Iss, server: ApiServer, fault: Fault
) -> None:
    """On the card, the borders, a page, the empty page and the splits: each asked twice."""
    came: list[str] = []

    def every_first_time(*_: str) -> Fault | None:
        came.append("")
        return fault if len(came) % 2 else None

    server._fault = every_first_time  # type: ignore[method-assign]
    area = Slice(None, june().last_date, ("SBER",))
    found = fetch_slice(build(server.url, connections=1), area, now=LATE)
    wanted = [item[1] for item in iss.securities["SBER"][0].candles[24]]
    assert found.candles["close"].to_list() == wanted
    assert found.quarantine.is_empty()
    paths = [item.path for item in server.seen]
    assert paths[::2] == paths[1::2]
    assert len(paths) == 10


@pytest.mark.parametrize(
    "fault", [Fault("slow", seconds=0.5), Fault("trickle", seconds=0.01)], ids=lambda it: it.kind
)
def test_an_answer_that_takes_too_long_is_asked_for_again(
    build: Build, server: ApiServer, fault: Fault
) -> None:
    server.fail_next(fault)
    found = fetch_slice(build(server.url, timeout=0.3), june(), now=LATE)
    assert found.candles.height == 19


@pytest.mark.parametrize("status", [200, 302])
def test_html_that_persists_is_told_as_a_login_or_a_block(
    build: Build, server: ApiServer, status: int
) -> None:
    page = Fault("html", status, body="<html><title>passport</title></html>",
                 headers=(("Location", "https://passport.moex.com/"),))  # fmt: skip
    server.fail_at_random(1.0, page)
    with pytest.raises(SourceError) as caught:
        fetch_slice(build(server.url, attempts=3), june(), now=LATE)
    said = str(caught.value)
    assert "source moex" in said
    assert "SBER" in said
    assert "ISS wants a login for this or blocks this address" in said
    assert "lower requests_per_second" in said
    assert len(server.seen) == 3


def test_a_refusal_is_not_asked_again(build: Build, server: ApiServer) -> None:
    server.fail_at_random(1.0, Fault("status", 403))
    with pytest.raises(SourceError, match=r"answered 403.*wants a login"):
        fetch_slice(build(server.url), june(), now=LATE)
    assert len(server.seen) == 1


def test_an_unknown_path_is_an_error_at_once(build: Build, server: ApiServer) -> None:
    settings = build(f"{server.url}/nowhere")
    with pytest.raises(SourceError, match=r"nowhere/iss/securities/SBER.* answered 404"):
        fetch_slice(settings, june(), now=LATE)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "it is a JSON list"),
        (b"{}", "no table 'boards'"),
        (b'{"boards": {"columns": ["secid"], "data": []}}', "no column 'boardid'"),
        (b'{"boards": {"columns": ["secid"], "data": [[', "no whole answer"),
    ],
)
def test_an_answer_of_another_form_is_named(build: Build, body: bytes, said: str) -> None:
    with answering(body) as server, pytest.raises(SourceError, match=said):
        fetch_slice(build(server.url, attempts=2), june(), now=LATE)


def test_requests_never_come_faster_than_the_limit(
    build: Build, iss: Iss, server: ApiServer
) -> None:
    for ticker in ("AAAA", "BBBB", "CCCC", "DDDD"):
        iss.securities[ticker] = iss.securities["SBER"]
    tickers = ("AAAA", "BBBB", "CCCC", "DDDD")
    settings = build(server.url, *tickers, requests_per_second=10, connections=4)
    fetch_slice(settings, june(*tickers), now=LATE)
    assert len(server.seen) == 13
    assert server.most_beyond(10) <= 1 + 4


# Splits.


GMKN = Split("GMKN", dt.date(2024, 4, 8), Fraction(1), Fraction(100))
VTBR = Split("VTBR", dt.date(2024, 7, 15), Fraction(5000), Fraction(1))


@pytest.mark.parametrize(
    ("split", "candle_close", "traded"),
    # Closes seen live on candles, and the closes that were traded.
    [(GMKN, 151.38, 15138.0), (VTBR, 99.65, 0.01993)],
    ids=["GMKN", "VTBR"],
)
def test_candles_rewritten_for_a_split_are_recognised_and_brought_back(
    split: Split, candle_close: float, traded: float
) -> None:
    seen = {"candle": candle_close, "traded": 1.002 * traded, "later": Fraction(1)}
    assert is_rewritten(split, **seen) is True
    assert is_rewritten(split, **{**seen, "candle": traded}) is False
    assert is_rewritten(split, **{**seen, "candle": traded * 9}) is None
    day = split.day - dt.timedelta(7)
    prices = dict.fromkeys(("open", "high", "low", "close"), candle_close)
    frame = pl.DataFrame({"day": [day], **prices, "volume": [1000.0], "value": [1.0]})
    found = as_traded(frame, [split])
    assert found["close"].item() == traded
    assert found["volume"].item() == 1000.0  # value / volume is no price: left as it is


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    traded=st.integers(1, 10**7).map(lambda ticks: ticks / 1000),
    volume=st.integers(1, 10**9).map(lambda lots: lots * 10**4),
    ratios=st.lists(st.sampled_from([(1, 10), (1, 100), (5000, 1), (2, 1), (1, 8)]), max_size=3),
)
def test_what_was_rewritten_comes_back_as_it_was(
    traded: float, volume: int, ratios: list[tuple[int, int]]
) -> None:
    splits = [
        Split("X", DAY + dt.timedelta(place + 1), Fraction(before), Fraction(after))
        for place, (before, after) in enumerate(ratios)
    ]
    factor = 1.0
    for split in splits:
        factor *= float(split.before / split.after)
    price = traded * factor
    frame = pl.DataFrame(
        {
            "day": [DAY, DAY + dt.timedelta(9)],
            **{name: [price, traded] for name in ("open", "high", "low", "close")},
            "volume": [volume / factor, float(volume)],
            "value": [traded * volume, traded * volume],
        }
    )
    found = as_traded(frame, splits)
    assert found["close"].to_list() == [traded, traded]
    assert found["volume"].to_list() == [float(volume), float(volume)]


def split_iss(*, rewrites: bool, ratio: int = 10) -> Iss:
    """SBER split in June 2024: what was traded, told as ISS might."""
    days = XMOS.between(dt.date(2024, 5, 2), dt.date(2024, 6, 28))
    split = dt.date(2024, 6, 17)
    rows, history = [], []
    for place, day in enumerate(days):
        close = (1000.0 + place) if day < split else (1000.0 + place) / ratio
        rows.append(candle(f"{day} 00:00:00", close))
        history.append([str(day), close * 0.999 if place % 3 else None])
        if rewrites and day < split:
            rows[-1][:4] = [price / ratio for price in rows[-1][:4]]
            rows[-1][5] *= ratio
    listing = tqbr(rows, history=history)
    splits = [["2024-06-17", "SBER", 1, ratio], ["2024-06-17", "FIXSBER", 1, ratio]]
    return Iss({"SBER": [listing]}, splits)


@pytest.mark.parametrize("rewrites", [False, True], ids=["as traded", "rewritten"])
def test_a_split_leaves_the_candles_before_it_as_they_were_traded(
    build: Build, *, rewrites: bool
) -> None:
    area = Slice(dt.date(2024, 5, 2), dt.date(2024, 6, 28), ("SBER",))
    with split_iss(rewrites=rewrites).serve() as server:
        found = fetch_slice(build(server.url), area, now=LATE)
    wanted = split_iss(rewrites=False).securities["SBER"][0].candles[24]
    assert found.candles["close"].to_list() == pytest.approx([row[1] for row in wanted], rel=1e-12)
    assert found.candles["volume"].to_list() == [row[5] for row in wanted]


def test_two_splits_are_told_apart_where_both_are_rewritten(build: Build) -> None:
    iss = split_iss(rewrites=True)
    listing = iss.securities["SBER"][0]
    wanted = [row[1] for row in split_iss(rewrites=False).securities["SBER"][0].candles[24]]
    for place, official in enumerate(listing.history):
        if official[0] < "2024-05-20":
            # A split of 4 to 1 on that day: a fourth of the price was traded before it.
            wanted[place] /= 4
            official[1] = official[1] and official[1] / 4
    iss.splits.append(["2024-05-20", "SBER", 4, 1])
    area = Slice(dt.date(2024, 5, 2), dt.date(2024, 6, 28), ("SBER",))
    with iss.serve() as server:
        found = fetch_slice(build(server.url), area, now=LATE)
    assert found.candles["close"].to_list() == pytest.approx(wanted, rel=1e-11)


def test_as_traded_can_be_left_to_iss(build: Build) -> None:
    area = Slice(dt.date(2024, 5, 2), dt.date(2024, 6, 28), ("SBER",))
    iss = split_iss(rewrites=True)
    with iss.serve() as server:
        found = fetch_slice(build(server.url, as_traded=False), area, now=LATE)
        assert not [item for item in server.seen if "splits" in item.path]
    wanted = [row[1] for row in iss.securities["SBER"][0].candles[24]]
    assert found.candles["close"].to_list() == wanted


def test_a_piece_that_was_read_otherwise_is_asked_for_again(build: Build) -> None:
    """The error above advises as_traded = false: what is kept of the failed run is not that."""
    area = Slice(dt.date(2024, 5, 2), dt.date(2024, 6, 28), ("SBER",))
    iss = split_iss(rewrites=True)

    class DiedError(Exception):
        """As if the run was killed before its candles were stored."""

    with iss.serve() as server:
        with pytest.raises(DiedError), fetched_slice(build(server.url), area, now=LATE):
            raise DiedError
        with fetched_slice(build(server.url, as_traded=False), area, now=LATE) as found:
            wanted = [row[1] for row in iss.securities["SBER"][0].candles[24]]
            assert found.candles["close"].to_list() == wanted


def test_candles_that_fit_no_story_of_a_split_are_an_error(build: Build) -> None:
    iss = split_iss(rewrites=True, ratio=10)
    iss.splits[0][3] = 1000
    with (
        iss.serve() as server,
        pytest.raises(SourceError, match=r"ticker SBER.*split 1:1000 of 2024-06-17.*as_traded"),
    ):
        fetch_slice(build(server.url), june(), now=LATE)


def test_splits_are_told_by_ticker_with_former_symbols(build: Build) -> None:
    universe = [
        {"ticker": "T", "source": "moex", "formerly": [{"symbol": "TCSG", "until": "2024-11-26"}]},
        {"ticker": "SBER", "source": "moex", "listed": "2020-01-01"},
    ]
    iss = Iss(splits=[
        ["2026-04-17", "T", 1, 10], ["2023-01-10", "TCSG", 1, 2], ["2025-01-10", "TCSG", 1, 3],
        ["2019-01-10", "SBER", 1, 4], ["2020-01-10", "FIXSBER", 1, 5],
    ])  # fmt: skip
    with iss.serve() as server:
        settings = build(server.url, universe=universe)
        source = source_of(settings)
        with source.connect() as client:
            found = source.reference.splits(client, settings.universe)
    assert found == (
        Split("T", dt.date(2023, 1, 10), Fraction(1), Fraction(2)),
        Split("T", dt.date(2026, 4, 17), Fraction(1), Fraction(10)),
    )


# The calendar, and a look at the source.


def year_of_days() -> list[list[Any]]:
    """ISS's days of 2024 as ours, but for one holiday, one open day and one weekend session."""
    rows = []
    for place in range(366):
        day = dt.date(2024, 1, 1) + dt.timedelta(place)
        traded = int(XMOS.is_session(day))
        rows.append([str(day), traded, None, "N" if traded else "H", "2024-01-01 00:00:00"])
    return rows


def test_calendar_differences_are_told_and_change_nothing(build: Build) -> None:
    rows = year_of_days()
    by_day = {row[0]: row for row in rows}
    by_day["2024-06-03"][1], by_day["2024-06-03"][3] = 0, "H"
    by_day["2024-06-08"][1], by_day["2024-06-08"][3] = 1, "W"
    by_day["2024-06-15"][1], by_day["2024-06-15"][3] = 1, "T"
    by_day["2024-06-16"][1] = None
    with Iss(off_days=rows).serve() as server:
        source = source_of(build(server.url))
        with source.connect() as client:
            days = source.reference.trading_days(
                client, dt.date(2023, 12, 1), dt.date(2024, 12, 31)
            )
    assert len(days) == 365  # every page of both years, without the day nobody knows
    assert {item.query["from"][:4] for item in server.seen} == {"2023", "2024"}
    assert all(item.query["show_all_days"] == "1" for item in server.seen)
    found = calendar_differences(days, XMOS)
    assert [str(item) for item in found if not item.is_weekend_session] == [
        "2024-06-03 closed (a holiday), ours says open",
        "2024-06-15 open (a transferred trading day), ours says closed",
    ]
    assert "1 additional weekend session(s) are left out" in in_words(found, XMOS)
    assert XMOS.is_session(dt.date(2024, 6, 3))


def test_trading_days_that_iss_does_not_know_are_no_difference() -> None:
    body = {"off_days": {"columns": ["tradedate", "is_traded", "reason"],
                         "data": [["2024-06-03", None, None]]}}  # fmt: skip
    assert trading_days(tables_of(json.dumps(body).encode())["off_days"]) == []


def index_iss(**more: Any) -> Iss:
    today = dt.datetime.now(tz=MOSCOW).date()
    rows = daily([today - dt.timedelta(3), today - dt.timedelta(2)], 2800.0)
    return Iss({"IMOEX": [Listing("SNDX", {24: rows}, 9, "stock", "index", 1)]}, **more)


def test_a_probe_tells_the_index_the_delay_and_the_calendar(build: Build) -> None:
    today = dt.datetime.now(tz=MOSCOW).date()
    off = [[str(today), int(not XMOS.is_session(today)), None, "T", ""]]
    with index_iss(off_days=off).serve() as server:
        source = source_of(build(server.url))
        with source.connect() as client:
            said = source.probe(client)
        assert len(server.seen) <= 5
    assert f"IMOEX 2801.0 on {today - dt.timedelta(2)}" in said
    assert "about 15 minutes late" in said
    assert f"the calendar XMOS disagrees on {today}" in said


def test_a_probe_tells_who_is_logged_in(build: Build) -> None:
    with index_iss(marker="granted").serve() as server:
        source = source_of(build(server.url))
        with source.connect() as client:
            assert "without delay" in source.probe(client)


def test_a_probe_answers_without_the_calendar(build: Build) -> None:
    iss = index_iss()

    def answer(request: Request) -> Response:
        if "calendars" in request.path:
            return Response("no", 404)
        return iss.answer(request)

    with ApiServer(answer) as server:
        source = source_of(build(server.url))
        with source.connect() as client:
            said = source.probe(client)
    assert "IMOEX 2801.0" in said
    assert "its calendar could not be read" in said
    assert "404" in said


# Pieces.


def test_a_second_slice_takes_the_finished_pieces_and_gives_the_same(
    build: Build, server: ApiServer
) -> None:
    settings = build(server.url)

    class DiedError(Exception):
        """As if the run was killed before its candles were stored."""

    with pytest.raises(DiedError), fetched_slice(settings, june(), now=LATE) as first:
        raise DiedError
    asked = len(server.seen)
    with fetched_slice(settings, june(), now=LATE) as second:
        # Splits alone are asked for again.
        assert [item.path.rpartition("/")[2] for item in server.seen[asked:]] == ["splits.json"]
        assert second.candles.equals(first.candles)
    assert not list((settings.fetched_dir / "moex").glob("*.zip"))
