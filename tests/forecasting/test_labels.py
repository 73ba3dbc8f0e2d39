"""Labels look ahead by the calendar, say when they are known, and never change afterwards."""

import datetime as dt
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.labels import known_by, labels, returns_ahead, target_days

SESSIONS = get_calendar("XMOS").between(dt.date(2022, 1, 10), dt.date(2022, 6, 30))


def bars_of(closes: dict[dt.date, float], ticker: str = "A") -> pl.DataFrame:
    return pl.DataFrame(
        {"day": list(closes), "close": list(closes.values())},
        schema={"day": pl.Date, "close": pl.Float64},
    ).with_columns(pl.lit(ticker).alias("ticker"), pl.lit("XMOS").alias("exchange"))


def reference(closes: dict[dt.date, float], day: dt.date) -> dict[str, float | dt.date | None]:
    """The labels of one day, one session after the other."""
    ahead = [other for other in SESSIONS if other > day][:5]
    path = [closes[day], *(closes.get(other) for other in ahead)]
    row: dict[str, float | dt.date | None] = {
        f"y{h}": None if path[h] is None else math.log(path[h] / path[0]) for h in range(1, 6)
    }
    whole = None not in path
    row["realised_variance"] = (
        sum(math.log(path[h] / path[h - 1]) ** 2 for h in range(1, 6)) if whole else None
    )
    row["label_end"] = ahead[-1]
    return row


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(SESSIONS[:50]), st.floats(0.01, 1e5), min_size=1, max_size=50)
)
def test_labels_agree_with_counting_sessions_one_by_one(closes: dict[dt.date, float]) -> None:
    for row in labels(bars_of(closes)).iter_rows(named=True):
        expected = reference(closes, row["day"])
        for name, value in expected.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12)
            else:
                assert row[name] == value


def test_the_window_passes_over_days_on_which_the_exchange_was_closed() -> None:
    row = target_days(bars_of({dt.date(2022, 2, 24): 1.0})).row(0, named=True)
    assert row["target1"] == dt.date(2022, 2, 25)
    assert row["target2"] == dt.date(2022, 3, 24)


def test_no_bars_have_no_labels() -> None:
    assert labels(bars_of({})).is_empty()


def test_cutting_the_future_off_leaves_known_labels_as_they_are(
    bars: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> None:
    for last in sessions[50::97]:
        cut = labels(bars.filter(pl.col("day") <= last))
        assert_frame_equal(
            cut.filter(known_by(last)), labelled.filter(known_by(last)), check_exact=True
        )


def test_a_label_used_before_its_end_is_caught_by_the_cut(
    bars: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> None:
    last = sessions[200]
    too_early = pl.col("day") <= last
    cut = labels(bars.filter(pl.col("day") <= last))
    with pytest.raises(AssertionError):
        assert_frame_equal(cut.filter(too_early), labelled.filter(too_early), check_exact=True)


def test_returns_ahead_are_the_labels_one_below_the_other(labelled: pl.DataFrame) -> None:
    long = returns_ahead(labelled)
    assert long.height == sum(labelled[f"y{h}"].count() for h in range(1, 6))
    wide = long.pivot("horizon", index=["day", "ticker"], values="actual_return")
    joined = labelled.join(wide, on=["day", "ticker"])
    assert (joined["y3"].drop_nulls() == joined["3"].drop_nulls()).all()
