"""`Notice`: one thing that a person should know of, with what to do next.

Plain values: how it is worded is in `wording.py`, how it looks in a message in `slack.py` and
`mail.py`, whom it has reached in `journal.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(StrEnum):
    """What sort of event it is."""

    RUN_FAILED = "run failed"
    CHECKS_FAILED = "checks failed"
    DRIFT = "drift"
    FORECASTS = "forecasts"
    SPLIT = "undeclared split"
    STALE = "stale data"
    WHOLE = "data whole again"
    REJECTED = "challenger rejected"
    DEMOTED = "model demoted"
    LEAK = "leak alarm"
    HISTORY = "history"
    TEST = "test"


class Level(StrEnum):
    """How much it matters: something is broken, wants a look, or is good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Notice:
    """One event, told in a few lines."""

    key: str
    """What the event is, by itself: found again, it has the same key, and is not told again."""
    kind: Kind
    level: Level
    when: dt.datetime
    """When it happened (UTC)."""
    what: str
    """In one line."""
    why: str
    """What is known of the cause, as Dagster or the lake says it."""
    next: tuple[str, ...]
    """What to do, step by step, in plain words."""
    command: str = ""
    """A command line that one of the steps speaks of."""
    link: str = ""
    """The page to open."""

    @property
    def id(self) -> str:
        """Short and stable: the same in every copy of the message, in the log and in the list."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the id."""
        return {"id": self.id, **asdict(self), "when": self.when.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Notice:
        """The notice that `as_json` wrote; what it does not know is left out."""
        return cls(
            key=values["key"],
            kind=Kind(values["kind"]),
            level=Level(values["level"]),
            when=dt.datetime.fromisoformat(values["when"]),
            what=values["what"],
            why=values["why"],
            next=tuple(values["next"]),
            command=values["command"],
            link=values["link"],
        )


def message_id(notices: Sequence[Notice]) -> str:
    """The name of the message that tells these: the same whenever it is sent again."""
    if len(notices) == 1:
        return notices[0].id
    ids = " ".join(notice.id for notice in notices)
    return hashlib.sha256(ids.encode()).hexdigest()[:12]
