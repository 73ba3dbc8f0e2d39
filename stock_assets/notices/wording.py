"""What each notice says: what happened, why as far as is known, and what to do next.

One function an event, from plain values. Which events are told, and when, is decided in
`automation/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from stock_assets.notices.notice import Kind, Level, Notice
from stock_assets.settings import SAMPLE_SETTINGS, command_line

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stock_assets.settings import Settings
    from stock_assets.slices import Slice

_WHY = 1500
_REASONS = 5
_NAMED = 8

_LOOK_FOR_A_LEAK = (
    "Take it for a leak until shown otherwise: some feature knows the future. See what was "
    "measured, and look at what was changed last in sources, dbt or features."
)
_AFTER_A_DEMOTION = (
    "The baseline forecasts from now on; nothing need be done. See what was measured.",
    "To keep a model in force all the same: `stock-assets model promote`.",
)


@dataclass(frozen=True)
class Places:
    """Where things are looked at and typed: the UI's address, the settings file, the universe."""

    ui: str
    tickers: tuple[str, ...]
    settings_file: str = ""
    """As commands must name it; empty where they need not."""

    def run(self, run_id: str) -> str:
        """The page of a run."""
        return f"{self.ui}/runs/{quote(run_id)}"

    def backfill(self, name: str) -> str:
        """The page of a backfill."""
        return f"{self.ui}/runs/b/{quote(name)}"

    def check(self, asset: str, check: str) -> str:
        """The page of a check, with its evaluations."""
        return f"{self.ui}/assets/{quote(asset)}?view=checks&checkDetail={quote(check)}"

    def asset(self, asset: str) -> str:
        """The page of an asset."""
        return f"{self.ui}/assets/{quote(asset)}"

    def cell(self, asset: str, day: dt.date, ticker: str) -> str:
        """The page of one partition of an asset: what was made there, and by which run."""
        return f"{self.asset(asset)}?view=partitions&partition={quote(f'{day}|{ticker}', safe='')}"

    def automation(self) -> str:
        """The page of schedules and sensors, with how their last ticks ended."""
        return f"{self.ui}/automation"

    def command(self, *words: str) -> str:
        """What to type at a prompt."""
        return command_line(self.settings_file, *words)

    def run_again(self, area: Slice) -> str:
        """The command that runs a slice again."""
        words = ["run"]
        if area.first_date is not None:
            words += ["--from", str(area.first_date)]
        words += ["--to", str(area.last_date)]
        if area.tickers != self.tickers:
            words += ["--tickers", ",".join(area.tickers)]
        return self.command(*words)


def places_of(settings: Settings, file: Path | None) -> Places:
    """Where links and commands lead; `file` is that of the settings, where one was named."""
    own = "" if file is None or file == SAMPLE_SETTINGS else str(file.absolute())
    return Places(settings.ui_address, settings.tickers, own)


@dataclass(frozen=True)
class Run:
    """A finished run, as notices speak of it."""

    run_id: str
    job: str
    area: Slice | None
    when: dt.datetime
    asked: str = ""
    """Why there was this run."""
    backfill: str = ""
    exchange: str = ""
    """The exchange whose schedule asked for it."""

    @property
    def event(self) -> str:
        """What its events are counted by: a backfill's runs are one."""
        return f"backfill {self.backfill}" if self.backfill else f"run {self.run_id}"

    @property
    def over(self) -> str:
        """Its slice in words."""
        return f" over {self.area}" if self.area is not None else ""


@dataclass(frozen=True)
class Check:
    """A check that failed."""

    asset: str
    name: str
    description: str
    page: str = ""
    """A page that it links, such as a report."""


