"""The page of what retraining was worth: one HTML file that needs no network.

Draws what `worth.py` found; computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from stock_assets.forecasting import html_page as page
from stock_assets.forecasting.worth import FIRST, ORDER, REJECTED, REPLACED, RETRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from stock_assets.forecasting.worth import Line, Tested, Worth

_COLOURS = (page.SUBJECT, "#d97706", "#059669", "#9333ea")

_HEADS = ["day", "why", "in force after it", "in shadow", "days", "loss below", "t", "p", "is"]


@dataclass(frozen=True)
class WorthPage:
    """What a page shows."""

    worth: Worth
    about: str
    """Where the numbers come from, and of which days."""
    length: int
    """Sessions for which a shadow runs."""


def write_worth(content: WorthPage, file: Path) -> None:
    """Write the page to `file`, making its folder. Raises `OSError` when it cannot."""
    page.save(worth_page(content), file)


def worth_page(content: WorthPage) -> str:
    """The page. The same content gives the same text."""
    found = content.worth
    note = (
        f"For {content.length} sessions, or until the next change, the other model is asked for "
        "the same cells as the live one. Loss below: by how much the live pinball loss is below "
        "the other's, averaged over each day's cells first; t: Diebold and Mariano's with "
        "Newey-West errors; p: chance of a |t| as large between equals. Better or worse is said "
        "where that holds for all lines of the table at once (Holm), at 5 %."
    )
    rejected = "The challengers that the gate rejected, in shadow: better means the gate was right."
    sections = [
        ("Saved so far", page.figure(_saved, found, (10.4, 3.6)), _SAVED_NOTE),
        ("Retrains", _lines(found.of(RETRAIN), found.total), note),
        ("Retrains by why they were tried", _causes(found), ""),
        ("Other rules of when to train", _policies(found), _POLICY_NOTE),
        ("Rejected trainings", _lines(found.of(REJECTED), None), rejected),
        ("First models, beside the baseline", _lines(found.of(FIRST), None), ""),
        ("Orders and demotions", _lines(found.of(ORDER), None), ""),
    ]
    body = (
        f'<h1>What retraining was worth</h1><p class="about">{page.text(content.about)}</p>'
        f'<p class="verdict">{page.text(found.sentence)}.</p>'
    )
    return page.page(
        "What retraining was worth", body + "".join(page.section(*s) for s in sections)
    )


_SAVED_NOTE = (
    "Loss that retraining has saved so far beside what else could have been, in days' losses: 1 is "
    "the loss of one average day. A line that falls says it cost."
)
_POLICY_NOTE = (
    "Each rule replayed over the same days with the same gate, from the same model. Loss below: "
    "by how much the loss of the settings' own rule is below that of the other."
)


def _lines(lines: Sequence[Line], total: Tested | None) -> str:
    if not lines:
        return ""
    told = [
        (False, [str(line.day), *map(page.text, (line.cause, line.model, line.shadow_model)),
                 *_numbers(line.tested)])
        for line in lines
    ]  # fmt: skip
    if total is not None:
        told.append((True, ["all", "", "", "", *_numbers(total)]))
    return page.table(_HEADS, told)


def _causes(found: Worth) -> str:
    heads = ["why", "retrains", *_HEADS[4:]]
    lines = [
        (False, [page.text(item.name), str(count), *_numbers(item)])
        for count, item in found.by_cause
    ]
    return page.table(heads, lines) if lines else ""


def _policies(found: Worth) -> str:
    heads = ["rule", "", "trainings", "in force", "pinball", *_HEADS[4:]]
    lines = [
        (
            item.tested is None,
            [
                page.text(item.name),
                page.text(item.title),
                str(item.trainings),
                str(item.put_in_force),
                page.number(item.loss, 3, 1e4),
                *(_numbers(item.tested) if item.tested else [""] * 5),
            ],
        )
        for item in found.policies
    ]
    return page.table(heads, lines) if lines else ""


def _numbers(tested: Tested) -> list[str]:
    found = tested.result
    below = f"{found.skill:+.2f} %" if found.days else "-"
    numbers = [page.number(found.t, 1), page.chance(found.p)]
    return [f"{found.days:,}", below, *numbers, page.text(tested.words)]


def _saved(figure: Figure, found: Worth) -> None:
    if found.saved.is_empty():
        return
    axes = figure.subplots()
    axes.axhline(0, color=page.MUTED, linewidth=0.8)
    names = found.saved["name"].unique(maintain_order=True).to_list()
    for name, colour in zip(names, _COLOURS, strict=False):
        own = found.saved.filter(pl.col("name") == name)
        replaced = name == REPLACED
        axes.plot(
            own["day"].to_list(),
            own["saved"].to_list(),
            color=colour,
            linewidth=1.6 if replaced else 1.0,
            label=f"retrains beside {name}" if replaced else f"the settings beside {name}",
        )
    axes.set_ylabel("days' losses saved")
    axes.margins(x=0.01)
    page.few_dates(axes)
    axes.legend(ncols=2)
