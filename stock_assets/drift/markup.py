"""The plain HTML of drift pages and their index: text, links and tables, escaped in one place."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STYLE = """
header, main { font: 15px/1.5 Roboto, Helvetica, sans-serif; color: #1f2937; max-width: 1180px;
  margin: 24px auto 8px; padding: 0 24px; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 17px; margin: 20px 0 4px; }
p { margin: 6px 0; }
p.moved, td.moved { color: #b3261e; font-weight: 600; }
p.calm { color: #1b6e3c; font-weight: 600; }
p.note { color: #6b7280; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 3px 14px 3px 0;
  border-bottom: 1px solid #e5e7eb; }
td:first-child { white-space: nowrap; }
th { color: #6b7280; font-weight: 600; }
"""


class Markup(str):
    """HTML that is escaped already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Anything as HTML, `Markup` as it is; nothing for None."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value)))


def a(address: str, words: str) -> Markup:
    """A link."""
    return Markup(f'<a href="{html.escape(address)}">{text(words)}</a>')


def joined(parts: Iterable[object], between: str = ", ") -> Markup:
    """The parts one after the other."""
    return Markup(between.join(text(part) for part in parts))


def cell(value: object, kind: str = "") -> Markup:
    """One cell of a table."""
    return Markup(f'<td class="{kind}">{text(value)}</td>' if kind else f"<td>{text(value)}</td>")


def table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> Markup:
    """A table; cells are values, or made by `cell`. Nothing where there are no lines."""
    body = "".join(
        "<tr>"
        + "".join(
            value if isinstance(value, Markup) and value.startswith("<td") else cell(value)
            for value in line
        )
        + "</tr>"
        for line in lines
    )
    if not body:
        return Markup()
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def section(title: str, content: Markup) -> Markup:
    """Content under its title; nothing where there is no content."""
    return Markup(f"<h2>{text(title)}</h2>{content}" if content else "")


def paragraph(value: object, kind: str = "") -> Markup:
    """One paragraph."""
    return Markup(f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>")


def page(title: str, body: Markup) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1.0">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def above(page: str, title: str, header: Markup) -> str:
    """A page that somebody else has made, with our title and with our header at its top."""
    head = f"<title>{text(title)}</title><style>{STYLE}</style></head>"
    return page.replace("</head>", head, 1).replace("<body>", f"<body>{header}", 1)
