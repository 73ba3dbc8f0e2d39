"""What the distances say about the universe: has it moved, and what moved it.

The one place for the share of drifted pairs: the check, the model's decision, the pages and the
command line all ask here. The distances are in `distances.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import datetime as dt

    from stock_assets.settings import Settings

_TOP = 3


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
class Verdict:
    """Whether the universe has moved on one day.

    A pair is a (ticker, feature) whose distance could be measured. Tickers that no pair is of
    (too few sessions, no session on the day) have no voice.
    """

    day: dt.date
    tickers: tuple[str, ...]
    pairs: int
    drifted: int
    share: float
    """drifted / pairs."""
    alarm_share: float
    """The share from which the universe has moved (settings: drift.universe_share)."""
    reasons: tuple[Reason, ...]
    """Drifted features, the most widespread first."""

    @property
    def moved(self) -> bool:
        """Whether so many pairs drifted at once that the universe is another one."""
        return self.share >= self.alarm_share

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        text = (
            f"{self.day}: the universe has {'moved' if self.moved else 'not moved'}: "
            f"{self.drifted:,} of {self.pairs:,} (ticker, feature) pairs drifted "
            f"({self.share:.1%}, alarm from {self.alarm_share:.0%}), {len(self.tickers)} ticker(s)"
        )
        most = "; ".join(str(reason) for reason in self.reasons[:_TOP])
        return f"{text}. Most: {most}" if most else text


def universe_verdict(drift: pl.DataFrame, settings: Settings) -> list[Verdict]:
    """The verdict of each day in `drift` (rows of `schemas.Drift`), in the order of days.

    Days without a single measured pair have none.
    """
    measured = drift.filter(pl.col("distance").is_not_null()).sort("day", "ticker", "feature")
    return [
        _of_day(rows, settings.drift.universe_share)
        for rows in measured.partition_by("day", maintain_order=True)
    ]


def drifted_shares(drift: pl.DataFrame) -> dict[dt.date, float]:
    """Each day's `Verdict.share` and nothing else, for ten years in the time of one verdict."""
    shares = (
        drift.filter(pl.col("distance").is_not_null())
        .group_by("day")
        .agg((pl.col("drifted").sum() / pl.len()).alias("share"))
        .sort("day")
    )
    return dict(shares.select("day", "share").iter_rows())


def _of_day(rows: pl.DataFrame, alarm_share: float) -> Verdict:
    by_feature = (
        rows.group_by("feature")
        .agg(share=pl.col("drifted").mean(), median_distance=pl.col("distance").median())
        .filter(pl.col("share") > 0)
        .sort(["share", "median_distance", "feature"], descending=[True, True, False])
    )
    drifted = int(rows["drifted"].sum())
    return Verdict(
        day=rows["day"][0],
        tickers=tuple(rows["ticker"].unique(maintain_order=True)),
        pairs=rows.height,
        drifted=drifted,
        share=drifted / rows.height,
        alarm_share=alarm_share,
        reasons=tuple(Reason(**row) for row in by_feature.iter_rows(named=True)),
    )
