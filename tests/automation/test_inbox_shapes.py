"""The shapes that Yahoo, Stooq and Finam write, dropped as they come."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = {
    # Yahoo's history export: Adj Close is none of ours, and a day without trade is all null.
    "AAPL.csv": (
        (
            "Date,Open,High,Low,Close,Adj Close,Volume\n"
            "2026-06-01,198.35,203.77,197.36,202.67,201.2,46381600\n"
            "2026-06-02,null,null,null,null,null,null\n"
            "2026-06-03,201.35,203.77,200.36,203.27,202.1,43604000\n"
        ),
        "AAPL",
        [("2026-06-01", 202.67), ("2026-06-03", 203.27)],
        1,
    ),
    # Stooq: the name says the ticker before its market.
    "aapl_us_d.csv": (
        "Date,Open,High,Low,Close,Volume\r\n2026-06-01,198.35,203.77,197.36,202.67,46381600\r\n",
        "AAPL",
        [("2026-06-01", 202.67)],
        0,
    ),
    # Stooq of an exchange rate: no volume.
    "EURUSD.csv": (
        "Date,Open,High,Low,Close\n2026-06-01,1.1,1.2,1.0,1.15\n",
        "EURUSD",
        [("2026-06-01", 1.15)],
        0,
    ),
    # Stooq's bulk files: a column with the ticker, names in angle brackets.
    "stooq_us.txt": (
        (
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
            "AAPL,D,20260601,000000,198.35,203.77,197.36,202.67,46381600,0\n"
        ),
        "AAPL",
        [("2026-06-01", 202.67)],
        0,
    ),
    # Finam, daily, with semicolons.
    "SBER_260601_260602.csv": (
        (
            "<TICKER>;<PER>;<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>\n"
            "SBER;D;20260601;000000;310.1;312.5;309.0;311.2;12345670\n"
            "SBER;D;20260602;000000;311.1;313.5;310.0;312.2;12345670\n"
        ),
        "SBER",
        [("2026-06-01", 311.2), ("2026-06-02", 312.2)],
        0,
    ),
    # A name that says more than the ticker.
    "SBER_1d.csv": (
        "begin,open,close,high,low,volume\n2026-06-01 00:00:00,310.1,311.2,312.5,309.0,100\n",
        "SBER",
        [("2026-06-01", 311.2)],
        0,
    ),
}

UNIVERSE = """
[lake]
path = "data"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["AAPL"]
source = "inbox"
exchange = "XNYS"
[[universe]]
tickers = ["SBER"]
source = "inbox"
exchange = "XMOS"
[[universe]]
tickers = ["EURUSD"]
source = "inbox"
[sources.inbox]
kind = "files"
path = "data/inbox"
timezone = "Europe/Moscow"
"""


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_is_read_as_its_maker_writes_it(name: str, new_box: Callable[..., Any]) -> None:
    content, ticker, closes, set_aside = SHAPES[name]
    box = new_box(toml=UNIVERSE)
    box.drop(name, content)
    (asked,) = box.serve()
    assert {end.split("|")[1] for end in asked} == {ticker}
    held = box.lake.read("candles").filter(ticker=ticker)
    expected = [(dt.date.fromisoformat(day), close) for day, close in closes]
    assert held.select("day", "close").rows() == expected
    own = box.receipts()[name]["sources"]["inbox"]
    assert (own["candles"], sum(own["quarantined"].values())) == (len(closes), set_aside)


@pytest.mark.parametrize(
    "content", ["No data", "Exceeded the daily hits limit", "<html><body>captcha</body></html>"]
)
def test_what_stooq_answers_instead_of_candles_is_refused(
    content: str, new_box: Callable[..., Any]
) -> None:
    box = new_box(toml=UNIVERSE)
    box.drop("AAPL.csv", content)
    assert box.serve() == []
    assert len(box.warnings) == 1
    assert box.waiting() == ["AAPL.csv"]
