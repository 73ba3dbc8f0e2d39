"""The checks of the tables: what they say of the lake, and that a run pays for its slice only."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest

from stock_assets.assets.checks import table_check_results, table_check_specs
from stock_assets.assets.drawer_resource import DRAWER, build_drawer
from stock_assets.assets.drifting import DRIFT_CHECK, QUALITY_CHECK, TICKER_CHECK, build_drift
from stock_assets.assets.ingest import build_ingest
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.page_check import PAGES_CHECK
from stock_assets.errors import LakeError
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.splits import read_splits
from stock_assets.lake.store import Lake
from stock_assets.partitions import Grid
from stock_assets.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MONDAY, TUESDAY = dt.date(2026, 6, 1), dt.date(2026, 6, 2)
EXCHANGES = {"AAA": "XMOS", "BBB": "XMOS", "CCC": "XMOS", "DDD": "XNYS"}


@pytest.fixture
def delisted() -> dict[str, dt.date]:
    """Tickers and their last days."""
    return {}


@pytest.fixture
def settings(tmp_path: Path, delisted: dict[str, dt.date]) -> Settings:
    return Settings(
        lake={"path": str(tmp_path / "data")},
        partitions={"first_day": MONDAY},
        universe=[
            {
                "ticker": name,
                "source": "s",
                "exchange": exchange,
                "delisted": delisted.get(name),
            }
            for name, exchange in EXCHANGES.items()
        ],
        sources={"s": {"kind": "simulated", "begin": dt.date(2026, 3, 2), "interval": "1d"}},
    )


@pytest.fixture
def lake(settings: Settings) -> LakeResource:
    return LakeResource(database=":memory:", root=str(settings.lake_dir))


@pytest.fixture
def check(settings: Settings, lake: LakeResource) -> Callable[[str, str], dg.AssetCheckResult]:
    """Evaluate one check of an asset on both days and all tickers."""
    grid = Grid.of(settings)
    area = grid.slice(MONDAY, TUESDAY, settings.tickers)

    def check(name: str, wanted: str) -> dg.AssetCheckResult:
        found = {
            result.check_name: result
            for result in table_check_results(name, area, lake, settings, grid)
        }
        assert set(found) == {spec.name for spec in table_check_specs(name)}
        return found[wanted]

    return check


def store(
    settings: Settings, table: str, rows: dict[tuple[dt.date, str], dict[str, object]]
) -> None:
    """Make these the table's rows, by cell; columns without a value get any that may be there."""
    schema = TABLES[table]
    types = schema.create_empty().schema
    usual = {
        pl.String: "any",
        pl.Int32: 1,
        pl.Int64: 1,
        pl.Float64: 10.0,
        pl.Datetime: dt.datetime(2026, 6, 1, tzinfo=dt.UTC),
    }
    filled = [
        {
            name: None if column.nullable else usual.get(types[name].base_type())
            for name, column in schema.columns().items()
        }
        | {"day": day, "ticker": ticker, "exchange": EXCHANGES[ticker]}
        | values
        for (day, ticker), values in rows.items()
    ]
    frame = pl.DataFrame(filled, schema=None, infer_schema_length=None)
    area = Grid.of(settings).slice(MONDAY, TUESDAY, settings.tickers)
    Lake(settings.lake_dir).write(table, frame, area)


def cells(*tickers: str) -> list[tuple[dt.date, str]]:
    return [(day, ticker) for day in (MONDAY, TUESDAY) for ticker in tickers]


def make_market(
    settings: Settings, bars: list[tuple[dt.date, str]], made_from: dict[str, int]
) -> None:
    """Bars of these cells, and features of each that say they were made from so many tickers."""
    store(settings, "bars", {cell: {} for cell in bars})
    store(
        settings,
        "features",
        {cell: {"market_tickers": made_from[EXCHANGES[cell[1]]]} for cell in bars},
    )


