"""The bars of FORECASTING measured on the development sets, and docs/forecasting.md written.

`make bars`, or `python bench/bars.py --quick` for a small one on a part of one market. Builds each
set's bars and features by the product's own runs, replays every method over its years, two
processes at a time, and scores them under the one protocol. Everything is kept in FOLDER as soon as
it is there: with `--folder` a run that was interrupted goes on where it stopped, `--again product`
replays only what is named, and the pages of the backtests stay there.

    FOLDER/<market>/data           the lake
    FOLDER/<market>/<method>.parquet   what the method forecast
    FOLDER/<market>.html           the backtest's page

What the numbers mean, and how they are drawn, is in `bars_report.py`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import shlex
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from bars_report import Measured, bars_page
from market import get_market
from measuring import say
from product import Product

from stock_assets.backtest_inputs import load_history
from stock_assets.calendars import get_calendar
from stock_assets.forecasting.backtest import (
    PRODUCT,
    ReplayRegistry,
    replay_method,
    replay_product,
)
from stock_assets.forecasting.backtest_report import ReportInput, write_report
from stock_assets.forecasting.baselines import METHODS, OPTIONAL
from stock_assets.forecasting.labels import LABEL_SESSIONS, labels
from stock_assets.forecasting.protocol import FORECAST_COLUMNS, evaluate
from stock_assets.forecasting.registry import Registry
from stock_assets.lake.store import Lake
from stock_assets.settings import PROJECT_DIR, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCS = PROJECT_DIR / "docs" / "forecasting.md"

BUILT = ("candles", "quarantine", "bars", "features")
"""The assets that a backtest reads the tables of."""

PROCESSES = 2

MODELS = (PRODUCT, *(name for name in METHODS if name not in OPTIONAL))
"""What is compared where nobody says otherwise."""


@dataclass(frozen=True)
class Market:
    """A set of daily candles, and the days that are replayed on it."""

    name: str
    title: str
    file: Path
    exchange: str
    currency: str
    splits: Path | None
    first: dt.date
    """First day replayed."""

    def settings(self, folder: Path) -> Path:
        """A settings file in `folder` whose one partition day carries all of the candles."""
        candles = pl.read_parquet(self.file, columns=["ticker", "timestamp"])
        last: dt.date = candles["timestamp"].dt.date().max()  # type: ignore[assignment]
        splits = "" if self.splits is None else f'splits = "{self.splits.as_posix()}"'
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "settings.toml"
        file.write_text(
            f"""
[lake]
path = "data"
{splits}
[partitions]
first_day = {get_calendar(self.exchange).back(last + dt.timedelta(1), 1)}
[[universe]]
tickers = {json.dumps(candles["ticker"].unique().sort().to_list())}
source = "market"
exchange = "{self.exchange}"
currency = "{self.currency}"
[sources.market]
kind = "files"
path = {json.dumps(self.file.as_posix())}
""",
            encoding="utf-8",
        )
        return file


def main() -> None:
    """Measure what is not there yet, and write the page."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="stock-assets-bars-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        markets = _quick(folder) if options.quick else _development_sets()
        if options.only:
            markets = [market for market in markets if market.name in options.only]
        for market in markets:
            for name in options.again:
                _forecasts(folder / market.name, name).unlink(missing_ok=True)
        _build(folder, markets)
        _replay(folder, markets, options.models)
        measured = [_score(folder, market, options.models) for market in markets]
        training = _kept(folder / "training.json", lambda: _training(folder, markets[0]))
        page = bars_page(measured, training, _command(options), dt.datetime.now(tz=dt.UTC).date())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page, encoding="utf-8")
    say(f"written: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few tickers and months")
    parser.add_argument("--folder", type=Path, help="go on in this folder, and keep it")
    parser.add_argument("--again", type=_names, default=[], help="methods to replay again")
    parser.add_argument("--only", type=_names, default=[], help="markets: moscow, us")
    parser.add_argument("--models", type=_models, default=list(MODELS), help="what is compared")
    parser.add_argument("--out", type=Path, default=DOCS, help="the page to write")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _models(text: str) -> list[str]:
    names = _names(text)
    if unknown := set(names) - {PRODUCT, *METHODS}:
        raise argparse.ArgumentTypeError(f"unknown {sorted(unknown)}; use {[PRODUCT, *METHODS]}")
    return names


def _command(options: argparse.Namespace) -> str:
    """What to type for the same page."""
    if options.out == DOCS and not (options.quick or options.only) and options.models == [*MODELS]:
        return "make bars"
    return f"python bench/bars.py {shlex.join(sys.argv[1:])}"


def _development_sets() -> list[Market]:
    data = Path(os.environ.get("STOCK_ASSETS_SHARED", PROJECT_DIR.parent / "shared" / "data"))
    sets = [
        Market(
            "moscow",
            "50 Moscow stocks",
            data / "moex_daily_dev_tqbr.parquet",
            "XMOS",
            "RUB",
            data / "splits",
            dt.date(2017, 1, 1),
        ),
        Market(
            "us",
            "120 US stocks",
            data / "us_daily_dev.parquet",
            "XNYS",
            "USD",
            None,
            dt.date(2020, 1, 1),
        ),
    ]
    for market in sets:
        if not market.file.exists():
            message = (
                f"{market.file} is not there: the development sets are not part of the repository; "
                "set STOCK_ASSETS_SHARED to their folder, or try --quick"
            )
            raise SystemExit(message)
    return sets


