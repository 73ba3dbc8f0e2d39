"""The client of the Bank of Russia against its fake server: each fact of docs/sources/cbr.md.

What single documents mean is in `test_cbr_documents.py`.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
import polars as pl
import pytest
from api_server import EACH_FAULT, Fault
from cbr_server import GUARD, CbrServer, Currency
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Response

from stock_assets.calendars import CBR, get_calendar
from stock_assets.errors import SourceError
from stock_assets.lake.schemas import Candles
from stock_assets.settings import CbrSettings, Settings
from stock_assets.slices import Slice
from stock_assets.sources.cbr import CbrSource, metal_code
from stock_assets.sources.fetching import fetch_slice, fetched_slice
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from werkzeug.wrappers import Request

    from stock_assets.sources.rules import Judged

FIRST, LAST = dt.date(2026, 4, 1), dt.date(2026, 6, 30)
SESSIONS = get_calendar(CBR).between(FIRST, LAST)


def walk(start: float, days: tuple[dt.date, ...] = SESSIONS) -> dict[dt.date, float]:
    """A price a day, none like another."""
    return {day: round(start * (1 + number / 1000), 2) for number, day in enumerate(days)}


def market() -> CbrServer:
    """Four metals and three currencies over a quarter of a year."""
    return CbrServer(
        {"XAU": walk(11800), "XAG": walk(180), "XPT": walk(5000), "XPD": walk(3700)},
        {
            "USD": Currency("R01235", walk(78.3987)),
            "AMD": Currency("R01060", walk(0.2048), nominal=100),
            "CNY": Currency("R01375", walk(10.9)),
        },
    )


@pytest.fixture
def server() -> Iterator[CbrServer]:
    with market() as running:
        yield running


def settings(
    server: CbrServer, lake: Path, symbols: dict[str, str] | None = None, **own: Any
) -> Settings:
    """Tickers with their symbols at the Bank; fast, and quick to try again."""
    quick = {"requests_per_second": 50, "first_wait": 0.01, "timeout": 5, **own}
    return Settings(
        lake={"path": lake},
        partitions={"first_day": FIRST},
        universe=[
            {"ticker": ticker, "symbol": symbol, "source": "cbr"}
            for ticker, symbol in (symbols or {"GOLD": "XAU"}).items()
        ],
        sources={"cbr": {"kind": "cbr", "base_url": server.url, **quick}},
    )


def look(
    config: Settings, first: dt.date | None = FIRST, last: dt.date = LAST, **more: Any
) -> Judged:
    return fetch_slice(config, Slice(first, last, config.tickers), **more)


def take(config: Settings, first: dt.date | None = FIRST, last: dt.date = LAST) -> Judged:
    """As a run does: pieces are kept until the block ends well."""
    with fetched_slice(config, Slice(first, last, config.tickers)) as judged:
        return judged


def prices(judged: Judged, ticker: str = "GOLD") -> dict[dt.date, float]:
    return dict(judged.candles.filter(ticker=ticker).select("day", "close").iter_rows())


DATES = ("date_req1", "date_req2")


def day_asked(text: str) -> dt.date:
    day, month, year = map(int, text.split("/"))
    return dt.date(year, month, day)


def xml_of(body: str) -> Callable[[Request], Response]:
    """A server's answer to whatever: that body, as XML."""
    return lambda _request: Response(body, mimetype="application/xml")


# What is asked.


def test_both_ends_are_asked_for_as_day_month_year(server: CbrServer, tmp_path: Path) -> None:
    days = (dt.date(2026, 6, 2), dt.date(2026, 6, 10))
    found = look(settings(server, tmp_path), *days)

    assert server.asked("xml_metall") == [{"date_req1": "02/06/2026", "date_req2": "10/06/2026"}]
    assert set(prices(found)) == {day for day in SESSIONS if days[0] <= day <= days[1]}
    assert {*days} <= set(prices(found))


@pytest.mark.parametrize(
    "symbols", [("XAU", "XAG", "XPT", "XPD"), ("gold", "Silver", "PLATINUM", "palladium")]
)
def test_metals_are_named_by_code_or_word(
    server: CbrServer, tmp_path: Path, symbols: tuple[str, ...]
) -> None:
    found = look(settings(server, tmp_path, dict(zip("ABCD", symbols, strict=True))))
    for ticker, metal in zip("ABCD", ("XAU", "XAG", "XPT", "XPD"), strict=True):
        assert prices(found, ticker) == server.metals[metal]


