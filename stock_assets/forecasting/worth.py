"""What retraining was worth: each retrain beside the model it replaced, and all beside other rules.

Frames of losses come in (`shadows.py` made them, live or in a replay; `policies.py` replays other
rules), numbers, tests and one sentence go out. Losses and tests are `scoring.py`'s, which of them
may be called proven is `claims.py`'s to say; how it is drawn is in `worth_report.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from stock_assets.forecasting.baseline import BASELINE
from stock_assets.forecasting.claims import Claim, proven
from stock_assets.forecasting.scoring import MIN_TEST_DAYS, Comparison, compare, group_means

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

RETRAIN, FIRST, REJECTED, ORDER = "retrain", "first model", "rejected", "order"
"""Kinds of attempts: only the first of them says whether retraining pays."""

REPLACED = "the models they replaced"
"""What all retrains together are beside."""

_KIND = (
    pl.when(pl.col("decision") == "rejected")
    .then(pl.lit(REJECTED))
    .when(pl.col("decision").is_in(["ordered", "demoted"]))
    .then(pl.lit(ORDER))
    .when(pl.col("shadow_model") == BASELINE)
    .then(pl.lit(FIRST))
    .otherwise(pl.lit(RETRAIN))
)
_LINE = ["attempt_day", "kind", "decision", "cause", "model", "shadow_model"]


@dataclass(frozen=True)
class Tested:
    """A comparison of the live loss with another, and whether it is more than luck."""

    name: str
    result: Comparison
    sure: bool
    """Proven beside all that is tested with it (`claims.proven`)."""

    @property
    def words(self) -> str:
        """What the test bears: better or worse is the live forecast."""
        if self.result.t is None and self.result.days < MIN_TEST_DAYS:
            return "too few days to tell"
        if self.result.loss == self.result.other:
            return "the same"
        if not self.sure:
            return "may be luck"
        return "better" if self.result.skill > 0 else "worse"

    @property
    def phrase(self) -> str:
        """'0.21 % below that of never (t 1.2), which may be luck'."""
        found = self.result
        if self.words == "the same":
            return f"the same as that of {self.name}"
        how = "below" if found.skill > 0 else "above"
        size = f"{abs(found.skill):.2f} % {how} that of {self.name}"
        t = "" if found.t is None else f" (t {found.t:.1f})"
        told = {"may be luck": ", which may be luck", "too few days to tell": ", on too few days"}
        return f"{size}{t}{told.get(self.words, '')}"

    def plain(self) -> dict[str, Any]:
        """JSON-ready numbers."""
        found = self.result
        return {
            "days": found.days,
            "loss": found.loss if found.days else None,
            "other_loss": found.other if found.days else None,
            "below_percent": found.skill if found.days else None,
            "t": found.t,
            "p": found.p,
            "words": self.words,
        }


@dataclass(frozen=True)
class Line:
    """One attempt: what it left in force beside what it did not."""

    day: dt.date
    kind: str
    decision: str
    cause: str
    model: str
    shadow_model: str
    tickers: int
    tested: Tested

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        own = {name: getattr(self, name) for name in ("kind", "decision", "cause", "model")}
        return {
            "day": str(self.day),
            **own,
            "shadow_model": self.shadow_model,
            "tickers": self.tickers,
            **self.tested.plain(),
        }


@dataclass(frozen=True)
class PolicyLosses:
    """One rule of when to train, replayed."""

    name: str
    title: str
    trainings: int
    put_in_force: int
    losses: pl.DataFrame
    """day, ticker, horizon, pinball of its forecasts."""


@dataclass(frozen=True)
class PolicyLine:
    """A rule beside the settings' own (`tested` None: it is the settings' own)."""

    name: str
    title: str
    trainings: int
    put_in_force: int
    loss: float
    tested: Tested | None


@dataclass(frozen=True)
class Worth:
    """What there is to say, and the series behind its picture."""

    lines: tuple[Line, ...]
    total: Tested | None
    """All retrains together; None while there was none."""
    by_cause: tuple[tuple[int, Tested], ...]
    """The same by why they were tried: how many, and how they did."""
    policies: tuple[PolicyLine, ...]
    sentence: str
    saved: pl.DataFrame
    """day, name, saved: loss saved so far beside what else could have been, in days' losses."""

    def of(self, kind: str) -> list[Line]:
        """The lines of one kind."""
        return [line for line in self.lines if line.kind == kind]

    def plain(self) -> dict[str, Any]:
        """JSON-ready: the same numbers as the tables."""
        return {
            "sentence": self.sentence,
            "attempts": [line.plain() for line in self.lines],
            "all retrains": None if self.total is None else self.total.plain(),
            "by cause": {item.name: {"retrains": n} | item.plain() for n, item in self.by_cause},
            "policies": [
                {
                    "name": item.name,
                    "title": item.title,
                    "trainings": item.trainings,
                    "put_in_force": item.put_in_force,
                    "loss": item.loss,
                    "settings_beside_it": None if item.tested is None else item.tested.plain(),
                }
                for item in self.policies
            ],
        }


