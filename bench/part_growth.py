"""How costs grow with the number of cells: exponents fitted to what the other parts measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import part_chain
import part_event_log
from growth import exponent, last_exponent
from tables import markdown_table, section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from growth import Point
    from results import Found

_ENOUGH = 2


def report(event_log: Found, chain: Found) -> str:
    """One line a cost that was measured at two amounts of work at least."""
    rows = [
        (
            name,
            ", ".join(f"{cells:,.0f}" for cells, _ in points),
            f"{exponent(points):.2f}",
            f"{last_exponent(points):.2f}",
        )
        for name, points in _costs(event_log, chain)
        if len(points) >= _ENOUGH
    ]
    if not rows:
        return ""
    return section(
        "How costs grow with the cells",
        markdown_table(["cost", "cells", "exponent", "between the two largest"], rows),
        "The b of cost = a x cells^b, least squares of the logarithms: 1 is in proportion. What is "
        "paid whatever the cells (start-up, the history behind the first day) pulls it below 1.",
    )


def _costs(event_log: Found, chain: Found) -> Iterator[tuple[str, list[Point]]]:
    for storage in part_event_log.STORAGES:
        for what, words in (("cpu", "CPU"), ("bytes", "bytes"), ("peak_bytes", "memory")):
            yield f"event log, {storage}: {words}", part_event_log.points(event_log, storage, what)
    for script in (part_chain.CHAIN, part_chain.PLAIN):
        for what, words in (("cpu", "CPU"), ("peak_bytes", "memory")):
            yield f"{script}: {words}", part_chain.points(chain, script, what)
    log = part_chain.points(chain, part_chain.CHAIN, "log_bytes")
    yield f"{part_chain.CHAIN}: bytes of its event log", log
