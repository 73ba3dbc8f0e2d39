"""The same work as one run of the graph, as a plain script: no Dagster, no dbt, no validation.

    python bench/plain.py SETTINGS LAST_DAY SQL_FOLDER OUT_FOLDER

Reads the settings' one Parquet file, runs the SQL that dbt compiled from our models (SQL_FOLDER
holds bars.sql and features.sql) in DuckDB, draws the Evidently page, fits and registers the same
CatBoost models, forecasts, scores, and writes each table with deltalake into OUT_FOLDER: what
someone would write who wanted these numbers once. Prints the seconds of each part as JSON.

It calls the pure functions of `drift` and `forecasting`, so that the forecasts are the same and
what is compared is the cost of everything around them.
"""

from __future__ import annotations

import datetime as dt
import json
import resource
import sys
import time
from bisect import bisect_left
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
from deltalake import DeltaTable, WriterProperties, write_deltalake

from stock_assets.calendars import get_calendar, union_sessions
from stock_assets.drift.distances import distances
from stock_assets.drift.evidently_page import drawn
from stock_assets.drift.quality import QUALITY_COLUMNS, faults
from stock_assets.drift.reports import write_pages
from stock_assets.drift.verdict import signals
from stock_assets.drift.watched import PANEL_FEATURES
from stock_assets.forecasting.baseline import BASELINE, baseline_forecasts, lookback_start
from stock_assets.forecasting.fan import fan_picture
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.forecasts import LakeVersions, make_forecasts
from stock_assets.forecasting.gate import (
    BASELINE_LOSS,
    CHALLENGER,
    IN_FORCE,
    judge,
    pinball_losses,
)
from stock_assets.forecasting.in_force import InForce
from stock_assets.forecasting.labels import labels
from stock_assets.forecasting.leak_alarm import sound
from stock_assets.forecasting.model import fit, trainable
from stock_assets.forecasting.registry import Registry, TrainingRecord
from stock_assets.forecasting.scoring import score
from stock_assets.forecasting.splitting import split
from stock_assets.lake.actions import dividend_rows, session_rows, split_rows, suspicion_rows
from stock_assets.lake.daily import CANDLE_COLUMNS, daily
from stock_assets.lake.dbt_request import build_request
from stock_assets.settings import FilesSettings, Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRICES = ["open", "high", "low", "close"]
_FAN_DAYS = dt.timedelta(days=120)


