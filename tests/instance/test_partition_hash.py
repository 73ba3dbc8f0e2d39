"""A days definition is spelled out once, however often its hash is asked for."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.definitions.partitions.snap import PartitionsSnap

from stock_assets.instance import partition_hash
from stock_assets.instance.partition_hash import install_kept_partition_hash

Days = dg.TimeWindowPartitionsDefinition
Cells = dg.MultiPartitionsDefinition


def definition(count: int, closed: int = 7) -> Days:
    """Days from 2020 on of which every `closed`-th is no partition."""
    first = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    every = [first + dt.timedelta(n) for n in range(count)]
    return Days(
        start=first,
        end=first + dt.timedelta(count),
        fmt="%Y-%m-%d",
        cron_schedule="0 0 * * *",
        exclusions=every[closed::closed],
    )


@pytest.fixture
def spelled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a definition is spelled out, on Dagster as it comes."""
    calls: list[int] = []
    stock = Days.__repr__
    monkeypatch.setattr(Days, "__repr__", lambda self: calls.append(1) or stock(self))
    monkeypatch.setattr(Days, "__hash__", partition_hash._stock_hash)
    monkeypatch.setattr(Cells, "__hash__", partition_hash._stock_hash_of_cells)
    monkeypatch.delenv(partition_hash.OFF_SWITCH, raising=False)
    return calls


def check_all(days: Days) -> set[str]:
    return set(days.filter_valid_partition_keys(set(days.get_partition_keys())))


def test_checking_keys_spells_the_definition_out_once_not_for_each_day(spelled: list[int]) -> None:
    days = definition(200)
    stock = check_all(days)
    assert len(spelled) > len(stock), "Dagster changed: it no longer hashes for each day by itself"
    install_kept_partition_hash()
    spelled.clear()
    days = definition(200)
    assert check_all(days) == stock
    assert len(spelled) == 1


def cells(count: int = 30, ticker: str = "AAA") -> Cells:
    return Cells({"day": definition(count), "ticker": dg.StaticPartitionsDefinition([ticker])})


def test_a_definition_of_cells_is_spelled_out_once(spelled: list[int]) -> None:
    stock = cells()
    expected = [hash(stock), hash(stock)]
    assert len(spelled) == len(expected), "Dagster changed: it keeps the hash of cells itself now"
    install_kept_partition_hash()
    spelled.clear()
    ours = cells()
    assert [hash(ours), hash(ours)] == expected
    assert len(spelled) == 1
    assert ours == cells(), "Dagster changed: what is kept beside a definition counts"
    assert len({hash(cells()), hash(cells(31)), hash(cells(ticker="BBB"))}) == 3


@pytest.mark.usefixtures("spelled")
def test_the_off_switch_leaves_dagsters_own_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(partition_hash.OFF_SWITCH, "0")
    install_kept_partition_hash()
    assert Days.__hash__ is partition_hash._stock_hash
    assert Cells.__hash__ is partition_hash._stock_hash_of_cells


@pytest.mark.usefixtures("spelled")
def test_the_value_is_dagsters_and_follows_equality() -> None:
    install_kept_partition_hash()
    days = definition(30)
    assert hash(days) == partition_hash._stock_hash(days), "Dagster changed"
    assert hash(days) == hash(definition(30))
    assert days == definition(30), "Dagster changed: what is kept beside a definition counts"
    assert hash(days) != hash(definition(31))
    assert hash(days) != hash(definition(30, closed=5))


@pytest.mark.usefixtures("spelled")
def test_a_snapshot_and_its_definition_carry_no_hash() -> None:
    """What the webserver builds from a code location's snapshot hashes afresh."""
    install_kept_partition_hash()
    days = definition(30)
    hash(days)
    rebuilt = PartitionsSnap.from_def(days).get_partitions_definition()
    assert partition_hash._KEPT not in rebuilt.__dict__
    assert hash(rebuilt) == hash(days), "Dagster changed: a snapshot gives another definition"
