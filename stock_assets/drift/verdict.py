"""What the numbers say: which markets, sectors and tickers have moved, and what moved them.

The one place for it: the checks, the model's decision, the pages and the command line all ask here.
The numbers and their thresholds are rows of `drift`, made by `distances.py` and `quality.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.drift.quality import BLOCKING, fault_words
from stock_assets.drift.watched import DATA, QUALITY, TARGET

if TYPE_CHECKING:
    import datetime as dt

    from stock_assets.settings import Settings

_TOP = 3

MOST = 2 / 3
"""The share of the tickers that a market, or a sector, has had lately with which it is judged.

Candles come ticker by ticker, and a day is run as soon as there are any. The alarms are those of
the whole market: the mean of a few of its tickers is above them because they are few.
"""


@dataclass(frozen=True)
class Reason:
    """One feature that has drifted in some tickers."""

    feature: str
    share: float
    """Share of the feature's measured tickers in which it drifted."""
    median_distance: float
    """Median distance over the same tickers."""

    def __str__(self) -> str:
        return f"{self.feature} in {self.share:.0%} of tickers (median {self.median_distance:.2f})"


@dataclass(frozen=True)
class Signal:
    """What the markets of one day say to whoever decides about a training."""

    share: float | None
    """Share of drifted pairs of the market that is nearest to, or furthest above, its alarm; None
    while too few tickers have come to judge any."""
    alarm: str | None
    """Which markets have moved and why, in words; None when none has."""


@dataclass(frozen=True)
class Market:
    """Whether the tickers of one exchange have moved on one day.

    A pair is a (ticker, feature) whose distance could be measured.
    """

    exchange: str
    tickers: tuple[str, ...]
    come: int
    """Tickers with rows of the day, measured or not."""
    usual: int | None
    """Tickers that a session has had lately; None where that is not known."""
    judged: bool
    """Whether most of them have come. Without them no alarm is known, and it has not moved."""
    pairs: int
    drifted: int
    share: float
    """drifted / pairs."""
    alarm: float | None
    """Share above which the market has moved."""
    rise: float | None
    """Mean rise of the tickers' log variance, a week against the three before."""
    rise_alarm: float | None
    sector: str | None
    """The sector whose share exceeds the market's most, in units of what it may."""
    sector_share: float | None
    sector_alarm: float | None
    """Its share above which it has moved."""
    reasons: tuple[Reason, ...]
    """Drifted features, the most widespread first."""

    @property
    def causes(self) -> tuple[str, ...]:
        """What is above its alarm, in words."""
        return _causes(
            self.share,
            self.alarm,
            self.rise,
            self.rise_alarm,
            self.sector,
            self.sector_share,
            self.sector_alarm,
        )

    @property
    def moved(self) -> bool:
        """Whether so much drifted at once that the market is another one."""
        return bool(self.causes)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if not self.judged:
            return f"{self.exchange} is {waiting_words(self.come, self.usual)}"
        counted = (
            f"{self.drifted:,} of {self.pairs:,} (ticker, feature) pairs drifted "
            f"({self.share:.1%}, alarm {_above(self.alarm)}), {len(self.tickers)} ticker(s)"
        )
        state = f"has moved: {'; '.join(self.causes)}" if self.moved else "has not moved"
        most = "; ".join(str(reason) for reason in self.reasons[:_TOP])
        return f"{self.exchange} {state}. {counted}" + (f". Most: {most}" if most else "")


@dataclass(frozen=True)
class Ticker:
    """Whether one ticker has moved, whatever its market did."""

    ticker: str
    share: float | None
    """Share of its features that have drifted."""
    alarm: float | None
    rise: float | None
    rise_alarm: float | None
    features: tuple[tuple[str, float, float], ...]
    """Drifted features: name, distance, threshold; the furthest above it first."""

    @property
    def moved(self) -> bool:
        """Whether it is above one of its alarms."""
        return _is_above(self.share, self.alarm) or _is_above(self.rise, self.rise_alarm)

    @property
    def causes(self) -> tuple[str, ...]:
        """What is above its alarm, in words."""
        found = []
        if self.share is not None and _is_above(self.share, self.alarm):
            found.append(f"{self.share:.0%} of features drifted (alarm {_above(self.alarm)})")
        if self.rise is not None and _is_above(self.rise, self.rise_alarm):
            found.append(
                f"volatility rose by {self.rise:.2f} in log variance "
                f"(alarm above {self.rise_alarm:.2f})"
            )
        return tuple(found)

    @property
    def sentence(self) -> str:
        """What is above its alarm, and what has drifted most, in words."""
        most = ", ".join(
            f"{name} {distance:.2f} (usual up to {threshold:.2f})"
            for name, distance, threshold in self.features[:_TOP]
        )
        said = [*self.causes, *([f"most: {most}"] if most else [])]
        return f"{self.ticker}: {'; '.join(said) or 'nothing has drifted'}"