def worth(shadows: pl.DataFrame, policies: Sequence[PolicyLosses] = ()) -> Worth:
    """Sum up rows of `Shadows`, and the replays of other rules; the first is the settings' own."""
    rows = shadows.with_columns(_KIND.alias("kind")).sort("day", "ticker", "horizon", "attempt_day")
    lines = _lines(rows)
    retrains = rows.filter(kind=RETRAIN)
    causes = retrains["cause"].unique().sort().to_list()
    by_cause = _tested([(name, _beside(retrains.filter(cause=name))) for name in causes])
    counts = {name: sum(line.cause == name for line in lines if line.kind == RETRAIN)
              for name in causes}  # fmt: skip
    together = [(REPLACED, _beside(retrains))] if retrains.height else []
    subject, others = (policies[0], policies[1:]) if policies else (None, ())
    beside = {item.name: _joined(subject, item) for item in others if subject is not None}
    tests = _tested(
        [*together, *((name, compare(frame, "pinball", "other")) for name, frame in beside.items())]
    )
    total = tests[0] if together else None
    against = dict(zip(beside, tests[len(together) :], strict=True))
    return Worth(
        lines=lines,
        total=total,
        by_cause=tuple((counts[item.name], item) for item in by_cause),
        policies=tuple(_policy_line(item, against.get(item.name)) for item in policies),
        sentence=_sentence(sum(counts.values()), total, against),
        saved=_saved(retrains, beside),
    )


def _lines(rows: pl.DataFrame) -> tuple[Line, ...]:
    """A line an attempt, in the order of their days."""
    ordered = rows.sort("attempt_day", maintain_order=True)
    groups = ordered.partition_by(_LINE, maintain_order=True)
    tests = _tested([(str(own["attempt_day"][0]), _beside(own)) for own in groups])
    return tuple(
        Line(
            day=own["attempt_day"][0],
            kind=own["kind"][0],
            decision=own["decision"][0],
            cause=own["cause"][0],
            model=own["model"][0],
            shadow_model=own["shadow_model"][0],
            tickers=own["ticker"].n_unique(),
            tested=tested,
        )
        for own, tested in zip(groups, tests, strict=True)
    )


def _beside(rows: pl.DataFrame) -> Comparison:
    """The live loss beside the shadow's."""
    return compare(rows, "pinball", "shadow_pinball")


def _tested(named: Sequence[tuple[str, Comparison]]) -> list[Tested]:
    """What of several comparisons is more than luck, all of them at once."""
    claims = [
        Claim(str(place), found.skill > 0, found.t, found.p)
        for place, (_, found) in enumerate(named)
    ]
    sure = proven(claims)
    return [Tested(name, found, str(i) in sure) for i, (name, found) in enumerate(named)]


def _joined(subject: PolicyLosses, other: PolicyLosses) -> pl.DataFrame:
    """The cells that both answered: day ..., pinball (the subject's), other."""
    key = ["day", "ticker", "horizon"]
    theirs = other.losses.select(*key, other="pinball")
    return subject.losses.select(*key, "pinball").join(theirs, on=key).sort(key)


def _policy_line(item: PolicyLosses, tested: Tested | None) -> PolicyLine:
    daily = group_means(item.losses.sort("day", "ticker", "horizon"), ["day"], ["pinball"])
    loss = daily["pinball"].mean()
    return PolicyLine(
        item.name,
        item.title,
        item.trainings,
        item.put_in_force,
        float("nan") if loss is None else float(loss),  # type: ignore[arg-type]  # of floats
        tested,
    )


def _saved(retrains: pl.DataFrame, beside: dict[str, pl.DataFrame]) -> pl.DataFrame:
    series = {REPLACED: retrains.select("day", "pinball", other="shadow_pinball")} if (
        retrains.height
    ) else {}  # fmt: skip
    parts = [
        group_means(frame, ["day"], ["pinball", "other"]).select(
            "day",
            pl.lit(name).alias("name"),
            ((pl.col("other") - pl.col("pinball")).cum_sum() / pl.col("other").mean()).alias(
                "saved"
            ),
        )
        for name, frame in {**series, **beside}.items()
        if frame.height
    ]
    schema = {"day": pl.Date, "name": pl.String, "saved": pl.Float64}
    return pl.concat([pl.DataFrame(schema=schema), *parts])


def _sentence(count: int, total: Tested | None, against: dict[str, Tested]) -> str:
    """What the tests bear, and no more."""
    if total is None and not against:
        return "no model has replaced another yet, so there is nothing to tell of retraining"
    parts = []
    if total is not None:
        plural = "" if count == 1 else "s"
        parts.append(f"{count} retrain{plural}: live pinball loss {total.phrase}")
    else:
        parts.append("no retrain was put in force")
    if against:
        told = ", ".join(item.phrase for item in against.values())
        parts.append(f"the settings' loss is {told}")
    tests = [*([] if total is None else [total]), *against.values()]
    return "; ".join([*parts, _conclusion(tests)])


def _conclusion(tests: Sequence[Tested]) -> str:
    better = [item.name for item in tests if item.words == "better"]
    worse = [item.name for item in tests if item.words == "worse"]
    if not better and not worse:
        return "so nothing here shows that retraining by these settings pays, or that it costs"
    parts = []
    if better:
        parts.append(f"it pays beside {' and '.join(better)}")
    if worse:
        parts.append(f"it costs beside {' and '.join(worse)}")
    return f"so {', but '.join(parts)}, beyond luck"