def _quick(folder: Path) -> list[Market]:
    """Eight tickers over two and a half years, the last months replayed."""
    found = get_market(folder, tickers=8, begin=dt.date(2024, 1, 1))
    return [
        Market(
            "quick",
            f"eight tickers of {found.about}",
            found.file,
            "XMOS",
            "RUB",
            found.splits,
            dt.date(2026, 1, 5),
        )
    ]


def _build(folder: Path, markets: Sequence[Market]) -> None:
    """Make the lakes that are not there yet, each in a process of its own."""
    tasks = {
        market.name: (_build_one, (folder / market.name, market))
        for market in markets
        if not (folder / market.name / "built.json").exists()
    }
    _in_processes("lake of", tasks)


def _build_one(folder: Path, market: Market) -> None:
    product = Product(market.settings(folder))
    product.empty()
    day = product.settings.partitions.first_day
    usage = product.command(
        "run", "--from", f"{day}", "--to", f"{day}", "--assets", ",".join(BUILT)
    )
    _write_json(folder / "built.json", usage.cost)


def _replay(folder: Path, markets: Sequence[Market], models: Sequence[str]) -> None:
    """What each method would have forecast, where that is not there yet; slow ones first."""
    order = sorted(models, key=lambda name: (name != PRODUCT, name != "garch", name))
    tasks = {
        f"{market.name} {name}": (_replay_one, (folder / market.name, market.first, name))
        for name in order
        for market in markets
        if not _forecasts(folder / market.name, name).exists()
    }
    _in_processes("replay of", tasks)


def _replay_one(folder: Path, first: dt.date, name: str) -> None:
    settings = load_settings(folder / "settings.toml")
    last = _last(settings)
    history = load_history(settings, settings.tickers, first, last, drift=name == PRODUCT)
    began, cpu = time.monotonic(), time.process_time()
    if name == PRODUCT:
        replay = replay_product(
            history,
            settings,
            settings.tickers,
            first,
            last,
            registry=ReplayRegistry(Registry(settings.mlflow_dir)),
            say=say,
        )
        made = replay.forecasts
        replay.decisions.write_parquet(folder / "decisions.parquet")
    else:
        made = replay_method(
            METHODS[name], history, settings, settings.tickers, first, last, say=lambda _: None
        )
    cost = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
    _write_json(folder / f"{name}.json", cost)
    draft = _forecasts(folder, name).with_suffix(".tmp")
    made.select(FORECAST_COLUMNS).write_parquet(draft)
    draft.replace(_forecasts(folder, name))


def _score(folder: Path, market: Market, models: Sequence[str]) -> Measured:
    """Score the replays of one market, and write its page."""
    own = folder / market.name
    settings = load_settings(own / "settings.toml")
    last = _last(settings)
    bars, features = (Lake(settings.lake_dir).read(name) for name in ("bars", "features"))
    forecasts = {name: pl.read_parquet(_forecasts(own, name)) for name in models}
    volatility = features.select("day", "ticker", volatility="vol_ewma")
    found = evaluate(forecasts, labels(bars), volatility)
    titles = {name: METHODS[name].title for name in models if name in METHODS}
    content = ReportInput(
        evaluation=found,
        forecasts=forecasts[models[0]],
        bars=bars.filter(pl.col("day") >= market.first),
        decisions=pl.read_parquet(own / "decisions.parquet") if PRODUCT in models else None,
        titles=titles,
        first=market.first,
        last=last,
        tickers=settings.tickers,
    )
    write_report(content, folder / f"{market.name}.html")
    say(f"{market.name}: {found.verdict.sentence}")
    costs = {name: json.loads((own / f"{name}.json").read_text()) for name in models}
    return Measured(
        title=market.title,
        source=market.file.name,
        first=market.first,
        last=last,
        tickers=len(settings.tickers),
        candles=pl.scan_parquet(market.file).select(pl.len()).collect().item(),
        evaluation=found,
        titles=titles,
        costs=costs,
    )


def _training(folder: Path, market: Market) -> dict[str, Any]:
    """What a training and a day's forecasts cost on all the market holds, with no neighbour."""
    settings = load_settings(folder / market.name / "settings.toml")
    last = _last(settings)
    history = load_history(settings, settings.tickers, market.first, last, drift=False)
    with tempfile.TemporaryDirectory(prefix="stock-assets-bars-") as empty:
        registry = ReplayRegistry(Registry(Path(empty)))
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        found = replay_product(
            history, settings, settings.tickers, last, last, registry=registry, say=say
        )
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sessions = history.features.filter(pl.col("day") <= last)["day"].n_unique()
    reason = found.decisions["reason"][0]
    return {"wall": wall, "cpu": cpu, "sessions": sessions, "reason": reason}


def _last(settings: Settings) -> dt.date:
    """The last day whose outcomes are all there."""
    (exchange,) = settings.exchanges
    return get_calendar(exchange).back(settings.partitions.first_day, LABEL_SESSIONS)


def _forecasts(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"


def _in_processes(what: str, tasks: dict[str, tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    """Work the tasks off, two at a time; an error ends all."""
    # New processes, not forks: Polars' threads do not survive a fork.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        running: dict[Future[None], tuple[str, float]] = {}
        for name, (function, arguments) in tasks.items():
            running[pool.submit(function, *arguments)] = (name, time.monotonic())
        for done in as_completed(running):
            name, began = running[done]
            done.result()
            say(f"{what} {name}: there after {time.monotonic() - began:.0f} s")


def _kept(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not file.exists():
        _write_json(file, measure())
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
    draft.replace(file)


if __name__ == "__main__":
    main()
