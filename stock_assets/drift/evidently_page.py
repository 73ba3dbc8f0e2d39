"""What Evidently makes of two samples: one HTML page, one block a column.

The only place that knows Evidently. It runs in a process of its own (`drawing.py`), which loads it
while the run does other work. A `Report` of Evidently sends no telemetry (only its UI service
does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    from evidently.core.report import Snapshot

METHOD = "wasserstein"


@dataclass(frozen=True)
class Drawing:
    """What one page shows."""

    reference: pl.DataFrame
    """Rows of the reference sessions; holds the columns of `thresholds`."""
    current: pl.DataFrame
    thresholds: Mapping[str, float]
    """The columns to draw, in this order, with the distance above which each has drifted."""


def load() -> None:
    """Import Evidently: seconds, needed where a page is drawn and nowhere else."""
    import evidently.metrics  # noqa: F401


def drawn(drawing: Drawing) -> str:
    """The whole page, which carries its own scripts and opens without a network."""
    page: str = snapshot(drawing).get_html_str(as_iframe=False)
    return page


def snapshot(drawing: Drawing) -> Snapshot:
    """Evidently's own numbers and verdicts.

    One metric a column instead of the preset for drift: that computes everything three times to
    add a table, which our pages have with all thresholds, and a verdict on the share of drifted
    columns, which is not ours.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    columns = list(drawing.thresholds)
    metrics = [
        # Evidently says drift from the threshold on, our verdict above it.
        ValueDrift(column=name, method=METHOD, threshold=math.nextafter(limit, math.inf))
        for name, limit in drawing.thresholds.items()
    ]
    definition = DataDefinition(numerical_columns=columns)
    current, reference = (
        Dataset.from_pandas(part.select(columns).to_pandas(), data_definition=definition)
        for part in (drawing.current, drawing.reference)
    )
    return Report(metrics).run(current, reference)
