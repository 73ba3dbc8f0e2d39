"""The Evidently page of a day: the universe's features then and now, drawn once, as one file.

The page pools the tickers, which shows shapes; what counts is the verdict (`verdict.py`), which
judges every ticker by itself and stands at the top of the page. The page carries its own scripts
and opens without a network. A `Report` of Evidently sends no telemetry (only its UI service does).
"""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.drift.distances import DRIFT_FEATURES, windows
from stock_assets.errors import LakeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.drift.verdict import Verdict
    from stock_assets.settings import DriftSettings, Settings

_METHOD = "wasserstein"
_SHOWN_TICKERS = 12
_STYLE = (
    "max-width:1180px;margin:24px auto 8px;padding:0 24px;font:15px/1.5 Roboto,Helvetica,sans-serif"
)


def write_report(features: pl.DataFrame, verdict: Verdict, settings: Settings, path: Path) -> Path:
    """Draw the page of the verdict's day and save it at `path`, in place of an earlier one.

    `features` are rows of `schemas.Features` as for `distances`; the page pools the tickers that
    the verdict is about. The file is there whole or not at all. Raises `LakeError` when it cannot
    be written.
    """
    reference, current = pooled_windows(features, verdict, settings)
    columns = [name for name in DRIFT_FEATURES if _has_values(reference, current, name)]
    page = _drawn(reference.select(columns), current.select(columns), settings.drift)
    missing = [name for name in DRIFT_FEATURES if name not in columns]
    header = _header(verdict, reference, current, settings, missing)
    title = f"<title>Drift {verdict.day}</title>"
    page = page.replace("</head>", title + "</head>", 1).replace("<body>", "<body>" + header, 1)
    _save(page, path)
    return path


def pooled_windows(
    features: pl.DataFrame, verdict: Verdict, settings: Settings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of all the verdict's tickers in the reference and in the current sessions of its day.

    Each ticker's windows are those of its own exchange. Columns: day, ticker, DRIFT_FEATURES.
    """
    by_exchange: dict[str, list[str]] = {}
    for ticker in verdict.tickers:
        by_exchange.setdefault(settings.instrument(ticker).exchange, []).append(ticker)
    parts: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
    chosen = features.select("day", "ticker", *DRIFT_FEATURES)
    for exchange, tickers in by_exchange.items():
        own = chosen.filter(pl.col("ticker").is_in(tickers))
        spans = windows(verdict.day, exchange, settings.drift)
        for part, sessions in zip(parts, spans, strict=True):
            part.append(own.filter(pl.col("day").is_in(list(sessions))))
    return pl.concat(parts[0]), pl.concat(parts[1])


def _drawn(reference: pl.DataFrame, current: pl.DataFrame, drift: DriftSettings) -> str:
    # Seconds of import, needed where a page is drawn and nowhere else.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    preset = DataDriftPreset(
        columns=reference.columns,
        method=_METHOD,
        threshold=drift.feature_threshold,
        drift_share=drift.universe_share,
        include_tests=False,
    )
    definition = DataDefinition(numerical_columns=reference.columns)
    snapshot = Report([preset]).run(
        Dataset.from_pandas(current.to_pandas(), data_definition=definition),
        Dataset.from_pandas(reference.to_pandas(), data_definition=definition),
    )
    page: str = snapshot.get_html_str(as_iframe=False)
    return page


def _has_values(reference: pl.DataFrame, current: pl.DataFrame, name: str) -> bool:
    return bool(reference[name].count() and current[name].count())


def _header(
    verdict: Verdict,
    reference: pl.DataFrame,
    current: pl.DataFrame,
    settings: Settings,
    missing: Sequence[str],
) -> str:
    colour = "#b3261e" if verdict.moved else "#1b6e3c"
    shown = ", ".join(verdict.tickers[:_SHOWN_TICKERS])
    more = len(verdict.tickers) - _SHOWN_TICKERS
    lines = [
        _window("Current", current, settings.drift.current),
        _window("Reference", reference, settings.drift.reference),
        f"Tickers ({len(verdict.tickers)}): {shown}" + (f" and {more} more" if more > 0 else ""),
        (
            "A (ticker, feature) pair has drifted from a normed Wasserstein distance of "
            f"{settings.drift.feature_threshold:g} on; the universe has moved from "
            f"{verdict.alarm_share:.0%} drifted pairs on."
        ),
        (
            "Below, Evidently compares all tickers pooled: its count of drifted columns shows "
            "where to look, the verdict above is what the check and the model go by."
        ),
    ]
    if missing:
        lines.append(f"Left out, without values: {', '.join(missing)}")
    items = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    return (
        f'<header style="{_STYLE}"><h1 style="font-size:26px;margin:0">Drift of the universe on '
        f'{verdict.day}</h1><p style="color:{colour};font-weight:600">'
        f"{html.escape(verdict.sentence)}</p>{items}</header>"
    )


def _window(name: str, rows: pl.DataFrame, sessions: int) -> str:
    days = rows["day"]
    return (
        f"{name}: {days.min()!s} to {days.max()!s}, {sessions} sessions of each ticker's exchange, "
        f"{rows.height:,} rows"
    )


def _save(page: str, path: Path) -> None:
    """Write beside the place, then rename: a reader sees the old page or the new one."""
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, suffix=".partial", delete=False
        ) as file:
            partial = Path(file.name)
            file.write(page)
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        message = (
            f"drift page {path} cannot be written ({error.strerror}); make the folder writable, "
            "free space, or change lake.path"
        )
        raise LakeError(message) from error
