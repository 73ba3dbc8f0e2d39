"""A split that the source declares reaches bars, whenever the lake hears of it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from moex_server import Iss, Listing, candle, moex_settings

from stock_assets.assets.ingest import build_ingest
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.transform import build_transform
from stock_assets.automation.gaps import Held
from stock_assets.automation.news import look_for_news
from stock_assets.calendars import get_calendar
from stock_assets.errors import LakeError
from stock_assets.lake.actions import otherwise_adjusted
from stock_assets.lake.dbt_request import build_request
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import polars as pl

    from stock_assets.slices import Slice

pytestmark = pytest.mark.slow

DAYS = get_calendar("XMOS").between(dt.date(2024, 5, 2), dt.date(2024, 6, 28))
SPLIT = dt.date(2024, 6, 17)
LATE = dt.datetime(2024, 7, 10, tzinfo=dt.UTC)
NAMES = ("SBER", "GAZP")


def exchange(*, declared: bool) -> Iss:
    """SBER trades on at a tenth of its price from `SPLIT` on; GAZP as ever."""
    closes = [1000.0 + place for place in range(len(DAYS))]
    split = [
        candle(f"{day} 00:00:00", close / (10 if day >= SPLIT else 1))
        for day, close in zip(DAYS, closes, strict=True)
    ]
    plain = [candle(f"{day} 00:00:00", close) for day, close in zip(DAYS, closes, strict=True)]
    listings = {
        name: [
            Listing(
                "TQBR", {24: rows}, is_primary=1, history_from="2013-03-25",
                history=[[row[6][:10], row[1]] for row in rows],
            )
        ]
        for name, rows in (("SBER", split), ("GAZP", plain))
    }  # fmt: skip
    return Iss(listings, [[str(SPLIT), "SBER", 1, 10]] if declared else [])


class Desk:
    """A lake of Moscow shares, and its first two assets."""

    def __init__(self, folder: Path, url: str, instance: dg.DagsterInstance) -> None:
        universe = [{"ticker": name, "source": "moex"} for name in NAMES]
        settings = moex_settings(folder, url, universe)
        partitions = settings.partitions.model_copy(update={"first_day": DAYS[0]})
        self.settings = settings.model_copy(update={"partitions": partitions})
        self.lake = Lake(self.settings.lake_dir)
        self.grid = Grid.of(self.settings)
        self._instance = instance

    def run(self, first: dt.date, last: dt.date) -> dg.ExecuteInProcessResult:
        area: Slice = self.grid.slice(first, last, NAMES)
        return dg.materialize(
            [build_ingest(self.settings, self.grid), build_transform(self.settings, self.grid)],
            selection=["candles", "quarantine", "bars"],
            resources={"lake": LakeResource(database=":memory:", root=str(self.settings.lake_dir))},
            tags=self.grid.tags(area),
            instance=self._instance,
        )

    def declare(self, **files: Path) -> None:
        lake = self.settings.lake.model_copy(update=files)
        self.settings = self.settings.model_copy(update={"lake": lake})

    def adjusted_otherwise(self) -> dict[str, dt.date]:
        """What the evening's look finds."""
        news = look_for_news(self.settings, self.lake, self.held(), LATE, 0)
        assert not news.revised
        area = self.grid.slice(DAYS[-2], DAYS[-2], NAMES)
        request = build_request(self.settings, area, news=news.splits)
        return otherwise_adjusted(request, self.lake, None, DAYS[-2])

    def bars(self) -> pl.DataFrame:
        return self.lake.read("bars")

    def held(self) -> Held:
        """All but the last day."""
        nothing: frozenset[Any] = frozenset()
        sessions = DAYS[:-1]
        cells = frozenset((day, name) for day in sessions for name in NAMES)
        return Held(sessions, sessions[-1], cells, nothing, nothing, nothing, nothing, nothing)


@pytest.fixture
def new_desk(tmp_path: Path) -> Callable[..., Desk]:
    def made(url: str) -> Desk:
        return Desk(tmp_path, url, dg.DagsterInstance.ephemeral())

    return made


def test_prices_go_on_over_a_split_that_the_exchange_declares(new_desk) -> None:
    with exchange(declared=True).serve() as server:
        desk = new_desk(server.url)
        assert desk.run(DAYS[0], DAYS[-1]).success
        sber = desk.bars().filter(ticker="SBER")
        assert sber["close"].to_list() == pytest.approx([1000.0 + at for at in range(len(DAYS))])
        factors = [10.0 if day >= SPLIT else 1.0 for day in DAYS]
        assert sber["split_factor"].to_list() == factors
        assert desk.bars().filter(ticker="GAZP")["split_factor"].unique().to_list() == [1.0]
        assert sber["suspected_split"].null_count() == len(DAYS)
        # Nothing new: the ledger gains no row.
        version = desk.lake.open("splits").version()
        assert desk.run(DAYS[-1], DAYS[-1]).success
        assert desk.lake.open("splits").version() == version


def test_a_split_that_is_declared_late_is_no_return_and_its_bars_are_asked_for_again(
    new_desk,
) -> None:
    silent, telling = exchange(declared=False), exchange(declared=True)
    with silent.serve() as server:
        desk = new_desk(server.url)
        assert desk.run(DAYS[0], DAYS[-2]).success
        sber = desk.bars().filter(ticker="SBER")
        assert sber["split_factor"].unique().to_list() == [1.0]
        assert sber.filter(day=SPLIT)["suspected_split"].to_list() == [10.0]
        assert desk.adjusted_otherwise() == {}

        silent.splits.extend(telling.splits)
        assert desk.adjusted_otherwise() == {"SBER": SPLIT}

        # A run of a later day hears of it, and makes no bar ten times as high as the one before.
        with pytest.raises(LakeError, match=f"SBER were declared.*those from {SPLIT} to 2024-06-2"):
            desk.run(DAYS[-1], DAYS[-1])
        assert desk.bars()["day"].max() == DAYS[-2]
        assert desk.run(SPLIT, DAYS[-1]).success
        assert desk.adjusted_otherwise() == {}
    sber = desk.bars().filter(ticker="SBER")
    assert sber["close"].to_list() == pytest.approx([1000.0 + at for at in range(len(DAYS))])
    assert sber["suspected_split"].null_count() == len(DAYS)


def test_a_dividend_that_is_declared_late_is_no_return_either(new_desk, tmp_path: Path) -> None:
    with exchange(declared=True).serve() as server:
        desk = new_desk(server.url)
        assert desk.run(DAYS[0], DAYS[-2]).success
        file = tmp_path / "dividends.csv"
        file.write_text(f"ticker,date,amount\nGAZP,{DAYS[-5]},30\n")
        desk.declare(dividends=file)
        assert desk.adjusted_otherwise() == {"GAZP": DAYS[-5]}
        with pytest.raises(LakeError, match=f"GAZP were declared.*those from {DAYS[-5]} to"):
            desk.run(DAYS[-1], DAYS[-1])
        assert desk.run(DAYS[-5], DAYS[-1]).success
        assert desk.adjusted_otherwise() == {}
    factors = desk.bars().filter(ticker="GAZP")["dividend_factor"].to_list()
    assert factors[:-5] == [None] * (len(DAYS) - 5)
    assert len(set(factors[-5:])) == 1
    assert factors[-1] > 1
