"""`stock-assets forecast`: its answers are those of SQL and Python, and it says what they are."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from stock_assets import cli, console
from stock_assets.calendars import get_calendar
from stock_assets.errors import SliceError
from stock_assets.forecasting.distribution import PriceDistributions
from stock_assets.forecasting.orders import Order
from stock_assets.forecasting.scoring import summarise
from stock_assets.lake.schemas import QUANTILE_NAMES, TABLES
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect
from stock_assets.outlook import Outlook, Question, outlook
from stock_assets.settings import Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = dt.date(2026, 6, 30)
CALENDAR = get_calendar("XMOS")
SESSIONS = CALENDAR.between(dt.date(2025, 9, 1), DAY)
EVENING = CALENDAR.closes_at(DAY) + dt.timedelta(minutes=5)
TOMORROW = CALENDAR.after(DAY, 1)[0]

SETTINGS = """
[lake]
path = "data"
splits = "splits.csv"
dividends = "dividends.csv"
[partitions]
first_day = 2026-06-01
[[universe]]
tickers = ["SBER", "GAZP"]
source = "files"
exchange = "XMOS"
currency = "RUB"
[[universe]]
tickers = ["GOLD"]
source = "files"
[sources.files]
kind = "files"
path = "candles"
"""

USUAL: dict[type[pl.DataType], object] = {
    pl.String: "any", pl.Int32: 1, pl.Int64: 1, pl.Float64: 1.0, pl.Boolean: True,
}  # fmt: skip


def rows_of(table: str, given: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of a table; columns without a value get any that may be there."""
    types = TABLES[table].create_empty().schema
    columns = TABLES[table].columns()
    return pl.DataFrame(
        {
            name: [
                row.get(
                    name,
                    None if columns[name].nullable else USUAL.get(kind.base_type(), DAY),
                )
                for row in given
            ]
            for name, kind in types.items()
        },
        schema=types,
    )


def forecast_row(ticker: str, day: dt.date, horizon: int, **given: object) -> dict[str, Any]:
    sigma = 0.02 * horizon**0.5
    returns = sigma * np.array([-1.7, -1.3, -0.6, 0.0, 0.65, 1.28, 1.6])
    values = {
        "day": day, "ticker": ticker, "horizon": horizon, "last_price": 300.0, "currency": "RUB",
        "target_day": CALENDAR.after(day, horizon)[-1], "model": "catboost-a", "sigma": sigma,
        "model_version": 3,
    }  # fmt: skip
    for name, value in zip(QUANTILE_NAMES, returns.tolist(), strict=True):
        values[f"return_{name}"] = values[f"baseline_return_{name}"] = value
        values[f"price_{name}"] = 300 * float(np.exp(value))
    return values | given


def decision_row(day: dt.date, **given: object) -> dict[str, Any]:
    usual = {"ticker": "SBER", "model": "catboost-a", "decision": "trained", "attempted_day": day}
    return {"day": day, **usual, **given}


def give_order(lake: Lake, day: dt.date, model: str, why: str) -> None:
    given = Order(day, EVENING, "ann", why, "rollback", model)
    lake.append("orders", given.row())


def score_rows(ticker: str, days: tuple[dt.date, ...], seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {"day": day, "ticker": ticker, "horizon": 1, "model": "catboost-a", "forecast_day": day,
         "pinball": 1 + 0.1 * random.standard_normal(), "baseline_pinball": 1.0,
         "in_80": bool(random.random() < 0.8), "in_90": bool(random.random() < 0.9)}
        for day in days
    ]  # fmt: skip


def write(lake: Lake, table: str, given: list[dict[str, Any]]) -> None:
    frame = rows_of(table, given).sort(TABLES[table].primary_key())
    tickers = tuple(frame["ticker"].unique().sort())
    lake.write(table, frame, Slice(None, max(frame["day"]), tickers))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "splits.csv").write_text("ticker,date,before,after\n")
    (tmp_path / "dividends.csv").write_text("ticker,date,amount\n")
    return load_settings(tmp_path / "settings.toml")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """A lake with forecasts of SBER made on two days, and what one has to know of them."""
    lake = Lake(settings.lake_dir)
    days = (SESSIONS[-2], DAY)
    write(lake, "forecasts", [forecast_row("SBER", day, n) for day in days for n in range(1, 6)])
    decided = SESSIONS[-20]
    write(
        lake,
        "models",
        [
            decision_row(decided, reason="beat them all"),
            decision_row(DAY, decision="carried", reason="carried on"),
        ],
    )
    write(lake, "scores", score_rows("SBER", SESSIONS[-100:], 1))
    write(lake, "bars", [{"day": DAY, "ticker": "SBER"}])
    return lake


