from __future__ import annotations

import datetime as dt
import gzip
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.errors import SettingsError, SourceError
from stock_assets.settings import FilesSettings, Settings, load_settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.files import FilesSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stock_assets.sources.rules import Judged

    Build = Callable[..., Settings]

LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
LAST = dt.date(2026, 11, 20)


def fetch(config: Settings, first: dt.date | None = None, last: dt.date = LAST) -> Judged:
    return fetch_slice(config, Slice(first, last, config.tickers), now=LATE)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


DAILY = "date,open,high,low,close,volume\n2018-01-03,10,12,9,11,100\n2018-01-04,11,12,10,10.5,200\n"


# Forms of files.


def test_yahoo_takes_close_and_never_adj_close(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "AAPL.csv").write_text(
        "Date,Open,High,Low,Close,Adj Close,Volume\n2018-01-03,10,12,9,11,5.5,100\n"
        "2018-01-04,null,null,null,null,null,null\n"
    )
    found = fetch(files_settings(tmp_path, "AAPL", exchange="XNYS"))
    assert found.candles["close"].to_list() == [11.0]
    assert found.candles["start"].to_list() == [utc(2018, 1, 3)]
    assert found.quarantine["reason"].to_list() == [
        "open is missing; high is missing; low is missing; close is missing"
    ]


def test_adj_close_alone_is_no_close(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "AAPL.csv").write_text("Date,Open,High,Low,Adj Close\n2018-01-03,1,1,1,1\n")
    with pytest.raises(SourceError, match=r"close.*'Adj Close'.*\[sources\.mine\.columns\] close"):
        fetch(files_settings(tmp_path, "AAPL"))


BY_VALUE = """\
Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume
Ticker,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT
Date,,,,,,,,,,
2018-01-03,11.0,21.0,12.0,22.0,9.0,19.0,10.0,20.0,100,200
2018-01-04,,21.5,,22.0,,19.0,,20.0,,300
2018-01-05,12.0,x,12.5,22.0,9.0,19.0,10.0,20.0,400,500
"""
BY_TICKER = """\
Ticker,MSFT,MSFT,MSFT,MSFT,MSFT,AAPL,AAPL,AAPL,AAPL,AAPL
Price,Open,High,Low,Close,Volume,Open,High,Low,Close,Volume
Date,,,,,,,,,,
2018-01-03,20.0,22.0,19.0,21.0,200,10.0,12.0,9.0,11.0,100
2018-01-04,20.0,22.0,19.0,21.5,300,,,,,
2018-01-05,20.0,22.0,19.0,x,500,10.0,12.5,9.0,12.0,400
"""


@pytest.mark.parametrize("content", [BY_VALUE, BY_TICKER], ids=["by value", "by ticker"])
def test_tickers_beside_each_other_as_yfinance_leaves_them(
    tmp_path: Path, files_settings: Build, content: str
) -> None:
    (tmp_path / "download.csv").write_text(content)
    config = files_settings(tmp_path, "AAPL", "MSFT", exchange="XNYS")
    found = fetch(config)
    assert found.candles.sort("ticker", "day").select("ticker", "day", "close").rows() == [
        ("AAPL", dt.date(2018, 1, 3), 11.0),
        ("AAPL", dt.date(2018, 1, 5), 12.0),
        ("MSFT", dt.date(2018, 1, 3), 21.0),
        ("MSFT", dt.date(2018, 1, 4), 21.5),
    ]
    assert found.candles["volume"].sum() == 1000
    assert found.quarantine.select("ticker", "day", "reason").rows() == [
        ("MSFT", dt.date(2018, 1, 5), "close 'x' is not a number")
    ]
    assert json.loads(found.quarantine["raw"][0])["High"] == "22.0"
    alone = fetch(config, dt.date(2018, 1, 4), dt.date(2018, 1, 4))
    assert alone.candles["close"].to_list() == [21.5]


def test_one_ticker_as_yfinance_leaves_it_needs_no_name_of_the_file(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "prices.csv").write_text(
        "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,\n"
        "2018-01-03,11.0,12.0,9.0,10.0,100\n"
    )
    found = fetch(files_settings(tmp_path, "AAPL", exchange="XNYS"))
    assert found.candles.select("ticker", "close", "volume").rows() == [("AAPL", 11.0, 100.0)]


