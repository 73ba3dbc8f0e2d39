"""One rule says which model is in force, for decisions and forecasts alike."""

import datetime as dt

import polars as pl

from stock_assets.forecasting.in_force import History, InForce, models_in_force
from stock_assets.lake.schemas import Models

D = [dt.date(2024, 1, 1) + dt.timedelta(n) for n in range(10)]
OLD = InForce("old", 1, D[0], D[0])
NEW = InForce("new", 2, D[3], D[3])


def models(*rows: tuple[dt.date, str, InForce]) -> pl.DataFrame:
    schema = Models.create_empty().schema
    return pl.DataFrame(
        [{"day": day, "ticker": ticker, **state.__dict__} for day, ticker, state in rows],
        schema=schema,
    )


def served(rows: pl.DataFrame, *cells: tuple[dt.date, str]) -> list[str]:
    frame = pl.DataFrame(cells, schema={"day": pl.Date, "ticker": pl.String}, orient="row")
    return models_in_force(frame, rows)["model"].to_list()


def test_without_decisions_the_baseline_is_in_force() -> None:
    assert History().state("A") == InForce()
    assert served(models(), (D[1], "A")) == ["baseline"]


def test_the_latest_attempt_counts_for_everyone() -> None:
    history = History()
    history.record("A", OLD)
    assert history.state("NEWCOMER") == OLD
    history.record("B", NEW)
    assert history.state("A") == NEW


def test_where_two_tried_on_one_day_each_keeps_its_own() -> None:
    history = History()
    other = InForce("other", 3, D[3], D[3])
    history.record("B", other)
    history.record("A", NEW)
    assert (history.state("A"), history.state("B")) == (NEW, other)
    assert history.state("C") == NEW


def test_a_decision_serves_its_own_day_and_those_after_until_the_next() -> None:
    rows = models((D[0], "A", OLD), (D[3], "A", NEW))
    cells = [(day, "A") for day in D[:6]]
    assert served(rows, *cells) == ["old"] * 3 + ["new"] * 3


def test_a_later_decision_says_nothing_about_earlier_days() -> None:
    rows = models((D[3], "A", NEW))
    assert served(rows, (D[2], "A"), (D[2], "B"), (D[3], "B")) == ["baseline"] * 2 + ["new"]


def test_a_cells_own_row_wins() -> None:
    rows = models((D[3], "A", NEW), (D[3], "B", OLD))
    assert served(rows, (D[3], "A"), (D[3], "B"), (D[4], "B")) == ["new", "old", "new"]


def test_a_rejected_challenger_leaves_the_old_model_in_force() -> None:
    rejected = InForce("old", 1, D[0], D[5])
    rows = models((D[0], "A", OLD), (D[5], "A", rejected))
    assert served(rows, (D[6], "A"), (D[6], "B")) == ["old", "old"]


def test_a_model_of_other_code_is_served_by_the_baseline_until_another_is_decided() -> None:
    rows = models((D[0], "A", OLD), (D[3], "A", NEW), (D[3], "B", NEW))
    cells = pl.DataFrame({"day": [D[1], D[3], D[5]], "ticker": ["A", "A", "C"]})
    found = models_in_force(cells, rows, unfit={"old"})
    assert found["model"].to_list() == ["baseline", "new", "new"]
    assert found["model_version"].to_list() == [None, 2, 2]
