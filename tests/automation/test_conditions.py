"""The automation condition, tick by tick: once for each new decision, never on a level."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from stock_assets.automation.conditions import FOLLOW_THE_MODEL
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, Grid, cell_key
from stock_assets.settings import load_settings
from stock_assets.slices import Slice


@dataclass
class World:
    """The assets that the condition speaks of, on an instance without a past."""

    instance: dg.DagsterInstance
    grid: Grid = field(default_factory=lambda: Grid.of(load_settings()))
    cursor: dg.AutomationConditionSensorDefinition | None = None

    def __post_init__(self) -> None:
        partitions = self.grid.definition

        one_run = dg.BackfillPolicy.single_run()

        @dg.asset(partitions_def=partitions, backfill_policy=one_run)
        def model() -> None: ...

        @dg.asset(
            partitions_def=partitions,
            backfill_policy=one_run,
            deps=[model],
            automation_condition=FOLLOW_THE_MODEL,
        )
        def forecasts() -> None: ...

        self.assets = [model, forecasts]
        self.definitions = dg.Definitions(assets=self.assets)
        self.last = self.grid.days()[-1]

    def tick(self) -> set[str]:
        """Evaluate once; the cells that are requested of `forecasts`."""
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        return set(result.get_requested_partitions(dg.AssetKey("forecasts")))

    def materialize(self, name: str) -> None:
        for ticker in self.grid.tickers:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(dg.AssetKey(name), partition=cell_key(self.last, ticker))
            )

    def plan(self, *names: str) -> dg.DagsterRun:
        """A run over the latest day that is in progress: its cells are planned."""
        return self.instance.create_run_for_job(
            self.definitions.resolve_implicit_global_asset_job_def(),
            tags=self.grid.tags(self.area),
            asset_selection=frozenset(dg.AssetKey(name) for name in names),
        )

    def run(self, *names: str) -> None:
        """One whole run over the latest day, as the daemon would start it."""
        result = self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            tags=self.grid.tags(self.area),
            asset_selection=[dg.AssetKey(name) for name in names],
        )
        assert result.success

    @property
    def area(self) -> Slice:
        return self.grid.slice(self.last, self.last, self.grid.tickers)

    @property
    def latest_cells(self) -> set[str]:
        return {cell_key(self.last, ticker) for ticker in self.grid.tickers}


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        world.tick()
        yield world


def test_forecasts_follow_a_model_that_was_made_by_hand(world: World) -> None:
    world.materialize("model")
    assert world.tick() == world.latest_cells
    assert world.tick() == set()


NOTHING: set[str] = set()


def test_forecasts_of_the_run_that_made_the_model_are_not_asked_for_again(world: World) -> None:
    """Dagster's own `any_deps_updated` asks again for all cells of the run but the last one."""
    world.run("model", "forecasts")
    assert world.tick() == NOTHING
    assert world.tick() == NOTHING


def test_upstream_still_recognises_only_one_cell_of_a_run() -> None:
    """Why `conditions.py` goes without `any_deps_updated`."""
    stock = dg.AutomationCondition.any_deps_updated()
    partitions = dg.StaticPartitionsDefinition(["a", "b", "c"])
    policy = dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=partitions, backfill_policy=policy)
    def parent() -> None: ...

    @dg.asset(
        partitions_def=partitions, backfill_policy=policy, deps=[parent], automation_condition=stock
    )
    def child() -> None: ...

    @dg.asset
    def bystander() -> None: ...

    family = dg.Definitions([parent, child, bystander])
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(family, instance)
        whole = family.resolve_implicit_global_asset_job_def()
        assert whole.execute_in_process(
            instance=instance,
            tags={RANGE_START_TAG: "a", RANGE_END_TAG: "c"},
            asset_selection=[parent.key, child.key],
        ).success
        again = dg.evaluate_automation_conditions(family, instance, cursor=first.cursor)
    assert again.total_requested == 2, (
        "Dagster changed: any_deps_updated no longer asks again for 2 of 3 cells that one run made"
    )


def test_a_tick_in_the_middle_of_the_run_asks_for_nothing(world: World) -> None:
    run = world.plan("model", "forecasts")
    assert world.tick() == NOTHING
    world.materialize("model")
    assert world.tick() == NOTHING
    world.materialize("forecasts")
    world.instance.report_run_canceled(run)
    assert world.tick() == NOTHING


def test_forecasts_that_failed_after_the_model_are_asked_for_once_more(world: World) -> None:
    run = world.plan("model", "forecasts")
    world.tick()
    world.materialize("model")
    world.tick()
    world.instance.report_run_failed(run)
    assert world.tick() == world.latest_cells
    # That run fails too: an edge has been handled, whatever became of it.
    for _ in range(3):
        world.instance.report_run_failed(world.plan("forecasts"))
        assert world.tick() == NOTHING
