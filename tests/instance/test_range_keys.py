"""The cells of a range are those that Dagster lists, and made once however often they are asked."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_assets.instance import range_keys
from stock_assets.instance.range_keys import install_kept_range_keys, keys_in_range

Cells = dg.MultiPartitionsDefinition
TICKERS = ["ZZZ", "AAA", "MMM"]


def definition(first: str = "2024-01-01", *, days: str = "day", tickers: str = "ticker") -> Cells:
    return Cells(
        {
            days: dg.DailyPartitionsDefinition(first, exclusions=[dt.datetime(2024, 1, 6)]),  # noqa: DTZ001
            tickers: dg.StaticPartitionsDefinition(TICKERS),
        }
    )


def cells_between(first: str, last: str, cells: Cells) -> list[str]:
    return list(cells.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster as it comes."""
    monkeypatch.setattr(Cells, "get_partition_keys_in_range", range_keys._stock_keys_in_range)
    monkeypatch.delenv(range_keys.OFF_SWITCH, raising=False)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    range_keys._product.cache_clear()
    yield
    range_keys._product.cache_clear()


days = st.dates(dt.date(2024, 1, 1), dt.date(2024, 1, 12)).filter(lambda day: day.day != 6)


@given(
    first=days,
    last=days,
    tickers=st.tuples(*2 * [st.sampled_from(TICKERS)]),
    names=st.sampled_from(["day, ticker", "z, a"]),
)
def test_the_cells_of_a_range_are_dagsters_in_its_order(
    first: dt.date, last: dt.date, tickers: tuple[str, str], names: str
) -> None:
    day_name, ticker_name = names.split(", ")
    cells = definition(days=day_name, tickers=ticker_name)
    ends = [
        f"{day}|{ticker}" if day_name < ticker_name else f"{ticker}|{day}"
        for day, ticker in zip((first, last), tickers, strict=True)
    ]
    asked = dg.PartitionKeyRange(*ends)
    expected = range_keys._stock_keys_in_range(cells, asked)
    for _ in range(2):
        found = keys_in_range(cells, asked)
        assert found == expected
        assert [key.keys_by_dimension for key in found] == [
            key.keys_by_dimension for key in expected
        ]


@pytest.mark.usefixtures("stock")
def test_the_cells_of_a_range_are_made_once_for_all_assets(made: list[int]) -> None:
    ends = "2024-01-01|ZZZ", "2024-01-05|MMM"
    expected = cells_between(*ends, definition())
    once = len(made)
    cells_between(*ends, definition())
    assert len(made) == 2 * once, "Dagster changed: it keeps the cells of a range itself now"
    install_kept_range_keys()
    made.clear()
    # Equal definitions of two assets.
    assert cells_between(*ends, definition()) == expected
    assert cells_between(*ends, definition()) == expected
    # The ends are read of each question.
    assert len(made) == once + 2


@pytest.mark.usefixtures("stock")
def test_who_changes_the_list_changes_it_for_nobody_else() -> None:
    install_kept_range_keys()
    ends = "2024-01-01|ZZZ", "2024-01-05|MMM"
    kept = cells_between(*ends, definition())
    range_keys.keys_in_range(definition(), dg.PartitionKeyRange(*ends)).clear()  # type: ignore[attr-defined]
    assert cells_between(*ends, definition()) == kept


@pytest.mark.usefixtures("stock")
def test_the_off_switch_leaves_dagsters_own_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(range_keys.OFF_SWITCH, "0")
    install_kept_range_keys()
    assert Cells.get_partition_keys_in_range is range_keys._stock_keys_in_range
