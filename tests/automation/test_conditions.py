"""The automation conditions, tick by tick: once for each new failure, never on a level."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from stock_assets.assets.drifting import DRIFT_CHECK_SPEC, build_drift
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.assets.modelling import build_forecasts, build_model
from stock_assets.partitions import Grid, cell_key
from stock_assets.settings import Settings, load_settings


@dataclass
class World:
    """The assets that the conditions speak of, their inputs, and an instance without a past."""

    instance: dg.DagsterInstance
    settings: Settings = field(default_factory=load_settings)
    cursor: dg.AutomationConditionSensorDefinition | None = None

    def __post_init__(self) -> None:
        self.grid = Grid.of(self.settings)
        partitions = self.grid.definition

        @dg.asset(partitions_def=partitions)
        def bars() -> None: ...

        @dg.asset(partitions_def=partitions, deps=[bars])
        def features() -> None: ...

        built = [
            build(self.settings, self.grid) for build in (build_drift, build_model, build_forecasts)
        ]
        lake = LakeResource(database=":memory:", root=str(self.settings.lake_dir))
        self.definitions = dg.Definitions(assets=[bars, features, *built], resources={"lake": lake})
        self.last = self.grid.days()[-1]

    def tick(self) -> dict[str, set[str]]:
        """Evaluate once; what is requested of each asset."""
        # On the real clock: Dagster compares a check's timestamp with that of the last tick.
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        return {
            name: set(result.get_requested_partitions(dg.AssetKey(name)))
            for name in ("model", "forecasts")
        }

    def check(self, *, passed: bool, name: str = DRIFT_CHECK_SPEC.name) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("drift"),
                check_name=name,
                passed=passed,
                metadata={},
                severity=dg.AssetCheckSeverity.WARN,
                blocking=name == DRIFT_CHECK_SPEC.name and DRIFT_CHECK_SPEC.blocking,
            )
        )

    def materialize(self, name: str) -> None:
        for ticker in self.grid.tickers:
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(dg.AssetKey(name), partition=cell_key(self.last, ticker))
            )

    @property
    def latest_cells(self) -> set[str]:
        return {cell_key(self.last, ticker) for ticker in self.grid.tickers}


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        for name in ("bars", "features", "drift"):
            world.materialize(name)
        world.tick()
        yield world


def test_each_new_failure_asks_once(world: World) -> None:
    asked = []
    for passed in (True, False, False, True, False):
        world.check(passed=passed)
        asked.append(len(world.tick()["model"]) > 0)
        # A tick without news asks for nothing, whatever the check's state.
        assert world.tick()["model"] == set()
        world.materialize("model")
        world.tick()
    assert asked == [False, True, True, False, True]


def test_what_is_asked_for_is_the_latest_day_and_all_tickers(world: World) -> None:
    world.check(passed=False)
    requested = world.tick()
    assert requested["model"] == world.latest_cells
    assert requested["forecasts"] == world.latest_cells


def test_another_check_of_drift_asks_for_nothing(world: World) -> None:
    world.check(passed=False, name="schema")
    assert world.tick()["model"] == set()


def test_a_failure_asks_for_nothing_while_the_latest_day_has_no_data() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(instance)
        world.tick()
        world.check(passed=False)
        assert world.tick() == {"model": set(), "forecasts": set()}


def test_forecasts_follow_a_model_that_was_made_by_hand(world: World) -> None:
    world.materialize("model")
    assert world.tick() == {"model": set(), "forecasts": world.latest_cells}
    assert world.tick()["forecasts"] == set()
