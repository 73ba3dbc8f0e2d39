"""The journal: what was found, and what came of telling it, one JSON object a line.

It is the structured log and the ledger at once, so that the two cannot disagree: a line is added,
never changed, and on the disk before anything follows from it. A file a month; old ones may be
removed. Lines, by their `event`:

    notice    something was found; the channels that it is to be told through
    trying    a message with these notices is about to be sent through a channel
    told      it was taken
    failed    it was not; the whole channel, or this message only
    given up  nobody tries any more

What follows from the lines (who waits, how long) is decided in `delivery.py`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from stock_assets.errors import NoticeError
from stock_assets.notices.notice import Level, Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

REMEMBERED = dt.timedelta(days=60)
"""For so long an event is known again. Nobody looks for events that long ago."""

_LEVELS = {
    Level.ERROR: logging.ERROR,
    Level.WARNING: logging.WARNING,
    Level.INFO: logging.INFO,
}


class BusyJournalError(Exception):
    """Another process is telling notices right now."""


@dataclass
class Told:
    """What has become of one notice."""

    notice: Notice
    found: dt.datetime
    waiting: set[str]
    """Channels that it has neither been told through nor been given up for."""
    begun: set[str] = field(default_factory=set)
    """Channels of which the last attempt has no end: whoever made it died."""
    unanswered: set[str] = field(default_factory=set)
    """Channels to which it was sent some time, and no answer came."""
    refused: dict[str, int] = field(default_factory=dict)
    """Times that a channel which took others did not take it."""
    outcome: dict[str, str] = field(default_factory=dict)
    """The last that is known of each channel, in words."""

    def may_be_known(self, channel: str) -> bool:
        """Whether an earlier message may have arrived without anybody knowing it."""
        return channel in self.begun | self.unanswered


@dataclass
class State:
    """The journal's lines, added up."""

    told: dict[str, Told] = field(default_factory=dict)
    """By id, in the order they were found."""
    failures: dict[str, int] = field(default_factory=dict)
    """Of each channel: in a row, since something was last told through it."""
    not_before: dict[str, dt.datetime] = field(default_factory=dict)
    """When a channel that is down may be tried again."""

    def waiting(self, channel: str) -> list[Told]:
        """What is still to be told through a channel, the oldest first."""
        return [item for item in self.told.values() if channel in item.waiting]

    @property
    def anything_waits(self) -> bool:
        """Whether there is anything left to do."""
        return any(item.waiting for item in self.told.values())


class Journal:
    """The files of one lake. Writing wants `lock`; reading does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Tell notices alone. Raises `BusyJournalError` while somebody else does."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise BusyJournalError from None
        except OSError as error:
            message = (
                f"notices: {error.strerror or error}; make {self.folder} writable for this user"
            )
            raise NoticeError(message) from error

    def add(
        self, notices: Sequence[Notice], channels: Sequence[str], now: dt.datetime
    ) -> list[Notice]:
        """Note those that are new, and tell the log; return them."""
        known = set(self.state(now).told) if notices else set()
        new: dict[str, Notice] = {}
        for notice in notices:
            if notice.id not in known:
                new.setdefault(notice.id, notice)
        self._append(
            [
                {"event": "notice", **item.as_json(), "channels": [*channels]}
                for item in new.values()
            ],
            now,
        )
        for item in new.values():
            text = f"{item.what}. {item.why}".rstrip(". ")
            _log.log(_LEVELS[item.level], "%s", text, extra={"notice": item.as_json()})
        return list(new.values())

    def note(
        self, event: str, ids: Sequence[str], channel: str, now: dt.datetime, **more: Any
    ) -> None:
        """Add one line about notices and a channel."""
        self._append([{"event": event, "ids": [*ids], "channel": channel, **more}], now)

    def _append(self, lines: Sequence[dict[str, Any]], now: dt.datetime) -> None:
        if not lines:
            return
        file = self.folder / f"{now:%Y-%m}.jsonl"
        text = "".join(
            json.dumps({"at": now.isoformat(), **line}, ensure_ascii=False) + "\n" for line in lines
        )
        with file.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                # A process that was killed may have left half a line: it ends here.
                if stream.read(1) != b"\n":
                    text = "\n" + text
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def lines(self, since: dt.datetime) -> Iterator[dict[str, Any]]:
        """The lines of the months since `since`, in order; half a line is left out."""
        for file in sorted(self.folder.glob("????-??.jsonl")):
            if file.stem < f"{since:%Y-%m}":
                continue
            for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
                if not line:
                    continue
                try:
                    found = json.loads(line)
                except ValueError:
                    _log.warning("%s, line %d is not whole: left out", file, number)
                    continue
                yield found

    def state(self, now: dt.datetime, since: dt.datetime | None = None) -> State:
        """What is known, and what is still to be told; from `since` on where that is longer ago."""
        state = State()
        first = now - REMEMBERED
        for line in self.lines(first if since is None else min(first, since)):
            _put(state, line)
        return state


def _put(state: State, line: dict[str, Any]) -> None:
    at = dt.datetime.fromisoformat(line["at"])
    event = line["event"]
    if event == "notice":
        found = Told(Notice.from_json(line), at, set(line["channels"]))
        state.told.setdefault(line["id"], found)
        return
    channel = line["channel"]
    for item in (state.told[name] for name in line["ids"] if name in state.told):
        _put_of_one(item, channel, event, line)
    if event == "told":
        state.failures.pop(channel, None)
        state.not_before.pop(channel, None)
    elif event == "failed" and line["whole_channel"]:
        state.failures[channel] = state.failures.get(channel, 0) + 1
        state.not_before[channel] = dt.datetime.fromisoformat(line["not_before"])


def _put_of_one(item: Told, channel: str, event: str, line: dict[str, Any]) -> None:
    if event == "trying":
        if channel in item.begun:
            item.unanswered.add(channel)
        item.begun.add(channel)
        return
    item.begun.discard(channel)
    if event == "failed":
        item.outcome[channel] = line["why"]
        if line["unanswered"]:
            item.unanswered.add(channel)
        if not line["whole_channel"]:
            item.refused[channel] = item.refused.get(channel, 0) + 1
        return
    item.waiting.discard(channel)
    item.outcome[channel] = "told" if event == "told" else f"given up: {line['why']}"
