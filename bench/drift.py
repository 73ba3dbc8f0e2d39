"""How often drift's verdicts are wrong, and what they find: docs/drift.md, measured.

`make drift`, or `python bench/drift.py --quick` for a small one. Simulated markets that do not
change say how often the verdicts alarm without cause; changes planted in them say how often and how
soon they are found; on real candles, where they are at hand, the days that alarm are listed, and
what it costs. With `--folder` a run that was interrupted goes on where it stopped, and one of more
markets adds to those that are there; `--again real` measures the real candles and the cost anew and
takes the simulated markets as they are, which is done in half a minute.

`--stationary` measures anew with what the package's histories begin, before any of the above:
stock_assets/drift/stationary.json.

The markets are in `drift_markets.py`, the page in `drift_report.py`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from bars import BUILT
from drift_features import compiled_features, features_of
from drift_markets import EXCHANGE, SECTORS, Change, market_settings, of_sector, simulate
from drift_report import drift_page
from market import get_market, write_settings
from measuring import say
from product import Product, first_of
from scales import LAST

from stock_assets.calendars import get_calendar
from stock_assets.drift import calibration
from stock_assets.drift.calibration import GRID, USUAL, block_maxima, upper_quantile
from stock_assets.drift.distances import distances, first_needed
from stock_assets.drift.kernels import normed_wasserstein, rises
from stock_assets.drift.quality import QUALITY_COLUMNS, faults
from stock_assets.drift.verdict import market_days, verdicts
from stock_assets.drift.watched import (
    DRIFT_FEATURES,
    PANEL_FEATURES,
    TARGET_CURRENT,
    TARGET_FEATURE,
    TARGET_REFERENCE,
)
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, rows
from stock_assets.settings import PROJECT_DIR, Settings, load_settings
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = PROJECT_DIR / "docs" / "drift.md"
STATIONARY = Path(calibration.__file__).with_name("stationary.json")

END = dt.date(2025, 12, 31)
TICKERS, SESSIONS, EVALUATED = 30, 1800, 500
"""Of each simulated market: the history behind the evaluated days fills the calibration's."""

VOLATILITY_TICKERS = (0, 7, 14, 21)
"""Those whose volatility trebles: four of four different sectors."""

PLANTS: dict[str, int] = {
    "unit error (x100)": 3,
    "stuck price": 3,
    "volatility x3 of one ticker": 10,
    "volatility x3 of the market": 10,
    "regime change in one sector": 20,
}
"""What is planted, and the sessions within which it is to be found."""

PROCESSES = 2


