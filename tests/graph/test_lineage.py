"""A forecast names the versions it was made from, and they give it again, whatever came since.

Training and serving read the same numbers: the features that a forecast used are, to the last bit,
the row of that cell that a later training read.
"""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from stock_assets.errors import LakeError, ModelError
from stock_assets.forecast_inputs import read_inputs
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.schemas import TABLES
from stock_assets.lake.views import connect
from stock_assets.replay import replay

from .conftest import TICKERS, Market

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("graph"), pytest.mark.timeout(900)]

LAST = dt.date(2025, 6, 6)
REVISED = dt.date(2025, 6, 4)
"""The day of the candle that is revised once all days have been forecast."""

PRICES = ["open", "high", "low", "close"]
TABLES_READ = ("bars", "features", "models", "drift")
VERSIONS = ("bars_version", "features_version", "models_version", "drift_version")


def at_version(market: Market, table: str, version: int) -> pl.DataFrame:
    """The table as it was; every read of the lake sorts by the key, so this does."""
    found = market.lake.open(table, version)
    assert found is not None
    schema = TABLES[table]
    rows = pl.from_arrow(found.to_pyarrow_table(columns=schema.column_names()))
    assert isinstance(rows, pl.DataFrame)
    return rows.cast(schema.create_empty().schema).sort(schema.primary_key())


def again(market: Market, made: pl.DataFrame, versions: tuple[int, ...]) -> pl.DataFrame:
    """The same cells forecast by the product from those versions of the tables."""
    days = made["day"].min(), made["day"].max()
    wanted = dict(zip(TABLES_READ, versions, strict=True))
    with connect(market.lake, versions=wanted) as connection:
        inputs = read_inputs(connection, market.settings.exchanges, *days)
    return inputs.forecasts(
        made.select("day", "ticker").unique(),
        Registry(market.settings.mlflow_dir),
        market.settings.forecast.horizons,
        unfit=(),
    )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, lived: Market) -> Market:
    """A lake that was run evening by evening."""
    return lived.copied(tmp_path_factory.mktemp("live") / "market")


@pytest.fixture(scope="module")
def before(live: Market) -> dict[str, pl.DataFrame]:
    """Its tables, before the revision."""
    return {name: live.lake.read(name) for name in TABLES}


@pytest.fixture(scope="module")
def revised(live: Market, before: dict[str, pl.DataFrame], market_rows: pl.DataFrame) -> Market:
    """The same lake, after a candle of `REVISED` came anew and its day's bars were made again."""
    assert before["forecasts"].height
    wrong = (pl.col("ticker") == "CCC") & (pl.col("timestamp").dt.date() == REVISED)
    rows = market_rows.with_columns(
        pl.when(wrong).then(pl.col(PRICES) * 1.3).otherwise(pl.col(PRICES)).name.keep()
    )
    rows.write_parquet(live.folder / "candles.parquet")
    live.run(REVISED, LAST, "candles", "quarantine", "bars", "features")
    return live


def stored(forecasts: pl.DataFrame) -> list[tuple[tuple[int, ...], pl.DataFrame]]:
    """Stored forecasts by the versions they were made from, sorted by key."""
    rows = forecasts.sort("day", "ticker", "horizon")
    return list(rows.group_by(*VERSIONS, maintain_order=True))  # type: ignore[arg-type]


def test_the_evenings_read_versions_of_their_own(before) -> None:
    """Else the proofs below would prove less than they seem to."""
    forecasts = before["forecasts"]
    assert forecasts.select(VERSIONS).n_unique() == forecasts["day"].n_unique() == 6
    assert (forecasts["model"] != "baseline").any()


def test_a_forecast_is_made_again_from_the_versions_it_names(revised, before) -> None:
    forecasts = before["forecasts"]
    for versions, made in stored(forecasts):
        assert again(revised, made, versions).equals(made)
    # What was said stays said: nothing of it was asked for anew.
    assert revised.lake.read("forecasts").equals(forecasts)


