"""The picture is a small PNG of the tickers asked, also of the odd ones."""

import struct

import polars as pl
import pytest

from stock_assets.forecasting.fan import fan_picture
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.lake.schemas import Models


@pytest.fixture(scope="module")
def forecasts(bars, features) -> pl.DataFrame:
    cells = bars.filter(pl.col("day") == bars["day"].max()).select("day", "ticker")
    versions = LakeVersions(1, 1, None)
    none = Models.create_empty()
    return make_forecasts(cells, bars, features, none, {}.get, range(1, 6), versions)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_small_picture_of_up_to_four(bars, forecasts, count: int) -> None:
    picture = fan_picture(bars, forecasts, list("ABCDEF")[:count])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= 40_000
    width, height = struct.unpack(">II", picture[16:24])
    assert (width > 600) == (count > 1)
    assert (height > 300) == (count > 2)


def test_the_same_forecast_is_the_same_picture(bars, forecasts) -> None:
    assert fan_picture(bars, forecasts, ["A"]) == fan_picture(bars, forecasts, ["A"])
    assert fan_picture(bars, forecasts, ["A"]) != fan_picture(bars, forecasts, ["B"])


def test_a_ticker_of_one_bar_can_be_drawn(bars, forecasts) -> None:
    assert fan_picture(bars.tail(6), forecasts, ["A"])


def test_nothing_to_draw_is_an_error_that_says_so(bars, forecasts) -> None:
    with pytest.raises(ValueError, match="no forecast of Z"):
        fan_picture(bars, forecasts, ["Z"])