def test_finam_is_read_as_it_comes(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "SBER_180103_180103.txt").write_bytes(
        b"<TICKER>;<PER>;<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>\r\n"
        b"SBER;5;20180103;100000;225.5;226.0;225.1;225.9;1000\r\n"
        b"SBER;5;20180103;100500;225.9;226.5;225.9;226.1;500\r\n"
        b"SBER;5;20180103;184500;226.1;226.2;226.0;226.2;0\r\n"
    )
    config = files_settings(tmp_path, "SBER", exchange="XMOS", timezone="Europe/Moscow")
    found = fetch(config)
    assert found.quarantine.is_empty()
    assert found.candles["interval"].unique().to_list() == ["5m"]
    assert found.candles["start"].to_list() == [
        utc(2018, 1, 3, 7), utc(2018, 1, 3, 7, 5), utc(2018, 1, 3, 15, 45),
    ]  # fmt: skip
    assert found.candles["volume"].to_list() == [1000.0, 500.0, 0.0]


@pytest.mark.parametrize(
    "content",
    [
        DAILY.replace("date", "Date"),
        DAILY.upper(),
        DAILY.replace(",", ";"),
        DAILY.replace(",", "\t"),
        DAILY.replace(",", ";").replace(".5", ",5"),
        DAILY.replace(",", ";").replace("\n", ";\n"),
        "\ufeff" + DAILY,
        DAILY.replace("\n", "\r\n"),
        "\n" + DAILY + "\n\n",
        re.sub(r"(-0[34])", r"\1 00:00:00", DAILY.replace("date", "begin")),
        DAILY.replace("10.5", '"10.5"').replace("date", '"date"'),
        (
            "<DATE>;<TIME>;<OPEN>;<HIGH>;<LOW>;<CLOSE>;<VOL>\n"
            "20180103;000000;10;12;9;11;100\n20180104;0;11;12;10;10,5;200\n"
        ),
        DAILY.replace("2018-01-03", "1514937600").replace("2018-01-04", "1515024000"),
        re.sub(r"(-0[34]),", r"\1T00:00:00-05:00,", DAILY),
    ],
)  # fmt: skip
def test_the_same_candles_however_they_are_written(
    tmp_path: Path, files_settings: Build, content: str
) -> None:
    (tmp_path / "AAPL.csv").write_text(content, encoding="utf-8")
    found = fetch(files_settings(tmp_path, "AAPL", exchange="XNYS"))
    assert found.quarantine.is_empty()
    assert found.candles.select(
        "day", "start", "open", "high", "low", "close", "volume"
    ).rows() == [
        (dt.date(2018, 1, 3), utc(2018, 1, 3), 10.0, 12.0, 9.0, 11.0, 100.0),
        (dt.date(2018, 1, 4), utc(2018, 1, 4), 11.0, 12.0, 10.0, 10.5, 200.0),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "AAPL.csv", "AAPL.csv.gz", "AAPL.txt", "AAPL.parquet",
        "aapl.csv", "AAPL_2018.csv", "AAPL-daily.csv",
    ],
)  # fmt: skip
def test_a_file_named_for_its_ticker_in_every_format(
    tmp_path: Path, files_settings: Build, name: str
) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pl.read_csv(DAILY.encode(), try_parse_dates=True).write_parquet(path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(DAILY.encode(), mtime=0))
    else:
        path.write_text(DAILY)
    for place in (tmp_path, path):
        found = fetch(files_settings(place, "AAPL", "MSFT", exchange="XNYS"))
        assert found.candles["ticker"].to_list() == ["AAPL", "AAPL"]


@pytest.mark.parametrize(
    "name", ["BTC-EUR", "BTC-B", "BTC_EUR", "btc_eur", "BTC_EUR_1d", "BTC-us", "BTC-d", "BTCB"]
)
def test_another_instruments_file_is_nobodys(
    tmp_path: Path, files_settings: Build, name: str
) -> None:
    (tmp_path / f"{name}.csv").write_text(DAILY)
    with pytest.raises(SourceError, match=name):
        fetch(files_settings(tmp_path, "BTC"))


