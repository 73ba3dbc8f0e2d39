"""A challenger takes over where tests bear it: better than the baseline, no worse than the old."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from stock_assets.forecasting.gate import LEVEL, judge, pinball_losses
from stock_assets.forecasting.leak_alarm import Soundings
from stock_assets.lake.schemas import QUANTILE_NAMES

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(n) for n in range(250)]


def losses(
    challenger: float, baseline: float, in_force: float | None, *, seed: int = 0, days: int = 250
) -> pl.DataFrame:
    """Losses of these means, that share a market and have 5-session noise of their own of 0.02."""
    rng = np.random.default_rng(seed)

    def noise() -> np.ndarray:
        return np.convolve(rng.standard_normal(days + 4), np.full(5, 0.2), "valid") / 0.2**0.5

    market = 0.3 * noise()
    means = {"challenger": challenger, "baseline": baseline, "in_force": in_force}
    return pl.DataFrame(
        {"day": DAYS[:days]}
        | {name: mean + market + 0.02 * noise() for name, mean in means.items() if mean is not None}
    )


@pytest.mark.parametrize(
    ("challenger", "baseline", "in_force", "accepted", "told"),
    [
        (0.9, 1.0, None, True, "below the baseline's"),
        (1.0, 1.0, None, False, "not better than the baseline beyond luck"),
        (1.1, 1.0, None, False, "not better than the baseline beyond luck"),
        (0.9, 1.0, 0.95, True, "the model in force's"),
        (0.9, 1.0, 0.9, True, "the model in force's"),
        (0.9, 1.0, 0.85, False, "worse than the model in force"),
        (1.1, 1.0, 1.2, False, "not better than the baseline"),
    ],
)
def test_both_must_be_met(
    challenger: float, baseline: float, in_force: float | None, *, accepted: bool, told: str
) -> None:
    table = losses(challenger, baseline, in_force, seed=3)
    verdict = judge(table)
    assert verdict.accepted == accepted
    assert told in verdict.reason
    assert verdict.validation_days == 250
    assert verdict.baseline_loss == pytest.approx(table["baseline"].mean())
    assert (verdict.in_force_loss is None) == (in_force is None)
    assert ("the model in force's" in verdict.reason) == (in_force is not None)
    assert verdict.baseline_t is not None
    assert (verdict.in_force_t is None) == (in_force is None)
    assert (verdict.in_force_baseline_t is None) == (in_force is None)


def test_a_challenger_equal_to_the_baseline_passes_as_seldom_as_the_level_says() -> None:
    passed = [judge(losses(1, 1, None, seed=seed)).accepted for seed in range(400)]
    assert np.mean(passed) == pytest.approx(LEVEL, abs=0.03)


def test_a_smaller_mean_loss_alone_is_not_enough() -> None:
    verdicts = [judge(losses(1, 1, None, seed=seed)) for seed in range(20)]
    lucky = [item for item in verdicts if item.challenger_loss < item.baseline_loss]
    assert len(lucky) > 5
    assert not all(item.accepted for item in lucky)


def test_a_challenger_equal_to_the_model_in_force_is_not_called_worse() -> None:
    verdicts = [judge(losses(0.9, 1, 0.9, seed=seed)) for seed in range(200)]
    above = [item for item in verdicts if item.challenger_loss > item.in_force_loss]
    assert len(above) > 50
    refused = np.mean([not item.accepted for item in verdicts])
    assert refused == pytest.approx(LEVEL, abs=0.04)
    # A challenger that really is worse, by half a deviation of the daily difference, is refused.
    worse = [judge(losses(0.9, 1, 0.885, seed=seed)).accepted for seed in range(50)]
    assert np.mean(worse) < 0.1


def test_the_same_model_again_is_not_worse_than_itself() -> None:
    same = losses(0.9, 1, None).with_columns(pl.col("challenger").alias("in_force"))
    assert judge(same).accepted


def test_too_few_days_tell_nothing() -> None:
    verdict = judge(losses(0.5, 1.0, None, days=19))
    assert not verdict.accepted
    assert verdict.baseline_t is None
    assert judge(losses(0.5, 1.0, None, days=20)).accepted


def test_a_model_in_force_that_is_worse_than_the_baseline_is_demoted() -> None:
    verdict = judge(losses(1.2, 1.0, 1.1))
    assert (verdict.accepted, verdict.demoted, verdict.decision) == (False, True, "demoted")
    assert "the model in force is worse than the baseline" in verdict.reason
    assert verdict.in_force_baseline_t < 0


@pytest.mark.parametrize(
    ("challenger", "in_force", "decision"),
    [
        (0.9, 1.1, "trained"),
        (1.2, 0.9, "rejected"),
        (1.2, 1.0, "rejected"),
        (1.2, None, "rejected"),
    ],
)
def test_only_a_failed_challenger_and_a_bad_model_bring_the_baseline_back(
    challenger: float, in_force: float | None, decision: str
) -> None:
    assert judge(losses(challenger, 1.0, in_force, seed=1)).decision == decision


@pytest.mark.slow
def test_bad_luck_alone_seldom_demotes() -> None:
    demoted = [judge(losses(1.2, 1, 1, seed=seed)).demoted for seed in range(400)]
    assert np.mean(demoted) == pytest.approx(LEVEL, abs=0.03)


def test_an_alarm_blocks_the_best_of_challengers() -> None:
    alarm = "too good, a leak until shown otherwise: R2 9.0 % (limit 1 %)"
    soundings = Soundings(9.0, None, None, None, None, leak_alarm=alarm, beyond_by_luck=None)
    verdict = judge(losses(0.5, 1.0, 0.9), soundings)
    assert verdict.decision == "rejected"
    assert verdict.leak_alarm == alarm
    assert verdict.reason.startswith(alarm)
    assert judge(losses(0.5, 1.0, 1.1), soundings).decision == "demoted"


def test_a_limit_passed_by_luck_is_told_and_blocks_nothing() -> None:
    luck = "beyond a limit, as luck or the drift of those days explains: R2 1.2 % (limit 1 %)"
    soundings = Soundings(1.2, None, None, None, None, leak_alarm=None, beyond_by_luck=luck)
    verdict = judge(losses(0.5, 1.0, 0.9), soundings)
    assert verdict.decision == "trained"
    assert luck in verdict.reason


def test_losses_are_of_the_same_rows_for_all(labelled: pl.DataFrame) -> None:
    whole = labelled.select("day", "ticker", pl.lit(1, pl.Int32).alias("horizon")).with_columns(
        *(pl.lit(0.0).alias(f"return_{name}") for name in QUANTILE_NAMES)
    )
    part = whole.filter(pl.col("ticker") != "A")
    found = pinball_losses({"one": whole, "other": part}, labelled)
    assert found.height == part.height - 5  # the last day has no return yet
    assert (found["one"] == found["other"]).all()
    # All quantiles at zero: each costs its level, or one minus it, times the move; half on average.
    moves = labelled.filter(pl.col("ticker") != "A").sort("day", "ticker")["y1"].drop_nulls().abs()
    assert found["one"].to_list() == pytest.approx((moves / 2).to_list())
