"""What stands for a day whose prices cannot be right: exactly the forecast made before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stock_assets import forecast_inputs
from stock_assets.calendars import WEEKDAYS, get_calendar
from stock_assets.forecast_inputs import ForecastInputs, blocked_cells, read_inputs
from stock_assets.forecasting.forecasts import LakeVersions
from stock_assets.forecasting.holding import HELD_SESSIONS, held, standing
from stock_assets.forecasting.scoring import score
from stock_assets.lake.schemas import TABLES, Drift, Forecasts, Models, Orders
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect
from stock_assets.slices import Slice

if TYPE_CHECKING:
    import datetime as dt

HORIZONS = (1, 2, 3, 4, 5)
SPOT = 400
LABELS = ["day", "horizon", "held_from", "note"]
CALENDAR = get_calendar(WEEKDAYS)


@pytest.fixture(scope="module")
def cells(bars, sessions) -> pl.DataFrame:
    return bars.filter(pl.col("day").is_between(sessions[SPOT - 8], sessions[SPOT + 8])).select(
        "day", "ticker"
    )


@pytest.fixture(scope="module")
def forecast(bars, features, cells, registry):
    """Forecasts of `cells` while these cells, (days after SPOT, ticker), are blocked."""

    def made(
        *blocked: tuple[int, str], horizons: tuple[int, ...] = HORIZONS, **other: pl.DataFrame
    ) -> pl.DataFrame:
        days = bars["day"].unique().sort()
        inputs = ForecastInputs(
            **{"bars": bars, "features": features, **other},
            models=Models.create_empty(),
            orders=Orders.create_empty(),
            blocked=blocked_rows(*((days[SPOT + step], ticker) for step, ticker in blocked)),
            versions=LakeVersions(1, 2, None, 4),
        )
        return inputs.forecasts(cells, registry, horizons, unfit=())

    return made


@pytest.fixture(scope="module")
def registry():
    class NoModels:
        def load(self, name: str) -> None:
            raise KeyError(name)

    return NoModels()


def blocked_rows(*cells: tuple[dt.date, str]) -> pl.DataFrame:
    rows = [(day, ticker, "a wrong unit") for day, ticker in cells]
    schema = {"day": pl.Date, "ticker": pl.String, "why": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def of(made: pl.DataFrame, day: dt.date, ticker: str = "A") -> pl.DataFrame:
    return made.filter((pl.col("day") == day) & (pl.col("ticker") == ticker))


def test_where_nothing_is_blocked_nothing_is_held(forecast) -> None:
    made = forecast()
    assert made["held_from"].is_null().all()
    assert made["note"].is_null().all()
    assert made["drift_version"].unique().to_list() == [4]


def test_the_last_good_forecast_stands_with_its_horizons_counted_anew(forecast, sessions) -> None:
    usual, made = forecast(), forecast((0, "A"), (1, "A"), (2, "A"))
    good = of(usual, sessions[SPOT - 1])
    for ahead in (1, 2, 3):
        stands = of(made, sessions[SPOT + ahead - 1])
        assert stands["horizon"].to_list() == list(range(1, 6 - ahead))
        expected = good.filter(pl.col("horizon") > ahead)
        assert_frame_equal(stands.drop(LABELS), expected.drop(LABELS), check_exact=True)
        assert stands["held_from"].unique().to_list() == [sessions[SPOT - 1]]
        assert stands["note"][0] == f"a wrong unit; the forecast of {sessions[SPOT - 1]} stands"
        targets = CALENDAR.after(sessions[SPOT + ahead - 1], 5 - ahead)
        assert stands["target_day"].to_list() == list(targets)
    Forecasts.validate(made)


def test_no_other_cell_changes_by_one_bit(forecast, sessions) -> None:
    usual, made = forecast(), forecast((0, "A"), (1, "A"))
    blocked = pl.col("day").is_in([sessions[SPOT], sessions[SPOT + 1]]) & (pl.col("ticker") == "A")
    assert_frame_equal(made.filter(~blocked), usual.filter(~blocked), check_exact=True)


def test_a_forecast_stands_no_longer_than_it_reaches(forecast, bars, sessions) -> None:
    blocked = blocked_rows(*((sessions[SPOT + step], "A") for step in range(7)))
    assert standing(bars, bars, blocked)["ahead"].sort().to_list() == [1, 2, 3, 4]
    made = forecast(*((step, "A") for step in range(7)))
    there = made.filter((pl.col("ticker") == "A") & pl.col("held_from").is_not_null())
    assert there["day"].unique().sort().to_list() == sessions[SPOT : SPOT + HELD_SESSIONS]
    assert of(made, sessions[SPOT + 5]).is_empty()
    assert of(made, sessions[SPOT + 7])["horizon"].to_list() == [1, 2, 3, 4, 5]


def test_of_some_horizons_those_that_the_forecast_reaches(forecast, sessions) -> None:
    made = forecast((0, "A"), horizons=(1, 5))
    stands = of(made, sessions[SPOT])
    assert stands["horizon"].to_list() == [1]
    assert stands["target_day"].to_list() == [sessions[SPOT + 1]]
    everything = of(forecast((0, "A")), sessions[SPOT])
    assert_frame_equal(stands, everything.filter(pl.col("horizon") == 1), check_exact=True)


def test_a_missing_bar_is_no_good_session(bars, sessions) -> None:
    rest = bars.filter(~((pl.col("day") == sessions[SPOT - 1]) & (pl.col("ticker") == "A")))
    blocked = blocked_rows((sessions[SPOT], "A"))
    (found,) = standing(rest.select("day", "ticker"), rest, blocked).iter_rows(named=True)
    assert (found["held_from"], found["ahead"]) == (sessions[SPOT - 2], 2)


def test_prices_that_stand_are_in_the_days_shares(forecast, bars, sessions) -> None:
    """A split of ten for one on the blocked day: factor ten, a tenth of the price."""
    usual = of(forecast((0, "A")), sessions[SPOT])
    factor = pl.when(pl.col("day") >= sessions[SPOT]).then(10.0).otherwise(1.0)
    split = of(forecast((0, "A"), bars=bars.with_columns(split_factor=factor)), sessions[SPOT])
    for name in ("last_price", "price_q05", "price_q95"):
        assert split[name].to_list() == pytest.approx((usual[name] / 10).to_list(), rel=1e-15)
    assert split["return_q05"].equals(usual["return_q05"])


def test_a_held_forecast_is_not_scored(forecast, bars, sessions) -> None:
    usual, made = forecast(), forecast((0, "A"))
    cell = (pl.col("forecast_day") == sessions[SPOT]) & (pl.col("ticker") == "A")
    whole = score(usual, bars)
    assert whole.filter(cell).height == len(HORIZONS)
    assert_frame_equal(score(made, bars), whole.filter(~cell))


def test_held_rows_of_nothing_are_none() -> None:
    nothing = blocked_rows()
    stands = standing(
        nothing,
        pl.DataFrame(
            schema={
                "day": pl.Date, "ticker": pl.String, "exchange": pl.String,
                "split_factor": pl.Float64,
            }
        ),
        nothing,
    )  # fmt: skip
    assert held(Forecasts.create_empty(), stands, HORIZONS).is_empty()


def test_blocked_cells_are_those_of_blocking_faults_and_reach_back_only_when_needed(
    tmp_path, bars, sessions, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr(
        forecast_inputs, "lookback_start", lambda _, day: asked.append(day) or sessions[0]
    )
    lake, tickers = Lake(tmp_path), tuple(bars["ticker"].unique().sort())
    area = Slice(None, sessions[-1], tickers)
    lake.write("bars", bars.select(TABLES["bars"].column_names()), area)
    faults = [
        (sessions[SPOT], "A", "price_level", True),
        (sessions[SPOT], "A", "unchanged", True),
        (sessions[SPOT], "B", "volume_collapse", True),
        (sessions[SPOT], "C", "price_level", False),
        (sessions[SPOT - 5], "A", "price_level", True),
    ]
    empty = Drift.create_empty()
    drift = pl.DataFrame(
        [
            {
                **dict.fromkeys(empty.columns),
                "day": day, "ticker": ticker, "feature": feature, "kind": "quality",
                "distance": 4.6, "threshold": 1.6, "drifted": drifted,
                "reference_rows": 250, "current_rows": 1,
            }
            for day, ticker, feature, drifted in faults
        ],
        schema=empty.schema,
    )  # fmt: skip
    lake.write("drift", drift, area)
    with connect(lake) as connection:
        found = blocked_cells(connection, sessions[SPOT - 4], sessions[SPOT])
        assert found.select("day", "ticker").rows() == [(sessions[SPOT], "A")]
        assert "; " in found["why"][0]
        quiet = read_inputs(connection, (WEEKDAYS,), sessions[SPOT + 1], sessions[SPOT + 2])
        loud = read_inputs(connection, (WEEKDAYS,), sessions[SPOT], sessions[SPOT])
    # What stands was forecast from what an earlier day looks back on.
    assert asked == [sessions[SPOT + 1], sessions[SPOT - HELD_SESSIONS]]
    assert quiet.blocked.height == loud.blocked.height == 1