@dataclass(frozen=True)
class Fault:
    """Something about a ticker's prices that cannot be right."""

    ticker: str
    fault: str
    distance: float
    threshold: float

    @property
    def blocks(self) -> bool:
        """Whether nothing is forecast from such prices."""
        return self.fault in BLOCKING

    @property
    def sentence(self) -> str:
        """The fault in words."""
        return f"{self.ticker}: {fault_words(self.fault, self.distance, self.threshold)}"


@dataclass(frozen=True)
class Verdict:
    """What one day's rows say."""

    day: dt.date
    markets: tuple[Market, ...]
    """By exchange; those with a measured pair."""
    tickers: tuple[Ticker, ...]
    """By name; those with anything measured."""
    faults: tuple[Fault, ...]

    @property
    def moved(self) -> bool:
        """Whether a market has moved."""
        return any(market.moved for market in self.markets)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Exchanges that are not judged yet."""
        return tuple(market.exchange for market in self.markets if not market.judged)

    @property
    def drifted_tickers(self) -> tuple[Ticker, ...]:
        """Tickers that have moved, the one furthest above its alarm first."""
        moved = [ticker for ticker in self.tickers if ticker.moved]
        return tuple(sorted(moved, key=lambda item: (-_times_alarm(item), item.ticker)))

    @property
    def sentence(self) -> str:
        """The verdict in words, what has moved first."""
        ordered = sorted(self.markets, key=lambda market: not market.moved)
        said = "; ".join(market.sentence for market in ordered)
        return f"{self.day}: {said or 'nothing to compare yet'}"


def verdicts(drift: pl.DataFrame, settings: Settings) -> list[Verdict]:
    """The verdict of each day in `drift` (rows of `schemas.Drift`), in the order of days.

    Days on which nothing could be measured have none.
    """
    measured = drift.filter(pl.col("distance").is_not_null()).sort("day", "ticker", "feature")
    markets = market_days(drift, settings)
    return [
        Verdict(
            day,
            tuple(
                _market(row, rows, settings)
                for row in markets.filter(pl.col("day") == day).iter_rows(named=True)
            ),
            tuple(
                _ticker(str(ticker), own)
                for (ticker,), own in rows.filter(pl.col("kind") != QUALITY).group_by(
                    "ticker", maintain_order=True
                )
            ),
            tuple(
                Fault(row["ticker"], row["feature"], row["distance"], row["threshold"])
                for row in rows.filter((pl.col("kind") == QUALITY) & pl.col("drifted")).iter_rows(
                    named=True
                )
            ),
        )
        for (day,), rows in measured.group_by("day", maintain_order=True)
    ]


def signals(drift: pl.DataFrame, settings: Settings) -> dict[dt.date, Signal]:
    """Each day's `Signal` and nothing else, for ten years in the time of one verdict."""
    found: dict[dt.date, Signal] = {}
    for (day,), rows in market_days(drift, settings).group_by("day", maintain_order=True):
        markets = [
            (row, _causes(*(row[name] for name in _CAUSES))) for row in rows.iter_rows(named=True)
        ]
        moved = [f"{row['exchange']}: {'; '.join(causes)}" for row, causes in markets if causes]
        nearest = max(
            (item for item in markets if item[0]["judged"]),
            key=lambda item: (bool(item[1]), _ratio(item[0])),
            default=None,
        )
        share = nearest[0]["share"] if nearest else None
        found[day] = Signal(share, "; ".join(moved) or None)
    return found


_CAUSES = (
    "share",
    "alarm",
    "rise",
    "rise_alarm",
    "sector",
    "sector_share",
    "sector_alarm",
)


@dataclass(frozen=True)
class MarketOutline:
    """One market of one day in a line of a list."""

    exchange: str
    come: int
    usual: int | None
    judged: bool
    share: float
    alarm: float | None
    causes: tuple[str, ...]
    """As of `Market`; none where it has not moved."""


@dataclass(frozen=True)
class Outline:
    """A day's `Verdict` as a line of a list."""

    day: dt.date
    markets: tuple[MarketOutline, ...]
    drifted_tickers: tuple[str, ...]
    """The one furthest above its alarm first."""
    faults: tuple[tuple[str, str, bool], ...]
    """Ticker, fault, and whether it blocks."""


