"""Orders: from when they count, whom they roll back to, and that they never reach backwards."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stock_assets.calendars import WEEKDAYS
from stock_assets.errors import ModelError, SliceError
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.in_force import InForce, models_in_force
from stock_assets.forecasting.orders import (
    Action,
    Order,
    effective_day,
    rollback_target,
    succession,
)
from stock_assets.forecasting.registry import Registered, TrainingRecord
from stock_assets.lake.schemas import Models, Orders

MONDAY = dt.date(2024, 1, 1)
D = [MONDAY + dt.timedelta(n) for n in range(12)]
AT = dt.datetime(2024, 2, 1, 12, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(hours=1)


def model(name: str, day: dt.date) -> Registered:
    return Registered(7, TrainingRecord(name, day, ("A",), 1, Verdict(True, "", 1, None, 1, 1)))


def give(
    target: Registered | None, day: dt.date, at: dt.datetime = AT, action: Action = "promote"
) -> pl.DataFrame:
    return Order.of(action, target, day=day, at=at, by="ann", why="because").row()


def test_rolling_back_undoes_a_promotion() -> None:
    rows = models(
        (D[0], "A", InForce("one", 1, D[0], D[0])), (D[2], "A", InForce("two", 2, D[2], D[2]))
    )
    promoted = give(model("one", D[0]), D[5])
    states = succession(rows, promoted, D[5])
    assert [state.model for state in states] == ["baseline", "one", "two", "one"]
    assert rollback_target(states).model == "two"
    # Given for the same day, the rollback alone counts.
    undone = pl.concat([promoted, give(model("two", D[2]), D[5], LATER, action="rollback")])
    states = succession(rows, undone, D[9])
    assert [state.model for state in states] == ["baseline", "one", "two"]


def models(*rows: tuple[dt.date, str, InForce]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"day": day, "ticker": ticker, **state.__dict__} for day, ticker, state in rows],
        schema=Models.create_empty().schema,
    )


def test_an_order_counts_from_the_session_after_the_last_forecast() -> None:
    friday = dt.date(2024, 1, 5)
    next_monday = dt.date(2024, 1, 8)
    assert effective_day([WEEKDAYS], MONDAY, friday, None) == next_monday
    assert effective_day([WEEKDAYS], MONDAY, None, None) == MONDAY
    later = dt.date(2024, 1, 13)
    assert effective_day([WEEKDAYS], MONDAY, friday, later) == later
    with pytest.raises(SliceError, match=r"made already, .* use 2024-01-08 or later"):
        effective_day([WEEKDAYS], MONDAY, friday, friday)


def test_an_order_is_a_row_of_its_table() -> None:
    row = give(model("m", D[0]), D[3])
    assert Orders.validate(row).row(0, named=True) == {
        "day": D[3], "ordered_at": AT, "ordered_by": "ann", "why": "because", "action": "promote",
        "model": "m", "trained_day": D[0], "model_version": 7,
    }  # fmt: skip
    assert give(None, D[3])["model"].to_list() == ["baseline"]


def test_a_model_of_the_future_cannot_be_ordered() -> None:
    give(model("m", D[3]), D[3])
    with pytest.raises(ModelError, match=r"model m was trained on 2024-01-05, after .*--from"):
        give(model("m", D[4]), D[3])


def test_of_two_orders_for_a_day_the_latest_given_counts() -> None:
    orders = pl.concat([give(model("m", D[0]), D[3], AT + dt.timedelta(1)), give(None, D[3])])
    cells = pl.DataFrame({"day": [D[3]], "ticker": ["A"]})
    assert models_in_force(cells, models(), orders)["model"].to_list() == ["m"]


def test_rolling_back_goes_to_the_model_before_and_never_forth() -> None:
    rows = models(
        (D[0], "A", InForce("one", 1, D[0], D[0])),
        (D[2], "A", InForce("two", 2, D[2], D[2])),
        (D[3], "A", InForce("two", 2, D[2], D[2])),
        (D[4], "A", InForce("two", 2, D[2], D[4])),
    )
    empty = Orders.create_empty()
    states = succession(rows, empty, D[9])
    assert [state.model for state in states] == ["baseline", "one", "two"]
    assert rollback_target(states).model == "one"
    once = give(model("one", D[0]), D[5], action="rollback")
    states = succession(rows, once, D[9])
    assert [state.model for state in states] == ["baseline", "one"]
    assert rollback_target(states).model == "baseline"
    # What is ordered for later is not in force yet.
    assert succession(rows, once, D[4])[-1].model == "two"
    with pytest.raises(ModelError, match="nothing to roll back to"):
        rollback_target(succession(models(), empty, D[9]))


DAYS = st.integers(0, len(D) - 1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decisions and orders as they can come about: a row's attempt is not later than its day."""
    rows = {}
    for day in draw(st.sets(DAYS)):
        for ticker in draw(st.sets(st.sampled_from("AB"), min_size=1)):
            tried = draw(st.integers(0, day))
            name = draw(st.sampled_from(["one", "two", "three"]))
            rows[day, ticker] = (D[day], ticker, InForce(name, 1, D[tried], D[tried]))
    orders = [
        give(draw(st.sampled_from([None, model("four", D[0])])), D[day], AT + dt.timedelta(n))
        for n, day in enumerate(draw(st.lists(DAYS, max_size=3)))
    ]
    return models(*rows.values()), pl.concat([Orders.create_empty(), *orders])


CELLS = pl.DataFrame({"day": D}).join(pl.DataFrame({"ticker": ["A", "B"]}), how="cross")


@settings(deadline=None, max_examples=60)
@given(histories(), DAYS)
def test_an_order_changes_nothing_before_its_day_and_rules_on_it(
    history: tuple[pl.DataFrame, pl.DataFrame], day: int
) -> None:
    rows, orders = history
    more = pl.concat([orders, give(model("new", D[0]), D[day], AT + dt.timedelta(99))])
    without = models_in_force(CELLS, rows, orders)
    ordered = models_in_force(CELLS, rows, more)
    early = pl.col("day") < D[day]
    assert ordered.filter(early).equals(without.filter(early))
    assert (ordered.filter(pl.col("day") == D[day])["model"] == "new").all()


@settings(deadline=None, max_examples=60)
@given(histories())
def test_days_asked_one_by_one_are_served_as_the_range(
    history: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    rows, orders = history
    one_by_one = [
        models_in_force(
            CELLS.filter(pl.col("day") == day), rows.filter(pl.col("day") <= day), orders
        )
        for day in D
    ]
    assert pl.concat(one_by_one).equals(models_in_force(CELLS, rows, orders))
