"""A challenger takes over only where it is better than the baseline and no worse than the old."""

import datetime as dt

import polars as pl
import pytest

from stock_assets.forecasting.gate import judge, pinball_losses
from stock_assets.lake.schemas import QUANTILE_NAMES

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(n) for n in range(40)]


def losses(challenger: float, baseline: float, in_force: float | None) -> pl.DataFrame:
    columns = {"challenger": challenger, "baseline": baseline, "in_force": in_force}
    wiggle = [0.01 * (n % 3) for n in range(40)]
    return pl.DataFrame(
        {"day": DAYS}
        | {name: [v + w for w in wiggle] for name, v in columns.items() if v is not None}
    )


@pytest.mark.parametrize(
    ("challenger", "baseline", "in_force", "accepted"),
    [
        (0.9, 1.0, None, True),
        (1.0, 1.0, None, False),
        (1.1, 1.0, None, False),
        (0.9, 1.0, 0.95, True),
        (0.9, 1.0, 0.9, True),
        (0.9, 1.0, 0.85, False),
        (1.1, 1.0, 1.2, False),
    ],
)
def test_both_must_be_met(
    challenger: float, baseline: float, in_force: float | None, *, accepted: bool
) -> None:
    verdict = judge(losses(challenger, baseline, in_force))
    assert verdict.accepted == accepted
    assert verdict.validation_days == 40
    assert verdict.baseline_loss == pytest.approx(baseline + 0.01, abs=0.001)
    assert (verdict.in_force_loss is None) == (in_force is None)
    assert "the baseline's" in verdict.reason
    assert ("the model in force's" in verdict.reason) == (in_force is not None)


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