_OUTLINED = ("exchange", "come", "usual", "judged", "share", "alarm")


def outlines(drift: pl.DataFrame, settings: Settings) -> list[Outline]:
    """What `verdicts` would say of each day, in short: a hundred days in the time of one."""
    markets: dict[object, list[MarketOutline]] = {}
    for row in market_days(drift, settings).iter_rows(named=True):
        causes = _causes(*(row[name] for name in _CAUSES))
        outline = MarketOutline(**{name: row[name] for name in _OUTLINED}, causes=causes)
        markets.setdefault(row["day"], []).append(outline)
    measured = drift.filter(pl.col("distance").is_not_null())
    of_kind = {kind: pl.col("kind") == kind for kind in (DATA, TARGET)}
    ratios = [
        pl.when(value > alarm).then(value / alarm.clip(1e-9))
        for value, alarm in (
            (
                pl.col("drifted").filter(of_kind[DATA]).mean(),
                pl.col("ticker_alarm").filter(of_kind[DATA]).max(),
            ),
            (
                pl.col("distance").filter(of_kind[TARGET]).first(),
                pl.col("ticker_alarm").filter(of_kind[TARGET]).max(),
            ),
        )
    ]
    moved = _lists(
        measured.group_by("day", "ticker")
        .agg(times=pl.max_horizontal(ratios))
        .filter(pl.col("times").is_not_null())
        .sort("day", "times", "ticker", descending=[False, True, False])
        .select("day", "ticker")
    )
    faults = _lists(
        measured.filter((pl.col("kind") == QUALITY) & pl.col("drifted"))
        .sort("day", "ticker", "feature")
        .select("day", "ticker", "feature", pl.col("feature").is_in(list(BLOCKING)).alias("blocks"))
    )
    return [
        Outline(
            day,
            tuple(markets.get(day, ())),
            tuple(ticker for (ticker,) in moved.get(day, ())),
            tuple(faults.get(day, ())),
        )
        for day in measured["day"].unique().sort()
    ]


def _lists(rows: pl.DataFrame) -> dict[object, list[tuple[Any, ...]]]:
    """The rows of each day, without it."""
    found: dict[object, list[tuple[Any, ...]]] = {}
    for day, *rest in rows.iter_rows():
        found.setdefault(day, []).append(tuple(rest))
    return found


