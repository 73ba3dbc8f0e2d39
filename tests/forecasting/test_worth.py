"""What retraining was worth: the sums are right, and nothing is claimed that no test bears."""

from __future__ import annotations

import datetime as dt
import html

import numpy as np
import polars as pl
import pytest

from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecasting.scoring import compare_daily
from stock_assets.forecasting.worth import (
    FIRST,
    ORDER,
    REJECTED,
    RETRAIN,
    PolicyLosses,
    Worth,
    worth,
)
from stock_assets.forecasting.worth_report import WorthPage, worth_page
from stock_assets.lake.schemas import Shadows

SESSIONS = get_calendar(WEEKDAYS).after(dt.date(2020, 1, 1), 800)


def shadow(
    begin: int, live: np.ndarray, other: np.ndarray, *, decision: str = "trained",
    cause: str = "cadence", shadow_model: str = "old", tickers: str = "AB",
) -> pl.DataFrame:  # fmt: skip
    """Rows of an attempt on the `begin`-th session: one horizon, losses by day."""
    days = SESSIONS[begin + 1 : begin + 1 + len(live)]
    frame = pl.DataFrame({"day": days, "pinball": live, "shadow_pinball": other})
    return Shadows.validate(
        frame.join(pl.DataFrame({"ticker": list(tickers)}), how="cross").select(
            "day",
            "ticker",
            pl.lit(1).alias("horizon"),
            pl.lit(SESSIONS[begin]).alias("attempt_day"),
            pl.col("day").alias("forecast_day"),
            pl.lit(decision).alias("decision"),
            pl.lit(cause).alias("cause"),
            pl.lit(f"m{begin}").alias("model"),
            pl.lit(shadow_model).alias("shadow_model"),
            "pinball",
            "shadow_pinball",
        ),
        cast=True,
    )


