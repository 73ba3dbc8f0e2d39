"""Markdown tables and the numbers in them. Nothing is measured or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MB = 1e6


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(title: str, *paragraphs: str) -> str:
    """A heading and what stands below it; empty paragraphs are left out."""
    return "\n\n".join([f"## {title}", *[text for text in paragraphs if text]]) + "\n"


def seconds(value: float) -> str:
    """Seconds, to a tenth."""
    return f"{value:.1f}"


def megabytes(value: float) -> str:
    """Bytes as whole megabytes."""
    return f"{value / _MB:,.0f}"


def times(value: float) -> str:
    """A ratio: `0.31 x`, `4.2 x`, `53 x`."""
    digits = 2 if value < 1 else 1 if value < 10 else 0  # noqa: PLR2004
    return f"{value:,.{digits}f} x"