@pytest.mark.parametrize("symbol", ["XAUUSD", "XAURUB", "GC=F", "1", ""])
def test_nothing_else_is_a_metal(symbol: str) -> None:
    assert metal_code(symbol) is None


@pytest.mark.parametrize("run", [look, take])
def test_one_answer_serves_all_metals(
    server: CbrServer, tmp_path: Path, run: Callable[[Settings], Judged]
) -> None:
    run(settings(server, tmp_path, {"A": "XAU", "B": "XAG", "C": "XPT", "D": "palladium"}))
    assert len(server.seen) == 1


def test_one_answer_serves_all_metals_of_a_day_that_is_not_over(
    server: CbrServer, tmp_path: Path
) -> None:
    today = dt.datetime.now(tz=dt.UTC).date()
    server.metals = {"XAU": {today: 11000.5}, "XAG": {today: 170.5}}
    take(settings(server, tmp_path, {"A": "XAU", "B": "XAG"}), today, today)
    assert len(server.seen) == 1


def test_currencies_are_looked_up_once_in_the_list_of_the_day(
    server: CbrServer, tmp_path: Path
) -> None:
    found = look(settings(server, tmp_path, {"DOLLAR": "USD", "DRAM": "amd"}))

    assert server.asked("XML_daily") == [{}]
    assert [item["VAL_NM_RQ"] for item in server.asked("XML_dynamic")] == ["R01235", "R01060"]
    assert prices(found, "DOLLAR") == server.currencies["USD"].rates
    assert prices(found, "DRAM") == server.currencies["AMD"].rates


def test_a_currency_that_is_no_longer_listed_is_found_by_its_last_day(
    server: CbrServer, tmp_path: Path
) -> None:
    last = dt.date(2026, 5, 20)
    mark = {day: value for day, value in walk(20.5).items() if day <= last}
    server.currencies["DEM"] = Currency("R01510", mark, until=last)
    config = settings(server, tmp_path, {"MARK": "DEM"})
    gone = config.universe[0].model_copy(update={"delisted": last})

    found = look(config.model_copy(update={"universe": (gone,)}))
    assert prices(found, "MARK") == mark

    with pytest.raises(SourceError, match=r"no 'DEM'.*ticker MARK.*delisted"):
        look(config)


def test_an_unknown_symbol_is_an_error_that_names_ticker_symbol_and_fix(
    server: CbrServer, tmp_path: Path
) -> None:
    for first in (None, FIRST):
        with pytest.raises(SourceError, match=r"source cbr.*'XAUUSD'.*ticker OUNCE.*symbol = "):
            look(settings(server, tmp_path, {"OUNCE": "XAUUSD"}), first)


def test_a_list_that_is_in_force_earlier_than_asked_serves(
    server: CbrServer, tmp_path: Path
) -> None:
    sunday = dt.date(2026, 6, 14)
    server.currencies["DEM"] = Currency("R01510", walk(20.5), until=sunday)
    config = settings(server, tmp_path, {"MARK": "DEM"})
    found = look(config, FIRST, sunday)
    assert server.asked("XML_daily") == [{}, {"date_req": "14/06/2026"}]
    assert prices(found, "MARK")


# What rows are made of the answers.


def test_one_price_a_day_is_all_four_and_there_is_no_volume(
    server: CbrServer, tmp_path: Path
) -> None:
    found = look(settings(server, tmp_path), dt.date(2026, 6, 2), dt.date(2026, 6, 2)).candles
    (row,) = found.select(Candles.column_names()).iter_rows(named=True)
    price = server.metals["XAU"][dt.date(2026, 6, 2)]
    assert [row[name] for name in ("open", "high", "low", "close")] == [price] * 4
    assert row["volume"] is None
    assert row["interval"] == "1d"
    assert row["start"] == dt.datetime(2026, 6, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("day", "price"),
    [
        (dt.date(2011, 1, 12), 1359.76),
        (dt.date(2011, 1, 13), 1352.15),
        (dt.date(2020, 12, 12), 4310.63),
        (dt.date(2026, 4, 1), 11831.31),
        (dt.date(2026, 6, 2), 10457.90),
        (dt.date(2026, 6, 3), 10379.54),
    ],
)
def test_known_prices_of_gold_arrive_as_they_were(
    server: CbrServer, tmp_path: Path, day: dt.date, price: float
) -> None:
    server.metals = {"XAU": {day: price}}
    assert prices(look(settings(server, tmp_path), day, day)) == {day: price}


