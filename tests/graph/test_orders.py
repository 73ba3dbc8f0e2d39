"""Ordering a model on the command line: the next forecasts obey it, and a replay agrees."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from stock_assets.lake.store import Lake

from .conftest import BEGUN, FIRST, LAST, Market, assert_same, make_market

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("graph_later"), pytest.mark.timeout(1200)]

ORDERED, NEXT = BEGUN + dt.timedelta(1), dt.date(2025, 6, 6)
EVENING = ("candles", "quarantine", "bars", "features", "drift", "forecasts", "scores")


def told(market: Market, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = market.cli("model", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, begun: Market) -> Market:
    """A lake up to the day before the order, and one evening without `model` after it."""
    made = begun.copied(tmp_path_factory.mktemp("ordered") / "market")
    before = told(made, "list")
    assert before["next day"] == str(ORDERED)
    (serving,) = [item for item in before["models"] if item["in force"] == "all 5 tickers"]
    assert serving["aliases"].split(", ")[0] in {"champion", "challenger"}
    order = told(made, "promote", "baseline", "--why", "a look at it first", "--by", "ann")
    assert (order["day"], order["ordered_by"], order["model"]) == (str(ORDERED), "ann", "baseline")
    made.run(ORDERED, ORDERED, *EVENING)
    return made


def test_the_next_forecasts_obey_though_model_did_not_run(market: Market) -> None:
    forecasts = market.lake.read("forecasts")
    assert (forecasts.filter(day=ORDERED)["model"] == "baseline").all()
    before = forecasts.filter(pl.col("day") < ORDERED)
    assert (before["model"] != "baseline").any()
    assert market.lake.read("models").filter(day=ORDERED).is_empty()


def test_the_order_is_told_by_list_and_sql(market: Market) -> None:
    listed = told(market, "list")
    assert all(item["in force"] == "" for item in listed["models"])
    assert not any("champion" in item["aliases"] for item in listed["models"])
    assert [item["why"] for item in listed["orders"]] == ["a look at it first"]
    query = "select day, ordered_by, why, action, model from orders"
    done = market.cli("sql", query, "--json")
    assert json.loads(done.stdout) == [
        {"day": str(ORDERED), "ordered_by": "ann", "why": "a look at it first", "action": "promote",
         "model": "baseline"},
    ]  # fmt: skip


def test_models_are_shown_and_compared(market: Market) -> None:
    models = told(market, "list")["models"]
    first = models[0]["model"]
    shown = told(market, "show", "1")
    assert shown["model"] == first
    assert shown["measures"]["skill"] == pytest.approx(models[0]["skill"])
    assert shown["inputs"][0]["importance"] > 0
    assert shown["lake versions"]["features"] == 0
    found = told(market, "compare", first, "baseline")
    assert found["name"] == first
    assert not found["later"] or found["first"] >= models[0]["trained"]
    assert first in found["sentence"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "nobody", "--why", "x"], "there is no model 'nobody'"),
        (["promote", "1", "--why", " "], "--why"),
        (["promote", "1", "--why", "x", "--from", str(FIRST)], "made already"),
        (["show", "99"], "there is no model '99'"),
    ],
)
def test_what_cannot_be_ordered_is_refused_with_the_reason(
    market: Market, arguments: list[str], message: str
) -> None:
    before = market.lake.version("orders")
    done = market.cli("model", *arguments)
    assert done.returncode in {2, 5}
    assert message in done.stderr
    assert market.lake.version("orders") == before


def test_rows_say_so_and_a_replay_gives_what_was_in_force(
    market: Market, tmp_path: Path, market_rows: pl.DataFrame
) -> None:
    earlier = market.tables(last=ORDERED - dt.timedelta(1))
    forecasts = market.lake.read("forecasts").filter(day=ORDERED)
    market.run(ORDERED, ORDERED)
    decided = market.lake.read("models").filter(day=ORDERED)
    assert decided["decision"].unique().to_list() == ["ordered"]
    assert "a look at it first" in decided["reason"][0]
    again = market.lake.read("forecasts").filter(day=ORDERED)
    assert again.drop(pl.col("^.*_version$")).equals(forecasts.drop(pl.col("^.*_version$")))
    # Back to the model that served before, from the next session on.
    order = told(market, "rollback", "--why", "it was right", "--by", "bob", "--to", "1")
    assert order["day"] == str(NEXT)
    assert told(market, "show", "1")["aliases"] == ["champion"]
    market.run(NEXT, LAST)
    served = market.lake.read("forecasts").filter(day=NEXT)
    assert served["model"].unique().to_list() == [order["model"]]
    tables = market.tables()
    assert_same(earlier, market.tables(last=ORDERED - dt.timedelta(1)))
    replay = make_market(tmp_path / "replay", market_rows)
    shutil.copytree(
        Lake(market.settings.lake_dir).uri("orders"), Lake(replay.settings.lake_dir).uri("orders")
    )
    replay.run(FIRST, LAST)
    assert_same(tables, replay.tables())