def test_a_replay_says_that_each_is_equal_and_a_changed_one_is_not(revised, before) -> None:
    """As `stock-assets forecast --replay` does it, ticker by ticker, after the revision."""
    forecasts = before["forecasts"]
    models = set()
    for (day, ticker), stored in forecasts.group_by("day", "ticker", maintain_order=True):
        if ticker not in ("CCC", "AAA"):
            continue
        found = replay(revised.lake, revised.settings, stored)
        assert found.differences == (), (day, ticker)
        models.add(found.model)
    assert len(models) > 1, "a model's and the baseline's"
    told = stored.with_columns(return_q50=pl.col("return_q50") + 1e-15)
    (one, *rest) = replay(revised.lake, revised.settings, told).differences
    assert one.column == "return_q50"
    assert len(rest) == stored.height - 1
    made = revised.cli("forecast", "CCC", "--day", str(LAST), "--replay")
    assert (made.returncode, made.stderr) == (0, "")
    assert "equal to the last bit" in made.stdout


def test_a_replay_without_its_versions_or_its_model_says_what_is_gone(revised, before) -> None:
    stored = before["forecasts"].filter(pl.col("model") != "baseline").group_by("day", "ticker")
    (_, rows) = next(iter(stored))
    other = rows.with_columns(model=pl.lit("catboost-of-another-time"))
    with pytest.raises(ModelError, match="is by catboost-of-another-time: the registry was made"):
        replay(revised.lake, revised.settings, other)
    with pytest.raises(LakeError, match="table bars: version 99 cannot be read"):
        replay(revised.lake, revised.settings, rows.with_columns(bars_version=pl.lit(99)))


def test_read_from_the_latest_version_the_revision_is_seen(revised, before) -> None:
    """The leak that versions prevent: a past forecast made again from what was learned later."""
    latest = tuple(revised.lake.version(name) for name in TABLES_READ)
    changed = {}
    for _, made in stored(before["forecasts"]):
        other = again(revised, made, latest).drop(VERSIONS)  # type: ignore[arg-type]
        for (day,), said in made.group_by("day", maintain_order=True):
            changed[day] = not other.filter(pl.col("day") == day).equals(said.drop(VERSIONS))
    assert any(changed[day] for day in changed if day >= REVISED)
    # Even so, it reaches no forecast of a day before the candle's own.
    assert not any(changed[day] for day in changed if day < REVISED)


def test_a_revision_changes_no_value_before_its_day(revised, before) -> None:
    for table in ("bars", "features"):
        now, then = (
            rows.sort("day", "ticker") for rows in (revised.lake.read(table), before[table])
        )
        past = pl.col("day") < REVISED
        assert now.filter(past).equals(then.filter(past))
        assert not now.filter(~past).equals(then.filter(~past))


def test_what_a_forecast_used_is_what_a_training_reads(live, before) -> None:
    """Cell by cell: the version served from, against the version a later decision read."""
    features = {
        version: at_version(live, "features", version)
        for version in before["forecasts"]["features_version"].unique()
    }
    compared = 0
    trained = before["models"].filter(pl.col("challenger").is_not_null())
    for version, day in trained.select("features_version", "day").unique().iter_rows():
        read = features.get(version, at_version(live, "features", version))
        served = before["forecasts"].filter(pl.col("day") < day)
        for used, made in served.group_by("features_version"):
            cells = made.select("day", "ticker").unique().sort("day", "ticker")
            mine, theirs = (
                cells.join(rows, on=["day", "ticker"]).sort("day", "ticker")
                for rows in (features[used[0]], read)
            )
            assert mine.height == theirs.height == cells.height
            assert mine.equals(theirs)
            compared += cells.height
    assert compared > len(TICKERS)


def test_features_served_evening_by_evening_are_those_of_one_range(live, one_range, before) -> None:
    whole = one_range.lake.read("features")
    for (version,), made in before["forecasts"].group_by("features_version"):
        cells = made.select("day", "ticker").unique()
        mine, theirs = (
            rows.join(cells, on=["day", "ticker"], how="semi").sort("day", "ticker")
            for rows in (at_version(live, "features", int(version)), whole)  # type: ignore[call-overload]
        )
        assert mine.height == cells.height
        assert mine.equals(theirs)