def test_the_day_of_a_price_is_a_session_from_tuesday_to_saturday(
    server: CbrServer, tmp_path: Path
) -> None:
    found = look(settings(server, tmp_path))
    assert found.quarantine.is_empty()
    assert set(prices(found)) == set(SESSIONS)
    assert {day.isoweekday() for day in prices(found)} <= {2, 3, 4, 5, 6}


def test_a_price_dated_when_none_is_in_force_is_set_aside(
    server: CbrServer, tmp_path: Path
) -> None:
    sunday = dt.date(2026, 6, 14)
    server.metals["XAU"][sunday] = 11111.1
    found = look(settings(server, tmp_path))
    assert sunday not in prices(found)
    assert found.quarantine["day"].to_list() == [sunday]
    assert '"Sell": "11111,1"' in found.quarantine["raw"][0]


def test_a_price_is_final_when_its_day_is_over_in_moscow(server: CbrServer, tmp_path: Path) -> None:
    day = dt.date(2026, 6, 3)
    config = settings(server, tmp_path)
    evening = dt.datetime(2026, 6, 3, 20, 59, tzinfo=dt.UTC)  # 23:59 in Moscow
    assert look(config, day, day, now=evening).held_back == 1
    assert set(prices(look(config, day, day, now=evening + dt.timedelta(minutes=1)))) == {day}


def test_where_prices_differ_the_selling_price_is_taken(server: CbrServer, tmp_path: Path) -> None:
    server.spread = 1.5
    assert prices(look(settings(server, tmp_path))) == server.metals["XAU"]


@pytest.mark.parametrize("unit_rates", [True, False])
def test_the_value_is_over_its_own_nominal_also_when_that_changes(
    server: CbrServer, tmp_path: Path, *, unit_rates: bool
) -> None:
    dram = server.currencies["AMD"]
    dram.nominals = {day: 1000 for day in dram.rates if day >= dt.date(2026, 5, 15)}
    server.unit_rates = unit_rates
    found = look(settings(server, tmp_path, {"DRAM": "AMD"}))
    assert prices(found, "DRAM") == dram.rates


def test_the_redenomination_stays_as_it_was_published(server: CbrServer, tmp_path: Path) -> None:
    days = (dt.date(1997, 12, 30), dt.date(1998, 1, 1))
    server.currencies["USD"].rates = {days[0]: 5960.0, days[1]: 5.96}
    found = look(settings(server, tmp_path, {"DOLLAR": "USD"}), *days)
    assert prices(found, "DOLLAR") == {days[0]: 5960.0, days[1]: 5.96}


@pytest.mark.parametrize("children", [True, False])
@pytest.mark.parametrize("symbol", ["XAU", "USD"])
def test_a_range_without_prices_has_no_rows_and_is_no_error(
    server: CbrServer, tmp_path: Path, symbol: str, *, children: bool
) -> None:
    server.children_when_empty = children
    found = look(
        settings(server, tmp_path, {"A": symbol}), dt.date(2026, 1, 1), dt.date(2026, 1, 9)
    )
    assert found.candles.is_empty()
    assert found.quarantine.is_empty()


def test_a_day_that_was_not_published_has_no_row(server: CbrServer, tmp_path: Path) -> None:
    missing = dt.date(2026, 6, 3)
    for metal in server.metals.values():
        del metal[missing]
    found = look(settings(server, tmp_path))
    assert set(prices(found)) == set(SESSIONS) - {missing}


def test_a_price_that_cannot_be_read_is_set_aside_with_the_record(
    server: CbrServer, tmp_path: Path
) -> None:
    day = dt.date(2026, 6, 3)
    server.metals["XAU"][day] = float("nan")
    found = look(settings(server, tmp_path))
    assert set(prices(found)) == set(SESSIONS) - {day}
    (row,) = found.quarantine.iter_rows(named=True)
    assert row["reason"] == "Sell 'nan' is not a number with a decimal comma"
    assert row["raw"] == '{"Date": "03.06.2026", "Code": "1", "Buy": "nan", "Sell": "nan"}'
    assert row["file"] == "xml_metall"


def test_answers_may_be_packed_or_not(server: CbrServer, tmp_path: Path) -> None:
    for packed in (True, False):
        server.packed = packed
        assert prices(look(settings(server, tmp_path))) == server.metals["XAU"]


