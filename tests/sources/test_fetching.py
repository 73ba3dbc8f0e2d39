from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from stock_assets.errors import SettingsError
from stock_assets.lake.schemas import Candles
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.making import make_source

if TYPE_CHECKING:
    from pathlib import Path

LATE = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.fixture
def mixed(tmp_path: Path) -> Settings:
    (tmp_path / "AAA.csv").write_text("date,close\n2018-01-03,1\n2018-01-04,-2\n")
    return Settings(
        partitions={"first_day": dt.date(2018, 1, 3)},
        universe=[
            {"ticker": "AAA", "source": "mine"},
            {"ticker": "BBB", "source": "sample"},
        ],
        sources={
            "mine": {"kind": "files", "path": tmp_path},
            "sample": {"kind": "simulated", "begin": dt.date(2018, 1, 3), "interval": "1d"},
        },
    )


def test_each_ticker_comes_from_its_own_source(mixed: Settings) -> None:
    found = fetch_slice(mixed, Slice(None, dt.date(2018, 1, 4), ("BBB", "AAA")), now=LATE)
    cells = found.candles.select("ticker", "day", "source").rows()
    assert cells == [
        ("AAA", dt.date(2018, 1, 3), "mine"),
        ("BBB", dt.date(2018, 1, 3), "sample"),
        ("BBB", dt.date(2018, 1, 4), "sample"),
    ]
    assert found.quarantine["ticker"].to_list() == ["AAA"]
    assert found.candles.equals(found.candles.sort(Candles.primary_key()))


def test_a_source_that_is_not_asked_is_not_read(mixed: Settings, tmp_path: Path) -> None:
    (tmp_path / "AAA.csv").write_bytes(b"")
    found = fetch_slice(mixed, Slice(None, dt.date(2018, 1, 4), ("BBB",)), now=LATE)
    assert found.candles["ticker"].unique().to_list() == ["BBB"]


def test_without_a_moment_the_clock_decides(mixed: Settings) -> None:
    tomorrow = dt.datetime.now(tz=dt.UTC).date() + dt.timedelta(1)
    ahead = Slice(tomorrow, tomorrow + dt.timedelta(6), ("BBB",))
    found = fetch_slice(mixed, ahead)
    assert found.candles.is_empty()
    assert found.held_back == 5


def test_a_source_nobody_defined_is_named(mixed: Settings) -> None:
    with pytest.raises(SettingsError, match=r"no source 'moex'.*\['mine', 'sample'\]"):
        make_source("moex", mixed)