def main() -> None:
    """Measure what is not there yet, and write the page."""
    options = _options()
    if options.stationary:
        _write_stationary()
        return
    with tempfile.TemporaryDirectory(prefix="stock-assets-drift-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        settings = market_settings(TICKERS, EVALUATED, END)
        query = folder / "compiled" / "stock_assets" / "models" / "features.sql"
        if not query.exists():
            query = compiled_features(settings, END, folder)
        if options.again:
            options.markets = _measured_markets(folder)
            (folder / "real.json").unlink(missing_ok=True)
        markets = 8 if options.quick else options.markets
        calm = _each(folder, "calm", _calm, markets, query)
        planted = _each(folder, "planted", _planted, markets // 2, query)
        real = None if options.quick else _kept(folder / "real.json", lambda: _real(folder))
    today = dt.datetime.now(tz=dt.UTC).date()
    page = drift_page(calm, planted, real, PLANTS, _command(options), today)
    if options.quick:
        say(page)
        return
    DOCS.write_text(page, encoding="utf-8")
    say(f"written: {DOCS}")


_MARKETS = 200


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eight markets, no real candles")
    parser.add_argument("--markets", type=int, default=_MARKETS, help="how many are simulated")
    parser.add_argument("--folder", type=Path, help="go on in this folder, and keep it")
    parser.add_argument(
        "--stationary", action="store_true", help="measure with what histories begin"
    )
    parser.add_argument(
        "--again",
        choices=["real"],
        help="only the real candles and the cost anew; simulated markets as --folder has them",
    )
    options = parser.parse_args()
    if options.again and (options.quick or options.folder is None):
        parser.error("--again goes with the --folder that has the rest, and not with --quick")
    return options


def _measured_markets(folder: Path) -> int:
    """How many simulated markets `folder` has: changes are planted in half of them."""
    count = 0
    while all(
        (folder / f"{name}.json").exists()
        for name in (f"calm/{count}", f"calm/{count + 1}", f"planted/{count // 2}")
    ):
        count += 2
    if not count:
        sys.exit(f"{folder} has no simulated market: run bench/drift.py --folder {folder} first")
    return count


def _command(options: argparse.Namespace) -> str:
    given = [] if options.markets == _MARKETS else [f"--markets {options.markets}"]
    return " ".join(["python bench/drift.py", *given, *(["--quick"] if options.quick else [])])


def _days(count: int) -> tuple[dt.date, ...]:
    calendar = get_calendar(EXCHANGE)
    return calendar.between(calendar.back(END, count - 1), END)


def _calm(seed: int, query: Path) -> dict[str, Any]:
    """What a market that does not change makes the verdicts say: counts of months."""
    settings, days = market_settings(TICKERS, EVALUATED, END), _days(SESSIONS)
    bars = simulate(seed, TICKERS, days, Change.none(TICKERS, len(days)))
    features = features_of(bars, settings, END, query)
    area = Slice(settings.partitions.first_day, END, settings.tickers)
    drift = distances(features, area, settings)
    judged = market_days(drift, settings).with_columns(month=pl.col("day").dt.truncate("1mo"))
    above = {
        "pairs": pl.col("share") > pl.col("alarm"),
        "volatility": pl.col("rise") > pl.col("rise_alarm"),
        "sector": pl.col("sector_share") > pl.col("sector_alarm"),
    }
    months = judged.with_columns(
        **{name: expression.fill_null(value=False) for name, expression in above.items()}
    ).with_columns(market=pl.any_horizontal(*above))
    by_month = months.group_by("month").agg(pl.col("market", *above).any())
    found = faults(bars, area, settings).filter("drifted")
    return {
        "months": by_month.height,
        "days": months.height,
        "alarm_days": int(months["market"].sum()),
        **{name: int(by_month[name].sum()) for name in ("market", *above)},
        **_tickers(drift),
        "ticker_days": TICKERS * months.height,
        "faults": dict(found["feature"].value_counts().iter_rows()),
    }


def _tickers(drift: pl.DataFrame) -> dict[str, int]:
    """Ticker-months, and those in which the ticker's own verdict alarmed."""
    by_day = (
        drift.filter(pl.col("distance").is_not_null() & (pl.col("kind") != "quality"))
        .group_by("day", "ticker", "kind")
        .agg(
            pl.when(pl.col("kind").first() == "data")
            .then(pl.col("drifted").mean())
            .otherwise(pl.col("distance").first())
            .alias("value"),
            pl.col("ticker_alarm").first(),
        )
        .with_columns(month=pl.col("day").dt.truncate("1mo"))
    )
    months = by_day.group_by("ticker", "month").agg(
        (pl.col("value") > pl.col("ticker_alarm")).any().alias("alarmed")
    )
    return {"ticker_months": months.height, "ticker_alarms": int(months["alarmed"].sum())}


def _planted(seed: int, query: Path) -> dict[str, Any]:
    """By what was planted: [found, planted, sessions until found of those found]."""
    return {
        **_planted_in_prices(seed),
        **{
            name: _planted_change(name, seed, query)
            for name in PLANTS
            if "volatility" in name or "sector" in name
        },
    }


def _planted_in_prices(seed: int) -> dict[str, Any]:
    """A wrong unit and a stuck feed, each from some day on in every ticker."""
    settings, days = market_settings(TICKERS, 40, END), _days(400)
    calm = simulate(seed, TICKERS, days, Change.none(TICKERS, len(days)))
    first = days[-20]
    prices = pl.col("open", "high", "low", "close")
    later = pl.col("day") >= first
    before = pl.col("close").filter(pl.col("day") < first).last().over("ticker", order_by="day")
    made = {
        # One wrong candle: the day after is as before.
        "unit error (x100)": calm.with_columns(
            pl.when(pl.col("day") == first).then(prices * 100).otherwise(prices)
        ),
        "stuck price": calm.with_columns(
            pl.when(later).then(before).otherwise(pl.col(name)).alias(name)
            for name in ("open", "high", "low", "close")
        ),
    }
    area = Slice(first, days[-1], settings.tickers)
    return {
        name: _soonest(
            faults(bars, area, settings).filter("drifted"),
            settings.tickers,
            days,
            first,
            PLANTS[name],
        )
        for name, bars in made.items()
    }


def _soonest(
    alarmed: pl.DataFrame,
    tickers: tuple[str, ...],
    days: tuple[dt.date, ...],
    first: dt.date,
    within: int,
) -> list[Any]:
    """[found, planted, waits]: of tickers, by the first of their rows in `alarmed`."""
    start = days.index(first)
    waits = []
    for ticker in tickers:
        own = alarmed.filter(pl.col("ticker") == ticker)["day"].to_list()
        wait = min((days.index(day) - start + 1 for day in own if day >= first), default=None)
        if wait is not None and wait <= within:
            waits.append(wait)
    return [len(waits), len(tickers), waits]


def _planted_change(name: str, seed: int, query: Path) -> list[Any]:
    """A change of the market itself, from some day on."""
    within = PLANTS[name]
    settings, days = market_settings(TICKERS, within, END), _days(SESSIONS)
    change = Change.none(TICKERS, len(days))
    later = slice(len(days) - within, None)
    if "sector" in name:
        who: Any = of_sector(TICKERS, seed % SECTORS)
        # The change of regime of the sample market.
        change.volatility[who, later] = 2.5
        change.beta[who, later] = 1.4
        change.volume[who, later] = 1.6
        change.drift[who, later] = -0.0013
    else:
        who = list(range(TICKERS) if "market" in name else VOLATILITY_TICKERS)
        change.volatility[who, later] = 3.0
    bars = simulate(seed, TICKERS, days, change)
    features = features_of(bars, settings, END, query)
    first = days[-within]
    drift = distances(features, Slice(first, END, settings.tickers), settings)
    told = verdicts(drift, settings)
    if "one ticker" in name:
        moved = pl.DataFrame(
            [(said.day, ticker.ticker) for said in told for ticker in said.drifted_tickers],
            schema={"day": pl.Date, "ticker": pl.String},
            orient="row",
        )
        names = tuple(settings.tickers[number] for number in VOLATILITY_TICKERS)
        return _soonest(moved, names, days, first, within)
    waits = [number for number, said in enumerate(told, start=1) if said.moved][:1]
    return [len(waits), 1, waits]


def _real(folder: Path) -> dict[str, Any] | None:
    """The months of the Moscow development set that alarm, why, and what drift costs there."""
    own = folder / "real"
    market = get_market(own)
    if market.splits is None:
        say("real candles are not on this machine: simulated ones only")
        return None
    product = Product(write_settings(market, own, first_of(1, LAST)))
    if product.lake.version("features") is None:
        product.empty()
        names = ",".join(BUILT)
        product.command("run", "--from", f"{LAST}", "--to", f"{LAST}", "--assets", names)
    settings = load_settings(product.file)
    with connect(Lake(settings.lake_dir)) as connection:
        columns = ["day", "ticker", "exchange", *PANEL_FEATURES]
        features = rows(connection, "features", None, LAST, columns=columns)
        bars = rows(connection, "bars", None, LAST, columns=list(QUALITY_COLUMNS))
    first: dt.date = features["day"].min()  # type: ignore[assignment]
    everything = Slice(first, LAST, settings.tickers)
    began, before = time.monotonic(), _cpu()
    drift = pl.concat(
        [distances(features, everything, settings), faults(bars, everything, settings)]
    )
    years = {"wall": time.monotonic() - began, "cpu": _cpu() - before}
    alarmed: dict[str, list[Any]] = {}
    told = verdicts(drift.filter(pl.col("day").is_in(_moved(drift, settings))), settings)
    for said in told:
        causes = [cause for place in said.markets for cause in place.causes]
        alarmed.setdefault(f"{said.day:%Y-%m}", []).append([f"{said.day}", causes])
    in_months = drift["day"].dt.truncate("1mo").n_unique()
    found = drift.filter((pl.col("kind") == "quality") & pl.col("drifted"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        day = alone.submit(_daily, product.file).result()
    return {
        "tickers": len(settings.tickers),
        "months": in_months,
        "alarmed": alarmed,
        **_tickers(drift),
        "ticker_days": bars.height,
        "faults": dict(found["feature"].value_counts().iter_rows()),
        "years": years,
        "day": day,
    }


def _moved(drift: pl.DataFrame, settings: Settings) -> pl.Series:
    judged = market_days(drift, settings)
    return judged.filter(
        (pl.col("share") > pl.col("alarm"))
        | (pl.col("rise") > pl.col("rise_alarm"))
        | (pl.col("sector_share") > pl.col("sector_alarm"))
    )["day"].implode()


def _daily(file: Path) -> dict[str, float]:
    """A day's numbers and pages in a process of its own: Evidently's import included."""
    settings = load_settings(file)
    area = Slice(LAST, LAST, settings.tickers)
    began, before = time.monotonic(), _cpu()
    with connect(Lake(settings.lake_dir)) as connection:
        columns = ["day", "ticker", "exchange", *PANEL_FEATURES]
        start = first_needed(LAST, settings)
        features = rows(connection, "features", start, LAST, columns=columns)
        bars = rows(connection, "bars", start, LAST, columns=list(QUALITY_COLUMNS))
    drift = pl.concat([distances(features, area, settings), faults(bars, area, settings)])
    numbers = time.monotonic() - began
    # As without the process that draws for a run: Evidently's import is part of it.
    from stock_assets.drift.evidently_page import drawn  # noqa: PLC0415
    from stock_assets.drift.reports import write_pages  # noqa: PLC0415

    pages = write_pages(features, drift, settings, drawn)
    return {
        "numbers": numbers,
        "pages": len(pages),
        "wall": time.monotonic() - began,
        "cpu": _cpu() - before,
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _write_stationary() -> None:
    """Quantiles of the statistics in markets that do not change, by number of tickers."""
    markets, tickers, sessions = 8, 64, 1600
    pairs, weeks = 40, 24
    settings, days = market_settings(tickers, 1, END), _days(sessions)
    found: list[tuple[Any, Any]] = []
    with tempfile.TemporaryDirectory(prefix="stock-assets-drift-") as folder:
        query = compiled_features(settings, END, Path(folder))
        for seed in range(markets):
            bars = simulate(9000 + seed, tickers, days, Change.none(tickers, sessions))
            found.append(_measured(features_of(bars, settings, END, query), settings, days))
            say(f"market {seed + 1} of {markets}")
    blocks: dict[str, dict[str, list[float]]] = {"share": {}, "rise": {}}
    current, per_block = settings.drift.current, settings.drift.current // GRID
    for size in (1, 4, 16, 64):
        shares, risen = [], []
        for distance, rise in found:
            for start in range(0, tickers, size):
                part = distance[:, start : start + size]
                usual = upper_quantile(part, 1 - USUAL)
                share = (part > usual[:, :, None]).mean(axis=(0, 1))
                shares.append(block_maxima(share, per_block))
                risen.append(block_maxima(rise[start : start + size].mean(axis=0), current))
        blocks["share"][f"{size}"] = _quantiles(np.concatenate(shares), weeks)
        blocks["rise"][f"{size}"] = _quantiles(np.concatenate(risen), weeks)
    content = {
        "distances": {
            name: _quantiles(np.concatenate([item[0][number].ravel() for item in found]), pairs)
            for number, name in enumerate(DRIFT_FEATURES)
        },
        "blocks": blocks,
    }
    STATIONARY.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    say(f"written: {STATIONARY}")


def _measured(
    features: pl.DataFrame, settings: Settings, days: tuple[dt.date, ...]
) -> tuple[Any, Any]:
    """Distances (feature, ticker, grid) and rises (ticker, session) of one market."""
    drift = settings.drift
    length = drift.reference + drift.current
    wide = {
        name: features.select("day", "ticker", name)
        .pivot("day", index="ticker", values=name)
        .sort("ticker")
        .drop("ticker")
        .cast(pl.Float64)
        .to_numpy()
        for name in PANEL_FEATURES
    }
    # After the longest norm (63 sessions of volume) has its values.
    ends = np.arange(length + 64, len(days), GRID)
    distance = []
    for name in DRIFT_FEATURES:
        view = np.lib.stride_tricks.sliding_window_view(wide[name], length, axis=1)
        samples = view[:, ends - length + 1].reshape(-1, length)
        normed = normed_wasserstein(samples[:, : drift.reference], samples[:, drift.reference :])[0]
        distance.append(normed.reshape(-1, len(ends)))
    rise = rises(wide[TARGET_FEATURE], TARGET_REFERENCE, TARGET_CURRENT)[0]
    return np.stack(distance), rise[:, TARGET_REFERENCE + TARGET_CURRENT :]


def _quantiles(values: Any, count: int) -> list[float]:
    shares = (np.arange(count) + 0.5) / count
    return [round(float(value), 4) for value in np.nanquantile(values, shares)]


def _each(
    folder: Path,
    what: str,
    function: Callable[[int, Path], dict[str, Any]],
    markets: int,
    query: Path,
) -> list[dict[str, Any]]:
    """What `function` finds in each simulated market, two at a time; kept at once."""
    own = folder / what
    own.mkdir(exist_ok=True)
    missing = [seed for seed in range(markets) if not (own / f"{seed}.json").exists()]
    # New processes, not forks: Polars' threads do not survive a fork.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        found = pool.map(function, missing, [query] * len(missing))
        for number, (seed, content) in enumerate(zip(missing, found, strict=True), start=1):
            _write_json(own / f"{seed}.json", content)
            if number % 10 == 0 or number == len(missing):
                say(f"{what}: {number} of {len(missing)} markets")
    return [
        json.loads((own / f"{seed}.json").read_text(encoding="utf-8")) for seed in range(markets)
    ]


def _kept(file: Path, measure: Callable[[], Any]) -> Any:
    if not file.exists():
        _write_json(file, measure())
    return json.loads(file.read_text(encoding="utf-8"))


def _write_json(file: Path, content: Any) -> None:
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(file)


if __name__ == "__main__":
    sys.exit(main())
