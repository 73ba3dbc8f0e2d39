"""The check on `scores`: over whole exchanges, over the window, a warning in words."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest

from stock_assets.assets.checks import table_check_specs
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.live_check import LIVE_CHECK, forecasts_keep_their_promise
from stock_assets.assets.modelling import build_scores
from stock_assets.calendars import get_calendar
from stock_assets.lake.schemas import Scores
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LAST = dt.date(2026, 6, 30)
EXCHANGES = {"XMOS": ("AAA", "BBB"), "XNYS": ("CCC", "DDD")}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        lake={"path": str(tmp_path / "data")},
        partitions={"first_day": dt.date(2026, 1, 5)},
        universe=[
            {"tickers": list(tickers), "source": "s", "exchange": exchange}
            for exchange, tickers in EXCHANGES.items()
        ],
        sources={"s": {"kind": "simulated"}},
    )


@pytest.fixture
def lake(settings: Settings) -> LakeResource:
    return LakeResource(database=":memory:", root=str(settings.lake_dir))


def scores(exchange: str, held: Sequence[bool], last: dt.date = LAST) -> pl.DataFrame:
    """A score a ticker and session up to `last`, in whose intervals the outcome was or not."""
    calendar = get_calendar(exchange)
    days = calendar.sessions[: calendar.index(last) + 1][-len(held) :]
    tickers = EXCHANGES[exchange]
    count = len(days) * len(tickers)
    usual = {pl.Float64: 1.0, pl.String: "m", pl.Boolean: True, pl.Int32: 1, pl.Date: LAST}
    inside = [item for item in held for _ in tickers]
    given = {
        "day": [day for day in days for _ in tickers],
        "ticker": list(tickers) * len(days),
        "in_80": inside,
        "in_90": inside,
    }
    schema = Scores.create_empty().schema
    return pl.DataFrame(
        {name: given.get(name, [usual[kind.base_type()]] * count) for name, kind in schema.items()},
        schema=schema,
    ).sort(Scores.primary_key())


def often(share_of_five: int, days: int) -> list[bool]:
    """Inside its interval so many days out of five."""
    return [number % 5 < share_of_five for number in range(days)]


@pytest.fixture
def check(settings: Settings, lake: LakeResource) -> Callable[..., dg.AssetCheckResult]:
    """The check of a day's slice of `tickers` on a lake with these scores."""

    def check(
        *parts: pl.DataFrame, tickers: tuple[str, ...] = settings.tickers
    ) -> dg.AssetCheckResult:
        frame = pl.concat(parts).sort(Scores.primary_key())
        everything = Slice(None, frame["day"].max(), settings.tickers)
        Lake(settings.lake_dir).write("scores", frame, everything)
        return forecasts_keep_their_promise(lake, settings, Slice(LAST, LAST, tickers))

    return check


def good(exchange: str) -> pl.DataFrame:
    """80 and 90 % within the tolerance: held in 85 %."""
    return scores(exchange, [number % 20 not in {3, 9, 16} for number in range(60)])


def test_an_exchange_whose_intervals_hold_too_little_fails_and_comes_first(
    check: Callable[..., dg.AssetCheckResult],
) -> None:
    result = check(good("XMOS"), scores("XNYS", often(2, 60)))
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.description is not None
    assert result.description.startswith(
        "XNYS, 120 forecasts over the 60 target days to 2026-06-30"
    )
    assert "the 80 % interval is too narrow: it held 40.0 % of outcomes" in result.description
    assert "XMOS, 120 forecasts" in result.description
    assert result.metadata["XNYS: 80 % coverage"].value == pytest.approx(0.4)
    assert result.metadata["XMOS: 90 % coverage"].value == pytest.approx(0.85)


def test_what_is_within_the_band_passes(check: Callable[..., dg.AssetCheckResult]) -> None:
    result = check(good("XMOS"), good("XNYS"))
    assert result.passed
    assert result.description is not None
    assert "the 80 % interval held 85.0 %" in result.description


def test_only_the_slices_exchanges_are_judged_but_all_their_tickers(
    check: Callable[..., dg.AssetCheckResult],
) -> None:
    result = check(good("XMOS"), scores("XNYS", often(2, 60)), tickers=("AAA",))
    assert result.passed
    assert result.description is not None
    assert "XMOS, 120 forecasts" in result.description
    assert "XNYS" not in result.description


def test_neither_what_is_older_nor_what_is_later_counts(
    check: Callable[..., dg.AssetCheckResult],
) -> None:
    calendar = get_calendar("XMOS")
    earlier = calendar.back(LAST, 60)
    later = calendar.after(LAST, 30)
    bad_before = scores("XMOS", often(1, 100), earlier)
    bad_after = scores("XMOS", often(1, 30), later[-1])
    assert check(bad_before, good("XMOS"), bad_after, tickers=("AAA", "BBB")).passed


def test_a_lake_without_scores_is_not_judged(lake: LakeResource, settings: Settings) -> None:
    result = forecasts_keep_their_promise(lake, settings, Slice(None, LAST, settings.tickers))
    assert result.passed
    assert result.description is not None
    assert "no forecast has reached its target day" in result.description


def test_the_scores_step_evaluates_it_beside_the_tables_checks(
    settings: Settings, lake: LakeResource
) -> None:
    grid = Grid.of(settings)
    Lake(settings.lake_dir).write(
        "scores", scores("XNYS", often(2, 60)), Slice(None, LAST, settings.tickers)
    )
    asset = build_scores(settings, grid)
    assert {key.name for key in asset.check_keys} == {
        LIVE_CHECK, *(spec.name for spec in table_check_specs("scores"))
    }  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [asset],
            partition_key=dg.MultiPartitionKey({"day": str(LAST), "ticker": "CCC"}),
            resources={"lake": lake},
            instance=instance,
        )
    assert result.success
    found = {item.check_name: item for item in result.get_asset_check_evaluations()}
    assert not found[LIVE_CHECK].passed
    assert found["schema"].passed