class Plain:
    """The script's state: settings, the days, where tables go, and the clock of its parts."""

    def __init__(self, settings: Settings, last: dt.date, out: Path) -> None:
        self.settings = settings
        self.last = last
        self.out = out
        (exchange,) = settings.exchanges
        self.calendar = get_calendar(exchange)
        self.days = self.calendar.between(settings.partitions.first_day, last)
        self.parts: dict[str, dict[str, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done within, as part `name`."""
        wall, cpu = time.perf_counter(), _cpu()
        yield
        self.parts[name] = {"wall": time.perf_counter() - wall, "cpu": _cpu() - cpu}

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """A Delta table, split and compressed as the lake's are."""
        dated = frame.with_columns(pl.col("day").dt.year().alias("year"))
        write_deltalake(
            str(self.out / table),
            dated.sort("year", "ticker", "day").to_arrow(),
            mode="overwrite",
            partition_by=["year"],
            writer_properties=WriterProperties(compression="ZSTD", compression_level=5),
        )

    def read(
        self, table: str, first: dt.date | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Rows of a table from `first` on, sorted by day and ticker."""
        import pyarrow.dataset as pds  # noqa: PLC0415

        found = DeltaTable(str(self.out / table)).to_pyarrow_dataset()
        names = [name for name in columns or found.schema.names if name != "year"]
        wanted = None if first is None else pds.field("day") >= first
        frame = pl.from_arrow(found.to_table(columns=names, filter=wanted))
        assert isinstance(frame, pl.DataFrame)
        return frame.sort("day", "ticker")


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def ingest(plain: Plain) -> None:
    """Candles of the file that keep the candle rules, and those that do not."""
    (source,) = plain.settings.sources.values()
    assert isinstance(source, FilesSettings)
    sessions = pl.Series(plain.calendar.sessions, dtype=pl.Date).implode()
    rows = (
        pl.read_parquet(source.path)
        .with_columns(pl.col("timestamp").dt.date().alias("day"))
        .filter(
            (pl.col("day") <= plain.last) & pl.col("ticker").is_in(list(plain.settings.tickers))
        )
        .with_columns(pl.lit("1d").alias("interval"), pl.col("volume").fill_nan(None))
        .rename({"timestamp": "start"})
    )
    good = (
        pl.all_horizontal(pl.col(_PRICES).is_finite() & (pl.col(_PRICES) > 0))
        & (pl.col("high") >= pl.max_horizontal("open", "low", "close"))
        & (pl.col("low") <= pl.min_horizontal("open", "high", "close"))
        & (pl.col("volume").is_null() | (pl.col("volume") >= 0))
        & pl.col("day").is_in(sessions)
    ).fill_null(value=False)
    plain.write("quarantine", rows.filter(~good))
    plain.write(
        "candles",
        rows.filter(good).unique(["ticker", "day"], keep="last", maintain_order=True),
    )


def transform(plain: Plain, queries: Path) -> None:
    """Bars and features by the SQL that dbt compiled."""
    settings = plain.settings
    candles = daily(plain.read("candles", columns=CANDLE_COLUMNS))
    request = build_request(settings, Slice(None, plain.last, settings.tickers))

    def prices(tickers: Sequence[str], days: Sequence[dt.date]) -> pl.DataFrame:
        return candles.filter(pl.col("ticker").is_in(tickers) & pl.col("day").is_in(days))

    with duckdb.connect(":memory:") as connection:
        connection.execute("create schema lake; create schema run; set timezone = 'UTC'")
        relations = {
            "lake.candles": DeltaTable(str(plain.out / "candles")).to_pyarrow_dataset(),
            "run.slice": pl.DataFrame(
                [(i.ticker, i.exchange, i.currency, None, plain.last) for i in settings.universe],
                schema={
                    "ticker": pl.String,
                    "exchange": pl.String,
                    "currency": pl.String,
                    "first_date": pl.Date,
                    "last_date": pl.Date,
                },
                orient="row",
            ).to_arrow(),
            "run.sessions": session_rows(request).to_arrow(),
            "run.splits": split_rows(request).to_arrow(),
            "run.dividends": dividend_rows(request, prices).to_arrow(),
            "run.suspicions": suspicion_rows(request, prices).to_arrow(),
        }

        def provide(name: str, relation: object) -> None:
            connection.register(name.replace(".", "_"), relation)
            connection.execute(f"create view {name} as from {name.replace('.', '_')}")

        def run(name: str) -> pl.DataFrame:
            query = (queries / f"{name}.sql").read_text(encoding="utf-8")
            return pl.DataFrame(connection.sql(query).to_arrow_table())

        for name, relation in relations.items():
            provide(name, relation)
        plain.write("bars", run("bars"))
        provide("run.market_bars", plain.read("bars").to_arrow())
        plain.write("features", run("features"))


def drift(plain: Plain) -> None:
    """Distances of every day, and the page of the last."""
    columns = ["day", "ticker", "exchange", *PANEL_FEATURES]
    features = plain.read("features", columns=columns)
    area = Slice(None, plain.last, plain.settings.tickers)
    found = faults(plain.read("bars", columns=list(QUALITY_COLUMNS)), area, plain.settings)
    plain.write("drift", pl.concat([distances(features, area, plain.settings), found]))
    own = plain.settings.lake.model_copy(update={"path": plain.out})
    settings = plain.settings.model_copy(update={"lake": own})
    newest = plain.read("drift", plain.last)
    write_pages(features, newest, settings, drawn)


def model(plain: Plain, registry: Registry) -> int:
    """Train when there is no model, the cadence is due or the universe has moved; how often."""
    said = signals(plain.read("drift"), plain.settings)
    moved = {day for day, signal in said.items() if signal.alarm}
    sessions, forecast = union_sessions(plain.settings.exchanges), plain.settings.forecast
    start = sessions[max(0, bisect_left(sessions, plain.days[0]) - forecast.window)]
    first = lookback_start(plain.settings.exchanges, start)
    features = plain.read("features", first)
    labelled = labels(plain.read("bars", first))
    rows = trainable(features, labelled)
    state = InForce()
    states = []
    trainings = 0
    for day in plain.days:
        place = bisect_left(sessions, day)
        waited = place - bisect_left(sessions, state.attempted_day or dt.date.min)
        rested = waited > forecast.cooldown
        if waited >= forecast.cadence or (rested and (day in moved or state.model == BASELINE)):
            window = sessions[max(0, place - forecast.window)]
            known = rows.filter((pl.col("label_end") < day) & (pl.col("day") >= window))
            if known.height >= forecast.min_training_rows:
                state = _train(day, state, known, features, labelled, registry)
                trainings += 1
        states.append((day, state))
    plain.write(
        "models",
        pl.DataFrame(
            [
                (day, name, *vars(now).values())
                for day, now in states
                for name in plain.settings.tickers
            ],
            schema={
                "day": pl.Date,
                "ticker": pl.String,
                "model": pl.String,
                "model_version": pl.Int64,
                "trained_day": pl.Date,
                "attempted_day": pl.Date,
            },
            orient="row",
        ),
    )
    return trainings


def _train(  # noqa: PLR0913, PLR0917
    day: dt.date,
    state: InForce,
    known: pl.DataFrame,
    features: pl.DataFrame,
    labelled: pl.DataFrame,
    registry: Registry,
) -> InForce:
    sets = split(known, day - dt.timedelta(1))
    assert sets is not None
    fitted = fit(known.filter(sets.training()), sets.calibration_first)
    later = known.filter(sets.validation())
    past = Known(features.filter(pl.col("day") < day), labelled.filter(pl.col("label_end") < day))
    made = {
        CHALLENGER: fitted.forecast(later, past),
        BASELINE_LOSS: baseline_forecasts(later, past.features, past.labelled),
    }
    if state.model != BASELINE:
        made[IN_FORCE] = registry.load(state.model).forecast(later, past)
    soundings = sound(made[CHALLENGER], made[BASELINE_LOSS], later)
    verdict = judge(pinball_losses(made, later), soundings)
    tickers = tuple(known["ticker"].unique().sort())
    record = TrainingRecord(f"plain-{day}", day, tickers, known.height, verdict)
    found = registry.register(fitted, record)
    if verdict.accepted:
        return InForce(record.model_id, found.version, day, day)
    return InForce(state.model, state.model_version, state.trained_day, day)


def forecasts(plain: Plain, registry: Registry) -> None:
    """Forecasts of every day and horizon, and the picture of the last."""
    first = lookback_start(plain.settings.exchanges, plain.days[0])
    bars = plain.read("bars", first)
    cells = bars.filter(pl.col("day") >= plain.days[0]).select("day", "ticker")
    made = make_forecasts(
        cells,
        bars,
        plain.read("features", first),
        plain.read("models"),
        registry.load,
        plain.settings.forecast.horizons,
        LakeVersions(0, 0, 0),
    )
    plain.write("forecasts", made)
    newest = made.filter(pl.col("day") == plain.last)
    tail = bars.filter(pl.col("day") >= plain.last - _FAN_DAYS)
    names = newest["ticker"].unique(maintain_order=True).to_list()
    (plain.out / "fan.png").write_bytes(fan_picture(tail, newest, names))


def scores(plain: Plain) -> None:
    """What the forecasts were worth."""
    due = plain.read("forecasts").filter(pl.col("target_day") <= plain.last)
    plain.write("scores", score(due, plain.read("bars", plain.days[0])))


def main() -> None:
    """Do it all once and print the seconds of each part, and the number of trainings."""
    file, day, queries, out = sys.argv[1:]
    # Calendars and settings are read before the clock starts, as before a run's first step.
    plain = Plain(load_settings(Path(file)), dt.date.fromisoformat(day), Path(out))
    registry = Registry(plain.out / "mlflow")
    with plain.part("ingest"):
        ingest(plain)
    with plain.part("transform"):
        transform(plain, Path(queries))
    with plain.part("drift"):
        drift(plain)
    with plain.part("model"):
        trainings = model(plain, registry)
    with plain.part("forecasts"):
        forecasts(plain, registry)
    with plain.part("scores"):
        scores(plain)
    print(json.dumps({"parts": plain.parts, "trainings": trainings}))


if __name__ == "__main__":
    main()