def run_failed(places: Places, run: Run, reasons: Sequence[str], *, dropped: bool) -> Notice:
    """A run failed, and is not tried again by itself. `dropped`: it was for files in the inbox."""
    steps = ["Open the run and read its last error; the text above is its beginning."]
    if dropped:
        steps.append(
            "The files stay in the inbox until a run over their cells succeeds. When the cause is "
            "mended, run it again."
        )
    elif run.exchange:
        steps.append(
            f"The schedule of {run.exchange} asks for these days again at its next look; to wait "
            "for nothing, run them when the cause is mended."
        )
    elif run.area is not None:
        steps.append("When the cause is mended, run it again.")
    link, what = places.run(run.run_id), f"Run failed: {run.job}{run.over}"
    if run.backfill:
        what = f"A run of backfill {run.backfill} failed{run.over}"
        link = places.backfill(run.backfill)
        steps.append("Others of this backfill that fail are not told: see its page.")
    asked = f" (asked for: {run.asked})" if run.asked else ""
    told = "; ".join(_short(reason, _WHY // _REASONS) for reason in reasons[:_REASONS])
    return Notice(
        key=f"run failed: {run.event}",
        kind=Kind.RUN_FAILED,
        level=Level.ERROR,
        when=run.when,
        what=what,
        why=(told or "the run's process ended without an error") + asked,
        next=tuple(steps),
        command=places.run_again(run.area) if run.area is not None else "",
        link=link,
    )


def checks_failed(
    places: Places, run: Run, checks: Sequence[Check], scope: str, *, stopped: bool
) -> Notice:
    """Checks failed with severity ERROR. `stopped`: the run ended there."""
    names = sorted(f"{item.asset}.{item.name}" for item in checks)
    first = checks[0]
    shown = ", ".join(names[:_REASONS]) + (", ..." if len(names) > _REASONS else "")
    area = run.area
    stands = "The run stopped there." if stopped else "The rows are in the lake all the same."
    return Notice(
        key=f"checks: {', '.join(names)} of {scope or run.event}",
        kind=Kind.CHECKS_FAILED,
        level=Level.ERROR,
        when=run.when,
        what=f"{len(names)} check{'s' * (len(names) > 1)} failed{run.over}: {shown}",
        why="; ".join(
            f"{item.asset}.{item.name}: {_short(item.description or 'no description', 300)}"
            for item in checks[:_REASONS]
        ),
        next=(
            f"Open the check and see what it found. {stands}",
            "Mend the source or the settings, then run these days again."
            if area is not None
            else "Mend the source or the settings, then run it again.",
        ),
        command=places.run_again(area) if area is not None else "",
        link=places.check(first.asset, first.name),
    )


def fault_found(places: Places, run: Run, check: Check, fault: Mapping[str, str]) -> Notice:
    """Prices of a ticker cannot be right, and nothing is forecast from them.

    `fault` is a `drift.quality.Episode`. It is one event, from its first day to its last.
    """
    name = f"{fault['ticker']} {fault['fault']} since {fault['first']}"
    return Notice(
        key=f"fault: {name}",
        kind=Kind.CHECKS_FAILED,
        level=Level.ERROR,
        when=run.when,
        what=f"Prices that cannot be right: {name}",
        why=f"{fault['ticker']}: {_short(fault['words'], _WHY)}",
        next=(
            "Nothing is forecast from these prices; what was forecast before them is kept up.",
            (
                "Mend the source or the settings, then run these days again. While it lasts it is "
                "not told again."
            ),
        ),
        command=places.run_again(run.area) if run.area is not None else "",
        link=places.check(check.asset, check.name),
    )


def drift_failed(places: Places, run: Run, check: Check, key: str) -> Notice:
    """A check on `drift` warned: the data moved away from what the model was trained on."""
    steps = [
        "Open the report and see what moved: "
        + (check.page or "it is linked from the check's page."),
        (
            "Nothing need be done: where a day since the last decision calls for a training after "
            "the cooldown, it is asked for by itself. Its outcome stands on the asset `model`."
        ),
        "If the candles are wrong (a unit, a stuck price), mend the source and run the days again.",
    ]
    return Notice(
        key=key,
        kind=Kind.DRIFT,
        level=Level.WARNING,
        when=run.when,
        what=f"Drift: {check.name} failed{run.over}",
        why=_short(check.description, _WHY),
        next=tuple(steps),
        link=places.check(check.asset, check.name),
    )


def forecasts_failed(places: Places, run: Run, check: Check, key: str) -> Notice:
    """Live forecasts left their band."""
    return Notice(
        key=key,
        kind=Kind.FORECASTS,
        level=Level.WARNING,
        when=run.when,
        what=f"Live forecasts do not keep their promise{run.over}",
        why=_short(check.description, _WHY),
        next=(
            "Until it is over, trust the forecast's interval less than it says.",
            (
                "See which model is in force and since when; an earlier one comes back with "
                "`stock-assets model rollback`."
            ),
        ),
        command=places.command("model", "list"),
        link=places.check(check.asset, check.name),
    )


def split_suspected(places: Places, run: Run, check: Check, key: str) -> Notice:
    """A bar moved as in a split that nobody declared."""
    return Notice(
        key=key,
        kind=Kind.SPLIT,
        level=Level.WARNING,
        when=run.when,
        what=f"What looks like a split was not declared{run.over}",
        why=_short(check.description, _WHY),
        next=(
            (
                "Look the split up at the exchange. If there was one, write the line above into "
                "the file of splits, and run these days and those after them again."
            ),
            "If there was none, the move stays without a return and without a score.",
        ),
        command=places.run_again(run.area) if run.area is not None else "",
        link=places.check(check.asset, check.name),
    )


def warned(places: Places, run: Run, check: Check, key: str) -> Notice:
    """Any other check that is worth a message: its own words say what to do."""
    return Notice(
        key=key,
        kind=Kind.CHECKS_FAILED,
        level=Level.WARNING,
        when=run.when,
        what=f"Check {check.asset}.{check.name} failed{run.over}",
        why=_short(check.description, _WHY),
        next=("Open the check and see what it found.",),
        link=places.check(check.asset, check.name),
    )


@dataclass(frozen=True)
class Training:
    """A challenger, and what the gate made of it."""

    day: dt.date
    challenger: str
    decision: str
    reason: str
    leak_alarm: str | None
    tickers: int


def challenger_refused(places: Places, run: Run, training: Training) -> Notice:
    """A challenger was rejected, or the model in force was demoted with it; or smells of a leak."""
    told = f"{training.challenger} of {training.day} ({training.tickers} tickers)"
    if training.leak_alarm:
        kind, key, level = Kind.LEAK, "leak", Level.ERROR
        what = f"Too good to be true: challenger {told}"
        why = f"{training.leak_alarm}. {training.decision}: {training.reason}"
        steps: tuple[str, ...] = (_LOOK_FOR_A_LEAK,)
    elif training.decision == "demoted":
        kind, key, level = Kind.DEMOTED, "demoted", Level.WARNING
        what = f"The model in force was demoted, and no challenger took its place ({told})"
        why, steps = training.reason, _AFTER_A_DEMOTION
    else:
        kind, key, level = Kind.REJECTED, "rejected", Level.INFO
        what, why = f"Challenger rejected: {told}", training.reason
        steps = ("The model in force stays; nothing need be done. See what was measured.",)
    return Notice(
        key=f"{key}: {training.challenger}",
        kind=kind,
        level=level,
        when=run.when,
        what=what,
        why=_short(why, _WHY),
        next=steps,
        command=places.command("model", "show", training.challenger),
        link=places.run(run.run_id),
    )


def history_passed(
    places: Places, run: Run, before: dt.date, warnings: int, trainings: Sequence[Training]
) -> Notice:
    """A run over history met what would have been told at the time."""
    alarms = sum(item.leak_alarm is not None for item in trainings)
    parts = [f"{warnings} warning{'s'[: warnings != 1]} of checks"] if warnings else []
    parts += [f"{len(trainings)} challengers that were not put in force"] if trainings else []
    parts += [f"{alarms} of them too good to be true"] if alarms else []
    return Notice(
        key=f"history: {run.event}",
        kind=Kind.HISTORY,
        level=Level.WARNING if alarms else Level.INFO,
        when=run.when,
        what=f"Of history{run.over}: {', '.join(parts)}",
        why=f"Days before {before} are not told one by one (notices.days).",
        next=(
            "Nothing need be done. The decisions of each day are in the table models.",
            "What checks warned of is on the page of the run.",
        ),
        command=places.command(
            "sql",
            "select distinct day, challenger, decision, reason from models "
            "where challenger is not null order by day",
        ),
        link=places.backfill(run.backfill) if run.backfill else places.run(run.run_id),
    )


def stale(  # noqa: PLR0913
    places: Places,
    exchange: str,
    day: dt.date,
    silent: dict[str, int],
    sources: Sequence[str],
    *,
    when: dt.datetime,
    error: str,
    schedule: str,
) -> Notice:
    """Candles did not come. `silent`: sessions without one, by ticker.

    `sources` are those that gave nothing for any of their tickers.
    """
    names = sorted(silent, key=lambda name: (-silent[name], name))
    listed = ", ".join(f"{name} {silent[name]}" for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    if sources:
        what = f"No candles of {exchange} for {day} from {', '.join(sources)}"
        first = f"Ask the source whether it answers: {sources[0]}."
        command = places.command("sources", "check", sources[0])
    else:
        what = f"{exchange}: {len(names)} ticker{'s' * (len(names) > 1)} without candles by {day}"
        first = (
            "See whether they are halted, renamed or delisted. Then say so in the settings "
            "(delisted, or symbol with formerly); nobody expects candles of them any more."
        )
        command = places.command("status")
    why = f"Sessions without a candle: {listed}{more}."
    why += f" The schedule's last look failed: {_short(error, 600)}" if error else ""
    return Notice(
        key=f"stale: {exchange} {day}",
        kind=Kind.STALE,
        level=Level.ERROR if sources else Level.WARNING,
        when=when,
        what=what,
        why=why,
        next=(
            first,
            (
                "Late candles are taken up by themselves at the next look of the schedule "
                f"{schedule}, if it is running: its page shows how its last tick ended."
            ),
        ),
        command=command,
        link=places.automation(),
    )


def whole_again(places: Places, exchange: str, day: dt.date, when: dt.datetime) -> Notice:
    """What was told to be stale is so no more."""
    return Notice(
        key=f"whole: {exchange} {day}",
        kind=Kind.WHOLE,
        level=Level.INFO,
        when=when,
        what=f"{exchange}: the candles that were missing by {day} have come",
        why="Every ticker that was told has a candle of that day or a later one, or is delisted.",
        next=("Nothing need be done.",),
        link=places.asset("candles"),
    )


def trial(places: Places, when: dt.datetime) -> Notice:
    """What `stock-assets notices test` sends."""
    return Notice(
        key=f"test: {when.isoformat()}",
        kind=Kind.TEST,
        level=Level.INFO,
        when=when,
        what="Notices of Stock Assets arrive here",
        why="Somebody ran `stock-assets notices test`.",
        next=("Nothing need be done. What was told lately:",),
        command=places.command("notices", "list"),
        link=places.ui,
    )


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
