"""`stock-assets notices ...`: what was told, and whether the channels work.

What is told, and when, is in `automation/` and `notices/`; here it is only read, or tried.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated

import typer

from stock_assets import console
from stock_assets.options import JsonOption, SettingsOption, load, parse_day, settings_file

if TYPE_CHECKING:
    from stock_assets.notices.journal import Told

app = typer.Typer(help="What needed you: list it, test the channels.", no_args_is_help=True)

_LATELY = dt.timedelta(days=7)
_NOT_TOLD = 6


@app.command("list")
def list_notices(
    settings: SettingsOption = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="From this day on; default a week ago.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What was told since a day, what to do next, and through which channel it went."""
    from stock_assets.notices.journal import Journal  # noqa: PLC0415

    loaded = load(settings)
    now = dt.datetime.now(tz=dt.UTC)
    first = parse_day(since, "--since") or (now - _LATELY).date()
    begin = dt.datetime.combine(first, dt.time(0), tzinfo=dt.UTC)
    state = Journal(loaded.notices_dir).state(now, since=begin)
    found = [item for item in state.told.values() if item.found >= begin]
    if as_json:
        content = [
            {**item.notice.as_json(), "found": item.found.isoformat(), "channels": _channels(item)}
            for item in found
        ]
        print(json.dumps(content, indent=2, ensure_ascii=False))  # noqa: T201
        return
    if not found:
        console.say(
            f"nothing was told since {first}; `stock-assets dev` runs the sensor that tells"
        )
    for item in found:
        console.show(*console.notice_lines(item.notice, _channels(item)))


@app.command("test")
def try_channels(settings: SettingsOption = None) -> None:
    """Send a test notice through each configured channel. Exit code 6 when one does not take it."""
    from stock_assets.notices.channels import (  # noqa: PLC0415
        ChannelDownError,
        MessageRefusedError,
        configured,
    )
    from stock_assets.notices.wording import places_of, trial  # noqa: PLC0415

    loaded = load(settings)
    channels = configured(loaded)
    console.show(f"log: always, in {loaded.notices_dir}")
    if not channels:
        console.say(
            "no channel is configured: set STOCK_ASSETS_NOTICES__WEBHOOK in the environment, or "
            r"\[notices.email] in the settings"
        )
    notice = trial(places_of(loaded, settings_file(settings)), dt.datetime.now(tz=dt.UTC))
    failed = False
    for channel in channels:
        try:
            said = channel.send([notice], again=False)
        except (ChannelDownError, MessageRefusedError) as error:
            failed = True
            console.fail(f"{channel.name}: {error}")
        else:
            console.show(f"{channel.name}: {said} (notice {notice.id})")
    if failed:
        raise typer.Exit(_NOT_TOLD)


def _channels(item: Told) -> dict[str, str]:
    """What has become of a notice, by channel."""
    names = sorted(item.waiting | item.outcome.keys())
    return {
        name: f"waiting: {item.outcome.get(name, 'not tried yet')}"
        if name in item.waiting
        else item.outcome[name]
        for name in names
    }
