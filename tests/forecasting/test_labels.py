"""Labels look ahead by the calendar, say when they are known, and never change afterwards."""

import datetime as dt
import itertools
import math
from dataclasses import asdict, astuple, dataclass

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.calendars import get_calendar
from stock_assets.forecasting.labels import known_by, labels, returns_ahead, target_days

SESSIONS = get_calendar("XMOS").between(dt.date(2022, 1, 10), dt.date(2022, 6, 30))


@dataclass(frozen=True)
class Bar:
    """One session's prices, and what candles within it say of its variance."""

    open: float
    high: float
    low: float
    close: float
    realised_variance: float | None = None
    suspected_split: float | None = None


def bars_of(bars: dict[dt.date, Bar], ticker: str = "A") -> pl.DataFrame:
    names = ("open", "high", "low", "close", "realised_variance", "suspected_split")
    return pl.DataFrame(
        [{"day": day} | asdict(bar) for day, bar in bars.items()],
        schema={"day": pl.Date} | dict.fromkeys(names, pl.Float64),
    ).with_columns(pl.lit(ticker).alias("ticker"), pl.lit("XMOS").alias("exchange"))


@st.composite
def possible_bars(draw: st.DrawFn) -> Bar:
    """Bars with and without a range, with and without candles, now and then a suspected split."""
    low, *inside, high = sorted(draw(st.lists(st.floats(0.01, 1e5), min_size=4, max_size=4)))
    first, last = draw(st.permutations(inside))
    candles = draw(st.none() | st.floats(0.0, 0.5))
    jump = draw(st.sampled_from([None] * 9 + [10.0]))
    if draw(st.booleans()):
        return Bar(last, last, last, last, candles, jump)
    return Bar(first, high, low, last, candles, jump)


def session_variance_of(bar: Bar, before: Bar) -> float:
    """A session's variance from the previous close on, in plain numbers."""
    gap = math.log(bar.open / before.close) ** 2
    if bar.realised_variance is not None:
        found = gap + bar.realised_variance
    elif bar.high > bar.low:
        reach, inner = math.log(bar.high / bar.low) ** 2, math.log(bar.close / bar.open) ** 2
        parkinson = reach / (4 * math.log(2))
        found = gap + max(0.5 * reach - (2 * math.log(2) - 1) * inner, parkinson / 10)
    else:
        found = math.log(bar.close / before.close) ** 2
    return max(found, 1e-8)


def reference(bars: dict[dt.date, Bar], day: dt.date) -> dict[str, float | dt.date | None]:
    """The labels of one day, one session after the other."""
    ahead = [other for other in SESSIONS if other > day][:5]
    path = [bars[day], *(bars.get(other) for other in ahead)]
    # Nothing is known of what lies beyond a suspected split.
    for step in range(1, 6):
        between = [bar for other, bar in bars.items() if day < other <= ahead[step - 1]]
        if any(bar.suspected_split for bar in between):
            path[step] = None
    row: dict[str, float | dt.date | None] = {
        f"y{h}": None if path[h] is None else math.log(path[h].close / path[0].close)
        for h in range(1, 6)
    }
    variances = ["realised_variance", "variance_ahead_1", "variance_ahead_5"]
    row |= dict.fromkeys(variances, None)
    if None not in path:
        steps = list(itertools.pairwise(path))
        row["realised_variance"] = sum(
            math.log(after.close / before.close) ** 2 for before, after in steps
        )
        found = [session_variance_of(after, before) for before, after in steps]
        row["variance_ahead_1"] = found[0]
        row["variance_ahead_5"] = sum(found) / 5
    row["label_end"] = ahead[-1]
    return row


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(SESSIONS[:50]), possible_bars(), min_size=1, max_size=50)
    # Five bars in a row are rare among single days.
    | st.lists(possible_bars(), min_size=6, max_size=20).map(
        lambda bars: dict(zip(SESSIONS, bars, strict=False))
    )
)
def test_labels_agree_with_counting_sessions_one_by_one(bars: dict[dt.date, Bar]) -> None:
    for row in labels(bars_of(bars)).iter_rows(named=True):
        expected = reference(bars, row["day"])
        assert set(row) == {"day", "ticker", "exchange", *expected}
        for name, value in expected.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
            else:
                assert row[name] == value, name


def test_nothing_is_labelled_across_a_suspected_split_and_all_around_it() -> None:
    bars = {day: Bar(100, 102, 99, 101) for day in SESSIONS[:20]}
    bars[SESSIONS[10]] = Bar(10, 10.2, 9.9, 10.1, suspected_split=10.0)
    for day in SESSIONS[11:20]:
        bars[day] = Bar(10, 10.2, 9.9, 10.1)
    found = labels(bars_of(bars))
    for place in range(20):
        for horizon in range(1, 6):
            value = found[f"y{horizon}"][place]
            across = place < 10 <= place + horizon
            assert value == (None if across or place + horizon >= 20 else 0.0)
    plain = labels(bars_of({day: Bar(*astuple(bar)[:4]) for day, bar in bars.items()}))
    assert plain["y5"][9] == pytest.approx(-math.log(10))
    for name in ("realised_variance", "variance_ahead_1", "variance_ahead_5"):
        assert found[name][5:10].is_null().all()
        assert found[name].drop_nulls().max() < 0.01 < plain[name].max()
    assert returns_ahead(found)["actual_return"].abs().max() == 0.0


def test_a_week_with_a_session_missing_has_no_variances() -> None:
    bars = {day: Bar(100, 102, 99, 101) for day in SESSIONS[:7]}
    whole = labels(bars_of(bars)).row(0, named=True)
    assert whole["variance_ahead_1"] is not None
    for gone in range(1, 6):
        holed = labels(bars_of({d: bar for d, bar in bars.items() if d != SESSIONS[gone]}))
        row = holed.row(0, named=True)
        for name in ("realised_variance", "variance_ahead_1", "variance_ahead_5"):
            assert row[name] is None


def test_the_window_passes_over_days_on_which_the_exchange_was_closed() -> None:
    row = target_days(bars_of({dt.date(2022, 2, 24): Bar(1, 1, 1, 1)})).row(0, named=True)
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
