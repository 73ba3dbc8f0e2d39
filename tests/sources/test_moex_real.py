"""MOEX ISS by its own recorded answers, and by real candles replayed as it would send them."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from api_server import ApiServer
from moex_server import Iss, Listing, Row, moex_settings
from werkzeug.wrappers import Request, Response

from stock_assets.errors import SourceError
from stock_assets.lake.splits import Split, read_splits
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.iss import Table, tables_of
from stock_assets.sources.moex import MoexSource
from stock_assets.sources.moex_boards import main_boards
from stock_assets.sources.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stock_assets.settings import Settings

LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
LAST = dt.date(2026, 6, 30)


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> Path:
    """Folder of recorded bodies of ISS."""
    return shared_data.parent / "apis" / "moex_iss"


def table_of(file: Path, name: str) -> Table:
    return tables_of(file.read_bytes())[name]


def source_of(settings: Settings) -> MoexSource:
    own: Any = settings.sources["moex"]
    return MoexSource("moex", own, settings, resume=False)


def on_moex(*tickers: str) -> list[dict[str, Any]]:
    return [{"ticker": ticker, "source": "moex"} for ticker in tickers]


# Recorded answers.


@pytest.mark.parametrize("name", ["SBER", "FXGD"])
def test_recorded_candles_are_read_by_the_names_of_their_columns(
    recorded: Path, tmp_path: Path, name: str
) -> None:
    """As recorded they are of months, which have a begin like any other."""
    settings = moex_settings(tmp_path, "http://unused", on_moex(name))
    body = (recorded / f"candles__candles-{name}.json").read_bytes()
    assert b"candles.cursor" not in body
    window = Window(name, name, dt.date(2020, 1, 1), dt.date(2021, 1, 31))
    found = source_of(settings).rows(window, [body])
    assert found.height == 13
    assert found["fault"].null_count() == 13
    first = found.select("day", "open", "high", "low", "close", "volume").row(0)
    assert (
        first
        == {
            "SBER": (dt.date(2020, 1, 1), 255.99, 270.8, 251.4, 252.2, 747137520.0),
            "FXGD": (dt.date(2020, 1, 1), 65.58, 69.7, 64.92, 69.67999999999999, 2278467.0),
        }[name]
    )
    # A month that begins on the last day asked for is in: bounds are included.
    assert found["day"].max() == dt.date(2021, 1, 1)


@pytest.mark.parametrize("who", ["candles", "iss"])
def test_recorded_boards_give_tqbr_and_eqbr_before_it(recorded: Path, who: str) -> None:
    boards = main_boards(table_of(recorded / f"{who}__securities-SBER.json", "boards"))
    assert [(board.name, board.engine, board.market, str(board.first)) for board in boards] == [
        ("TQBR", "stock", "shares", "2013-03-25"),
        ("EQBR", "stock", "shares", "2011-11-21"),
    ]


def test_a_recorded_unknown_security_is_an_error(recorded: Path, tmp_path: Path) -> None:
    body = (recorded / "candles__securities-XXXX.json").read_bytes()
    with ApiServer(lambda _: Response(body, content_type="application/json")) as server:
        settings = moex_settings(tmp_path, server.url, on_moex("XXXX"))
        with pytest.raises(SourceError, match="ticker XXXX: MOEX ISS knows no security 'XXXX'"):
            fetch_slice(settings, Slice(None, LAST, ("XXXX",)), now=LATE)


def test_recorded_borders_tell_the_beginning_of_an_interval(recorded: Path, tmp_path: Path) -> None:
    borders = (recorded / "candles__candleborders-FXGD.json").read_bytes()
    card = b"""{"boards": {
        "columns": ["boardid", "board_group_id", "market", "engine", "history_from",
                    "history_till", "is_primary"],
        "data": [["TQTF", 57, "shares", "stock", "2014-06-20", "2021-01-22", 1]]}}"""

    def answer(request: Request) -> Response:
        body = borders if "candleborders" in request.path else card
        return Response(body, content_type="application/json; charset=utf-8")

    with ApiServer(answer) as server:
        source = source_of(moex_settings(tmp_path, server.url, on_moex("FXGD")))
        with source.connect() as client:
            begun = source.beginning(client, Window("FXGD", "FXGD", None, LAST))
    assert begun == dt.date(2014, 6, 9)


# Real candles, sent as ISS would.


def replayed(file: Path, tickers: list[str], rewritten_for: tuple[Split, ...] = ()) -> Iss:
    """Candles of the file on TQBR; with splits, their candles as ISS rewrites them."""
    frame = pl.read_parquet(file).filter(pl.col("ticker").is_in(tickers))
    securities = {}
    for (ticker,), of in frame.group_by("ticker", maintain_order=True):
        splits = [split for split in rewritten_for if split.ticker == ticker]
        rows: list[Row] = []
        history: list[Row] = []
        for _, stamp, *prices, volume in of.iter_rows():
            day = stamp.date()
            step = math.prod(float(item.before / item.after) for item in splits if day < item.day)
            open_, high, low, close = (
                price if step == 1 else round(price * step, 9) for price in prices
            )
            value = volume * (prices[1] + prices[2]) / 2
            history.append([str(day), prices[3]])
            rows.append(
                [open_, close, high, low, value, volume / step,
                 f"{day} 00:00:00", f"{day} 23:59:59"]
            )  # fmt: skip
        first = rows[0][6][:10]
        securities[str(ticker)] = [
            Listing("TQBR", {24: rows}, is_primary=1, history_from=first, history=history)
        ]
    told = [
        [str(split.day), split.ticker, int(split.before), int(split.after)]
        for split in rewritten_for
    ]
    return Iss(securities, told)


def directly(
    files_settings: Callable[..., Settings], file: Path, tickers: list[str]
) -> pl.DataFrame:
    settings = files_settings(file, *tickers, exchange="XMOS")
    return fetch_slice(settings, Slice(None, LAST, tuple(tickers)), now=LATE).candles


def test_a_replay_of_the_whole_market_equals_the_direct_load(
    shared_data: Path, tmp_path: Path, files_settings: Callable[..., Settings]
) -> None:
    file = shared_data / "moex_daily_dev_tqbr.parquet"
    tickers = sorted(pl.read_parquet(file, columns=["ticker"])["ticker"].unique())
    with replayed(file, tickers).serve() as server:
        settings = moex_settings(tmp_path, server.url, on_moex(*tickers), connections=8)
        found = fetch_slice(settings, Slice(None, LAST, tuple(tickers)), now=LATE)
    assert found.quarantine.is_empty()
    assert found.held_back == 0
    wanted = directly(files_settings, file, tickers)
    assert wanted.height == 146_922
    assert found.candles.drop("source").equals(wanted.drop("source"))


def test_a_replay_that_is_rewritten_for_splits_equals_the_direct_load_too(
    shared_data: Path, tmp_path: Path, files_settings: Callable[..., Settings]
) -> None:
    file = shared_data / "moex_daily_dev_tqbr.parquet"
    splits = read_splits(shared_data / "splits")
    tickers = sorted({split.ticker for split in splits} | {"SBER"})
    assert len(tickers) == 5
    iss = replayed(file, tickers, splits)
    with iss.serve() as server:
        settings = moex_settings(tmp_path, server.url, on_moex(*tickers))
        found = fetch_slice(settings, Slice(None, LAST, tuple(tickers)), now=LATE)
        source = source_of(settings)
        with source.connect() as client:
            assert source.reference.splits(client, settings.universe) == splits
    # As it was seen live.
    seen = {row[6][:10]: row[1] for row in iss.securities["GMKN"][0].candles[24]}
    assert seen["2024-03-25"] == 151.38
    wanted = directly(files_settings, file, tickers)
    assert found.candles.drop("source").equals(wanted.drop("source"))
