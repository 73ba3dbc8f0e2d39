"""The drift distances: Evidently's own numbers, of the right windows, however a slice is cut."""

from __future__ import annotations

import datetime as dt
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.testing import assert_frame_equal

from stock_assets.calendars import get_calendar
from stock_assets.drift.distances import (
    DRIFT_FEATURES,
    distances,
    first_needed,
    normed_wasserstein,
    windows,
)
from stock_assets.lake.schemas import Drift, Features
from stock_assets.settings import Settings
from stock_assets.slices import Slice

FIRST = dt.date(2024, 3, 1)
LAST = dt.date(2024, 6, 28)

VALUES = st.floats(-1e3, 1e3, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 0.01])


def samples(size: int):
    return hnp.arrays(np.float64, st.tuples(st.just(3), st.integers(1, size)), elements=VALUES)


def oracle(reference, current) -> float:
    """Evidently's definition, with scipy: the source of the formula."""
    from scipy.stats import wasserstein_distance

    reference, current = (sample[~np.isnan(sample)] for sample in (reference, current))
    if not (len(reference) and len(current)):
        return np.nan
    return wasserstein_distance(reference, current) / max(np.std(reference), 0.001)


def everything(market) -> Slice:
    return Slice(None, LAST, market.tickers)


@settings(deadline=None, max_examples=60)
@given(reference=samples(30), current=samples(12), missing=st.integers(0, 2**31))
def test_the_distance_is_scipys_over_the_deviation(reference, current, missing):
    random = np.random.default_rng(missing)
    for sample in (reference, current):
        sample[random.random(sample.shape) < 0.2] = np.nan

    found = normed_wasserstein(reference, current)

    wanted = [oracle(*pair) for pair in zip(reference, current, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(sample=samples(30), shift=st.floats(-10, 10))
def test_a_shifted_sample_is_as_far_as_it_was_shifted(sample, shift):
    norm = np.maximum(sample.std(axis=1), 0.001)

    found = normed_wasserstein(sample, sample + shift)

    np.testing.assert_allclose(found, abs(shift) / norm, rtol=1e-6, atol=1e-6 / norm.min())


def test_a_constant_reference_is_divided_by_evidentlys_floor():
    assert normed_wasserstein(np.zeros((1, 50)), np.full((1, 10), 0.004))[0] == pytest.approx(4)


@pytest.mark.slow
def test_the_distance_is_the_one_in_evidentlys_report(market, make_features):
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    features = make_features()
    day = get_calendar("XMOS").between(FIRST, LAST)[40]
    found = distances(features, Slice(day, day, ("AAA",)), market)
    own = features.filter(pl.col("ticker") == "AAA")
    samples = [
        Dataset.from_pandas(
            own.filter(pl.col("day").is_in(list(days))).select(DRIFT_FEATURES).to_pandas(),
            data_definition=DataDefinition(numerical_columns=list(DRIFT_FEATURES)),
        )
        for days in windows(day, "XMOS", market.drift)
    ]
    report = Report(
        [ValueDrift(column=name, method="wasserstein", threshold=1.0) for name in DRIFT_FEATURES]
    )

    metrics = report.run(samples[1], samples[0]).dict()["metrics"]

    evidently = {metric["config"]["column"]: metric["value"] for metric in metrics}
    ours = dict(found.select("feature", "distance").iter_rows())
    assert ours == pytest.approx(evidently, rel=1e-9)


def test_windows_are_the_sessions_of_the_tickers_own_exchange(market, make_features):
    """Every number against a plain loop over days, tickers and features with scipy."""
    features = make_features()
    found = distances(features, everything(market), market)

    looked_up = {(row["day"], row["ticker"]): row for row in features.iter_rows(named=True)}
    checked = 0
    for row in found.filter(pl.int_range(pl.len()) % 7 == 0).iter_rows(named=True):
        sessions = get_calendar(market.instrument(row["ticker"]).exchange).between(
            dt.date(2023, 1, 9), row["day"]
        )
        reference, current = (
            np.array([looked_up[day, row["ticker"]][row["feature"]]
                      for day in days if (day, row["ticker"]) in looked_up], dtype=float)
            for days in (sessions[-70:-10], sessions[-10:])
        )  # fmt: skip
        assert row["reference_rows"] == (~np.isnan(reference)).sum()
        assert row["current_rows"] == (~np.isnan(current)).sum()
        enough = row["reference_rows"] >= 30 and row["current_rows"] >= 5
        assert (row["distance"] is not None) == enough
        if enough:
            assert row["distance"] == pytest.approx(oracle(reference, current), rel=1e-9)
            checked += 1
    assert checked > 300


def test_windows_end_with_the_day_and_do_not_overlap(market):
    day = dt.date(2024, 5, 20)
    reference, current = windows(day, "XMOS", market.drift)

    assert (len(reference), len(current)) == (60, 10)
    assert current[-1] == day
    assert (*reference, *current) == get_calendar("XMOS").between(reference[0], day)
    closed = windows(dt.date(2024, 5, 9), "XMOS", market.drift)
    assert closed[1][-1] == dt.date(2024, 5, 8), "on a holiday they end with the session before"


def test_there_is_a_row_for_every_cell_with_features_and_feature(market, make_features):
    features = make_features().filter(
        ~((pl.col("ticker") == "AAA") & (pl.col("day") == dt.date(2024, 4, 2)))
    )

    found = distances(features, everything(market), market)

    Drift.validate(found)
    cells = features.filter(pl.col("day").is_between(FIRST, LAST)).select("day", "ticker")
    assert_frame_equal(found.select("day", "ticker").unique(maintain_order=True),
                       cells.sort("day", "ticker"))  # fmt: skip
    assert found.height == cells.height * len(DRIFT_FEATURES)
    assert found["threshold"].unique().to_list() == [market.drift.feature_threshold]


def test_days_without_a_session_and_tickers_without_rows_have_none(market, make_features):
    features = make_features()
    sunday = dt.date(2024, 6, 23)
    stray = features.filter(pl.col("day") == dt.date(2024, 6, 21)).with_columns(day=sunday)
    with_stray = pl.concat([features, stray.select(features.columns)])

    assert_frame_equal(
        distances(with_stray, everything(market), market),
        distances(features, everything(market), market),
    )
    assert distances(features.clear(), everything(market), market).is_empty()
    assert distances(features, Slice(sunday, sunday, market.tickers), market).is_empty()


def test_day_by_day_is_the_whole_range_bit_for_bit(market, make_features):
    features = make_features()
    whole = distances(features, everything(market), market)
    parts = [
        distances(
            features.filter(pl.col("day") >= first_needed(day, market)),
            Slice(day, day, (ticker,)),
            market,
        )
        for day in sorted(whole["day"].unique())
        for ticker in market.tickers
    ]

    assert pl.concat(parts).sort("day", "ticker", "feature").equals(whole)


def test_nothing_before_the_first_needed_day_matters_and_that_day_does(market, make_features):
    features = make_features(missing=0)
    day = dt.date(2024, 6, 27)
    area = Slice(day, day, ("AAA",))
    first = first_needed(day, market)
    whole = distances(features, area, market)
    by_moscow = windows(day, "XMOS", market.drift)[0][0]

    assert distances(features.filter(pl.col("day") >= first), area, market).equals(whole)
    assert first == min(by_moscow, windows(day, "weekdays", market.drift)[0][0])
    later = distances(features.filter(pl.col("day") > by_moscow), area, market)
    assert not later.equals(whole)


@settings(deadline=None, max_examples=10)
@given(cut=st.dates(FIRST, LAST), seed=st.integers(0, 100))
def test_the_future_changes_nothing(cut, seed):
    market, features = _market(), _features(seed)
    cut_off = features.filter(pl.col("day") <= cut)
    area = Slice(None, cut, market.tickers)

    known_then = distances(cut_off, area, market)
    known_later = distances(features, Slice(None, LAST, market.tickers), market)

    assert known_then.equals(known_later.filter(pl.col("day") <= cut))
    assert distances(features, area, market).equals(known_then)


def test_the_order_of_the_rows_changes_nothing(market, make_features):
    features = make_features()
    shuffled = features.sample(fraction=1, shuffle=True, seed=3)

    assert distances(shuffled, everything(market), market).equals(
        distances(features, everything(market), market)
    )


def test_too_few_values_give_no_distance_and_no_drift(market, make_features):
    day = dt.date(2024, 6, 27)
    current = windows(day, "XMOS", market.drift)[1]
    gone = pl.col("day").is_in(list(current[:6]))
    features = make_features(missing=0).with_columns(
        ret_1d=pl.when(gone).then(None).otherwise(5.0),
        gap_1d=pl.when(pl.col("day").is_in(list(current[:5]))).then(None).otherwise("gap_1d"),
    )

    found = distances(features, Slice(day, day, ("AAA",)), market)

    by_feature = {row["feature"]: row for row in found.iter_rows(named=True)}
    assert by_feature["ret_1d"]["distance"] is None
    assert by_feature["ret_1d"]["drifted"] is False
    assert by_feature["ret_1d"]["current_rows"] == 4
    assert by_feature["gap_1d"]["current_rows"] == 5
    assert by_feature["gap_1d"]["distance"] is not None


def test_infinite_values_count_as_missing(market, make_features):
    features = make_features(missing=0)
    infinite = features.with_columns(
        ret_1d=pl.when(pl.col("day") == dt.date(2024, 6, 20)).then(float("inf")).otherwise("ret_1d")
    )
    missing = infinite.with_columns(ret_1d=pl.when(pl.col("ret_1d").is_finite()).then("ret_1d"))

    area = everything(market)
    assert distances(infinite, area, market).equals(distances(missing, area, market))


def test_a_feature_has_drifted_from_the_threshold_on(market, make_features):
    found = distances(make_features(), everything(market), market).drop_nulls("distance")
    middle = found["distance"].sort()[found.height // 2]
    stricter = market.model_copy(
        update={"drift": market.drift.model_copy(update={"feature_threshold": middle})}
    )

    judged = distances(make_features(), everything(stricter), stricter).drop_nulls("distance")

    assert judged["drifted"].to_list() == (judged["distance"] >= middle).to_list()
    assert judged.filter(pl.col("distance") == middle)["drifted"].to_list() == [True]


def test_the_watched_features_are_numbers_of_the_features_table():
    types = Features.create_empty().schema

    assert {types[name] for name in DRIFT_FEATURES} == {pl.Float64()}
    assert len(set(DRIFT_FEATURES)) == len(DRIFT_FEATURES)


def test_a_year_of_fifty_tickers_takes_seconds_and_a_day_takes_less_than_one():
    tickers = [f"T{n:02}" for n in range(50)]
    market = Settings(
        partitions={"first_day": dt.date(2024, 1, 9)},
        universe=[{"tickers": tickers, "source": "s"}],
        sources={"s": {"kind": "simulated"}},
    )
    days = get_calendar("weekdays").between(dt.date(2022, 12, 5), dt.date(2024, 12, 20))
    random = np.random.default_rng(5)
    features = pl.concat(
        pl.DataFrame(random.normal(size=(len(days), len(DRIFT_FEATURES))),
                     schema=list(DRIFT_FEATURES)).with_columns(
            pl.Series("day", days), ticker=pl.lit(ticker))
        for ticker in tickers
    )  # fmt: skip

    seconds = []
    for area in (Slice(None, days[-1], tuple(tickers)), Slice(days[-1], days[-1], tuple(tickers))):
        begin = time.process_time()
        found = distances(features, area, market)
        seconds.append(time.process_time() - begin)
        assert found["distance"].null_count() == 0

    assert seconds[0] < 6
    assert seconds[1] < 0.5


def _market() -> Settings:
    return Settings(
        partitions={"first_day": FIRST},
        universe=[{"ticker": "AAA", "source": "s", "exchange": "XMOS"}],
        sources={"s": {"kind": "simulated"}},
        drift={"reference": 60, "current": 10},
    )


def _features(seed: int) -> pl.DataFrame:
    days = get_calendar("XMOS").between(dt.date(2023, 11, 1), LAST)
    values = np.random.default_rng(seed).normal(size=(len(days), len(DRIFT_FEATURES)))
    return pl.DataFrame(values, schema=list(DRIFT_FEATURES)).with_columns(
        pl.Series("day", days), ticker=pl.lit("AAA")
    )
