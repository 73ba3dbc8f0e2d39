"""Reading what MOEX ISS answers: JSON made of named tables, or something that is no answer at all.

Which address is asked for what, and what a table's rows mean, is in the modules `moex*.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from stock_assets.errors import SourceError
from stock_assets.sources.http import PassingTroubleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stock_assets.sources.http import Answer

T = TypeVar("T")

_NO_DATA = (
    "ISS wants a login for this or blocks this address; open it in a browser, wait or lower "
    "requests_per_second, and if it stays so, take another network or another source"
)
_REFUSED = frozenset({301, 302, 303, 307, 308, 401, 403})


@dataclass(frozen=True)
class Table:
    """One table of an answer. Columns come in any order: they are found by name alone."""

    name: str
    columns: tuple[str, ...]
    rows: list[list[Any]]

    def column(self, name: str) -> list[Any]:
        """The values of a column that the table has."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """Each row by the names of its columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def tables_of(body: bytes) -> dict[str, Table]:
    """All tables of an answer. Raises `ValueError` for what is none."""
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"it is a JSON {type(document).__name__}, not tables")  # noqa: TRY004
    return {
        name: Table(name, tuple(content["columns"]), content["data"])
        for name, content in document.items()
        if isinstance(content, dict) and {"columns", "data"} <= content.keys()
    }


def wants(name: str, *columns: str, make: Callable[[Table], T]) -> Callable[[Answer], T]:
    """A reader of answers that must hold the table `name` with these columns; `make` reads it."""

    def read(answer: Answer) -> T:
        tables = read_tables(answer)
        if name not in tables:
            raise PassingTroubleError(f"it sent no table {name!r} but {sorted(tables)}")
        table = tables[name]
        if lacking := [column for column in columns if column not in table.columns]:
            message = f"its table {name!r} has no column {lacking[0]!r} but {list(table.columns)}"
            raise PassingTroubleError(message)
        if any(len(row) != len(table.columns) for row in table.rows):
            raise PassingTroubleError(f"its table {name!r} has rows of other lengths")
        try:
            return make(table)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise PassingTroubleError(f"its table {name!r} cannot be read ({error})") from error

    return read


def read_tables(answer: Answer) -> dict[str, Table]:
    """The tables of an answer; `PassingTroubleError` for a page of HTML or half an answer."""
    if answer.content_type != "application/json":
        kind = answer.content_type or "no content type"
        raise PassingTroubleError(f"it sent {kind} instead of JSON ({answer.excerpt}): {_NO_DATA}")
    try:
        return tables_of(answer.body)
    except (ValueError, TypeError) as error:
        message = f"it sent {len(answer.body)} bytes that are no whole answer ({error})"
        raise PassingTroubleError(message) from error


def refused(source: str) -> Callable[[Answer], None]:
    """A refuser for `Client.send`: redirects to a login, and what no other try would mend."""

    def refuse(answer: Answer) -> None:
        where = answer.headers.get("location", "")
        if answer.status in _REFUSED:
            sent = f"{answer.status} {where}".strip()
            if answer.status < 400:  # noqa: PLR2004 - a passing wall of the network looks so too
                raise PassingTroubleError(f"it sent us elsewhere ({sent}): {_NO_DATA}")
            raise SourceError(f"source {source}: {answer.url} answered {sent}: {_NO_DATA}")

    return refuse


def day_of(value: object) -> dt.date | None:
    """The day that a text begins with; None where it is null."""
    return dt.date.fromisoformat(str(value)[:10]) if value else None


def number_of(value: object) -> float | None:
    """A JSON number as a float; None for everything else, NaN too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)