@pytest.mark.parametrize(
    "name",
    ["brk-b_us_d", "BRK-B_2018", "BRK-B_180103_180104", "BRK-B-1d", "BRK-B_2018-01-03_2018-01-04",
     "BRK-B_M5", "brk-b_daily", "BRK-B_5min", "BRK-B_mended by Ann"],
)  # fmt: skip
def test_a_word_about_the_rows_may_stand_behind_the_ticker(
    tmp_path: Path, files_settings: Build, name: str
) -> None:
    (tmp_path / f"{name}.csv").write_text(DAILY)
    found = fetch(files_settings(tmp_path, "BRK", "BRK-B", exchange="XNYS"))
    assert found.candles["ticker"].to_list() == ["BRK-B", "BRK-B"]


def test_a_single_price_is_all_four(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "GOLD.csv").write_text("Date,Price\n2018-01-03,1600\n")
    candle = fetch(files_settings(tmp_path, "GOLD")).candles.row(0, named=True)
    assert {candle[name] for name in ("open", "high", "low", "close")} == {1600.0}
    assert candle["volume"] is None


def test_columns_are_mapped_in_the_settings(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "x.csv").write_text("wann;wer;auf;hoch;tief;zu;stueck\n2018-01-03;A;10;12;9;11;7\n")
    names = {"date": "wann", "ticker": "wer", "open": "auf", "high": "hoch", "low": "tief"}
    columns = {**names, "close": "zu", "volume": "stueck"}
    found = fetch(files_settings(tmp_path, "A", columns=columns))
    assert found.candles.select("open", "high", "low", "close", "volume").row(0) == (
        10,
        12,
        9,
        11,
        7,
    )


def test_a_moment_belongs_to_the_day_on_the_exchanges_clock(
    tmp_path: Path, files_settings: Build
) -> None:
    # 21:30 UTC on a Wednesday is past midnight in Moscow, and still Wednesday in New York.
    lines = "".join(
        f"2018-01-{day}T{hour}:30:00Z,1,1,1,1\n" for day in (10, 11) for hour in (20, 21)
    )
    for exchange, days in (("XMOS", [10, 11, 11, 12]), ("XNYS", [10, 10, 11, 11])):
        (tmp_path / "A.csv").write_text("timestamp,open,high,low,close\n" + lines)
        found = fetch(files_settings(tmp_path, "A", exchange=exchange, interval="30m"))
        assert sorted(day.day for day in found.candles["day"]) == days


def test_daily_moments_that_are_midnight_elsewhere_get_their_local_day(
    tmp_path: Path, files_settings: Build
) -> None:
    # Midnight in New York, converted to UTC by whoever wrote the file.
    days = [dt.datetime(2018, 1, day, 5, tzinfo=dt.UTC) for day in (3, 4, 5)]
    frame = pl.DataFrame({"timestamp": days, "close": [1.0, 2.0, 3.0]})
    frame.write_parquet(tmp_path / "A.parquet")
    found = fetch(files_settings(tmp_path, "A", exchange="XNYS"))
    assert found.candles["start"].to_list() == [utc(2018, 1, day) for day in (3, 4, 5)]
    assert found.candles["interval"].unique().to_list() == ["1d"]


# Whose rows are whose.


def test_tickers_outside_the_universe_are_named_once_and_ignored(
    tmp_path: Path, files_settings: Build, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "all.csv").write_text(
        'ticker,date,close\nA,2018-01-03,1\n"a\'; drop",2018-01-03,2\nZZZ,2018-01-03,3\n'
    )
    (tmp_path / "other'; drop.csv").write_text(DAILY)
    with caplog.at_level(logging.WARNING):
        found = fetch(files_settings(tmp_path, "A"))
    assert found.candles["close"].to_list() == [1.0]
    assert found.quarantine.is_empty()
    assert [record.getMessage() for record in caplog.records] == [
        "source mine: ignored what is not in its universe: 'ZZZ', \"a'; drop\", \"other'; drop\""
    ]


def test_a_file_of_strangers_only_is_refused(tmp_path: Path, files_settings: Build) -> None:
    path = tmp_path / "all.csv"
    path.write_text("ticker,date,close\nZZZ,2018-01-03,1\n")
    with pytest.raises(SourceError, match=r"'ZZZ'.*universe has 'A'"):
        fetch(files_settings(path, "A"))


