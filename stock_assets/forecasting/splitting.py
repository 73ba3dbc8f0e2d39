"""The one way in which labelled history is divided into training, calibration and validation.

In time, never by rows: training is earliest, validation latest, and no label window of one set
reaches into the next. Training and the gate both divide here, so that neither can leak alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import datetime as dt

CALIBRATION_DAYS = 250
VALIDATION_DAYS = 250
LATER_SHARE = 0.2
"""Calibration and validation are each at most this share of a short history's days."""

MIN_DAYS = 60
"""Labelled days below which there is nothing to divide."""


@dataclass(frozen=True)
class Split:
    """Where the sets begin. Each is the rows from its first day whose label ends by the next's.

    A label's window is the sessions after `day` up to `label_end`; a set that begins on day d has
    windows that begin after d's close, so an earlier label ending on d does not overlap them.
    """

    calibration_first: dt.date
    validation_first: dt.date
    end: dt.date

    def training(self) -> pl.Expr:
        """Rows of `labels` to fit on."""
        return pl.col("label_end") <= self.calibration_first

    def calibration(self) -> pl.Expr:
        """Rows to calibrate on before validation."""
        return (pl.col("day") >= self.calibration_first) & (
            pl.col("label_end") <= self.validation_first
        )

    def validation(self) -> pl.Expr:
        """Rows that the gate judges on."""
        return (pl.col("day") >= self.validation_first) & (pl.col("label_end") <= self.end)

    def parts(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """Training, calibration and validation."""
        return self.training(), self.calibration(), self.validation()


def split(labelled: pl.DataFrame, end: dt.date) -> Split | None:
    """The sets of the rows of `labelled` (day, label_end) whose labels are known at `end`'s close.

    Calibration and validation are the latest 250 days each, a fifth of the days each where history
    is short. None with fewer than 60 labelled days.
    """
    known = labelled.filter(pl.col("label_end") <= end)["day"].unique().sort()
    if len(known) < MIN_DAYS:
        return None
    validation = min(VALIDATION_DAYS, int(LATER_SHARE * len(known)))
    calibration = min(CALIBRATION_DAYS, int(LATER_SHARE * len(known)))
    return Split(known[-validation - calibration], known[-validation], end)
