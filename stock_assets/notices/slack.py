"""Notices as Slack's JSON, which Mattermost, Rocket.Chat and others take too.

Slack reads `&`, `<` and `>` as its own signs wherever a text stands, and refuses a message with
one text too long: everything is escaped, and cut between characters, never within an escape.
Where the JSON is sent is in `webhook.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stock_assets.notices.notice import Notice

HEADER, SECTION = 150, 3000
"""Longest texts that Slack takes in a header, and in a section."""

LISTED = 40
"""Notices that one message lists; a message has 50 blocks at most."""

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SIGN = {"error": ":red_circle:", "warning": ":large_yellow_circle:", "info": ":white_circle:"}
_ELLIPSIS = "…"
_CODE = 900
_LINE = 300
_LINK = 2000


def message(notices: Sequence[Notice], *, again: bool = False) -> dict[str, Any]:
    """The message of one notice, or the list of several. `again`: it may have arrived before."""
    if len(notices) == 1:
        (notice,) = notices
        title, blocks = _title(notice), _whole(notice)
    else:
        title = f"Stock Assets: {len(notices)} notices"
        blocks = [_header(title), *(_line(item) for item in notices[:LISTED])]
        if len(notices) > LISTED:
            rest = f"... and {len(notices) - LISTED} more: stock-assets notices list"
            blocks.append(_section(escaped(rest, SECTION)))
    if again:
        title = f"(again) {title}"
        told = "This may have arrived before: it was sent, and what came of it is not known."
        blocks.append(_context(told))
    return {"text": escaped(title, SECTION), "blocks": blocks}


def escaped(text: str, longest: int) -> str:
    """`text` with Slack's signs escaped, of at most `longest` characters then."""
    shown = "".join(sign for sign in text if sign.isprintable() or sign == "\n").strip()
    pieces = [_ESCAPES.get(sign, sign) for sign in shown]
    whole = "".join(pieces)
    if len(whole) <= longest:
        return whole
    kept, length = [], len(_ELLIPSIS)
    for piece in pieces:
        length += len(piece)
        if length > longest:
            break
        kept.append(piece)
    return "".join(kept) + _ELLIPSIS


def _whole(notice: Notice) -> list[dict[str, Any]]:
    blocks = [_header(_title(notice))]
    if why := escaped(notice.why, SECTION):
        blocks.append(_section(why))
    steps = "\n".join(f"{place}. {step}" for place, step in enumerate(notice.next, 1))
    command = escaped(notice.command, _CODE)
    code = f"\n```{command}```" if command else ""
    title = "*What to do next*\n"
    if steps:
        room = SECTION - len(title) - len(code)
        blocks.append(_section(title + escaped(steps, room) + code))
    if link := _link(notice.link):
        blocks.append(_section(link))
    blocks.append(_context(f"{notice.kind} · {notice.when:%Y-%m-%d %H:%M} UTC · {notice.id}"))
    return blocks


def _title(notice: Notice) -> str:
    """What stands in a header, which must not be empty."""
    return notice.what if escaped(notice.what, HEADER) else str(notice.kind)


def _line(notice: Notice) -> dict[str, Any]:
    link = _link(notice.link)
    text = f"{_SIGN[notice.level]} {escaped(_title(notice), _LINE)}"
    return _section(f"{text} {link}".rstrip())


def _link(address: str) -> str:
    """A link with a name; none for what Slack could not read as an address."""
    safe = address.replace("&", "&amp;")
    if not address or len(safe) > _LINK or set(address) & set("<>| \n"):
        return ""
    return f"<{safe}|Open the page>"


def _header(text: str) -> dict[str, Any]:
    line = " ".join(text.split())
    return {"type": "header", "text": {"type": "plain_text", "text": escaped(line, HEADER)}}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": escaped(text, SECTION)}]}