def test_features_made_from_the_whole_market_pass(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    make_market(settings, cells(*EXCHANGES), {"XMOS": 3, "XNYS": 1})
    result = check("features", "whole_market")
    assert result.passed
    assert result.description == "0 rows were made from fewer tickers than have bars now"


def test_features_made_from_fewer_tickers_than_have_bars_now_are_named(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    make_market(settings, cells(*EXCHANGES), {"XMOS": 3, "XNYS": 1})
    features = {
        cell: {"market_tickers": 3 if cell[1] != "DDD" else 1} for cell in cells(*EXCHANGES)
    }
    features[TUESDAY, "BBB"] = {"market_tickers": 2}
    store(settings, "features", features)
    result = check("features", "whole_market")
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert result.metadata["rows to run again"].value == 1
    assert result.metadata["days"].value == [str(TUESDAY)]
    assert "no bar" not in result.description


def test_an_exchange_of_which_a_ticker_is_silent_throughout_is_named(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    make_market(settings, cells("AAA", "CCC", "DDD"), {"XMOS": 2, "XNYS": 1})
    result = check("features", "whole_market")
    assert not result.passed
    assert result.metadata["rows to run again"].value == 0
    assert result.description.endswith("; no bar on any of these days: BBB")


@pytest.mark.parametrize(
    ("delisted", "expected"),
    [({"BBB": MONDAY - dt.timedelta(3)}, False), ({"BBB": MONDAY}, True), ({}, True)],
)
def test_a_ticker_that_is_not_listed_any_more_is_not_silent(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult], *, expected: bool
) -> None:
    make_market(settings, cells("AAA", "CCC", "DDD"), {"XMOS": 2, "XNYS": 1})
    assert check("features", "whole_market").passed != expected


def test_a_ticker_that_is_silent_for_a_day_only_is_not_a_silent_exchange(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    there = [cell for cell in cells(*EXCHANGES) if cell != (MONDAY, "BBB")]
    store(settings, "bars", {cell: {} for cell in there})
    store(
        settings,
        "features",
        {
            (day, ticker): {"market_tickers": 1 if ticker == "DDD" else 2 if day == MONDAY else 3}
            for day, ticker in there
        },
    )
    assert check("features", "whole_market").passed


def test_a_cell_without_rows_is_missing_unless_there_is_a_reason(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    # BBB begins on Tuesday, CCC has a candle in the weeks before and then falls silent, DDD is
    # unknown to its source.
    store(
        settings,
        "candles",
        {
            **{(day, "AAA"): {} for day in (MONDAY, TUESDAY)},
            (TUESDAY, "BBB"): {},
            (dt.date(2026, 5, 20), "CCC"): {},
        },
    )
    result = check("candles", "complete")
    assert not result.passed
    assert result.metadata["explained"].value == {"before the ticker's first candle": 1}
    assert result.metadata["missing"].value == [
        f"{day}|{ticker}" for day in (MONDAY, TUESDAY) for ticker in ("CCC", "DDD")
    ]
    assert result.metadata["cells with rows"].value == 3
    assert result.description.endswith("missing without an explanation: 4 (CCC 2, DDD 2)")


def test_a_score_is_due_where_a_bar_came_that_was_forecast(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    store(settings, "bars", {cell: {} for cell in cells("AAA", "BBB")})
    store(
        settings,
        "forecasts",
        {
            (MONDAY, "AAA"): {"horizon": 1, "target_day": TUESDAY},
            (MONDAY, "CCC"): {"horizon": 1, "target_day": TUESDAY},
            (TUESDAY, "BBB"): {"horizon": 1, "target_day": dt.date(2026, 6, 3)},
        },
    )
    assert check("scores", "complete").metadata["missing"].value == [f"{TUESDAY}|AAA"]


def test_no_score_is_due_across_a_suspected_split(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    bars: dict[tuple[dt.date, str], dict[str, object]] = {
        cell: {} for cell in cells("AAA", "BBB", "CCC")
    }
    bars[TUESDAY, "BBB"] = bars[MONDAY, "CCC"] = {"suspected_split": 10.0}
    store(settings, "bars", bars)
    made = {(MONDAY, name): {"horizon": 1, "target_day": TUESDAY} for name in EXCHANGES}
    store(settings, "forecasts", made)
    # That of BBB leads across its jump, that of CCC was made after it.
    missing = check("scores", "complete").metadata["missing"].value
    assert missing == [f"{TUESDAY}|AAA", f"{TUESDAY}|CCC"]


WRONG_UNIT = {
    "kind": "quality", "feature": "price_level", "distance": 4.6, "threshold": 1.6,
    "drifted": True, "ticker_alarm": None, "sector_alarm": None, "market_alarm": None,
}  # fmt: skip


def test_a_cell_whose_prices_cannot_be_right_need_not_be_forecast(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    store(settings, "bars", {cell: {} for cell in cells("AAA", "BBB")})
    usual = {"horizon": 1, "target_day": TUESDAY}
    store(settings, "forecasts", {(MONDAY, "AAA"): usual, (MONDAY, "BBB"): usual})
    store(settings, "drift", {(TUESDAY, "BBB"): WRONG_UNIT})
    result = check("forecasts", "complete")
    assert result.metadata["missing"].value == [f"{TUESDAY}|AAA"]
    why = "prices that cannot be right, and no earlier forecast reaches on"
    assert result.metadata["explained"].value == {why: 1}
    assert f"none, and rightly, for {TUESDAY} BBB: a price 99.5 times" in (result.description or "")
    store(settings, "drift", {(TUESDAY, name): WRONG_UNIT for name in ("AAA", "BBB")})
    assert check("forecasts", "complete").passed
    # A fault that blocks nothing explains nothing.
    late = WRONG_UNIT | {"feature": "late"}
    store(settings, "drift", {(TUESDAY, name): late for name in ("AAA", "BBB")})
    assert check("forecasts", "complete").metadata["missing cells"].value == 2


def test_no_score_is_due_of_a_held_forecast_nor_on_a_price_that_cannot_be_right(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    store(settings, "bars", {cell: {} for cell in cells("AAA", "BBB", "CCC")})
    usual = {"horizon": 1, "target_day": TUESDAY}
    held = usual | {"held_from": dt.date(2026, 5, 29), "note": "why"}
    store(
        settings,
        "forecasts",
        {(MONDAY, "AAA"): usual, (MONDAY, "BBB"): held, (MONDAY, "CCC"): usual},
    )
    store(settings, "drift", {(TUESDAY, "CCC"): WRONG_UNIT})
    assert check("scores", "complete").metadata["missing"].value == [f"{TUESDAY}|AAA"]


@pytest.mark.parametrize(
    ("declared", "advice"),
    [
        (None, "set lake.splits to a CSV with ticker,date,before,after and write into it BBB,"),
        ("splits.csv", "splits.csv BBB,"),
        ("splits", "BBB.csv (date,before,after) 2026"),
    ],
)
def test_an_undeclared_split_is_told_with_its_ratio_and_what_to_write_where(
    settings: Settings,
    lake: LakeResource,
    tmp_path: Path,
    declared: str | None,
    advice: str,
) -> None:
    path = None if declared is None else tmp_path / declared
    if declared == "splits":
        (tmp_path / declared).mkdir()
    own = settings.model_copy(update={"lake": settings.lake.model_copy(update={"splits": path})})
    grid = Grid.of(own)
    area = grid.slice(MONDAY, TUESDAY, own.tickers)

    def told() -> dg.AssetCheckResult:
        results = table_check_results("bars", area, lake, own, grid)
        return next(item for item in results if item.check_name == "no_undeclared_split")

    bars: dict[tuple[dt.date, str], dict[str, object]] = {cell: {} for cell in cells("AAA", "BBB")}
    store(own, "bars", bars)
    assert told().passed
    bars[TUESDAY, "BBB"] = {"suspected_split": 1 / 5000}
    store(own, "bars", bars)
    found = told()
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["suspected splits"].value == 1
    assert found.description is not None
    said = f"BBB on {TUESDAY} looks like a split of 5000 old shares into 1 new ones"
    assert found.description.startswith(said)
    assert advice in found.description
    assert f"{TUESDAY},5000,1, or" in found.description
    # What is written as told is read as that split.
    if path is not None and path.suffix:
        path.write_text(f"ticker,date,before,after\nBBB,{TUESDAY},5000,1\n")
        assert [split.after / split.before for split in read_splits(path)] == [Fraction(1, 5000)]


def test_an_error_says_which_check_could_not_be_evaluated(
    settings: Settings, check: Callable[[str, str], dg.AssetCheckResult]
) -> None:
    make_market(settings, cells(*EXCHANGES), {"XMOS": 3, "XNYS": 1})
    for file in (settings.lake_dir / "bars" / "_delta_log").iterdir():
        file.write_text("damaged")
    with pytest.raises(LakeError) as raised:
        check("features", "whole_market")
    assert "of features could not be evaluated on" in raised.value.__notes__[0]


@pytest.mark.slow
def test_a_run_of_one_day_evaluates_its_checks_without_listing_all_partitions(
    settings: Settings, lake: LakeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid.of(settings)
    definitions = dg.Definitions(
        assets=[build_ingest(settings, grid), build_drift(settings, grid)],
        resources={"lake": lake, DRAWER: build_drawer(grid)},
        executor=dg.in_process_executor,
    )
    listed = []
    stock = dg.MultiPartitionsDefinition.get_partition_keys

    def noted(self: dg.MultiPartitionsDefinition, *rest: object, **named: object) -> object:
        listed.append(self)
        return stock(self, *rest, **named)

    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(dg.MultiPartitionsDefinition, "get_partition_keys", noted)
        for _ in range(2):
            # The second run finds materializations of the first to compare with.
            result = job.execute_in_process(
                instance=instance, tags=grid.tags(grid.slice(MONDAY, MONDAY, settings.tickers))
            )
            assert result.success
    assert not listed, "Dagster changed: a run lists all partitions of an asset"
    evaluated = {
        (item.asset_key.to_user_string(), item.check_name): item
        for item in result.get_asset_check_evaluations()
    }
    assert set(evaluated) == {
        ("candles", "schema"),
        ("candles", "complete"),
        ("quarantine", "schema"),
        ("quarantine", "nothing_set_aside"),
        ("drift", "schema"),
        ("drift", "complete"),
        ("drift", DRIFT_CHECK),
        ("drift", TICKER_CHECK),
        ("drift", QUALITY_CHECK),
        ("drift", PAGES_CHECK),
    }
    assert not [key for key, item in evaluated.items() if item.blocking]
    # The UI shows a check's outcome beside the materialization that it is about.
    about = {item.target_materialization_data.run_id for item in evaluated.values()}
    assert about == {result.run_id}
