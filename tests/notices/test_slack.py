"""Notices as Slack's JSON: its limits and its signs, whatever the texts."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stock_assets.notices.slack import escaped, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stock_assets.notices.notice import Notice

TEXT = st.text(st.sampled_from("ab &<>|!@*`\n\u202eя\x00"), max_size=40) | st.builds(
    "".join,
    st.lists(st.sampled_from(["<!channel>", "&amp;", "a" * 500, "<", "&", ">"]), max_size=40),
)


def texts(blocks: Any) -> Iterator[tuple[str, str]]:
    """Type and text of each text object."""
    if isinstance(blocks, dict):
        if "text" in blocks and isinstance(blocks["text"], str):
            yield blocks["type"], blocks["text"]
        for value in blocks.values():
            yield from texts(value)
    elif isinstance(blocks, list):
        for value in blocks:
            yield from texts(value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    what=TEXT,
    why=TEXT,
    steps=st.lists(TEXT, max_size=4),
    command=TEXT,
    count=st.sampled_from([1, 1, 2, 60]),
    again=st.booleans(),
)
def test_any_texts_make_a_message_that_slack_takes(
    make: Callable[..., Notice],
    what: str,
    why: str,
    steps: list[str],
    command: str,
    count: int,
    *,
    again: bool,
) -> None:
    notices = [
        make(f"{place}", what=what, why=why, next=tuple(steps), command=command)
        for place in range(count)
    ]
    made = message(notices, again=again)
    json.dumps(made)
    assert len(made["blocks"]) <= 50
    found = [*texts(made["blocks"]), ("mrkdwn", made["text"])]
    for kind, text in found:
        assert text.strip(), "Slack refuses an empty text"
        assert len(text) <= (150 if kind == "plain_text" else 3000)
        # What is left of Slack's signs is our own: links whose address is ours.
        bare = re.sub(r"<http://127\.0\.0\.1:3000/runs/1\|Open the page>", "", text)
        assert not set("<>") & set(bare)
        assert not re.search(r"&(?!(amp|lt|gt);)", bare), "an escape was cut, or forgotten"


@given(st.text(max_size=200), st.integers(1, 100))
def test_an_escaped_text_says_the_same_as_far_as_it_goes(text: str, longest: int) -> None:
    found = escaped(text, longest)
    shown = "".join(sign for sign in text if sign.isprintable() or sign == "\n").strip()
    assert len(found) <= longest
    said = html.unescape(found)
    assert said == shown or (said.endswith("…") and shown.startswith(said[:-1]))


def test_a_message_has_what_why_what_to_do_the_command_the_page_and_the_id(
    make: Callable[..., Notice],
) -> None:
    notice = make(why="a < b & c")
    made = json.dumps(message([notice]), ensure_ascii=False)
    for part in (
        "Run failed",
        "a &lt; b &amp; c",
        "1. Open the run.",
        "2. Run it again.",
        "```stock-assets run",
        "<http://127.0.0.1:3000/runs/1|Open the page>",
        notice.id,
    ):
        assert part in made


def test_an_address_that_slack_would_misread_is_left_out(make: Callable[..., Notice]) -> None:
    for link in ("http://a/<!channel>", "http://a/|b", "http://a/ b", "http://a/" + "b" * 4000):
        assert "Open the page" not in json.dumps(message([make(link=link)]))
    two = json.dumps(message([make(link="http://a/b?c=1&d=2")]))
    assert "<http://a/b?c=1&amp;d=2|Open the page>" in two