def market_days(drift: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """What each market of each day is judged by: one row a (day, exchange), sorted.

    Columns: day, exchange, come, usual, judged, pairs, drifted, share, alarm, rise, rise_alarm, and
    the sector that is nearest to its alarm with its share and the share above which it has moved.
    A market of which only few tickers have come is not judged: it has no alarms. Such a sector is
    left out. `drift` is all of a day's rows, also those without a distance.
    """
    of_ticker = pl.DataFrame(
        [(item.ticker, item.exchange, item.sector) for item in settings.universe],
        schema={"ticker": pl.String, "exchange": pl.String, "sector": pl.String},
        orient="row",
    )
    known = drift.join(of_ticker, on="ticker")
    measured = known.filter(pl.col("distance").is_not_null())
    data = measured.filter(pl.col("kind") == DATA)
    key = ["day", "exchange"]
    there = known.filter(pl.col("kind") == DATA)
    come = _come(there, key, "market_tickers")
    whole_sectors = _come(there, [*key, "sector"], "sector_tickers").filter("judged")
    counted = data.group_by(key).agg(
        pairs=pl.len(),
        drifted=pl.col("drifted").sum(),
        share=pl.col("drifted").mean(),
        alarm=pl.col("market_alarm").max(),
    )
    risen = (
        measured.filter(pl.col("kind") == TARGET)
        .group_by(key)
        .agg(rise=pl.col("distance").mean(), rise_alarm=pl.col("market_alarm").max())
    )
    sectors = (
        data.filter(pl.col("sector") != "")
        .join(whole_sectors, on=[*key, "sector"], how="semi")
        .group_by([*key, "sector"])
        .agg(sector_share=pl.col("drifted").mean(), excess=pl.col("sector_alarm").max())
        .filter(pl.col("excess").is_not_null())
        .join(counted.select(*key, "share"), on=key)
        .with_columns(sector_alarm=pl.col("share") + pl.col("excess"))
        .sort(
            *key,
            (pl.col("sector_share") - pl.col("share")) / pl.col("excess").clip(1e-9),
            "sector",
        )
        .group_by(key, maintain_order=True)
        .last()
        .select(*key, "sector", "sector_share", "sector_alarm")
    )
    alarms = ("alarm", "rise_alarm", "sector", "sector_share", "sector_alarm")
    return (
        come.join(counted, on=key)
        .join(risen, on=key, how="left")
        .join(sectors, on=key, how="left")
        .with_columns(pl.when("judged").then(pl.col(alarms)))
        .sort(key)
    )


def _come(rows: pl.DataFrame, key: list[str], usual: str) -> pl.DataFrame:
    """How many tickers each group has, how many it has had lately, and whether that is most.

    Rows of tickers that came when the others had not know the same: that of earlier sessions. Rows
    from before that was counted do not, and are judged.
    """
    return (
        rows.group_by(key)
        .agg(come=pl.col("ticker").n_unique(), usual=pl.col(usual).max())
        .with_columns(
            judged=(pl.col("come") >= MOST * pl.col("usual")).fill_null(value=True),
        )
    )


def waiting_words(come: int, usual: int | None) -> str:
    """What is said of a market that is not judged."""
    return f"not judged yet: {come} of {usual} tickers have come"


def _market(row: dict[str, object], rows: pl.DataFrame, settings: Settings) -> Market:
    of_market = [item.ticker for item in settings.universe if item.exchange == row["exchange"]]
    own = rows.filter((pl.col("kind") == DATA) & pl.col("ticker").is_in(of_market))
    by_feature = (
        own.group_by("feature")
        .agg(share=pl.col("drifted").mean(), median_distance=pl.col("distance").median())
        .filter(pl.col("share") > 0)
        .sort(["share", "median_distance", "feature"], descending=[True, True, False])
    )
    fields = {name: value for name, value in row.items() if name != "day"}
    return Market(
        **fields,  # type: ignore[arg-type]  # the columns of market_days are its fields
        tickers=tuple(own["ticker"].unique(maintain_order=True)),
        reasons=tuple(Reason(**reason) for reason in by_feature.iter_rows(named=True)),
    )


def _ticker(ticker: str, rows: pl.DataFrame) -> Ticker:
    data = rows.filter(pl.col("kind") == DATA)
    target = rows.filter(pl.col("kind") == TARGET)
    drifted = (
        rows.filter(pl.col("drifted"))
        .with_columns(times=pl.col("distance") / pl.col("threshold"))
        .sort(["times", "feature"], descending=[True, False])
        .select("feature", "distance", "threshold")
    )
    share = data["drifted"].mean()
    return Ticker(
        ticker,
        share if isinstance(share, float) else None,
        _largest(data["ticker_alarm"]),
        None if target.is_empty() else target["distance"][0],
        _largest(target["ticker_alarm"]),
        tuple(drifted.iter_rows()),
    )


def _largest(alarms: pl.Series) -> float | None:
    """The alarm level that all of them are, where it is known."""
    found = alarms.max()
    return found if isinstance(found, float) else None


def _causes(  # noqa: PLR0913, PLR0917
    share: float,
    alarm: float | None,
    rise: float | None,
    rise_alarm: float | None,
    sector: str | None,
    sector_share: float | None,
    sector_alarm: float | None,
) -> tuple[str, ...]:
    found = []
    if _is_above(share, alarm):
        found.append(f"{share:.0%} of pairs drifted (alarm {_above(alarm)})")
    if rise is not None and _is_above(rise, rise_alarm):
        found.append(
            f"volatility rose by {rise:.2f} on average in log variance "
            f"(alarm above {rise_alarm:.2f})"
        )
    if sector_share is not None and _is_above(sector_share, sector_alarm):
        found.append(
            f"sector {sector}: {sector_share:.0%} of pairs drifted (alarm {_above(sector_alarm)})"
        )
    return tuple(found)


def _is_above(value: float | None, alarm: float | None) -> bool:
    return value is not None and alarm is not None and value > alarm


def _above(alarm: float | None) -> str:
    return "not known yet" if alarm is None else f"above {alarm:.0%}"


def _ratio(row: dict[str, object]) -> float:
    share, alarm = row["share"], row["alarm"]
    assert isinstance(share, float)
    return share / max(alarm, 1e-9) if isinstance(alarm, float) else share


def _times_alarm(item: Ticker) -> float:
    pairs = ((item.share, item.alarm), (item.rise, item.rise_alarm))
    return max(
        value / max(alarm, 1e-9)
        for value, alarm in pairs
        if value is not None and alarm is not None
    )
