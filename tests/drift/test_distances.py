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
from stock_assets.drift.distances import distances, first_needed, windows
from stock_assets.drift.kernels import normed_wasserstein, rises
from stock_assets.drift.watched import (
    DRIFT_FEATURES,
    PANEL_FEATURES,
    TARGET_CURRENT,
    TARGET_FEATURE,
    TARGET_REFERENCE,
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

    found, reference_rows, current_rows = normed_wasserstein(reference, current)

    wanted = [oracle(*pair) for pair in zip(reference, current, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert reference_rows.tolist() == (~np.isnan(reference)).sum(axis=1).tolist()
    assert current_rows.tolist() == (~np.isnan(current)).sum(axis=1).tolist()


@settings(deadline=None, max_examples=30)
@given(sample=samples(30), shift=st.floats(-10, 10))
def test_a_shifted_sample_is_as_far_as_it_was_shifted(sample, shift):
    norm = np.maximum(sample.std(axis=1), 0.001)

    found = normed_wasserstein(sample, sample + shift)[0]

    np.testing.assert_allclose(found, abs(shift) / norm, rtol=1e-6, atol=1e-6 / norm.min())


def test_a_constant_reference_is_divided_by_evidentlys_floor():
    found = normed_wasserstein(np.zeros((1, 50)), np.full((1, 10), 0.004))[0]
    assert found[0] == pytest.approx(4)


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
    ours = dict(found.filter(kind="data").select("feature", "distance").iter_rows())
    assert ours == pytest.approx(evidently, rel=1e-9)


def test_windows_are_the_sessions_of_the_tickers_own_exchange(market, make_features):
    """Every number against a plain loop over days, tickers and features with scipy."""
    features = make_features()
    found = distances(features, everything(market), market)

    looked_up = {(row["day"], row["ticker"]): row for row in features.iter_rows(named=True)}
    checked = 0
    for row in found.filter(kind="data").gather_every(7).iter_rows(named=True):
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
    assert found.height == cells.height * len(PANEL_FEATURES)
    assert found["threshold"].null_count() == 0
    kinds = found.select("feature", "kind").unique()
    assert dict(kinds.iter_rows()) == {
        **dict.fromkeys(DRIFT_FEATURES, "data"),
        TARGET_FEATURE: "target",
    }


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


@pytest.mark.slow
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


def test_nothing_before_the_first_needed_day_matters(market, make_features):
    features = make_features(missing=0)
    for day in (dt.date(2024, 6, 27), dt.date(2024, 4, 1)):
        area = Slice(day, day, ("AAA",))
        first = first_needed(day, market)

        whole = distances(features, area, market)

        assert first > features["day"].min()
        assert distances(features.filter(pl.col("day") >= first), area, market).equals(whole)


def test_the_rise_is_the_difference_of_two_plain_means(market, make_features):
    features = make_features(missing=0.3)
    found = distances(features, everything(market), market).filter(kind="target")

    looked_up = {(row["day"], row["ticker"]): row for row in features.iter_rows(named=True)}
    for row in found.gather_every(5).iter_rows(named=True):
        sessions = get_calendar(market.instrument(row["ticker"]).exchange).between(
            dt.date(2023, 1, 9), row["day"]
        )
        before, now = (
            [
                value
                for day in days
                if (day, row["ticker"]) in looked_up
                and (value := looked_up[day, row["ticker"]][TARGET_FEATURE]) is not None
            ]
            for days in (
                sessions[-TARGET_CURRENT - TARGET_REFERENCE : -TARGET_CURRENT],
                sessions[-TARGET_CURRENT:],
            )
        )
        assert (row["reference_rows"], row["current_rows"]) == (len(before), len(now))
        if 2 * len(before) >= TARGET_REFERENCE and 2 * len(now) >= TARGET_CURRENT:
            assert row["distance"] == pytest.approx(max(0, np.mean(now) - np.mean(before)))
        else:
            assert row["distance"] is None


def test_a_rise_does_not_depend_on_where_the_series_begins():
    values = np.random.default_rng(2).normal(size=(3, 200))
    values[np.random.default_rng(3).random(values.shape) < 0.2] = np.nan

    whole, later = rises(values, 20, 5), rises(values[:, 70:], 20, 5)

    for one, other in zip(whole, later, strict=True):
        np.testing.assert_array_equal(one[:, 70 + 25 :], other[:, 25:])


def test_other_tickers_of_the_market_say_what_is_usual_and_those_of_another_do_not(
    market, make_features
):
    features, area = make_features(missing=0), Slice(LAST, LAST, ("AAA",))
    found = distances(features, area, market)
    scaled = pl.col(PANEL_FEATURES) * 1000 * (1 + pl.col("day").dt.day().cast(pl.Float64))

    for ticker, same in (("GOLD", True), ("S&P", False)):
        wilder = features.with_columns(
            pl.when(pl.col("ticker") == ticker).then(scaled).otherwise(pl.col(PANEL_FEATURES))
        )
        again = distances(wilder, area, market)
        assert again.drop("market_alarm").equals(found.drop("market_alarm"))
        assert again.equals(found) is same


def test_what_is_judged_has_no_say_in_its_thresholds(market, make_features):
    """The latest sessions may be anything: alarms and thresholds stay those of the time before."""
    features, area = make_features(missing=0), Slice(LAST, LAST, market.tickers)
    since = get_calendar("XMOS").back(LAST, market.drift.current - 1)
    late = pl.col("day") >= since
    wild = features.with_columns(
        pl.when(late).then(pl.col(name) * 50).otherwise(pl.col(name)).alias(name)
        for name in PANEL_FEATURES
    )
    limits = ["threshold", "ticker_alarm", "sector_alarm", "market_alarm"]

    before, after = (distances(item, area, market) for item in (features, wild))

    assert after.select(limits).equals(before.select(limits))
    assert after["drifted"].mean() > before["drifted"].mean()


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


def test_a_feature_has_drifted_above_its_threshold(market, make_features):
    found = distances(make_features(), everything(market), market).drop_nulls("distance")

    assert found["drifted"].to_list() == (found["distance"] > found["threshold"]).to_list()
    assert 0 < found["drifted"].mean() < 1


def test_fixed_thresholds_take_the_place_of_calibrated_ones(market, make_features):
    fixed = market.model_copy(
        update={
            "drift": market.drift.model_copy(
                update={"feature_threshold": 0.7, "universe_share": 0.4}
            )
        }
    )

    data = distances(make_features(), everything(fixed), fixed).filter(kind="data")

    assert data["threshold"].unique().to_list() == [0.7]
    assert data["market_alarm"].unique().to_list() == [0.4]


def test_the_watched_features_are_numbers_of_the_features_table():
    types = Features.create_empty().schema

    assert {types[name] for name in PANEL_FEATURES} == {pl.Float64()}
    assert len(set(PANEL_FEATURES)) == len(PANEL_FEATURES)


@pytest.mark.slow
def test_a_year_of_fifty_tickers_takes_seconds_and_so_does_a_day():
    tickers = [f"T{n:02}" for n in range(50)]
    market = Settings(
        partitions={"first_day": dt.date(2024, 1, 9)},
        universe=[{"tickers": tickers, "source": "s"}],
        sources={"s": {"kind": "simulated"}},
    )
    days = get_calendar("weekdays").between(dt.date(2018, 12, 3), dt.date(2024, 12, 20))
    random = np.random.default_rng(5)
    features = pl.concat(
        pl.DataFrame(random.normal(size=(len(days), len(PANEL_FEATURES))),
                     schema=list(PANEL_FEATURES)).with_columns(
            pl.Series("day", days), ticker=pl.lit(ticker))
        for ticker in tickers
    )  # fmt: skip

    seconds = []
    for area in (Slice(None, days[-1], tuple(tickers)), Slice(days[-1], days[-1], tuple(tickers))):
        begin = time.process_time()
        found = distances(features, area, market)
        seconds.append(time.process_time() - begin)
        assert found["distance"].null_count() == 0

    assert seconds[0] < 12
    assert seconds[1] < 4


def _market() -> Settings:
    return Settings(
        partitions={"first_day": FIRST},
        universe=[{"ticker": "AAA", "source": "s", "exchange": "XMOS"}],
        sources={"s": {"kind": "simulated"}},
        drift={"reference": 60, "current": 10, "history": 40},
    )


def _features(seed: int) -> pl.DataFrame:
    days = get_calendar("XMOS").between(dt.date(2023, 7, 3), LAST)
    values = np.random.default_rng(seed).normal(size=(len(days), len(PANEL_FEATURES)))
    return pl.DataFrame(values, schema=list(PANEL_FEATURES)).with_columns(
        pl.Series("day", days), ticker=pl.lit("AAA")
    )