@pytest.fixture
def ask(settings: Settings, lake: Lake) -> Callable[..., Outlook]:
    def ask(ticker: str = "SBER", now: dt.datetime = EVENING, **question: Any) -> Outlook:
        with connect(lake) as connection:
            return outlook(connection, settings, Question(ticker, **question), now)

    return ask


@pytest.fixture
def shell(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    file = settings.lake.path.parent / "settings.toml"

    def shell(*arguments: str) -> tuple[int, str, str]:
        argv = ["stock-assets", "forecast", *arguments, "--settings", str(file)]
        monkeypatch.setattr(sys, "argv", argv)
        code = cli._run_app()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return shell


def test_the_latest_forecast_is_told_with_its_model_and_why(ask: Callable[..., Outlook]) -> None:
    found = ask()
    assert (found.day, found.last_price, found.currency) == (DAY, 300.0, "RUB")
    assert (found.model, found.model_version) == ("catboost-a", 3)
    assert (found.model_since, found.model_sessions) == (SESSIONS[-20], 19)
    assert found.model_reason == "beat them all"
    assert found.warnings == ()
    assert [item.horizon for item in found.horizons] == [1, 2, 3, 4, 5]
    assert found.horizons[1].target_day == CALENDAR.after(DAY, 2)[-1]
    first = forecast_row("SBER", DAY, 1)
    assert found.horizons[0].range_80 == pytest.approx((first["price_q10"], first["price_q90"]))
    assert found.horizons[0].range_50 == pytest.approx((first["price_q25"], first["price_q75"]))
    assert found.horizons[0].range_90 == pytest.approx((first["price_q05"], first["price_q95"]))
    assert (found.horizons[0].median, found.horizons[0].above) == (first["price_q50"], None)


def test_a_model_that_was_put_back_is_in_force_since_the_order(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    back, between = SESSIONS[-5], SESSIONS[-10]
    give_order(lake, back, "catboost-a", "the new one is odd")
    told = f"rollback ordered by ann on {EVENING:%Y-%m-%d %H:%M} UTC: the new one is odd"
    # Forecasts obey an order at once, whether or not `model` has run since.
    found = ask()
    assert (found.model_since, found.model_sessions) == (back, 4)
    assert found.model_reason == told
    write(
        lake,
        "models",
        [
            decision_row(SESSIONS[-20], reason="beat them all"),
            decision_row(between, model="catboost-b", reason="beat a"),
            decision_row(back, decision="ordered", reason=told),
            decision_row(DAY, decision="carried", reason="carried on"),
        ],
    )
    found = ask()
    assert (found.model_since, found.model_reason) == (back, told)
    # On a day before the order it was in force for another reason.
    write(lake, "forecasts", [forecast_row("SBER", day, 1) for day in (SESSIONS[-15], DAY)])
    earlier = ask(day=SESSIONS[-15])
    assert (earlier.model_since, earlier.model_reason) == (SESSIONS[-20], "beat them all")


def test_a_ticker_that_was_not_there_is_told_when_the_others_got_their_model(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    write(lake, "forecasts", [forecast_row("GAZP", DAY, 1)])
    carried = decision_row(DAY, ticker="GAZP", decision="carried", reason="carried on")
    write(lake, "models", [carried])
    found = ask("GAZP")
    assert (found.model_since, found.model_reason) == (SESSIONS[-20], "beat them all")


def test_the_odds_are_those_of_sql_and_of_python(ask: Callable[..., Outlook], lake: Lake) -> None:
    found = ask(above=310.0, below=295.0).horizons
    rows = lake.read("forecasts").filter(pl.col("day") == DAY).sort("horizon")
    python = PriceDistributions.of(rows)
    told = [item.above.ends_beyond for item in found if item.above is not None]
    assert told == python.probability_above(310).tolist()
    touched = [item.below.touched for item in found if item.below is not None]
    assert touched == python.probability_touch(295).tolist()
    with connect(lake) as connection:
        sql = connection.execute(
            "select probability_below(f, 295) from forecasts f where day = ? order by horizon",
            [DAY],
        ).fetchall()
    below = [item.below.ends_beyond for item in found if item.below is not None]
    assert below == pytest.approx([value for (value,) in sql], rel=1e-12)


def test_an_earlier_day_and_one_horizon_can_be_asked_for(ask: Callable[..., Outlook]) -> None:
    found = ask(day=SESSIONS[-2], horizon=3)
    assert found.day == SESSIONS[-2]
    assert found.warnings == ()
    assert [item.horizon for item in found.horizons] == [3]


def fault_row(day: dt.date) -> dict[str, Any]:
    return {
        "day": day, "ticker": "SBER", "kind": "quality", "feature": "price_level",
        "distance": float(np.log(100)), "threshold": float(np.log(5)), "drifted": True,
    }  # fmt: skip


def test_a_forecast_that_stands_for_another_day_says_so_and_why(
    ask: Callable[..., Outlook], lake: Lake, shell: Callable[..., tuple[int, str, str]]
) -> None:
    good, why = SESSIONS[-2], f"a price 100.0 times too high; the forecast of {SESSIONS[-2]} stands"
    stands = {"held_from": good, "note": why}
    write(lake, "forecasts", [forecast_row("SBER", DAY, n, **stands) for n in range(1, 5)])
    found = ask()
    assert (found.day, found.held_from) == (DAY, good)
    assert found.warnings == (f"not forecast from the prices of {DAY}: {why}",)
    assert [item.horizon for item in found.horizons] == [1, 2, 3, 4]
    code, out, _ = shell("SBER")
    assert code == 0
    assert f"300.00 RUB  at the close of {good}" in out
    assert why in " ".join(out.split())
    table = console.forecast_table(lake.read("forecasts"))
    assert f"SBER (that of {good} stands)" in list(table.columns[0].cells)


def test_where_no_forecast_reaches_on_the_fault_is_told(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    wrong = TOMORROW
    write(lake, "bars", [{"day": day, "ticker": "SBER"} for day in (DAY, wrong)])
    write(lake, "drift", [fault_row(wrong)])
    (warning,) = ask(now=CALENDAR.closes_at(wrong) + dt.timedelta(hours=1)).warnings
    assert f"the prices of {wrong} cannot be right (a price 100.0 times that" in warning
    assert f"once the source has corrected them: stock-assets run --from {wrong}" in warning
    with pytest.raises(SliceError, match=f"was made on {wrong} .a price 100.0 times that"):
        ask(day=wrong)


def test_an_old_forecast_says_so_and_what_is_missing(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    later = CALENDAR.closes_at(CALENDAR.after(DAY, 3)[-1]) + dt.timedelta(hours=1)
    (warning,) = ask(now=later).warnings
    assert f"made on {DAY}, 3 sessions ago: newer candles are not in the lake" in warning
    assert f"run --from {TOMORROW}" in warning
    during = CALENDAR.closes_at(TOMORROW) - dt.timedelta(hours=1)
    assert ask(now=during).warnings == ()
    write(lake, "bars", [{"day": day, "ticker": "SBER"} for day in (DAY, TOMORROW)])
    (warning,) = ask(now=later).warnings
    assert f"the lake has bars up to {TOMORROW} that were not forecast from" in warning


def test_a_delisted_ticker_is_told_as_such_and_nothing_is_to_run(
    settings: Settings, lake: Lake
) -> None:
    gone = settings.instrument("SBER").model_copy(update={"delisted": DAY})
    later = settings.model_copy(update={"universe": (gone,)})
    with connect(lake) as connection:
        found = outlook(connection, later, Question("SBER"), EVENING + dt.timedelta(days=60))
    assert found.warnings == (f"SBER is listed until {DAY} in the settings: no price follows",)


def test_sessions_after_the_last_one_listed_are_no_delay(settings: Settings, lake: Lake) -> None:
    gone = settings.instrument("SBER").model_copy(update={"delisted": TOMORROW})
    later = settings.model_copy(update={"universe": (gone,)})
    with connect(lake) as connection:
        found = outlook(connection, later, Question("SBER"), EVENING + dt.timedelta(days=60))
    (warning,) = found.warnings
    assert f"made on {DAY}, 1 session ago" in warning


def test_a_split_since_then_is_said(ask: Callable[..., Outlook], settings: Settings) -> None:
    assert settings.lake.splits is not None
    settings.lake.splits.write_text(
        f"ticker,date,before,after\nSBER,{TOMORROW},1,10\nSBER,{DAY},1,2\nGAZP,{TOMORROW},1,3\n"
    )
    evening = CALENDAR.closes_at(TOMORROW) + dt.timedelta(hours=1)
    (split,) = ask(now=evening, day=DAY).warnings
    assert f"split on {TOMORROW}, 1 old shares for 10 new ones" in split
    assert f"in the shares of {DAY}; times 0.1 they are in the shares since" in split
    assert ask().warnings == ()  # nobody knows of it before its day


def test_a_jump_that_nobody_declared_is_said_and_one_that_was_no_split_is_not(
    ask: Callable[..., Outlook], settings: Settings, lake: Lake
) -> None:
    evening = CALENDAR.closes_at(TOMORROW) + dt.timedelta(hours=1)
    bars = [
        {"day": day, "ticker": "SBER", "suspected_split": ratio}
        for day, ratio in ((DAY, 3.0), (TOMORROW, 0.1))
    ]
    write(lake, "bars", bars)
    (jump,) = ask(now=evening, day=DAY).warnings
    assert f"prices jumped on {TOMORROW} as by a split of 10 old shares into 1 new ones" in jump
    assert ask().warnings == ()  # nobody knows of it before its day
    assert settings.lake.splits is not None
    settings.lake.splits.write_text(f"ticker,date,before,after\nSBER,{TOMORROW},1,1\n")
    write(lake, "bars", [row | {"suspected_split": None} for row in bars])
    assert ask(now=evening, day=DAY).warnings == ()


def test_a_dividend_on_the_way_is_said(ask: Callable[..., Outlook], settings: Settings) -> None:
    assert settings.lake.dividends is not None
    settings.lake.dividends.write_text(
        f"ticker,date,amount\nSBER,{TOMORROW},34.84\nSBER,{DAY},5\nSBER,2099-01-02,7\n"
        f"GAZP,{TOMORROW},3\n"
    )
    (dividend,) = ask().warnings
    assert f"a share pays 34.84 with the ex-date {TOMORROW}" in dividend


def test_the_baseline_says_why_it_answers(ask: Callable[..., Outlook], lake: Lake) -> None:
    made = [forecast_row("GAZP", DAY, 1, model="baseline", model_version=None)]
    write(lake, "forecasts", made)
    assert ask("GAZP").model_reason == "no model was in force, or too little was known"
    reasons = [("old", SESSIONS[-2]), ("too few rows", DAY)]
    write(
        lake,
        "models",
        [
            {"day": day, "ticker": "GAZP", "model": "baseline", "reason": why}
            for why, day in reasons
        ],
    )
    found = ask("GAZP")
    assert (found.model, found.model_since, found.model_sessions) == ("baseline", None, None)
    assert found.model_reason == "too few rows"
    write(lake, "models", [decision_row(DAY, ticker="GAZP", decision="carried")])
    assert "catboost-a was in force and did not answer" in ask("GAZP").model_reason
    give_order(lake, DAY, "baseline", "a look at it first")
    assert ask("GAZP").model_reason.endswith("a look at it first")


def test_the_record_is_of_the_exchange_and_of_the_latest_days_known_then(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    window = SESSIONS[-60:]
    of_both = score_rows("SBER", SESSIONS[-100:], 1) + score_rows("GAZP", window, 2)
    write(lake, "scores", of_both)
    write(lake, "scores", [row | {"ticker": "GOLD"} for row in score_rows("GOLD", window, 3)])
    expected = rows_of("scores", [row for row in of_both if row["day"] in window])
    assert ask().record == f"XMOS: {summarise(expected).sentence}"
    # What came later is not how forecasts of that day had done.
    future = score_rows("SBER", CALENDAR.after(DAY, 5), 4)
    write(lake, "scores", score_rows("SBER", SESSIONS[-100:], 1) + future)
    write(lake, "scores", score_rows("GAZP", window, 2))
    assert ask(day=DAY).record == f"XMOS: {summarise(expected).sentence}"


def test_forecasts_that_have_left_their_band_are_a_warning(
    ask: Callable[..., Outlook], lake: Lake
) -> None:
    missed = [
        row | {"in_80": number % 2 == 0}
        for number, row in enumerate(score_rows("SBER", SESSIONS[-60:], 1))
    ]
    write(lake, "scores", missed)
    (warning,) = ask().warnings
    assert "forecasts of XMOS do not keep their promise: the 80 % interval is too narrow" in warning


def test_without_scores_nothing_is_claimed(settings: Settings) -> None:
    lake = Lake(settings.lake_dir)
    write(lake, "forecasts", [forecast_row("SBER", DAY, 1)])
    with connect(lake) as connection:
        found = outlook(connection, settings, Question("SBER"), EVENING)
    assert found.record == f"XMOS: no forecast had reached its target day by {DAY}"
    assert "its decision is not in the table models" in found.model_reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SBERR"], 2, "did you mean SBER?"),
        (["gold"], 2, "did you mean GOLD?"),
        (["NVDA"], 2, "use one of GAZP, SBER, GOLD"),
        (["GAZP"], 4, "there is no forecast of GAZP in the lake yet; make one with"),
        (["SBER", "--day", "2026-06-28"], 2, "Sunday 2026-06-28 is not a session of XMOS"),
        (["SBER", "--day", "2026-06-28"], 2, "the nearest after it: --day 2026-06-29"),
        (["SBER", "--day", "2026-07-08"], 2, "the nearest before it: --day 2026-06-30"),
        (["SBER", "--day", "soon"], 2, "--day 'soon' is not a day"),
        (["SBER", "--horizon", "6"], 2, "--horizon may be 1, 2, 3, 4, 5"),
        (["SBER", "--above", "0"], 2, "0 is no price"),
        (["SBER", "--below=-3"], 2, "-3 is no price"),
        (["SBER", "--above", "nan"], 2, "nan is no price"),
        (["SBER", "--below", "inf"], 2, "inf is no price"),
    ],
)
@pytest.mark.usefixtures("lake")
def test_wrong_use_names_the_culprit_and_the_fix(
    shell: Callable[..., tuple[int, str, str]], arguments: list[str], code: int, said: str
) -> None:
    found, out, err = shell(*arguments)
    assert (found, out) == (code, "")
    assert said in " ".join(err.replace("│", " ").split())


@pytest.mark.usefixtures("lake")
def test_people_read_a_table_and_programs_the_same_numbers(
    shell: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, err = shell("SBER", "--above", "310", "--below", "1")
    assert (code, err) == (0, "")
    assert "SBER  300.00 RUB  at the close of 2026-06-30 (XMOS)" in out
    assert "Forecast by catboost-a (version 3), in force since" in out
    assert "! made on 2026-06-30" in out  # it is later than that by now
    assert re.search(r"next: stock-assets run --from 2026-07-01 --settings \S+settings.toml", out)
    assert "above 310.00" in out
    assert "< 0.1 %" in out  # no such claim about the tail as 0.0003 %
    assert "Lately, XMOS: 60 forecasts over 60 target days" in out
    code, text, _ = shell("SBER", "--above", "310", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["day"] == "2026-06-30"
    shown = found["horizons"][0]
    assert f"{100 * shown['above']['ends_beyond']:.1f} %" in out
    assert f"{shown['range_90'][0]:.2f} .. {shown['range_90'][1]:.2f}" in out
    assert shown["below"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("lake")
def test_it_loads_nothing_heavy(settings: Settings) -> None:
    file = settings.lake.path.parent / "settings.toml"
    code = (
        "import sys; from stock_assets import cli;"
        f"sys.argv = ['stock-assets', 'forecast', 'SBER', '--settings', {str(file)!r}];"
        "cli._run_app(); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "SBER" in done.stdout
    heavy = ("dagster", "dbt", "mlflow", "catboost", "sklearn", "matplotlib", "evidently")
    assert set(heavy).isdisjoint(done.stderr.split())


def test_a_forecast_as_of_a_moment_is_the_one_that_stood_then(
    shell: Callable[..., tuple[int, str, str]], lake: Lake
) -> None:
    time.sleep(0.002)  # commits count milliseconds
    then = dt.datetime.now(tz=dt.UTC)
    time.sleep(0.002)
    later = [forecast_row("SBER", DAY, n, last_price=200.0) for n in range(1, 6)]
    write(lake, "forecasts", later)
    day = ("SBER", "--day", str(DAY), "--json")
    assert json.loads(shell(*day)[1])["last_price"] == 200.0
    code, out, _ = shell(*day, "--as-of", then.isoformat())
    assert (code, json.loads(out)["last_price"]) == (0, 300.0)
    # A moment's day is over only at its end; and there was nothing the year before.
    code, _, err = shell(*day, "--as-of", f"{then:%Y-%m-%d}")
    assert (code, "is still to come" in " ".join(err.split())) == (2, True)
    code, _, err = shell(*day, "--as-of", "2020-05-04")
    assert (code, "there is no forecast of SBER in the lake yet" in err) == (4, True)


def test_a_replay_answers_for_the_whole_forecast(
    shell: Callable[..., tuple[int, str, str]], lake: Lake
) -> None:
    code, _, err = shell("SBER", "--replay", "--horizon", "1")
    assert (code, "leave out --above, --below and --horizon" in " ".join(err.split())) == (2, True)
    # These rows were made by hand, from versions that never were.
    write(lake, "forecasts", [forecast_row("GAZP", DAY, 1, model="baseline", model_version=None)])
    code, _, err = shell("GAZP", "--replay")
    assert (code, "table bars: version 1 cannot be read" in " ".join(err.split())) == (4, True)
