"""A ledger keeps every row that anyone added, in the order of its key."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_assets.errors import LakeError
from stock_assets.lake.maintenance import maintain
from stock_assets.lake.schemas import Orders
from stock_assets.lake.views import connect
from stock_assets.overview import table_status

if TYPE_CHECKING:
    from stock_assets.lake.store import Lake

ADD = """
import datetime as dt, sys
from pathlib import Path
import polars as pl
from stock_assets.lake.schemas import Orders
from stock_assets.lake.store import Lake
lake = Lake(Path(sys.argv[1]))
for number in range(6):
    row = {"day": dt.date(2024, 1, 1 + number), "ordered_at": dt.datetime.now(tz=dt.UTC),
           "ordered_by": sys.argv[2], "why": "because", "action": "promote", "model": "baseline"}
    lake.append("orders", pl.DataFrame([row], schema=Orders.create_empty().schema))
"""


def order(number: int, **more: object) -> pl.DataFrame:
    row = {
        "day": dt.date(2024, 1, 1) + dt.timedelta(number),
        "ordered_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "ordered_by": "ann", "why": "because",
        "action": "promote", "model": "baseline", "trained_day": None, "model_version": None,
    }  # fmt: skip
    return pl.DataFrame([row | more], schema=Orders.create_empty().schema)


def test_rows_are_added_and_read_back_sorted_with_their_types(lake: Lake) -> None:
    written = [lake.append("orders", order(number)).version for number in (3, 1)]
    assert written == [0, 1]
    assert lake.read("orders").equals(pl.concat([order(1), order(3)]))
    with connect(lake) as connection:
        assert connection.sql("select ordered_by, count(*) from orders group by 1").fetchall() == [
            ("ann", 2)
        ]


def test_a_row_that_breaks_the_schema_is_not_added(lake: Lake) -> None:
    for wrong in ({"why": ""}, {"action": "delete"}, {"why": None}):
        with pytest.raises(LakeError, match=r"table orders: .* nothing was written"):
            lake.append("orders", order(1, **wrong))
    assert lake.version("orders") is None


@pytest.mark.slow
def test_all_that_several_processes_add_at_once_is_kept(lake: Lake) -> None:
    people = ("ann", "bob", "eve")
    running = [
        subprocess.Popen([sys.executable, "-c", ADD, str(lake.root), name]) for name in people
    ]
    assert [process.wait(timeout=200) for process in running] == [0, 0, 0]
    kept = lake.read("orders")
    assert kept.height == 18
    assert kept.group_by("ordered_by").len().sort("ordered_by").rows() == [
        (name, 6) for name in people
    ]


def test_maintenance_and_status_take_a_ledger_as_it_is(lake: Lake) -> None:
    for number in range(12):
        lake.append("orders", order(number))
    before = lake.read("orders")
    (done,) = maintain(lake)
    assert (done.table, done.files_before, done.files_after) == ("orders", 12, 1)
    assert lake.read("orders").equals(before)
    (status,) = [item for item in table_status(lake) if item.table == "orders"]
    assert (status.rows, status.tickers, status.days) == (12, 0, 12)
