"""Shadows are what the other model would have scored: by hand, day by day, without the future."""

from __future__ import annotations

import bisect
import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import union_sessions
from stock_assets.forecasting import decision, gate
from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.decision import decide
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.in_force import models_in_force
from stock_assets.forecasting.labels import labels, returns_ahead
from stock_assets.forecasting.model import PARAMETERS
from stock_assets.forecasting.scoring import score
from stock_assets.forecasting.shadows import BAR_COLUMNS, attempts, shadow_scores, window_start
from stock_assets.lake.schemas import QUANTILE_NAMES, QUANTILES, Models, Orders, Shadows
from tests.forecasting.conftest import MemoryRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from stock_assets.forecasting.model import VolatilityModel
    from stock_assets.forecasting.registry import Registry
    from stock_assets.settings import Settings

EVERYONE = list("ABCDEF")
LENGTH = 15


@dataclass
class Lived:
    """What a lake would hold after some weeks, and how its shadows are computed."""

    settings: Settings
    registry: Registry
    bars: pl.DataFrame
    features: pl.DataFrame
    models: pl.DataFrame
    scored: pl.DataFrame
    orders: pl.DataFrame | None = None
    loads: int = 0
    reads: int = 0

    def load(self, name: str) -> VolatilityModel | None:
        self.loads += 1
        return self.registry.load(name)

    def read(self, first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
        self.reads += 1
        seen = pl.col("day").is_between(first, last)
        return self.bars.filter(seen).select(BAR_COLUMNS), self.features.filter(seen)

    @property
    def sessions(self) -> tuple[dt.date, ...]:
        return union_sessions(self.settings.exchanges)

    def shadows(self, scored: pl.DataFrame | None = None, length: int = LENGTH) -> pl.DataFrame:
        """As a run over the target days of `scored` computes them, from what it would read."""
        scored = self.scored if scored is None else scored
        begin = window_start(self.sessions, scored["forecast_day"].min(), length)
        last = scored["forecast_day"].max()
        seen = self.models.filter(pl.col("day") <= last)
        earlier = seen.filter(pl.col("day") < begin)
        latest = earlier.filter(pl.col("day") == pl.col("day").max().over("ticker"))
        known = pl.concat([latest, seen.filter(pl.col("day") >= begin)])
        found = shadow_scores(
            scored, attempts(known, self.orders), self.read, self.load,
            exchanges=self.settings.exchanges, sessions=self.sessions, length=length,
        )  # fmt: skip
        return Shadows.validate(found)


@pytest.fixture(scope="module")
def live(bars, features, make_settings) -> Callable[..., Lived]:
    """Decide, forecast and score days x tickers, as evenings would."""

    def made(days: list[dt.date], *, orders: pl.DataFrame | None = None) -> Lived:
        settings, registry = make_settings(EVERYONE), MemoryRegistry()
        cells = bars.filter(pl.col("day").is_in(days)).select("day", "ticker")

        def load(first: dt.date, last: dt.date) -> tuple[pl.DataFrame, pl.DataFrame]:
            seen = pl.col("day").is_between(first, last)
            return features.filter(seen), bars.filter(seen)

        with pytest.MonkeyPatch.context() as patch:
            # Six tickers and a fifth of a year seldom prove a model; here a smaller loss does.
            patch.setattr(gate, "LEVEL", 0.5)
            patch.setitem(PARAMETERS, "iterations", 10)
            rows = decide(
                cells, Models.create_empty(), {}, load, registry, settings, orders=orders
            ).rows
        forecasts = make_forecasts(
            cells, bars, features, rows, registry.load, settings.forecast.horizons,
            LakeVersions(0, 0, None), orders=orders,
        )  # fmt: skip
        return Lived(settings, registry, bars, features, rows, score(forecasts, bars), orders)

    return made


@pytest.fixture(scope="module")
def days(sessions: list[dt.date]) -> list[dt.date]:
    return sessions[300:400]


@pytest.fixture(scope="module")
def once(live, days) -> Lived:
    return live(days)


@pytest.fixture
def lived(once: Lived) -> Lived:
    """Some weeks in which nobody ordered anything."""
    return replace(once, loads=0, reads=0)


@pytest.fixture(scope="module")
def whole(once: Lived) -> pl.DataFrame:
    """All of its shadows."""
    return replace(once).shadows()


def order(day: dt.date, model: str) -> pl.DataFrame:
    row = {
        "day": day,
        "ordered_at": dt.datetime(2024, 7, 1, tzinfo=dt.UTC),
        "ordered_by": "ann",
        "why": "a test",
        "action": "promote",
        "model": model,
    }
    return pl.DataFrame([row], schema=Orders.create_empty().schema)


def of(shadows: pl.DataFrame, kind: str) -> dict[dt.date, pl.DataFrame]:
    """Rows of the attempts of one decision, by their days."""
    own = shadows.filter(decision=kind)
    return {day: own.filter(attempt_day=day) for day in own["attempt_day"].unique().sort()}


def oracle(lived: Lived, length: int) -> dict[tuple[object, ...], tuple[str, float]]:
    """The slow way: walk each ticker's decisions, ask the other model cell by cell."""
    found = {}
    labelled = labels(lived.bars)
    came = {row[:3]: row[3] for row in returns_ahead(labelled).iter_rows()}
    known = Known(lived.features, labelled)
    answers: dict[tuple[str, dt.date], dict[tuple[str, int], dict[str, float]]] = {}
    for ticker in EVERYONE:
        running: list[tuple[dt.date, str, str]] = []
        before = BASELINE
        own = lived.models.filter(ticker=ticker).sort("day")
        for row in own.iter_rows(named=True):
            day = row["day"]
            if row["decision"] == "trained":
                running = [(day, row["model"], before)]
            elif row["decision"] == "rejected":
                running.append((day, row["model"], row["challenger"]))
            before = row["model"]
            for begin, model, other in running:
                place, start = (bisect.bisect_left(lived.sessions, x) for x in (day, begin))
                live = lived.scored.filter(forecast_day=day, ticker=ticker, model=model)
                if place - start >= length or live.is_empty():
                    continue
                for scored in live.iter_rows(named=True):
                    key = (scored["day"], ticker, scored["horizon"], begin)
                    if other == BASELINE:
                        found[key] = (other, scored["baseline_pinball"])
                        continue
                    if (other, day) not in answers:
                        cells = lived.bars.filter(day=day)
                        told = lived.registry.load(other).forecast(cells, known)
                        answers[other, day] = {
                            (item["ticker"], item["horizon"]): item
                            for item in told.iter_rows(named=True)
                        }
                    said = answers[other, day][ticker, scored["horizon"]]
                    actual = came[day, ticker, scored["horizon"]]
                    losses = [
                        max(level * gap, (level - 1) * gap)
                        for level, name in zip(QUANTILES, QUANTILE_NAMES, strict=True)
                        for gap in [actual - said[f"return_{name}"]]
                    ]
                    found[key] = (other, sum(losses) / len(losses))
    return found


def test_a_shadows_losses_are_those_of_the_other_model_by_hand(live, days, monkeypatch) -> None:
    rejecting = decision.judge
    turns = iter([True, True, False, True])

    def judged(*found: object) -> gate.Verdict:
        return replace(rejecting(*found), accepted=next(turns), demoted=False)

    monkeypatch.setattr(decision, "judge", judged)
    lived = live(days)
    shadows = lived.shadows(length=6)
    expected = oracle(lived, 6)
    assert set(shadows["decision"]) == {"trained", "rejected"}
    assert {BASELINE} < set(shadows["shadow_model"])
    got = {
        tuple(row[name] for name in ("day", "ticker", "horizon", "attempt_day")): row
        for row in shadows.iter_rows(named=True)
    }
    assert set(got) == set(expected)
    for key, (other, loss) in expected.items():
        assert got[key]["shadow_model"] == other
        assert got[key]["shadow_pinball"] == pytest.approx(loss, rel=1e-12)
    # Beside it stands what `scores` has of the same cell.
    key = ["day", "ticker", "horizon", "forecast_day", "model", "pinball"]
    assert shadows.join(lived.scored, on=key, how="anti").is_empty()


def test_the_first_model_is_beside_the_baseline_and_later_ones_beside_the_replaced(
    lived, whole
) -> None:
    trained = lived.models.filter(ticker="A", decision="trained")
    first, second = trained["model"][:2]
    by_day = of(whole, "trained")
    assert set(by_day[trained["day"][0]].select("model", "shadow_model", "cause").rows()) == {
        (first, BASELINE, "no model")
    }
    assert set(by_day[trained["day"][1]].select("model", "shadow_model", "cause").rows()) == {
        (second, first, "cadence")
    }
    # For so many sessions, from the day of the training on.
    for day, rows in by_day.items():
        asked = rows["forecast_day"].unique().sort().to_list()
        place = lived.sessions.index(day)
        assert asked == list(lived.sessions[place : place + LENGTH])


def test_day_by_day_equals_one_range(lived, whole, days) -> None:
    around = pl.col("day").is_in([*days[16:22], *days[40:48], *days[54:58]])
    scored, expected = lived.scored.filter(around), whole.filter(around)
    assert expected["shadow_model"].n_unique() > 1
    parts = [lived.shadows(own) for _, own in scored.group_by("day", maintain_order=True)]
    assert_frame_equal(pl.concat(parts).sort(Shadows.primary_key()), expected, check_exact=True)


def test_some_tickers_are_shadowed_as_among_all(lived, whole) -> None:
    some = pl.col("ticker").is_in(["B", "E"])
    assert_frame_equal(
        lived.shadows(lived.scored.filter(some)), whole.filter(some), check_exact=True
    )


def test_the_future_changes_no_row(lived, whole, days) -> None:
    last = days[48]
    until = pl.col("day") <= last
    cut = replace(
        lived, bars=lived.bars.filter(until), features=lived.features.filter(until),
        models=lived.models.filter(until), scored=lived.scored.filter(until),
    )  # fmt: skip
    found = cut.shadows()
    assert found.filter(pl.col("shadow_model") != BASELINE).height
    assert_frame_equal(found, whole.filter(until), check_exact=True)


def test_where_no_shadow_runs_nothing_is_read_or_loaded(lived, whole, days) -> None:
    second = lived.models.filter(ticker="A", decision="trained")["day"][1]
    quiet = lived.scored.filter(
        pl.col("forecast_day").is_between(days[LENGTH], second, closed="left")
    )
    assert quiet.height
    assert lived.shadows(quiet).is_empty()
    # The first model's shadow is the baseline, whose losses are in `scores` already.
    begin = lived.scored.filter(pl.col("forecast_day") < days[LENGTH])
    assert lived.shadows(begin).height == begin.height
    assert (lived.loads, lived.reads) == (0, 0)
    assert lived.shadows().height == whole.height > begin.height
    assert lived.loads == whole["shadow_model"].n_unique() - 1


def test_no_shadow_at_all_by_setting(lived) -> None:
    assert lived.shadows(length=0).is_empty()


def test_an_order_puts_what_it_replaced_in_shadow(live, days) -> None:
    lived = live(days, orders=order(days[20], BASELINE))
    (first, *_) = lived.models.filter(ticker="A", decision="trained")["model"]
    rows = lived.shadows(length=30).filter(attempt_day=days[20])
    about = rows.select("decision", "cause", "model", "shadow_model").unique()
    assert about.rows() == [("ordered", "order", BASELINE, first)]
    # The shadow of the first training ends there: its model serves no more.
    trained = lived.shadows(length=30).filter(attempt_day=days[0])
    assert trained["forecast_day"].max() == days[19]
    # Until the next change, though its 30 sessions are not over.
    until = lived.models.filter(pl.col("day") > days[20], ticker="A", decision="trained")["day"][0]
    assert rows["forecast_day"].max() < until


def test_a_training_whose_model_was_put_back_is_not_asked_about_again(live, days) -> None:
    """What it is worth then is the worth of the order that put it back."""
    (first,) = live(days[:1]).models["model"].unique()
    back = pl.concat([order(days[5], BASELINE), order(days[10], first)])
    rows = live(days[:30], orders=back).shadows(length=30)
    spans = rows.group_by("attempt_day", "model", "shadow_model").agg(
        pl.col("forecast_day").min().alias("begin"), pl.col("forecast_day").max().alias("end")
    )
    last = rows["forecast_day"].max()
    assert spans.sort("attempt_day").rows() == [
        (days[0], first, BASELINE, days[0], days[4]),
        (days[5], BASELINE, first, days[5], days[9]),
        (days[10], first, BASELINE, days[10], last),
    ]


def trainings(*told: tuple[int, str, str, float | None]) -> pl.DataFrame:
    """Rows of `Models` of one ticker: day of January, model, decision, loss of the one in force."""
    rows = [
        {"day": dt.date(2024, 1, day), "ticker": "A", "model": model, "decision": decision,
         "reason": "cadence, 63 sessions: x", "attempted_day": dt.date(2024, 1, day),
         "challenger": f"challenger {day}", "in_force_loss": loss}
        for day, model, decision, loss in told
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=Models.create_empty().schema)


def test_a_model_judged_beside_none_replaced_the_baseline() -> None:
    """One that was lost, as other code made it, had given way to the baseline already."""
    found = attempts(
        trainings((8, "lost", "trained", None), (9, "new", "trained", None),
                  (10, "newer", "trained", 1.0))
    )  # fmt: skip
    assert found["shadow_model"].to_list() == [BASELINE, BASELINE, "new"]


def test_an_order_overrules_the_training_of_its_day() -> None:
    """Which was tried before the order was given, and stands in `models` until it runs again."""
    tried = trainings((8, "old", "trained", None), (9, "new", "trained", 1.0))
    found = attempts(tried, order(dt.date(2024, 1, 9), BASELINE))
    assert found.select("attempt_day", "decision", "model", "shadow_model").rows() == [
        (dt.date(2024, 1, 8), "trained", "old", BASELINE),
        (dt.date(2024, 1, 9), "ordered", BASELINE, "old"),
    ]


def test_an_order_that_no_decision_obeyed_yet_counts(live, days) -> None:
    """Forecasts read orders themselves; `model` may run later, or never that evening."""
    ordered = live(days, orders=order(days[20], BASELINE))
    without = replace(ordered, models=ordered.models.filter(pl.col("day") < days[20]))
    scored = ordered.scored.filter(pl.col("forecast_day") < days[30])
    assert_frame_equal(without.shadows(scored), ordered.shadows(scored), check_exact=True)


def test_ordering_what_is_in_force_changes_nothing(live, days) -> None:
    plain = live(days[:30])
    (model,) = plain.models.filter(decision="trained")["model"].unique()
    lived = live(days[:30], orders=order(days[10], model))
    assert set(lived.models.filter(day=days[10])["decision"]) == {"ordered"}
    assert_frame_equal(lived.shadows(length=30), plain.shadows(length=30), check_exact=True)


def test_a_ticker_without_a_session_that_day_shares_the_attempt(lived, whole) -> None:
    """Its next forecast is by the new model, and its row says carried."""
    second = lived.models.filter(ticker="A", decision="trained")["day"][1]
    absent = (pl.col("ticker") == "F") & (pl.col("day") == second)
    models = lived.models.filter(~absent).with_columns(
        pl.when((pl.col("ticker") == "F") & (pl.col("day") > second))
        .then(pl.lit("carried"))
        .otherwise("decision")
        .alias("decision")
    )
    there = pl.col("forecast_day").ne(second) | pl.col("ticker").ne("F")
    other = replace(lived, models=models, scored=lived.scored.filter(there))
    expected = whole.filter(there)
    assert_frame_equal(other.shadows(), expected, check_exact=True)
    assert expected.filter(ticker="F", attempt_day=second).height


def test_a_model_that_cannot_serve_has_no_shadow_and_the_others_have(lived, whole) -> None:
    (gone, *_) = [name for name in whole["shadow_model"].unique().sort() if name != BASELINE]
    honest = lived.registry.load
    lived.load = lambda name: None if name == gone else honest(name)
    assert_frame_equal(
        lived.shadows(), whole.filter(pl.col("shadow_model") != gone), check_exact=True
    )


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("no model in force: loss 2 % below", "no model"),
        ("no model in force, 22 sessions since the last attempt: x", "no model"),
        ("cadence, 63 sessions since the last attempt: worse; drift of others", "cadence"),
        ("drift of 31 % of the universe: x", "drift"),
        ("forced: x", "forced"),
        ("m was registered by an older version; cadence, 63 sessions: x", "cadence"),
        ("something new: x", "other"),
    ],
)
def test_the_cause_is_read_off_the_reason(reason: str, cause: str) -> None:
    row = {"day": dt.date(2024, 1, 9), "ticker": "A", "model": "m", "decision": "trained"}
    models = pl.DataFrame([row | {"reason": reason}], schema=Models.create_empty().schema)
    assert attempts(models)["cause"].to_list() == [cause]


def test_the_words_of_the_cause_are_those_that_decisions_give(lived) -> None:
    tried = attempts(lived.models)
    assert tried.height
    assert "other" not in set(tried["cause"])


def test_the_replaced_model_is_what_forecasts_had_the_day_before(lived) -> None:
    tried = attempts(lived.models).filter(decision="trained")
    for row in tried.iter_rows(named=True):
        eve = pl.DataFrame({"day": [row["attempt_day"] - dt.timedelta(1)], "ticker": ["A"]})
        (before,) = models_in_force(eve, lived.models)["model"]
        assert row["shadow_model"] == before
