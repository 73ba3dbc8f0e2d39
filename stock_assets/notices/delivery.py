"""Telling what waits, through each channel by itself: at least once, with a name that is stable.

What is about to be sent is noted before, what came of it after. Who dies in between leaves a
message of which nobody knows whether it arrived: it is sent again, says so, and has the same id
(docs/adr/0025). A channel that is down costs one attempt a tick at most, and less and less of them;
what was not told in `PATIENCE` is given up, and both are in the log.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

from stock_assets.notices.channels import ChannelDownError, MessageRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.notices.channels import Channel
    from stock_assets.notices.journal import Journal, State, Told

_log = logging.getLogger(__name__)

PATIENCE = dt.timedelta(days=3)
"""For so long a notice is tried through a channel that is down: over a weekend."""

REFUSALS = 5
"""Times that a message is refused by a channel that takes others, before it is given up."""

ONE_BY_ONE = 10
"""More notices than these that wait for a channel become one message that lists them."""

FIRST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=30), dt.timedelta(hours=1)

BUDGET = 15.0
"""Seconds after which a channel gets no further message in this tick."""


def deliver(journal: Journal, channels: Sequence[Channel], now: dt.datetime) -> bool:
    """Tell what waits, as far as it goes; whether anything is left for later ticks.

    The journal must be locked.
    """
    state = journal.state(now)
    _give_up(journal, state, channels, now)
    for channel in channels:
        due = state.not_before.get(channel.name)
        if due is None or due <= now:
            _tell(journal, state, channel, now)
    return journal.state(now).anything_waits


def _give_up(journal: Journal, state: State, channels: Sequence[Channel], now: dt.datetime) -> None:
    """Stop trying what has waited too long, was refused too often, or has no channel any more."""
    names = {channel.name for channel in channels}
    for item in state.told.values():
        for channel in sorted(item.waiting):
            last = item.outcome.get(channel, "it was never tried")
            if item.refused.get(channel, 0) >= REFUSALS:
                why = f"refused {REFUSALS} times: {last}"
            elif now - item.found > PATIENCE:
                why = f"not told in {PATIENCE.days} days: {last}"
            elif channel not in names:
                why = "the settings no longer have this channel"
            else:
                continue
            journal.note("given up", [item.notice.id], channel, now, why=why)
            item.waiting.discard(channel)
            _log.error("notice %s is not told by %s: %s", item.notice.id, channel, why)


def _tell(journal: Journal, state: State, channel: Channel, now: dt.datetime) -> None:
    name = channel.name
    waiting = state.waiting(name)
    # Refused in a list, a message has its chance alone; known to be refused, it is in no list.
    alone = [item for item in waiting if item.refused.get(name)]
    others = [item for item in waiting if not item.refused.get(name)]
    parts = [others] if len(others) > ONE_BY_ONE else [[item] for item in others]
    began = time.monotonic()
    for part in [*parts, *([item] for item in alone)]:
        if time.monotonic() - began > BUDGET:
            return
        ids = [item.notice.id for item in part]
        again = any(item.may_be_known(name) for item in part)
        journal.note("trying", ids, name, now)
        try:
            said = channel.send([item.notice for item in part], again=again)
        except MessageRefusedError as error:
            journal.note(
                "failed", ids, name, now, why=str(error), whole_channel=False, unanswered=False
            )
            _log.warning("notices %s: %s", ", ".join(ids), error)
        except ChannelDownError as error:
            _note_down(journal, state, name, part, error, now)
            return
        else:
            journal.note("told", ids, name, now, said=said)


def _note_down(  # noqa: PLR0913, PLR0917
    journal: Journal,
    state: State,
    name: str,
    part: Sequence[Told],
    error: ChannelDownError,
    now: dt.datetime,
) -> None:
    """Leave the channel alone for a while, the longer the more often it has failed."""
    failures = state.failures.get(name, 0)
    wait = min(FIRST_WAIT * 2 ** min(failures, 20), LONGEST_WAIT)
    wait = max(wait, min(dt.timedelta(seconds=error.pause), LONGEST_WAIT))
    journal.note(
        "failed", [item.notice.id for item in part], name, now,
        why=str(error), whole_channel=True, unanswered=error.may_have_arrived,
        not_before=(now + wait).isoformat(),
    )  # fmt: skip
    _log.warning(
        "%d notices wait: %s. Tried again in %d s; stock-assets notices test tries it now",
        len(state.waiting(name)), error, wait.total_seconds(),
    )  # fmt: skip
