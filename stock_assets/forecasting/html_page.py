"""What pages of results share: letters and colours, tables, numbers, pictures as SVG.

One HTML file that needs no network. What a page shows is decided by `backtest_report.py` and
`worth_report.py`.
"""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any, TypeVar

from stock_assets.forecasting.claims import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = TypeVar("Content")

INK, MUTED, GRID, SUBJECT = "#1f2937", "#6b7280", "#e5e7eb", "#2563eb"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    # The browser's own letters: a third of the bytes, and text that can be selected.
    "svg.fonttype": "none",
    # Names of parts are made from this: the same report has the same bytes.
    "svg.hashsalt": "stock-assets",
}

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p.about { color: #6b7280; margin-top: 0; }
p.verdict { font-size: 1.1rem; background: #eff6ff; border-left: 4px solid #2563eb;
  padding: .7rem 1rem; }
p.alarm { background: #fef2f2; border-left: 4px solid #dc2626; padding: .7rem 1rem; }
p.note { color: #6b7280; font-size: .88rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
div.wide { overflow-x: auto; }
th, td { text-align: right; padding: .22rem .5rem; border-bottom: 1px solid #e5e7eb;
  white-space: nowrap; }
th { font-weight: 600; color: #6b7280; } th:first-child, td:first-child { text-align: left; }
tr.subject td { font-weight: 600; color: #1d4ed8; }
svg { width: 100%; height: auto; }
"""


def page(title: str, body: str) -> str:
    """The whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{CSS}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def section(title: str, part: str, note: str = "") -> str:
    """A part of the page under its title, with a note; nothing where there is no part."""
    if not part:
        return ""
    heading = f"<h2>{text(title)}</h2>" if title else ""
    return heading + part + (f'<p class="note">{text(note)}</p>' if note else "")


def save(content: str, file: Path) -> None:
    """Write the page to `file`, making its folder. Raises `OSError` when it cannot."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


def table(heads: Sequence[str], lines: Sequence[tuple[bool, Sequence[str]]]) -> str:
    """A table of cells that are HTML already; a line may be marked."""
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    rows = "".join(
        f"<tr{' class=subject' if marked else ''}>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for marked, cells in lines
    )
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def number(value: float | None, decimals: int, factor: float = 1) -> str:
    """A number as people read it; a dash where there is none."""
    return "-" if value is None else f"{value * factor:,.{decimals}f}"


def chance(p: float | None) -> str:
    """A p; never nothing: no test is that sure."""
    return "&lt;0.0001" if p is not None and p < 1e-4 else number(p, 4)  # noqa: PLR2004


def share_text(share: float | None, decimals: int = 1) -> str:
    """A share in %; a dash where there is none."""
    return "-" if share is None else percent(share, decimals)


def text(value: str) -> str:
    """Words as HTML."""
    return html.escape(value)


def figure(
    draw: Callable[[Figure, Content], None], content: Content, size: tuple[float, float]
) -> str:
    """The figure that `draw` fills, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        drawn_on = Figure(figsize=size, layout="constrained")
        draw(drawn_on, content)
        if not drawn_on.axes:
            return ""
        drawn = io.StringIO()
        drawn_on.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :]


def few_dates(axes: Axes) -> None:
    """Dates below the picture, not too many."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
