"""The graph as Dagster sees it: what every asset carries, and how they hang together."""

import datetime as dt

import dagster as dg
import polars as pl
import pytest

from stock_assets.assets.checks import UPSTREAM_OF
from stock_assets.assets.common import GROUPS, OWNER, TABLE_OF, rows_per_cell
from stock_assets.graph import asset_names, build_definitions
from stock_assets.lake.schemas import TABLES
from stock_assets.partitions import Grid
from stock_assets.settings import load_settings

DEPENDENCIES = {
    "candles": set(),
    "quarantine": set(),
    "bars": {"candles"},
    "features": {"bars"},
    "drift": {"bars", "features"},
    "model": {"features", "drift"},
    "forecasts": {"bars", "features", "drift", "model"},
    "scores": {"bars", "drift", "forecasts"},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(load_settings())


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_graph_is_the_designs(specs: dict[str, dg.AssetSpec]) -> None:
    found = {
        name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs.items()
    }
    assert found == DEPENDENCIES
    assert set(asset_names()) == set(DEPENDENCIES)


def test_every_asset_carries_what_the_ui_shows(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        schema = TABLES[TABLE_OF[name]]
        assert spec.group_name == GROUPS[name]
        assert spec.owners == [OWNER]
        assert spec.kinds
        assert spec.description
        assert "Raw SQL" not in spec.description
        assert (spec.freshness_policy is None) == (name == "model")
        columns = spec.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == schema.column_names()
        assert all(column.description for column in columns)


def test_every_asset_has_the_same_partitions_and_runs_a_range_at_once(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    expected = Grid.of(load_settings()).definition
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.partitions_def == expected, key
        assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


def test_every_asset_is_checked_for_schema_and_completeness(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    checks: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assert set(checks) == set(DEPENDENCIES)
    assert all("schema" in names for names in checks.values())
    assert all("complete" in checks[name] for name in UPSTREAM_OF)
    assert "nothing_set_aside" in checks["quarantine"]
    # dbt's tests are there too.
    assert len(checks["bars"]) > 2
    assert len(checks["features"]) > 2


def test_no_check_of_drift_stops_a_run(definitions: dg.Definitions) -> None:
    """One ticker's fault must not keep the others from their forecasts: see ADR 0028."""
    graph = definitions.resolve_asset_graph()
    of_drift = [key for key in graph.asset_check_keys if key.asset_key == dg.AssetKey("drift")]
    assert len(of_drift) > 2
    assert not [key for key in of_drift if graph.get(key).blocking]


def test_what_automation_asks_for_can_be_run_without_its_checks(
    definitions: dg.Definitions,
) -> None:
    """Else Dagster requests the checks of a single cell in a run of their own."""
    graph = definitions.resolve_asset_graph()
    key = dg.AssetKey("forecasts")
    assert graph.get(key).automation_condition is not None
    assert graph.get(key).execution_set_entity_keys == {key}
    assert graph.get(dg.AssetKey("model")).automation_condition is None, "its sensor asks"


def test_history_counts_to_the_first_cell_and_weekends_to_the_next() -> None:
    grid = Grid.of(load_settings())
    area = grid.slice(dt.date(2026, 1, 5), dt.date(2026, 1, 12), ("GOLD",))
    days = [dt.date(2020, 5, 5), dt.date(2026, 1, 5), dt.date(2026, 1, 10), dt.date(2026, 1, 12)]
    rows = pl.DataFrame({"day": days, "ticker": ["GOLD"] * 4})
    counts = rows_per_cell(rows, area, grid)
    assert counts[dt.date(2026, 1, 5), "GOLD"] == 2
    assert counts[dt.date(2026, 1, 12), "GOLD"] == 2
    assert counts[dt.date(2026, 1, 6), "GOLD"] == 0
    assert set(counts) == {(day, "GOLD") for day in grid.days_of(area)}
