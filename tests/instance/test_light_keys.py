"""Cells are checked and drawn as Dagster does it, without an object of objects for each."""

import datetime as dt
import enum
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from dagster_graphql.implementation.partition_status_utils import (
    build_multi_partition_ranges_generic,
)
from dagster_shared.check.functions import CheckError
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.instance import light_keys
from stock_assets.instance.light_keys import LightKeys, install_light_keys, with_light_keys

Cells = dg.MultiPartitionsDefinition


class Status(enum.Enum):
    """Two of what the UI draws."""

    DONE = 1
    FAILED = 2


TICKERS = ["ZZZ", "AAA", "MMM"]
FIRST, LAST = dt.date(2024, 1, 1), dt.date(2024, 8, 31)
CLOSED = dt.date(2024, 1, 6)


def definition(days: str = "day", tickers: str = "ticker", last: dt.date = LAST) -> Cells:
    """Some 240 days, more than are checked one by one, of which one is no partition."""
    return Cells(
        {
            days: dg.DailyPartitionsDefinition(
                f"{FIRST}",
                end_date=f"{last}",
                exclusions=[dt.datetime.combine(CLOSED, dt.time(0))],
            ),
            tickers: dg.StaticPartitionsDefinition(TICKERS),
        }
    )


cells = definition()
dates = st.dates(FIRST - dt.timedelta(3), LAST + dt.timedelta(3)).map(str)
anything = st.one_of(
    st.tuples(dates, st.sampled_from([*TICKERS, "GONE"])).map("|".join),
    st.sampled_from(["", "|", "2024-01-02", "2024-01-02|AAA|x", "AAA|2024-01-02", "no|AAA"]),
)


@given(keys=st.sets(anything, max_size=30), many=st.booleans())
def test_the_cells_that_exist_are_dagsters(keys: set[str], *, many: bool) -> None:
    """Few days are checked one by one, of many all are listed."""
    if many:
        keys |= {f"{FIRST + dt.timedelta(n)}|AAA" for n in range(100)}
    assert LightKeys(cells).filter_valid_partition_keys(keys) == (
        cells.filter_valid_partition_keys(keys)
    )


@given(keys=st.lists(anything, min_size=1, max_size=8))
def test_a_key_is_taken_apart_as_dagster_does_or_refused_as_well(keys: list[str]) -> None:
    light = LightKeys(cells)
    for key in keys:
        assert light.is_valid_key_format(key) == cells.is_valid_key_format(key)
        if cells.is_valid_key_format(key):
            expected = cells.get_partition_key_from_str(key).keys_by_dimension
            assert light.get_partition_key_from_str(key).keys_by_dimension == expected
        else:
            for one in (light, cells):
                with pytest.raises(CheckError):
                    one.get_partition_key_from_str(key)
        assert light.has_partition_key(key) == cells.has_partition_key(key)


def drawn(
    draw: Callable[..., Any], subsets: dict[Status, set[str]], of: dg.PartitionsDefinition | None
) -> list[Any]:
    """What the UI gets to draw: ranges of days, and which tickers are of each status there."""
    assert of is not None
    content = {
        status: of.empty_subset().with_partition_keys(keys) for status, keys in subsets.items()
    }

    def inner(found: dict[Status, Any]) -> list[Any]:
        return sorted(
            (status.name, sorted(some.get_partition_keys())) for status, some in found.items()
        )

    return list(draw(content, of, None, inner))


inside = st.tuples(st.dates(FIRST, FIRST + dt.timedelta(9)).map(str), st.sampled_from(TICKERS))


@given(done=st.sets(inside), failed=st.sets(inside), names=st.sampled_from(["day, ticker", "z, a"]))
def test_what_is_drawn_is_dagsters(
    done: set[tuple[str, str]], failed: set[tuple[str, str]], names: str
) -> None:
    """Whichever dimension comes first in the key."""
    day_name, ticker_name = names.split(", ")
    of = definition(day_name, ticker_name, FIRST + dt.timedelta(10))
    order = 1 if day_name < ticker_name else -1
    subsets = {
        Status.DONE: {"|".join(key[::order]) for key in done},
        Status.FAILED: {"|".join(key[::order]) for key in failed},
    }
    expected = drawn(build_multi_partition_ranges_generic, subsets, of)
    assert drawn(build_multi_partition_ranges_generic, subsets, with_light_keys(of)) == expected


@pytest.fixture
def drawing() -> Iterator[list[Any]]:
    """The webserver's modules that draw, as Dagster has them, and so again afterwards."""
    importlib.import_module("dagster_graphql.schema")  # first: its modules import each other
    modules = [importlib.import_module(name) for name in light_keys.DRAWING]
    before = [getattr(module, light_keys._GROUPS) for module in modules]
    for module in modules:
        setattr(module, light_keys._GROUPS, build_multi_partition_ranges_generic)
    yield modules
    for module, found in zip(modules, before, strict=True):
        setattr(module, light_keys._GROUPS, found)


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(light_keys.OFF_SWITCH, raising=False)


SOME = {f"{FIRST + dt.timedelta(n)}|{ticker}" for n in range(4) for ticker in TICKERS}


def test_no_key_is_made_to_draw_a_cell_once_installed(drawing: list[Any], made: list[int]) -> None:
    for module in drawing:
        made.clear()
        expected = drawn(getattr(module, light_keys._GROUPS), {Status.DONE: SOME}, cells)
        assert len(made) == len(SOME), "Dagster changed: it no longer makes a key for each cell"
    install_light_keys()
    install_light_keys()
    for module in drawing:
        made.clear()
        ours = getattr(module, light_keys._GROUPS)
        assert drawn(ours, {Status.DONE: SOME}, cells) == expected
        assert not made
        assert ours.stock is build_multi_partition_ranges_generic, "installed twice"


def test_no_key_is_made_to_check_a_cell(made: list[int]) -> None:
    cells.filter_valid_partition_keys(SOME)
    assert len(made) == len(SOME), "Dagster changed: it no longer makes a key for each cell"
    made.clear()
    light = with_light_keys(cells)
    assert light is not None
    assert light.filter_valid_partition_keys(SOME) == SOME
    assert not made


def test_only_cells_get_light_keys_and_none_with_the_off_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01")
    assert with_light_keys(days) is days
    assert with_light_keys(None) is None
    assert isinstance(with_light_keys(cells), LightKeys)
    monkeypatch.setenv(light_keys.OFF_SWITCH, "0")
    assert with_light_keys(cells) is cells


def test_a_definition_with_light_keys_is_kept_under_the_same_name() -> None:
    """Else a status that is kept would be computed anew each time, and be lost to stock storage."""
    light = LightKeys(cells)
    name = cells.get_serializable_unique_identifier()
    assert light.get_serializable_unique_identifier() == name, "Dagster changed"
    subset = light.empty_subset().with_partition_keys(SOME)
    assert subset.serialize() == cells.empty_subset().with_partition_keys(SOME).serialize()


WEBSERVER = """
import json, sys
from dagster_webserver import cli
import dagster as dg
from stock_assets.instance import light_keys
from stock_assets.instance.scheduler import InstallingScheduler
InstallingScheduler.from_config_value(None, {})
loaded = [sys.modules.get(name) for name in light_keys.DRAWING]
print(json.dumps([hasattr(getattr(one, light_keys._GROUPS, None), "stock") for one in loaded]))
"""


@pytest.mark.slow
def test_the_webserver_has_loaded_what_draws_when_it_opens_the_instance() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WEBSERVER],
        env={name: value for name, value in os.environ.items() if name != light_keys.OFF_SWITCH},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == [True, True], "Dagster changed when it imports its schema"