def test_history_begins_with_the_first_rate_of_all(server: CbrServer, tmp_path: Path) -> None:
    take(settings(server, tmp_path), None, dt.date(2000, 1, 1))
    asked = server.asked("xml_metall")
    starts, ends = ([day_asked(item[name]) for item in asked] for name in DATES)
    assert starts[0] == dt.date(1992, 7, 1)
    assert ends[-1] == dt.date(2000, 1, 1)
    assert starts[1:] == [day + dt.timedelta(days=1) for day in ends[:-1]]


@given(st.dates(dt.date(1992, 7, 1), dt.date(2026, 6, 30)), st.integers(0, 5_000))
@hypothesis.settings(deadline=None)  # on a busy machine a thousand dates take long
def test_windows_leave_no_day_out_and_take_none_twice(first: dt.date, length: int) -> None:
    last = min(first + dt.timedelta(days=length), dt.date(2026, 6, 30))
    span = Window("GOLD", "XAU", first, last)
    pieces = list(span.cut(CbrSource.window_days["1d"]))
    days = [
        piece.first + dt.timedelta(days=n)
        for piece in pieces
        if piece.first is not None
        for n in range((piece.last - piece.first).days + 1)
    ]
    assert days == [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]


# Manners, and the guard.


def test_a_usual_user_agent_is_sent_always(server: CbrServer, tmp_path: Path) -> None:
    look(settings(server, tmp_path, {"GOLD": "XAU", "DOLLAR": "USD"}))
    assert {item.headers["user-agent"] for item in server.seen} == {
        "Mozilla/5.0 (compatible; stock-assets; forecasting lakehouse)"
    }


def test_an_odd_user_agent_is_turned_away_with_words_that_say_so(
    server: CbrServer, tmp_path: Path
) -> None:
    config = settings(server, tmp_path, attempts=3, user_agent="python")
    with pytest.raises(SourceError) as caught:
        look(config)
    for words in ("GOLD", "source cbr", "tried 3 times", "403", "DDOS-GUARD",
                  "[sources.cbr] requests_per_second", "user_agent"):  # fmt: skip
        assert words in str(caught.value)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [403, 200])
def test_the_guards_page_is_tried_again(server: CbrServer, tmp_path: Path, status: int) -> None:
    server.fail_next(Fault("html", status, body=GUARD), Fault("html", status, body=GUARD))
    assert prices(look(settings(server, tmp_path))) == server.metals["XAU"]
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("page", "kind"),
    [(GUARD, "application/xml"), ("<title>DDOS-GUARD</title>", "text/html; charset=utf-8")],
)
def test_a_page_for_people_is_known_by_its_type_or_its_words(
    server: CbrServer, tmp_path: Path, page: str, kind: str
) -> None:
    server._answer = lambda _request: Response(page, content_type=kind)
    with pytest.raises(SourceError, match=r"\(GOLD\).*page for people.*DDOS-GUARD"):
        look(settings(server, tmp_path, attempts=2))
    assert len(server.seen) == 2


def test_a_whole_document_is_taken_whatever_its_type(server: CbrServer, tmp_path: Path) -> None:
    right = server._answer
    server._answer = lambda request: Response(right(request).get_data(), content_type="text/html")
    server.packed = False
    assert prices(look(settings(server, tmp_path))) == server.metals["XAU"]


def test_a_bomb_is_refused_and_not_asked_for_again(server: CbrServer, tmp_path: Path) -> None:
    server._answer = xml_of('<!DOCTYPE Metall [<!ENTITY a "aaaa">]><Metall>&a;</Metall>')
    with pytest.raises(SourceError, match=r"source cbr.*\(GOLD\).*refused.*DTD.*base_url"):
        look(settings(server, tmp_path))
    assert len(server.seen) == 1


def test_words_of_the_bank_are_shown_and_not_asked_for_again(
    server: CbrServer, tmp_path: Path
) -> None:
    server._answer = xml_of("<Metall>Error in parameters</Metall>")
    with pytest.raises(SourceError, match=r"\(GOLD\).*Error in parameters"):
        look(settings(server, tmp_path))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("own", "day"),
    [("R01239", "02.06.2026"), ("R01235", "02.06.2016")],
    ids=["another currency", "other days"],
)
def test_the_answer_to_another_question_is_not_taken(
    server: CbrServer, tmp_path: Path, own: str, day: str
) -> None:
    record = f'<Record Date="{day}"><Nominal>1</Nominal><Value>90,1</Value></Record>'
    body = f'<ValCurs ID="{own}">{record}</ValCurs>'
    right = server._answer
    other = xml_of(body)
    server._answer = lambda request: (
        other(request) if "dynamic" in request.path and len(server.seen) < 3 else right(request)
    )
    found = look(settings(server, tmp_path, {"DOLLAR": "USD"}))
    assert prices(found, "DOLLAR") == server.currencies["USD"].rates
    assert len(server.seen) == 3


