"""The dbt project itself: its unit tests, and its documentation."""

from __future__ import annotations

import json

import pytest

from stock_assets.lake.dbt_project import ensure_manifest
from stock_assets.lake.schemas import TABLES, describe

UNIT_TESTS = {
    "a_bar_gathers_its_candles",
    "a_split_changes_its_day_and_later_ones_only",
    "ewma_ages_over_a_halt_and_needs_half_of_the_weight",
    "the_coarsest_interval_of_a_day_counts",
    "the_market_counts_every_ticker_with_a_bar",
    "the_previous_bar_is_at_most_30_sessions_back",
    "variance_is_realised_by_the_finest_candles_from_five_minutes",
}


def test_unit_tests_of_the_project_pass(new_warehouse) -> None:
    """They need no request and no lake."""
    results = new_warehouse().dbt("test", "--select", "test_type:unit").results
    assert {str(result.status) for result in results} == {"pass"}
    assert {result.node.name for result in results} == UNIT_TESTS


@pytest.mark.slow
def test_run_executes_no_unit_test(whole) -> None:
    results = whole.build(None, whole.table("bars")["day"].max()).results
    kinds = {result.node.resource_type.value for result in results}
    assert kinds == {"model", "test"}


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads(ensure_manifest().read_text())


@pytest.mark.parametrize("table", ["bars", "features"])
def test_columns_are_documented_as_in_the_schema(manifest: dict, table: str) -> None:
    node = manifest["nodes"][f"model.stock_assets.{table}"]
    documented = {name: column["description"] for name, column in node["columns"].items()}
    assert documented == {
        name: column.description for name, column in TABLES[table].columns().items()
    }
    assert node["description"] == describe(table)


def test_every_model_and_source_is_described(manifest: dict) -> None:
    named = [*manifest["nodes"].values(), *manifest["sources"].values()]
    silent = [
        node["name"]
        for node in named
        if node["resource_type"] in ("model", "source") and not node["description"]
    ]
    assert silent == []


def test_only_candles_are_an_asset_among_the_sources(manifest: dict) -> None:
    keys = {
        name: source["config"]["meta"].get("dagster", {}).get("asset_key")
        for name, source in manifest["sources"].items()
    }
    assert {name for name, key in keys.items() if key} == {"source.stock_assets.lake.candles"}
    assert keys["source.stock_assets.lake.candles"] == ["candles"]
