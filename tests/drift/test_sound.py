"""No training learns from prices that cannot be right, and from all the others it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets.calendars import WEEKDAYS
from stock_assets.drift.quality import BLOCKING, faults
from stock_assets.drift.sound import _suspects, first_bar_to_judge, sound_rows
from stock_assets.forecasting.labels import HORIZONS, labels
from stock_assets.lake.dbt_request import LOOKBACK_SESSIONS
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from tests.proofs.markets import MEAN_REVERTING, simulate

if TYPE_CHECKING:
    import datetime as dt

PRICES = ("open", "high", "low", "close")
SPOT, SESSIONS = 800, 1200


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return simulate(MEAN_REVERTING, 3, SESSIONS, seed=4).drop("following")


@pytest.fixture(scope="module")
def days(bars) -> list[dt.date]:
    return bars["day"].unique().sort().to_list()


@pytest.fixture(scope="module")
def features(bars) -> pl.DataFrame:
    return bars.select("day", "ticker", "exchange", number=pl.int_range(pl.len()))


@pytest.fixture(scope="module")
def settings(bars, days) -> Settings:
    names = bars["ticker"].unique().sort()
    return Settings(
        partitions={"first_day": days[-1]},
        universe=[{"ticker": name, "source": "s", "exchange": WEEKDAYS} for name in names],
        sources={"s": {"kind": "simulated"}},
    )


def planted(bars: pl.DataFrame, day: dt.date, factor: float, *names: str) -> pl.DataFrame:
    here = (pl.col("day") == day) & (pl.col("ticker") == "T00")
    return bars.with_columns(
        pl.when(here).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in names
    )


def sound(features, bars, first, settings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What a training from `first` on gets."""
    begin = first_bar_to_judge(first, settings)
    seen = pl.col("day") >= first
    return sound_rows(features.filter(seen), bars.filter(pl.col("day") >= begin), first, settings)


def test_where_nothing_is_at_fault_nothing_is_changed(features, bars, days, settings) -> None:
    seen = pl.col("day") >= days[100]
    made = sound(features, bars, days[100], settings)
    assert_frame_equal(made[0], features.filter(seen))
    assert_frame_equal(made[1], bars.filter(seen))


@pytest.mark.parametrize("names", [PRICES, ("high",), ("high", "close"), ("low",)])
def test_no_label_is_made_of_a_price_at_fault(features, bars, days, settings, names) -> None:
    wrong = planted(bars, days[SPOT], 0.01 if names == ("low",) else 100, *names)
    _, kept = sound(features, wrong, days[0], settings)
    made, right = labels(kept), labels(bars)
    at_fault = (pl.col("day") == days[SPOT]) & (pl.col("ticker") == "T00")
    assert made.filter(at_fault).is_empty()
    # All others are as if the candle had been right, or null.
    joined = made.join(right, on=["day", "ticker"], suffix="_right")
    assert joined.height == right.height - 1
    for name in (*(f"y{step}" for step in HORIZONS), "realised_variance", "variance_ahead_5"):
        # The session after the missing one has its return from further back: its variance differs.
        differ = joined.filter(
            pl.col(name).is_not_null() & (pl.col(name) != pl.col(f"{name}_right"))
        )
        assert differ.is_empty(), name
    assert joined["y1"].null_count() == right["y1"].null_count() + 1


def test_features_that_have_seen_the_jump_are_left_out_for_as_long_as_they_do(
    features, bars, days, settings
) -> None:
    wrong = planted(bars, days[SPOT], 100, "high", "close")
    made, _ = sound(features, wrong, days[0], settings)
    gone = features.join(made, on=["day", "ticker"], how="anti").sort("day")
    assert gone["ticker"].unique().to_list() == ["T00"]
    # The way back, a session later, is a jump as well.
    assert gone["day"].to_list() == days[SPOT : SPOT + LOOKBACK_SESSIONS + 2]


def test_a_suspected_split_is_in_no_feature_and_costs_only_its_day(
    features, bars, days, settings
) -> None:
    wrong = planted(bars, days[SPOT], 100, *PRICES)
    jumps = {days[SPOT]: 0.01, days[SPOT + 1]: 100.0}
    ratio = pl.col("day").replace_strict(jumps, default=None, return_dtype=pl.Float64)
    marked = wrong.with_columns(suspected_split=pl.when(pl.col("ticker") == "T00").then(ratio))
    made, kept = sound(features, marked, days[0], settings)
    assert_frame_equal(made, features)
    assert kept.height == bars.height - 1
    # The way back is a jump as well, if it does not look like a split.
    half = marked.with_columns(
        suspected_split=pl.when(pl.col("day") == days[SPOT]).then("suspected_split")
    )
    made, _ = sound(features, half, days[0], settings)
    gone = features.join(made, on=["day", "ticker"], how="anti").sort("day")
    assert gone["day"].to_list() == days[SPOT + 1 : SPOT + LOOKBACK_SESSIONS + 2]


def test_what_is_sound_does_not_depend_on_where_the_training_begins(
    features, bars, days, settings
) -> None:
    """A fault before the first day is still in the features after it."""
    wrong = planted(bars, days[SPOT], 100, "high")
    whole = sound(features, wrong, days[0], settings)
    for first in (days[SPOT - 5], days[SPOT + 1], days[SPOT + 200], days[SPOT + 300]):
        made = sound(features, wrong, first, settings)
        for mine, theirs in zip(made, whole, strict=True):
            assert_frame_equal(mine, theirs.filter(pl.col("day") >= first))


def test_the_future_changes_nothing_of_the_past(features, bars, days, settings) -> None:
    wrong = planted(bars, days[SPOT], 100, "high")
    past = pl.col("day") < days[SPOT]
    made = sound(features, wrong, days[0], settings)
    cut = sound(features.filter(past), wrong.filter(past), days[0], settings)
    for mine, theirs in zip(made, cut, strict=True):
        assert_frame_equal(mine.filter(past), theirs)


def test_a_ticker_that_is_no_suspect_has_no_fault(bars, days, settings) -> None:
    """The quick look before the exact one: it lets no fault pass, wherever it is planted."""
    for number, (factor, *names) in enumerate(
        [(100, *PRICES), (0.01, "low"), (6, "high"), (0.15, *PRICES), (100, "high", "close")]
    ):
        wrong = planted(bars, days[3 + 97 * number], factor, *names)
        area = Slice(days[0], days[-1], settings.tickers)
        found = faults(wrong, area, settings).filter(
            pl.col("drifted") & pl.col("feature").is_in(list(BLOCKING))
        )
        assert found["ticker"].unique().to_list() == ["T00"]
        assert _suspects(wrong) == ["T00"]
    still = bars.with_columns(
        pl.when(pl.col("day").is_in(days[500:503]) & (pl.col("ticker") == "T02"))
        .then(9.0)
        .otherwise(pl.col(name))
        .alias(name)
        for name in PRICES
    )
    assert "T02" in _suspects(still)
    assert not _suspects(bars)