@pytest.mark.slow
def test_calls_are_one_after_the_other(server: CbrServer, tmp_path: Path) -> None:
    server.pause = 0.05
    symbols = {"GOLD": "XAU", "DOLLAR": "USD", "DRAM": "AMD", "YUAN": "CNY"}
    take(settings(server, tmp_path, symbols), None)
    assert len(server.seen) > 20
    assert server.most_at_once == 1


def test_requests_are_never_faster_than_the_limit(server: CbrServer, tmp_path: Path) -> None:
    take(settings(server, tmp_path, {"GOLD": "XAU", "DOLLAR": "USD"}, requests_per_second=20), None)
    assert len(server.seen) >= 19
    assert server.most_beyond(20) <= 1 + 1


def test_the_usual_limit_is_far_below_what_the_guard_allows(
    server: CbrServer, tmp_path: Path
) -> None:
    usual = settings(server, tmp_path).sources["cbr"].model_validate({"kind": "cbr"})
    assert isinstance(usual, CbrSettings)
    assert usual.requests_per_second <= 10 / 5
    assert usual.connections == 1


@pytest.mark.slow
def test_who_was_too_hasty_for_the_guard_gets_there_later(
    server: CbrServer, tmp_path: Path
) -> None:
    server.burst = 5
    config = settings(server, tmp_path, first_wait=0.3, attempts=15)
    take(config, None)
    assert len(server.seen) > 10


# Trouble.


@pytest.mark.slow
@pytest.mark.parametrize("fault", EACH_FAULT, ids=lambda fault: f"{fault.kind} {fault.status}")
@pytest.mark.parametrize("symbol", ["XAU", "USD"])
def test_each_fault_alone_changes_nothing(
    server: CbrServer, tmp_path: Path, symbol: str, fault: Fault
) -> None:
    config = settings(server, tmp_path, {"A": symbol})
    quiet = take(config)
    asked = len(server.seen)
    server.fail_next(*[fault] * 2 * asked)

    assert take(config).candles.equals(quiet.candles)
    # Twice in vain each: of a kind that is worth another try, and tried no more than that.
    assert len(server.seen) == asked + 3 * asked


def test_a_slow_answer_is_given_up_and_asked_for_again(server: CbrServer, tmp_path: Path) -> None:
    server.fail_next(Fault("slow", seconds=1.0), Fault("trickle", seconds=0.01))
    config = settings(server, tmp_path, timeout=0.5)
    assert prices(look(config)) == server.metals["XAU"]
    assert len(server.seen) == 3


@pytest.mark.parametrize("fault", EACH_FAULT, ids=lambda fault: f"{fault.kind} {fault.status}")
def test_a_fault_for_good_is_an_error_that_names_the_ticker(
    server: CbrServer, tmp_path: Path, fault: Fault
) -> None:
    server.fail_at_random(1.0, fault)
    with pytest.raises(SourceError, match=r"source cbr.*\(GOLD\).*tried 2 times"):
        take(settings(server, tmp_path, attempts=2))


def test_a_wrong_address_is_said_at_once(server: CbrServer, tmp_path: Path) -> None:
    config = settings(server, tmp_path, base_url=f"{server.url}/elsewhere")
    with pytest.raises(SourceError, match=r"source cbr.*\(GOLD\).*elsewhere.* answered 404"):
        look(config)
    assert len(server.seen) == 1


def crowd() -> CbrServer:
    """Metals and twenty currencies since the beginning: ten windows each."""
    days = get_calendar(CBR).between(dt.date(1992, 7, 1), LAST)[::50]
    return CbrServer(
        {"XAU": walk(300, days), "XAG": walk(5, days)},
        {f"C{n:02}": Currency(f"R{n:05}", walk(n + 1.5, days), 10 ** (n % 4)) for n in range(20)},
    )


FETCHING = """
import datetime as dt, sys
from pathlib import Path
from stock_assets.settings import load_settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetched_slice

config = load_settings(Path(sys.argv[1]))
with fetched_slice(config, Slice(None, dt.date(2026, 6, 30), config.tickers)) as judged:
    print(judged.candles.height)
"""