def test_a_file_without_any_hint_of_its_ticker_is_refused(
    tmp_path: Path, files_settings: Build
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(DAILY)
    with pytest.raises(SourceError, match=r"'prices'.*TICKER\.csv"):
        fetch(files_settings(path, "A"))


# Bad rows.


def test_every_bad_row_is_set_aside_with_its_number_reason_and_text(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "A.csv").write_text(
        "date,open,high,low,close,volume\n"
        "2018-01-03,10,12,9,11,100\n"
        "2018-01-04,abc,12,9,11,100\n"  # 2
        "someday,10,12,9,11,100\n"  # 3
        "\n"
        "2018-01-05,10,12,9,11,100,extra,more\n"  # 5
        "2018-01-08,10,12\n"  # 6
        "2018-01-09,10,12,9,11,lots\n"  # 7
        "2018-01-06,10,12,9,11,100\n"  # 8, a Saturday
        ",10,12,9,11,100\n"  # 9
        "2018-01-10 10:00,10,12,9,11,100\n"  # 10
    )
    found = fetch(files_settings(tmp_path, "A"))
    assert found.candles["day"].to_list() == [dt.date(2018, 1, 3)]
    rows = {item["row"]: item for item in found.quarantine.iter_rows(named=True)}
    words = {
        2: "open 'abc' is not a number",
        3: "date 'someday' is not a date or time",
        5: "more fields than the header's 6 (then 'extra')",
        6: "low is missing; close is missing",
        7: "volume 'lots' is not a number",
        8: "Saturday 2018-01-06 is not a session of weekdays",
        9: "date is missing",
        10: "date '2018-01-10 10:00' has a time of day, unlike the other rows",
    }
    assert rows.keys() == words.keys()
    for number, expected in words.items():
        assert expected in rows[number]["reason"]
    assert rows[3]["day"] == dt.date(2018, 1, 4)  # the cell of the row before it
    assert rows[9]["day"] == dt.date(2018, 1, 6)
    assert json.loads(rows[2]["raw"])["open"] == "abc"
    assert list(json.loads(rows[5]["raw"]).values())[-2:] == ["extra", "more"]
    assert set(found.quarantine["file"]) == {"A.csv"}


def test_a_row_without_a_cell_takes_that_of_its_neighbour(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "all.csv").write_text(
        "ticker,date,close\n"
        ",bad,1\n"  # nothing before it: the cell of the row after it
        "A,2018-01-03,1\n"
        "STRANGER,2018-01-09,1\n"
        ",2018-01-04,1\n"  # the ticker before it that is ours
        "B,bad,1\n"  # B's own next day, not A's last
        "B,2018-01-08,1\n"
    )
    found = fetch(files_settings(tmp_path, "A", "B"))
    cells = {
        row["row"]: (row["ticker"], row["day"].day)
        for row in found.quarantine.iter_rows(named=True)
    }
    assert cells == {1: ("A", 3), 4: ("A", 4), 5: ("B", 8)}


def test_a_file_without_one_readable_day_is_filed_under_the_first_partition(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "A.csv").write_text("date,close\nx,1\ny,2\n")
    found = fetch(files_settings(tmp_path, "A"))
    assert found.quarantine.select("day", "row").rows() == [
        (dt.date(2018, 1, 3), 1),
        (dt.date(2018, 1, 3), 2),
    ]


def test_duplicates_and_disorder(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "A.csv").write_text(
        "date,close\n2018-01-05,5\n2018-01-03,3\n2018-01-04,4\n2018-01-03,3.5\n"
    )
    (tmp_path / "A_more.csv").write_text("date,close\n2018-01-05,5.5\n")
    found = fetch(files_settings(tmp_path, "A"))
    assert found.candles["close"].to_list() == [3.5, 4.0, 5.5]
    assert found.quarantine.select("file", "row").rows() == [("A.csv", 2), ("A.csv", 1)]
    assert "row 1 of A_more.csv" in found.quarantine["reason"][1]


def test_rows_keep_their_numbers_when_only_some_are_asked_for(
    tmp_path: Path, files_settings: Build
) -> None:
    days = pl.date_range(dt.date(2018, 1, 1), dt.date(2019, 12, 31), eager=True)
    frame = pl.DataFrame({"date": days, "close": [-1.0] * len(days)})
    frame.write_parquet(tmp_path / "A.parquet")
    frame.write_csv(tmp_path / "B.csv")
    day = dt.date(2019, 5, 6)
    found = fetch(files_settings(tmp_path, "A", "B"), day, day)
    number = days.to_list().index(day) + 1
    assert found.quarantine["row"].to_list() == [number, number]
    assert [json.loads(raw)["date"] for raw in found.quarantine["raw"]] == ["2019-05-06"] * 2


def test_a_stray_quote_or_byte_spoils_its_own_row_only(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "A.csv").write_bytes(
        b'date,close\n2018-01-03,1\n2018-01-04,\xff2\n2018-01-05,"3\n2018-01-08,4\n'
    )
    found = fetch(files_settings(tmp_path, "A"))
    assert found.candles["close"].to_list() == [1.0, 4.0]
    assert found.quarantine["row"].to_list() == [2, 3]
    assert "close '\"3' is not a number" in found.quarantine["reason"][1]


# Bad files.


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("A.csv", b"", r"A\.csv is empty \(0 bytes\)"),
        ("A.parquet", b"", r"A\.parquet is empty \(0 bytes\)"),
        ("A.csv", b"\x00\x01\x02\xff\xfe" * 100, "not text"),
        ("A.csv", bytes(range(128, 256)) * 10, "no column that is recognisably"),
        ("A.csv", "date,close\n2018-01-03,1\n".encode("utf-16"), "UTF-16.*UTF-8"),
        ("A.parquet", b"PAR1 but not really" * 20, r"A\.parquet cannot be read"),
        ("A.csv.gz", b"not a gzip at all", r"A\.csv\.gz cannot be read"),
        ("A.csv.gz", gzip.compress(DAILY.encode(), mtime=0)[:30], r"A\.csv\.gz cannot be read"),
        ("A.csv", b"\n \n", "no header line"),
        (
            "A.csv",
            b"date,open,high,close\n2018-01-03,1,1,1\n",
            r"low; its columns are 'date', 'open', 'high', 'close'.*\[sources\.mine\.columns\] low",
        ),
        ("A.csv", b"open,high,low,close\n1,1,1,1\n", "timestamp"),
        ("A.csv", b"date,close\n03/04/2018,1\n05/04/2018,2\n", "day or the month first"),
        ("A.csv", b"timestamp,close\n2018-01-03 10:00,1\n", r"too few rows.*interval ="),
        (
            "A.csv",
            b"timestamp,close\n2018-01-03 10:00,1\n2018-01-03 10:07,1\n",
            r"0:07:00 apart.*interval =",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_file_of_candles_is_named_with_the_fix(
    tmp_path: Path, files_settings: Build, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        fetch(files_settings(tmp_path, "A"))
    assert name in str(caught.value)


def test_a_column_named_in_the_settings_must_be_there(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "A.csv").write_text(DAILY)
    with pytest.raises(SourceError, match=r"no column 'Last'.*\[sources\.mine\.columns\].*'date'"):
        fetch(files_settings(tmp_path, "A", columns={"close": "Last"}))


def test_a_path_that_is_not_there_or_holds_nothing(tmp_path: Path, files_settings: Build) -> None:
    with pytest.raises(SourceError, match=r"does not exist.*\[sources\.mine\] path"):
        fetch(files_settings(tmp_path / "nowhere", "A"))
    with pytest.raises(SourceError, match=r"no candle file.*\*\.parquet"):
        fetch(files_settings(tmp_path, "A"))


def test_a_header_alone_is_no_rows(tmp_path: Path, files_settings: Build) -> None:
    path = tmp_path / "A.csv"
    path.write_text(DAILY.splitlines()[0] + "\n")
    found = fetch(files_settings(path, "A"))
    assert (found.candles.height, found.quarantine.height, found.held_back) == (0, 0, 0)
    own = (config := files_settings(path, "A")).sources["mine"]
    assert isinstance(own, FilesSettings)
    assert FilesSource("mine", own, config).touched(path) is None


def test_a_wrong_timezone_is_a_settings_error(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        "[partitions]\nfirst_day = 2018-01-03\n[[universe]]\nticker = 'A'\nsource = 'mine'\n"
        "[sources.mine]\nkind = 'files'\npath = '.'\ntimezone = 'Europe/Moskow'\n"
    )
    with pytest.raises(SettingsError, match=r"s\.toml.*timezone.*Europe/Moskow.*Europe/Moscow"):
        load_settings(file)


def test_a_ticker_that_would_be_sql_is_refused_in_the_universe(
    files_settings: Build, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        files_settings(tmp_path, "a'; drop")


def test_intraday_settings_over_a_file_of_days_contradict(
    tmp_path: Path, files_settings: Build
) -> None:
    (tmp_path / "A.csv").write_text(DAILY)
    with pytest.raises(SettingsError, match="interval is '5m'"):
        fetch(files_settings(tmp_path, "A", interval="5m"))


# What the inbox asks.


def test_the_cells_that_a_file_touches(tmp_path: Path, files_settings: Build) -> None:
    path = tmp_path / "drop.csv"
    path.write_text("ticker,date,close\nB,2018-01-04,1\nA,2018-01-09,1\nZ,2017-01-03,1\nB,x,1\n")
    config = files_settings(tmp_path / "elsewhere", "A", "B", "C")
    own = config.sources["mine"]
    assert isinstance(own, FilesSettings)
    found = FilesSource("mine", own, config).touched(path)
    assert found is not None
    assert (found.first, found.last) == (dt.date(2018, 1, 4), dt.date(2018, 1, 9))
    assert found.tickers == ("A", "B")
    assert found.names == ("A", "B", "Z")
    assert found.days.sort("ticker").rows() == [
        ("A", dt.date(2018, 1, 9), 1),
        ("B", dt.date(2018, 1, 4), 2),
    ]


def test_a_file_of_strangers_touches_nothing_and_says_so(
    tmp_path: Path, files_settings: Build
) -> None:
    path = tmp_path / "Z.csv"
    path.write_text(DAILY)
    config = files_settings(tmp_path, "A")
    own = config.sources["mine"]
    assert isinstance(own, FilesSettings)
    with pytest.raises(SourceError, match="'Z'"):
        FilesSource("mine", own, config).touched(path)


def test_a_name_may_hold_what_a_pattern_means(tmp_path: Path, files_settings: Build) -> None:
    (tmp_path / "A_[1].csv").write_text(DAILY)
    of_b = pl.read_csv(DAILY.encode()).with_columns(pl.lit("B").alias("ticker"))
    of_b.write_parquet(tmp_path / "A_*.parquet")
    found = fetch(files_settings(tmp_path, "A", "B"))
    assert found.candles.height == 4


# Properties.

texts = st.sampled_from(["1", "2.5", "-1", "0", "", "abc", "NaN", "inf", "1e400", '"7"', "9,9"])
stamps = st.one_of(
    st.dates(dt.date(2018, 1, 1), dt.date(2018, 1, 14)).map(str),
    st.sampled_from(["", "soon", "2018-13-01", "2018-01-05 10:00"]),
)
lines = st.tuples(st.sampled_from(["A", "B", "", "Z"]), stamps, texts, texts, texts, texts, texts)


@pytest.mark.slow
@given(st.lists(lines, min_size=1, max_size=25), st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_any_file_is_conserved_and_its_days_add_up(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], cut: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("any")
    header = "ticker;date;open;high;low;close;volume"
    # One sound row of each ticker keeps the file ours and daily, whatever chance adds.
    sound = ["A;2018-01-03;1;1;1;1;1", "B;2018-01-04;1;1;1;1;1"] * 13
    content = "\n".join([header, *(";".join(row) for row in rows), *sound])
    (folder / "x.csv").write_text(content + "\n")
    config = Settings(
        partitions={"first_day": dt.date(2018, 1, 3)},
        universe=[{"tickers": ["A", "B"], "source": "mine"}],
        sources={"mine": {"kind": "files", "path": folder}},
    )
    whole = fetch(config)
    ours = sum(row[0].strip() != "Z" for row in rows) + len(sound)
    assert whole.candles.height + whole.quarantine.height == ours

    edges = [dt.date(2018, 1, 1) + dt.timedelta(cut), dt.date(2018, 1, 14)]
    parts = [fetch(config, None, edges[0])]
    day = edges[0] + dt.timedelta(1)
    parts += [
        fetch(config, day + dt.timedelta(n), day + dt.timedelta(n))
        for n in range((edges[1] - edges[0]).days)
    ]
    _equal(parts, whole, ["candles", "quarantine"])
    each: list[Any] = [
        fetch_slice(config, Slice(None, LAST, (ticker,)), now=LATE) for ticker in ("A", "B")
    ]
    _equal(each, whole, ["candles", "quarantine"])


def _equal(parts: list[Judged], whole: Judged, names: list[str]) -> None:
    for name in names:
        expected: pl.DataFrame = getattr(whole, name)
        key = ["day", "ticker", *(["row"] if name == "quarantine" else ["start"])]
        found = pl.concat([getattr(part, name) for part in parts]).sort(key)
        assert found.equals(expected.sort(key))
