"""Decisions replay: a year at once, day by day, again, or without the future, they are the same."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.drift.verdict import Signal
from stock_assets.errors import ModelError
from stock_assets.forecasting import decision, gate
from stock_assets.forecasting.decision import (
    DecisionResult,
    decide,
    forced_days,
    forced_words,
    performance_words,
    training_due,
)
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.in_force import models_in_force
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.model import PARAMETERS, VolatilityModel
from stock_assets.forecasting.registry import MODEL_NAME, Registry
from stock_assets.lake.schemas import Models, Orders
from stock_assets.settings import Settings

pytestmark = pytest.mark.slow

NONE = Models.create_empty()
HONEST_LEVEL = gate.LEVEL
PRODUCT_PARAMETERS = PARAMETERS.copy()
EVERYONE = list("ABCDEF")


@pytest.fixture(scope="module")
def days(sessions: list[dt.date]) -> list[dt.date]:
    return sessions[300:400]


@pytest.fixture(autouse=True)
def _a_mean_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tickers and a fifth of a year seldom prove a model; here a smaller mean loss does.

    That the gate asks for more is shown in test_gate.py, and below where the level is its own.
    """
    monkeypatch.setattr(gate, "LEVEL", 0.5)


@pytest.fixture
def run(bars, features, registry, make_settings) -> Callable[..., DecisionResult]:
    """Decide days x tickers over the simulated market, as `forecasting` of a lake would."""

    def decided(
        days, tickers=EVERYONE, known=NONE, shares=None, *, registry=registry, cut=None,
        market=(bars, features), settings=None, forced=None, loads=None, orders=None,
    ):  # fmt: skip
        bars, features = market

        def load(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
            if loads is not None:
                loads.append((first, last))
            seen = pl.col("day").is_between(first, min(last, cut or last))
            return features.filter(seen), bars.filter(seen)

        cells = pl.DataFrame({"day": days}).join(pl.DataFrame({"ticker": tickers}), how="cross")
        made = decide(
            cells, known, signals(shares or {}), load, registry,
            settings or make_settings(EVERYONE), orders=orders, forced=forced,
            lake_versions={"features": 7},
        )  # fmt: skip
        Models.validate(made.rows)
        assert made.rows.select("day", "ticker").equals(cells.sort("day", "ticker"))
        return made

    return decided


def signals(shares: dict[dt.date, float]) -> dict[dt.date, Signal]:
    """What drift says on days of those shares of drifted pairs, which alarm above 0.3."""
    return {
        day: Signal(share, f"XMOS: {share:.0%} of pairs drifted" if share > 0.3 else None)
        for day, share in shares.items()
    }


def decisions(rows: pl.DataFrame, ticker: str = "A") -> dict[dt.date, tuple[str, str]]:
    """The days on which something was tried, with what came of it and why."""
    tried = rows.filter((pl.col("ticker") == ticker) & pl.col("challenger").is_not_null())
    return {row["day"]: (row["decision"], row["reason"]) for row in tried.iter_rows(named=True)}


def test_day_by_day_equals_the_range(run, days, registry) -> None:
    shares = {days[70]: 0.5}
    together = run(days, shares=shares).rows
    assert together["challenger"].n_unique() > 3
    known, fresh = NONE, type(registry)()
    for day in days:
        known = pl.concat([known, run([day], known=known, shares=shares, registry=fresh).rows])
    assert_frame_equal(known, together, check_exact=True)


def test_cutting_the_future_off_changes_no_decision(run, days, registry) -> None:
    shares = {days[70]: 0.5}
    whole = run(days, shares=shares).rows
    for last in (days[0], days[41], days[85]):
        before = [day for day in days if day <= last]
        cut = run(before, shares=shares, cut=last, registry=type(registry)()).rows
        assert_frame_equal(cut, whole.filter(pl.col("day") <= last), check_exact=True)


def test_a_changed_future_changes_no_decision(run, days, bars, features, registry) -> None:
    last = days[50]
    later = pl.col("day") > last
    wild = bars.with_columns(
        pl.when(later).then(pl.col("close") * 3).otherwise("close").alias("close")
    )
    blind = features.with_columns(pl.when(later).then(1.0).otherwise("vol_ewma").alias("vol_ewma"))
    whole = run(days).rows.filter(pl.col("day") <= last)
    other = run(days, market=(wild, blind), registry=type(registry)()).rows
    assert_frame_equal(other.filter(pl.col("day") <= last), whole, check_exact=True)


def test_a_planted_leak_is_caught_by_the_same_cut(run, days, registry, monkeypatch) -> None:
    """Labels that are said to end before they do let the future into a training."""
    honest = decision.labels

    def leaking(bars: pl.DataFrame) -> pl.DataFrame:
        return honest(bars).with_columns(pl.col("day").alias("label_end"))

    monkeypatch.setattr(decision, "labels", leaking)
    last = days[0]
    whole = run(days[:30]).rows.filter(pl.col("day") <= last)
    cut = run([last], cut=last, registry=type(registry)()).rows
    with pytest.raises(AssertionError):
        assert_frame_equal(cut, whole, check_exact=True)


def test_a_rerun_fits_nothing_and_says_the_same(run, days, monkeypatch) -> None:
    first = run(days)
    monkeypatch.setattr(decision, "fit", None)
    again = run(days, known=first.rows)
    assert_frame_equal(again.rows, first.rows, check_exact=True)
    assert [item.reused for item in again.attempts] == [True] * len(first.attempts)


def test_the_data_is_loaded_once_a_slice_and_only_when_a_training_needs_it(run, days) -> None:
    loads: list[tuple[dt.date, dt.date]] = []
    rows = run(days, loads=loads).rows
    assert len(loads) == 1
    assert loads[0][1] == days[-1]
    known = rows.filter(pl.col("day") <= days[1])
    run(days[2:5], known=known, loads=loads)
    assert len(loads) == 1


def test_it_trains_without_a_model_and_then_on_the_cadence(run, days) -> None:
    tried = decisions(run(days).rows)
    assert list(tried)[:2] == [days[0], days[40]]
    assert "no model in force" in tried[days[0]][1]
    assert "cadence, 40 sessions since the last attempt" in tried[days[40]][1]


def test_drift_asks_for_a_training_once_the_cooldown_has_passed(run, days) -> None:
    shares = dict.fromkeys(days[1:30], 0.31)
    result = run(days[:30], shares=shares)
    tried = decisions(result.rows)
    assert list(tried) == [days[0], days[11], days[22]]
    assert tried[days[11]][1].startswith("drift, XMOS: 31% of pairs drifted: ")
    held = result.rows.filter(day=days[11])["drift_share"].unique().to_list()
    assert held == [0.31]
    assert list(decisions(run(days[:30], shares=dict.fromkeys(days, 0.3)).rows)) == [days[0]]


def test_force_trains_on_its_day(run, days) -> None:
    tried = decisions(run(days[:10], forced={days[3]: "forced"}).rows)
    assert list(tried) == [days[0], days[3]]
    assert tried[days[3]][1].startswith("forced")


def test_a_forced_training_is_known_by_its_rows_and_tried_again_in_a_replay(run, days) -> None:
    live = performance_words("XMOS, the 80 % interval is too narrow (p = 0.001)")
    reasons = {days[3]: forced_words("1"), days[6]: forced_words(live)}
    first = run(days[:10], forced=reasons)
    assert reasons[days[3]] == "forced"
    assert reasons[days[6]] == ("performance (XMOS, the 80 % interval is too narrow [p = 0.001])")
    assert forced_days(first.rows) == reasons
    again = run(days[:10], forced=forced_days(first.rows))
    assert again.rows.equals(first.rows)
    assert forced_days(run(days[:10]).rows) == {}


def test_too_few_rows_leave_the_baseline_in_force_and_say_so(run, sessions, make_settings) -> None:
    # 34 sessions, 12 of them without a volatility and 5 without a label yet.
    early = run(sessions[30:32], settings=make_settings(EVERYONE)).rows
    assert early["model"].unique().to_list() == ["baseline"]
    assert early["attempted_day"].is_null().all()
    assert "labelled rows to train on" in early["reason"][0]
    # Enough rows, too few days to divide them.
    low = make_settings(EVERYONE, min_training_rows=50)
    assert "too few to divide" in run(sessions[40:41], settings=low).rows["reason"][0]


def test_a_rejected_challenger_leaves_the_old_in_force_until_the_cooldown_is_over(
    run, days, monkeypatch
) -> None:
    honest = decision.judge
    monkeypatch.setattr(decision, "judge", lambda *found: replace(honest(*found), accepted=False))
    result = run(days[:25])
    tried = decisions(result.rows)
    assert list(tried) == [days[0], days[11], days[22]]
    assert {outcome for outcome, _ in tried.values()} == {"rejected"}
    assert result.rows["model"].unique().to_list() == ["baseline"]
    assert result.aliases["champion"] is None
    assert result.aliases["challenger"] == result.attempts[-1].model_id


def test_a_model_in_force_is_among_the_judged(run, days, registry) -> None:
    rows = run(days).rows.filter(pl.col("ticker") == "A")
    second = rows.filter(pl.col("day") == days[40]).row(0, named=True)
    assert rows["in_force_loss"][0] is None
    assert second["in_force_loss"] is not None
    better = second["challenger_loss"] <= second["in_force_loss"]
    assert second["decision"] == ("trained" if better else "rejected")
    assert second["model"] == (second["challenger"] if better else rows["model"][0])
    # The numbers of the verdict are in the row.
    kept = registry.find(second["challenger"]).record
    for name in ("baseline_t", "in_force_t", "in_force_baseline_t", "leak_alarm"):
        assert second[name] == getattr(kept.verdict, name)
    assert second["in_force_t"] is not None
    assert {"skill", "coverage_80", "coverage_90", "qlike_skill"} <= set(kept.measures)


def test_some_tickers_reuse_the_training_of_that_day_that_covers_them(run, days) -> None:
    whole = run(days).rows
    for few in (["A"], ["C", "F"]):
        others = whole.filter(~pl.col("ticker").is_in(few))
        again = run(days, few, known=others)
        expected = whole.filter(pl.col("ticker").is_in(few))
        assert_frame_equal(again.rows, expected, check_exact=True)
        assert again.attempts == ()


def test_a_training_that_does_not_cover_a_ticker_is_not_reused_for_it(
    run, days, bars, features
) -> None:
    few = pl.col("ticker").is_in(["A", "B", "C"])
    early = run(days[:3], ["A", "B", "C"], market=(bars.filter(few), features.filter(few))).rows
    late = run(days[:3], ["D", "E", "F"], known=early)
    assert len(late.attempts) == 1
    assert late.attempts[0].model_id != early["challenger"][0]
    # Each keeps its own afterwards, whoever is asked together with whom.
    known = pl.concat([early, late.rows])
    after = run([days[3]], known=known).rows
    for ticker, row in (("A", early), ("D", late.rows)):
        found = after.filter(pl.col("ticker") == ticker)["model"][0]
        assert found == row["model"][-1]


def test_a_new_ticker_is_served_by_the_universes_model(run, days) -> None:
    known = run(days[:5], ["A", "B"]).rows
    later = run(days[5:8], known=known)
    assert later.attempts == ()
    assert later.rows["model"].unique().to_list() == [known["model"][-1]]


def test_every_day_is_loaded_from_where_its_window_begins_and_no_later(run, days) -> None:
    loads: list[tuple[dt.date, dt.date]] = []
    run([days[0]], loads=loads)
    run(days, loads=loads)
    assert loads[0][0] == loads[1][0] < days[0] - dt.timedelta(days=365)


def test_a_slice_of_no_cells_decides_nothing(run) -> None:
    assert run(pl.Series([], dtype=pl.Date)).rows.is_empty()


def test_with_the_real_registry_the_decision_is_the_same_and_the_model_is_there(
    run, days, tmp_path, features, labelled
) -> None:
    kept = Registry(tmp_path / "mlflow")
    real = run(days[:2], registry=kept)
    assert_frame_equal(
        real.rows.drop("model_version"),
        run(days[:2]).rows.drop("model_version"),
        check_exact=True,
    )
    name = real.rows["model"][0]
    assert kept.find(name).version == real.rows["model_version"][0]
    made = kept.load(name).forecast(features.tail(6), Known(features, labelled))
    assert made.height == 30
    for alias, model in real.aliases.items():
        assert kept.set_alias(alias, model, real.last_day)

    # What asked for it is on its run as in the row, and no part of it.
    from mlflow import MlflowClient

    def asked() -> list[str]:
        client = MlflowClient(kept.uri, kept.uri)
        version = client.get_model_version(MODEL_NAME, str(kept.find(name).version))
        told = client.get_run(version.run_id).data.tags
        assert "(no model in force), trained" in told["mlflow.note.content"]
        assert version.description == told["mlflow.note.content"]
        return [f"{trigger}: {told['reason']}" for trigger in told["trigger"].split("; also ")]

    assert asked() == [real.rows["reason"][0]]
    (attempt,), (again,) = real.attempts, run(days[:1], registry=kept).attempts
    assert (again.reused, again.model_id) == (True, attempt.model_id)
    assert asked() == [real.rows["reason"][0]], "told once, however often it is replayed"
    forced = run(days[:1], registry=kept, forced={days[0]: "forced"})
    assert [item.model_id for item in forced.attempts] == [name]
    assert asked() == [real.rows["reason"][0], forced.rows["reason"][0]]


def test_a_models_name_says_what_it_was_judged_against(run, days) -> None:
    older = run([days[0]])
    name = older.rows["model"][0]
    assert name != "baseline"
    alone = run([days[50]]).attempts[0]
    against = run([days[50]], known=older.rows).attempts[0]
    assert alone.day == against.day == days[50]
    assert alone.model_id != against.model_id


def test_another_window_is_another_training_though_the_lake_holds_the_same(
    run, days, make_settings
) -> None:
    """The lake begins after both windows' data would: what may be looked at is the same."""
    short = run([days[-1]]).attempts[0]
    long = run([days[-1]], settings=make_settings(EVERYONE, window=350)).attempts[0]
    assert not long.reused
    assert short.model_id != long.model_id
    assert short.reason != long.reason


def test_a_training_is_the_same_before_and_after_another_exchanges_close(
    make_bars, features_of, registry
) -> None:
    """New York closes after Moscow: that evening the lake holds its day, or does not yet."""
    markets = {
        "XMOS": make_bars(list("ABC"), 330, exchange="XMOS", seed=3),
        "XNYS": make_bars(list("DEF"), 330, exchange="XNYS", seed=4),
    }
    everything = pl.concat(markets.values())
    features = pl.concat(features_of(bars) for bars in markets.values())
    source = {"source": "none", "currency": "RUB"}
    settings = Settings(
        partitions={"first_day": dt.date(2023, 1, 2)},
        universe=[
            {"tickers": bars["ticker"].unique().sort().to_list(), "exchange": name, **source}
            for name, bars in markets.items()
        ],
        sources={"none": {"kind": "simulated"}},
        forecast={"cadence": 40, "cooldown": 10, "min_training_rows": 500, "window": 250},
    )
    day = markets["XMOS"]["day"].unique().sort()[310]
    assert day in set(markets["XNYS"]["day"])
    # A label of New York ends on the day, and is known as soon as its bar is there.
    assert labels(markets["XNYS"]).filter(label_end=day).height == 3

    def evening(known: pl.Expr) -> DecisionResult:
        def load(first: dt.date, _: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
            seen = (pl.col("day") >= first) & known
            return features.filter(seen), everything.filter(seen)

        cells = pl.DataFrame({"day": [day] * 3, "ticker": list("ABC")})
        return decide(cells, NONE, {}, load, type(registry)(), settings)

    until = pl.col("day") <= day
    before = evening(until & ((pl.col("exchange") == "XMOS") | (pl.col("day") < day)))
    after = evening(until)
    assert len(before.attempts) == 1
    assert_frame_equal(before.rows, after.rows, check_exact=True)


MARKET = [f"T{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def larger(make_bars, features_of) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars, features and labels of a market on which too good is no luck: 170 judged days."""
    bars = make_bars(MARKET, 1000, seed=5)
    return bars, features_of(bars), labels(bars)


def planted(name: str, what: pl.Expr) -> Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]:
    """`what` of the labels to come, as the feature `name`."""

    def leaking(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
        met = features.join(labelled.drop("exchange"), on=["day", "ticker"])
        return met.with_columns(what.alias(name)).select(features.columns)

    return leaking


def early(sessions: int) -> Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]:
    """All features of so many sessions later, but those that the baseline goes by too."""

    def leaking(features: pl.DataFrame, _: pl.DataFrame) -> pl.DataFrame:
        kept = ["day", "ticker", "exchange", "vol_ewma", "market_vol_ewma"]
        later = pl.exclude(kept).shift(-sessions).over("ticker", order_by="day")
        return features.with_columns(later)

    return leaking


LEAKS = {
    "the size of the next return": planted("ret_1d", pl.col("y1").abs()),
    "the variance to come": planted("log_variance_1d", pl.col("realised_variance").log()),
    "a volatility to come": planted("vol_close_5", (pl.col("realised_variance") / 5).sqrt()),
    "the next session's features": early(1),
    "next week's features": early(5),
}


@pytest.fixture
def judged(run, larger, make_settings, monkeypatch) -> Callable[[pl.DataFrame], dict[str, object]]:
    """The decision on a model of these features of the larger market, as the product decides."""
    monkeypatch.setattr(gate, "LEVEL", HONEST_LEVEL)
    for name, value in PRODUCT_PARAMETERS.items():
        monkeypatch.setitem(PARAMETERS, name, value)
    bars, settings = larger[0], make_settings(MARKET, window=900)
    day = bars["day"].unique().sort()[-20]

    def decided(features: pl.DataFrame) -> dict[str, object]:
        made = run([day], MARKET[:1], market=(bars, features), settings=settings)
        return made.rows.row(0, named=True)

    return decided


@pytest.mark.parametrize("leak", LEAKS)
def test_features_that_are_the_future_are_blocked_by_the_alarm(judged, larger, leak) -> None:
    """Planted in the features, through the whole decision, at the gate's own level."""
    row = judged(LEAKS[leak](larger[1], larger[2]))
    assert row["decision"] == "rejected"
    assert row["leak_alarm"].startswith("too good, a leak until shown otherwise: ")
    assert row["leak_alarm"] in row["reason"]
    assert row["model"] == "baseline"


def test_without_a_leak_there_is_no_alarm(judged, larger) -> None:
    row = judged(larger[1])
    assert row["leak_alarm"] is None
    assert row["decision"] == "trained"


def test_a_median_that_is_the_future_is_blocked_by_the_alarm(
    run, days, labelled, monkeypatch
) -> None:
    """A model whose price forecast has seen a tenth of the outcome."""
    honest = VolatilityModel.forecast
    seen = returns_ahead(labelled)

    def leaking(model, *arguments):
        made = honest(model, *arguments)
        made = made.join(seen, on=["day", "ticker", "horizon"], how="left")
        moved = 0.1 * pl.col("actual_return").fill_null(0.0)
        return made.with_columns(pl.col("^return_q.*$") + moved).drop("actual_return")

    monkeypatch.setattr(VolatilityModel, "forecast", leaking)
    row = run(days[60:61], ["A"]).rows.row(0, named=True)
    assert row["decision"] == "rejected"
    assert "R2 " in row["leak_alarm"]
    assert "direction right" in row["leak_alarm"]


def test_a_model_worse_than_the_baseline_gives_way_to_it(run, days, monkeypatch) -> None:
    honest = decision.judge
    first = run([days[0]])
    assert first.rows["model"][0] != "baseline"
    monkeypatch.setattr(
        decision, "judge", lambda *found: replace(honest(*found), accepted=False, demoted=True)
    )
    after = run(days[1:60], known=first.rows)
    demoted = after.rows.filter(pl.col("decision") == "demoted")
    assert demoted["day"].unique().to_list()[0] == days[40]
    assert demoted["model"].unique().to_list() == ["baseline"]
    assert demoted["trained_day"].is_null().all()
    later = after.rows.filter(pl.col("day") > days[40])
    assert later["model"].unique().to_list() == ["baseline"]
    assert after.aliases["champion"] is None


def order(day: dt.date, model: str = "baseline", *, at: int = 0, **more) -> pl.DataFrame:
    row = {
        "day": day, "ordered_at": dt.datetime(2030, 1, 1, at, tzinfo=dt.UTC), "ordered_by": "ann",
        "why": "it looks odd", "action": "promote", "model": model, "trained_day": None,
        "model_version": None,
    }  # fmt: skip
    return pl.DataFrame([row | more], schema=Orders.create_empty().schema)


def test_an_order_is_in_force_from_its_day_on_and_in_the_rows(run, days) -> None:
    plain = run(days[:60]).rows
    orders = order(days[20])
    found = run(days[:60], orders=orders)
    before, after = pl.col("day") < days[20], pl.col("day") >= days[20]
    assert_frame_equal(found.rows.filter(before), plain.filter(before), check_exact=True)
    day = found.rows.filter(pl.col("day") == days[20])
    assert day["decision"].unique().to_list() == ["ordered"]
    assert "promote ordered by ann on 2030-01-01 00:00 UTC: it looks odd" in day["reason"][0]
    assert day["attempted_day"].unique().to_list() == [days[20]]
    served = found.rows.filter(after & (pl.col("day") < days[31]))
    assert served["model"].unique().to_list() == ["baseline"]
    assert "ordered on" in served["reason"][-1]
    # It counts as an attempt: the next is due as after one, and may replace it.
    tried = decisions(found.rows)
    assert next(day for day in tried if day > days[20]) == days[31]


def test_an_ordered_model_stays_for_a_cadence_and_is_what_a_challenger_must_match(
    run, days, registry
) -> None:
    rows = run(days[:45]).rows
    old = rows.row(0, named=True)
    found = run(
        days[45:90], known=rows,
        orders=order(days[45], old["model"], trained_day=old["trained_day"], model_version=9),
    ).rows  # fmt: skip
    assert found["model"][0] == old["model"]
    assert found["model_version"][0] == 9
    (challenged,) = decisions(found)
    assert challenged == days[85]
    assert registry.find(found.filter(day=days[85])["challenger"][0]) is not None
    assert found.filter(day=days[85])["in_force_loss"][0] is not None


def test_with_orders_day_by_day_equals_the_range_and_a_rerun(run, days, registry) -> None:
    shares = {days[70]: 0.5}
    orders = pl.concat([order(days[30]), order(days[12]), order(days[12], at=2, why="no, now")])
    together = run(days, shares=shares, orders=orders).rows
    assert "no, now" in together.filter(day=days[12])["reason"][0]
    known, fresh = NONE, type(registry)()
    for day in days:
        made = run([day], known=known, shares=shares, registry=fresh, orders=orders).rows
        known = pl.concat([known, made])
    assert_frame_equal(known, together, check_exact=True)
    again = run(days[25:60], known=together, shares=shares, orders=orders)
    between = pl.col("day").is_between(days[25], days[59])
    assert_frame_equal(again.rows, together.filter(between), check_exact=True)
    assert all(item.reused for item in again.attempts)


def test_a_later_order_changes_nothing_before_its_day(run, days) -> None:
    shares = {days[70]: 0.5}
    first = run(days, shares=shares, orders=order(days[12])).rows
    both = run(days, shares=shares, orders=pl.concat([order(days[12]), order(days[50])])).rows
    before = pl.col("day") < days[50]
    assert_frame_equal(both.filter(before), first.filter(before), check_exact=True)


def test_forecasts_are_served_what_the_rows_say_though_no_row_is_written(run, days) -> None:
    """Live, `model` does not run every evening: rows up to a day, then orders alone."""
    orders = order(days[12])
    whole = run(days[:20], orders=orders).rows
    cells = whole.select("day", "ticker")
    early = whole.filter(pl.col("day") <= days[5])
    served = models_in_force(cells, early, orders)
    assert served["model"].to_list() == whole["model"].to_list()
    # Rows written before the order was given know nothing of it.
    unaware = run(days[:20]).rows
    served = models_in_force(cells, unaware, orders)
    assert served["model"].to_list() == whole["model"].to_list()


def test_no_training_is_tried_on_the_day_of_an_order(run, days) -> None:
    result = run(days[:1], orders=order(days[0]), forced={days[0]: "forced"})
    assert result.attempts == ()
    assert "the forced training was not tried" in result.rows["reason"][0]
    assert result.aliases == {"champion": None}


def test_an_ordered_model_that_is_gone_is_an_error_that_names_it(run, days, tmp_path) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(ModelError, match=r"model gone is .*missing .*promote baseline"):
        run(days[:60], orders=order(days[0], "gone", trained_day=days[0]), registry=registry)


def test_an_order_asks_for_its_day_once(run, days, make_settings) -> None:
    settings = make_settings(EVERYONE)
    known = run(days[:5]).rows.filter(pl.col("day") == days[4])
    orders = order(days[5])
    assert training_due(days[4], known, None, settings, orders) is None
    assert "baseline was ordered from" in training_due(days[5], known, None, settings, orders)
    unaware = run([days[5]], known=known).rows
    assert "was ordered" in training_due(days[5], unaware, None, settings, orders)
    aware = run([days[5]], known=known, orders=orders).rows
    assert training_due(days[5], aware, None, settings, orders) is None
    assert training_due(days[6], aware, None, settings, orders) is None


GONE = "was registered by an older version"


@pytest.fixture
def upgraded(run, days, registry) -> tuple[pl.DataFrame, Callable[[], object]]:
    """Rows of five evenings, and registries of a version that cannot serve their model."""
    rows = run(days[:5]).rows
    (old,) = rows["model"].unique().to_list()
    assert old != "baseline"

    def fresh() -> object:
        made = type(registry)()
        made.of_other_code = {old: GONE}
        return made

    return rows, fresh


def test_a_model_of_other_code_is_not_carried_on_and_another_is_trained(
    run, days, upgraded, make_settings
) -> None:
    known, fresh = upgraded
    old = known["model"][0]
    due = training_due(days[5], known, None, make_settings(EVERYONE), unfit=fresh().unfit())
    assert due == "no model in force"
    assert training_due(days[5], known, None, make_settings(EVERYONE)) is None
    together = run(days[5:50], known=known, registry=fresh()).rows
    assert old not in together["model"]
    assert f"{old} {GONE}; no model in force: loss" in together["reason"][0]
    assert together["in_force_loss"][0] is None
    assert together["attempted_day"][0] == days[5]
    later, one_by_one = known, fresh()
    for day in days[5:50]:
        later = pl.concat([later, run([day], known=later, registry=one_by_one).rows])
    assert_frame_equal(later.tail(together.height), together, check_exact=True)


def test_where_none_can_be_trained_instead_the_baseline_answers_and_says_why(
    run, days, upgraded, make_settings
) -> None:
    known, fresh = upgraded
    many = make_settings(EVERYONE, min_training_rows=10**6)
    together = run(days[5:8], known=known, registry=fresh(), settings=many).rows
    assert together["model"].unique().to_list() == ["baseline"]
    assert f"{known['model'][0]} {GONE}; no model in force, but only" in together["reason"][0]
    later = known
    for day in days[5:8]:
        made = run([day], known=later, registry=fresh(), settings=many).rows
        later = pl.concat([later, made])
    assert_frame_equal(later.tail(together.height), together, check_exact=True)
    # A part of the tickers does not take the outcome of the others' day from the old code.
    tried = run([days[0]], ["A"], known=known.filter(pl.col("ticker") != "A"), registry=fresh())
    assert len(tried.attempts) == 1


def test_an_order_of_a_model_of_other_code_leaves_its_day_to_the_baseline(
    run, days, upgraded
) -> None:
    known, fresh = upgraded
    orders = order(days[5], known["model"][0], trained_day=days[0], model_version=1)
    together = run(days[5:9], known=known, registry=fresh(), orders=orders).rows
    first = together.row(0, named=True)
    assert (first["model"], first["decision"]) == ("baseline", "baseline")
    assert f"it looks odd; but {known['model'][0]} {GONE}" in first["reason"]
    assert list(decisions(together)) == [days[6]]
    later, one_by_one = known, fresh()
    for day in days[5:9]:
        made = run([day], known=later, registry=one_by_one, orders=orders).rows
        later = pl.concat([later, made])
    assert_frame_equal(later.tail(together.height), together, check_exact=True)