def noise(seed: int, days: int = 60, *, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the live and the other model, whose mean is higher by `gain` of 1 %."""
    rng = np.random.default_rng(seed)
    level = 0.01 + 0.002 * rng.random(days)
    return level, level * (1 + 0.01 * gain + 0.01 * rng.standard_normal(days))


def policy(name: str, losses: np.ndarray, trainings: int = 3) -> PolicyLosses:
    frame = pl.DataFrame(
        {"day": SESSIONS[: len(losses)], "ticker": "A", "horizon": 1, "pinball": losses}
    )
    return PolicyLosses(name, f"{name}, in words", trainings, trainings, frame)


def test_each_kind_of_attempt_has_its_table_and_only_retrains_are_summed() -> None:
    retrains = [(100, *noise(1)), (200, *noise(2))]
    rows = pl.concat(
        [
            shadow(0, *noise(3, gain=50), cause="no model", shadow_model="baseline"),
            *(shadow(*item) for item in retrains),
            shadow(250, *noise(4, gain=-50), decision="rejected", shadow_model="challenger"),
            shadow(300, *noise(5, gain=50), decision="ordered", cause="order"),
            shadow(380, *noise(6, gain=50), decision="demoted"),
        ]
    )
    found = worth(rows)
    assert {kind: len(found.of(kind)) for kind in (RETRAIN, FIRST, REJECTED, ORDER)} == {
        RETRAIN: 2, FIRST: 1, REJECTED: 1, ORDER: 2,
    }  # fmt: skip
    for line, (begin, live, other) in zip(found.of(RETRAIN), retrains, strict=True):
        assert (line.day, line.model, line.tickers) == (SESSIONS[begin], f"m{begin}", 2)
        assert line.tested.result.skill == pytest.approx(100 * (1 - live.mean() / other.mean()))
        assert line.tested.result.t == pytest.approx(compare_daily(live, other).t)
    together = [np.concatenate(part) for part in zip(*(item[1:] for item in retrains), strict=True)]
    assert found.total is not None
    assert found.total.result.days == 120
    assert found.total.result.skill == pytest.approx(
        100 * (1 - together[0].mean() / together[1].mean())
    )
    # The picture's line ends where the sum does.
    assert found.saved["saved"][-1] == pytest.approx(
        (together[1] - together[0]).sum() / together[1].mean()
    )


def test_retrains_are_told_apart_by_why_they_were_tried() -> None:
    rows = pl.concat(
        [
            shadow(0, *noise(1)),
            shadow(100, *noise(2, gain=3), cause="drift"),
            shadow(200, *noise(3, gain=3), cause="drift"),
        ]
    )
    found = {item.name: (count, item) for count, item in worth(rows).by_cause}
    assert {name: count for name, (count, _) in found.items()} == {"cadence": 1, "drift": 2}
    assert found["drift"][1].words == "better"
    assert found["cadence"][1].words == "may be luck"


def test_what_pays_is_said_to_pay() -> None:
    gain = pl.concat([shadow(100 * n, *noise(n, gain=1)) for n in range(4)])
    found = worth(gain)
    assert found.sentence.startswith("4 retrains: live pinball loss")
    assert found.sentence.endswith("so it pays beside the models they replaced, beyond luck")
    loss = pl.concat([shadow(100 * n, *noise(n, gain=-1)) for n in range(4)])
    assert worth(loss).sentence.endswith("it costs beside the models they replaced, beyond luck")


@pytest.mark.slow
def test_equals_are_said_to_differ_in_one_verdict_of_twenty_at_most() -> None:
    claimed = lines = 0
    for seed in range(40):
        rows = pl.concat([shadow(100 * n, *noise(1000 * seed + n)) for n in range(4)])
        rng = np.random.default_rng(seed)
        policies = [
            policy(name, 0.01 * (1 + 0.01 * rng.standard_normal(240)))
            for name in ("as set", "every month", "never")
        ]
        found = worth(rows, policies)
        claimed += "beyond luck" in found.sentence
        lines += any(line.tested.words in {"better", "worse"} for line in found.lines)
    assert claimed <= 4
    assert lines <= 4


def test_few_days_and_equal_losses_are_called_so() -> None:
    live, other = noise(1, days=10)
    few, same = worth(shadow(0, live, other)), worth(shadow(0, *2 * [noise(1)[0]]))
    assert few.lines[0].tested.words == "too few days to tell"
    assert ", on too few days; so nothing here shows" in few.sentence
    assert same.lines[0].tested.words == "the same"
    assert "the same as that of the models they replaced; so nothing here shows" in same.sentence


def test_no_retrain_is_nothing_to_tell() -> None:
    found = worth(Shadows.create_empty())
    assert "no model has replaced another yet" in found.sentence
    assert found.lines == ()
    assert found.total is None


def with_policies() -> Worth:
    live, worse = noise(7, days=240, gain=1)
    equal = live * (1 + 0.01 * np.random.default_rng(8).standard_normal(240))
    rules = [policy("as set", live), policy("every month", equal, 9), policy("never", worse, 0)]
    return worth(shadow(0, *noise(1)), rules)


def test_the_settings_stand_beside_each_rule() -> None:
    found = with_policies()
    assert [(item.name, item.trainings) for item in found.policies] == [
        ("as set", 3), ("every month", 9), ("never", 0),
    ]  # fmt: skip
    own, month, never = found.policies
    assert own.tested is None
    assert month.tested is not None
    assert never.tested is not None
    assert (month.tested.words, never.tested.words) == ("may be luck", "better")
    assert never.tested.result.loss == pytest.approx(own.loss)
    assert never.tested.result.other == pytest.approx(never.loss)
    assert found.sentence.endswith("so it pays beside never, beyond luck")
    assert set(found.saved["name"]) == {"the models they replaced", "every month", "never"}


def test_the_page_shows_what_the_numbers_say_and_needs_no_network() -> None:
    found = with_policies()
    text = worth_page(WorthPage(found, "of <these> days", 63))
    assert html.escape(found.sentence) in text
    assert "of &lt;these&gt; days" in text
    assert text.count("<svg") == 1
    assert "<script" not in text
    for line in found.lines:
        assert str(line.day) in text
        assert f"{line.tested.result.skill:+.2f} %" in text
    assert text == worth_page(WorthPage(with_policies(), "of <these> days", 63))
