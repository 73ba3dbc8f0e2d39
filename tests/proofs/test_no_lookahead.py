"""No look-ahead: whatever the future is, what was said before it stays the same to the last bit.

The same comparison runs on the product, where it must pass, and on leaky variants of each link,
where it must name that link.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import polars as pl
import pytest

from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.scoring import score

from .chain import (
    HONEST,
    Links,
    assert_same,
    cut_after,
    forecast,
    garbage_after,
    honest,
    in_force,
    make_features,
    plant,
    tell,
    until,
)

pytestmark = pytest.mark.slow

FIRST, LAST = 300, 352
"""The days that are forecast, counted in sessions; trainings fall on the first and the 41st."""
CUTS = (300, 318, 340, 343)


@pytest.fixture(scope="module")
def sessions(market: pl.DataFrame) -> list[dt.date]:
    return market["day"].unique().sort().to_list()


def assert_the_future_does_not_matter(
    market: pl.DataFrame, sessions: list[dt.date], links: Links = HONEST, cut: int = CUTS[1]
) -> None:
    """What stood at the close of session number `cut` is told the same with three futures."""
    day, days = sessions[cut], sessions[FIRST:LAST]
    came = until(tell(market, days, links=links), day)
    assert min(table.height for name, table in came.items() if name != "scores") > 0
    garbage = tell(garbage_after(market, day), days, links=links)
    assert_same(came, until(garbage, day))
    none = tell(cut_after(market, day), sessions[FIRST : cut + 1], links=links)
    assert_same(came, until(none, day))


@pytest.mark.parametrize("cut", CUTS)
def test_whatever_comes_after_a_day_changes_nothing_said_up_to_it(market, sessions, cut) -> None:
    assert_the_future_does_not_matter(market, sessions, cut=cut)


def test_the_story_has_what_the_proof_is_about(market, sessions) -> None:
    told = tell(market, sessions[FIRST:LAST])
    assert told["models"]["challenger"].drop_nulls().n_unique() >= 2
    assert (told["forecasts"]["model"] != "baseline").any()
    assert told["scores"].height > 1000


# Leaky variants of each link: the future enters by a session, or by a little of all its days.


def window_that_includes_the_target(bars: pl.DataFrame) -> pl.DataFrame:
    ahead = pl.col("vol_close_5").shift(-1).over("ticker", order_by="day")
    return make_features(bars).with_columns(ahead)


def scaled_by_all_days(bars: pl.DataFrame) -> pl.DataFrame:
    own = pl.col("volume_ratio_5_63")
    scaled = (own - own.mean().over("ticker")) / own.std().over("ticker")
    return make_features(bars).with_columns(scaled)


def ranked_among_all_days(bars: pl.DataFrame) -> pl.DataFrame:
    place = pl.col("ret_21d").rank().over("ticker") / pl.len().over("ticker")
    return make_features(bars).with_columns(place.alias("rank_ret_21d"))


def filled_backwards(bars: pl.DataFrame) -> pl.DataFrame:
    there = pl.when(pl.int_range(pl.len()).over("ticker") % 3 > 0).then("beta_63").alias("beta_63")
    filled = pl.col("beta_63").fill_null(strategy="backward").over("ticker", order_by="day")
    return make_features(bars).with_columns(there).with_columns(filled)


def smoothed_close(bars: pl.DataFrame) -> pl.DataFrame:
    """Labels on prices smoothed around each day: known five sessions later, true to none."""
    close = pl.col("close")
    middle = (close.shift(-1) * close * close.shift(1)) ** (1 / 3)
    return labels(bars.with_columns(middle.over("ticker", order_by="day").fill_null(close)))


def choice_five_sessions_later(cells: pl.DataFrame, *rest: object) -> pl.DataFrame:
    """The decision of a day, taken with the data of the week after it."""
    week = dt.timedelta(7)
    later = in_force(cells.with_columns(pl.col("day") + week), *rest)
    return later.with_columns(
        pl.col("day", "trained_day", "attempted_day") - week,
    )


def by_tomorrows_model(cells, features, bars, models, registry) -> pl.DataFrame:
    model = pl.col("model", "model_version").shift(-3).over("ticker", order_by="day")
    shifted = models.with_columns(model.fill_null(pl.col("model", "model_version")))
    return forecast(cells, features, bars, shifted, registry)


def from_tomorrows_features(cells, features, bars, models, registry) -> pl.DataFrame:
    ahead = pl.all().exclude("day", "ticker").shift(-1).over("ticker", order_by="day")
    return forecast(cells, features.with_columns(ahead.name.keep()), bars, models, registry)


def scored_a_day_late(made: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    late = pl.col("close").shift(-1).over("ticker", order_by="day").fill_null(pl.col("close"))
    return score(made, bars.with_columns(late))


PLANTED = {
    "features: a window that includes the target": {"features": window_that_includes_the_target},
    "features: scaling fitted on all data": {"features": scaled_by_all_days},
    "features: a rank among all days": {"features": ranked_among_all_days},
    "features: gaps filled from behind": {"features": filled_backwards},
    "labels: smoothed prices": {"labels": smoothed_close},
    "models: a choice that peeks": {"models": choice_five_sessions_later},
    "forecasts: by the model of days to come": {"forecasts": by_tomorrows_model},
    "forecasts: from the features of the next day": {"forecasts": from_tomorrows_features},
    "scores: the price after the target": {"scores": scored_a_day_late},
}


@pytest.mark.parametrize("leak", PLANTED)
def test_a_leaky_link_is_caught_and_named(market, sessions, leak) -> None:
    link = leak.split(":")[0]
    cut = 340 if link in {"models", "forecasts"} else CUTS[1]
    with pytest.raises(AssertionError, match=f"^{link} "):
        assert_the_future_does_not_matter(
            market, sessions, replace(HONEST, **PLANTED[leak]), cut=cut
        )


def said_to_end_at_once(bars: pl.DataFrame) -> pl.DataFrame:
    return labels(bars).with_columns(pl.col("day").alias("label_end"))


@pytest.mark.parametrize(
    ("what", "link"), [("labels of a training", "models"), ("labels of a forecast", "forecasts")]
)
def test_labels_said_to_end_before_they_do_are_caught(
    market, sessions, monkeypatch, what, link
) -> None:
    """Then a training, and the residuals that calibrate a forecast, reach into the future."""
    plant(monkeypatch, what, said_to_end_at_once)
    with pytest.raises(AssertionError, match=f"^{link} "):
        assert_the_future_does_not_matter(market, sessions, cut=CUTS[0])


def test_a_target_scaled_by_all_days_is_caught(market, sessions, monkeypatch) -> None:
    """What is computed before the days are filtered is computed from all that was loaded."""
    product = honest("rows of a training")

    def scaling(features: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
        own = pl.col("realised_variance")
        scaled = own * own.mean() / own.mean().over("ticker")
        return product(features, labelled.with_columns(scaled))

    plant(monkeypatch, "rows of a training", scaling)
    with pytest.raises(AssertionError, match=r"^(models|forecasts) "):
        assert_the_future_does_not_matter(market, sessions, cut=CUTS[0])