@pytest.mark.slow
def test_killed_while_fetching_it_goes_on_where_it_was(tmp_path: Path) -> None:
    with crowd() as server:
        server.pause = 0.05
        file = tmp_path / "market.toml"
        file.write_text(
            '[[universe]]\ntickers = ["gold", "C03", "C04"]\nsource = "cbr"\n'
            f'[sources.cbr]\nkind = "cbr"\nbase_url = "{server.url}"\nrequests_per_second = 50\n'
            f'[lake]\npath = "lake"\n'
        )
        process = subprocess.Popen([sys.executable, "-c", FETCHING, str(file)], cwd=tmp_path)
        deadline = time.monotonic() + 60
        while len(server.seen) < 15 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        finished = len(list((tmp_path / "lake" / "fetched" / "cbr").glob("*.zip")))
        assert 10 <= finished <= 15
        before = len(server.seen)

        done = subprocess.run(
            [sys.executable, "-c", FETCHING, str(file)],
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip

        rows = len(server.metals["XAU"])
        assert done.stdout.strip() == str(3 * rows)
        questions = Counter(
            tuple(item.query.values()) for item in server.seen if "daily" not in item.path
        )
        # The one that was under way when the process was killed may have been asked twice.
        assert len(questions) == 30
        assert sum(count - 1 for count in questions.values()) <= 1
        assert len(server.seen) - before <= 30 - finished + 1 + 1  # and the list of currencies
        assert not list((tmp_path / "lake" / "fetched" / "cbr").glob("*.zip"))


# How the Bank is.


def probed(config: Settings) -> str:
    source = CbrSource("cbr", config.sources["cbr"], config, resume=False)  # type: ignore[arg-type]
    with source.connect() as client:
        return source.probe(client)


def test_a_look_says_the_price_of_gold_today(server: CbrServer, tmp_path: Path) -> None:
    today = (dt.datetime.now(tz=dt.UTC) + dt.timedelta(hours=3)).date()
    server.metals["XAU"] = {today - dt.timedelta(1): 9000.0, today: 9012.5}
    assert probed(settings(server, tmp_path)) == f"gold is 9012.50 RUB a gram today, {today}"
    assert len(server.seen) == 1


def test_a_look_says_the_latest_price_of_gold(server: CbrServer, tmp_path: Path) -> None:
    day = dt.datetime.now(tz=dt.UTC).date() - dt.timedelta(10)
    server.metals["XAU"] = {day - dt.timedelta(1): 9000.0, day: 9012.5}
    words = f"gold was 9012.50 RUB a gram on {day}, the latest price"
    assert probed(settings(server, tmp_path)) == words


def test_a_look_says_when_there_is_no_price(server: CbrServer, tmp_path: Path) -> None:
    server.metals["XAU"] = {}
    assert "no price of gold since" in probed(settings(server, tmp_path))


def test_a_look_at_a_bank_that_does_not_answer_fails(server: CbrServer, tmp_path: Path) -> None:
    server.fail_at_random(1.0, Fault("html", 403, body=GUARD))
    with pytest.raises(SourceError, match="DDOS-GUARD"):
        probed(settings(server, tmp_path, attempts=2))


# The real series through the client.


@pytest.mark.parametrize(
    ("file", "symbol", "metal"),
    [("gold_cbr_daily", "XAU", True), ("fx_cbr_usdrub_daily", "USD", False)],
)
def test_the_real_series_equals_the_load_of_its_file(
    shared_data: Path,
    tmp_path: Path,
    files_settings: Callable[..., Settings],
    file: str,
    symbol: str,
    *,
    metal: bool,
) -> None:
    path = shared_data / f"{file}.parquet"
    series = pl.read_parquet(path)
    (ticker,) = series["ticker"].unique()
    by_day = dict(series.select(pl.col("timestamp").dt.date(), "close").iter_rows())
    made = (
        CbrServer({symbol: by_day})
        if metal
        else CbrServer({}, {symbol: Currency("R01235", by_day, until=LAST)})
    )
    with made as server:
        ours = take(settings(server, tmp_path, {ticker: symbol}), None)
    direct = fetch_slice(files_settings(path, ticker, exchange=CBR), Slice(None, LAST, (ticker,)))

    columns = ["ticker", "day", "interval", "start", "open", "high", "low", "close", "volume"]
    assert ours.quarantine.is_empty()
    assert ours.candles.height == series.height
    assert ours.candles.select(columns).equals(direct.candles.select(columns))
    assert ours.candles["close"].to_list() == series["close"].to_list()
