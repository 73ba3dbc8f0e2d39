"""What may be said of forecasts: claims, which of them are proven, and the verdict in plain words.

Numbers and tests come from `scoring.py`; here they are only judged and worded. Several claims are
tested on the same days, so a difference counts as proven by Holm's step-down rule: one false claim
in twenty verdicts at most, however many claims a verdict holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stock_assets.forecasting.scoring import Calls, Comparison, RankCorrelation

SIGNIFICANT = 0.05
"""Chance of a false claim from which on nothing is claimed."""

LEVEL = 0.01
"""Chance of passing a limit by luck, one-sided, from which on it is no alarm: of every alarm."""

MAX_R2 = 1.0
"""R2 of the return in % above which a forecast of price is too good: a leak until shown not to be.

So are the two below; no honest forecast of weekly returns has reached them.
"""

MAX_DIRECTION = 54.0
"""Share of right directions in % above which a forecast of price is too good."""

MAX_RANK_IC = 0.10
"""Rank correlation with the outcome across tickers above which a forecast is too good."""


@dataclass(frozen=True)
class Claim:
    """One thing that is tested: `better` says in which direction, `p` how likely it is luck."""

    topic: str
    better: bool
    t: float | None
    p: float | None


@dataclass(frozen=True)
class MedianSkill:
    """How the median did against the random walk; all None where it is the random walk."""

    direction: Calls | None
    """Shares of wrong calls, beside always-up or always-down."""
    ranks: RankCorrelation | None
    price: Comparison | None
    """Squared error of the price, beside the last price's."""

    @property
    def r2(self) -> float | None:
        """Share of the random walk's squared error that the median takes away."""
        return None if self.price is None else self.price.skill / 100

    def claims(self) -> list[Claim]:
        """The claims there are to test."""
        found = []
        if self.direction is not None:
            found.append(_of_losses("direction", self.direction))
        if self.price is not None:
            found.append(_of_losses("price", self.price))
        if self.ranks is not None:
            found.append(Claim("ranks", self.ranks.mean > 0, self.ranks.t, self.ranks.p))
        return found

    def alarms(self) -> list[str]:
        """What is too good to be true: better by more than luck, and beyond what weeks allow."""
        found: list[tuple[str, str, Comparison | RankCorrelation]] = []
        if self.price is not None and self.r2 is not None and 100 * self.r2 > MAX_R2:
            found.append(("R2 of price", percent(self.r2), self.price))
        if self.direction is not None and 100 * (1 - self.direction.loss) > MAX_DIRECTION:
            found.append(("directional accuracy", percent(1 - self.direction.loss), self.direction))
        if self.ranks is not None and self.ranks.mean > MAX_RANK_IC:
            found.append(("rank IC", f"{self.ranks.mean:.2f}", self.ranks))
        return [
            f"{name} of {value} is too good to be true: look for a leak first"
            for name, value, test in found
            if test.chance < LEVEL
        ]


@dataclass(frozen=True)
class Verdict:
    """One sentence, the claims behind it, and the alarms."""

    sentence: str
    claims: tuple[Claim, ...]
    proven: tuple[str, ...]
    """Topics of the claims that are more than luck, in either direction."""
    alarms: tuple[str, ...]


def proven(claims: Sequence[Claim]) -> set[str]:
    """Topics of the claims that are more than luck (Holm 1979): all of them at once at 5 %."""
    ordered = sorted((item for item in claims if item.p is not None), key=lambda item: item.p or 0)
    found: set[str] = set()
    for place, claim in enumerate(ordered):
        assert claim.p is not None
        if claim.p * (len(ordered) - place) >= SIGNIFICANT:
            break
        found.add(claim.topic)
    return found


def verdict(
    median: MedianSkill,
    volatility: Mapping[str, Comparison],
    pinball: Mapping[str, Comparison],
    coverage: Mapping[int, float],
) -> Verdict:
    """The verdict on one method.

    `volatility` (QLIKE) and `pinball` compare it with others, by their names; `coverage` is the
    share of outcomes inside each interval (80 -> 0.796).
    """
    claims = [
        *median.claims(),
        *(_of_losses(f"volatility against {name}", item) for name, item in volatility.items()),
        *(_of_losses(f"pinball against {name}", item) for name, item in pinball.items()),
    ]
    sure = proven(claims)
    parts = [
        _on_direction(median, sure),
        *_ranks(median, sure),
        *_against("volatility", volatility, sure),
        *_against("pinball", pinball, sure),
        _coverage(coverage),
    ]
    ordered = [claim.topic for claim in claims if claim.topic in sure]
    return Verdict("; ".join(parts), tuple(claims), tuple(ordered), tuple(median.alarms()))


def _of_losses(topic: str, found: Comparison) -> Claim:
    return Claim(topic, found.loss < found.other, found.t, found.p)


def _on_direction(median: MedianSkill, sure: set[str]) -> str:
    """Whether the median is better than the random walk; "no skill" unless a test says so."""
    claims = median.claims()
    if not claims:
        return (
            "no skill on direction: no better than the random walk, as the median is the last price"
        )
    numbers = []
    if median.direction is not None:
        right, same = 1 - median.direction.loss, 1 - median.direction.other
        beside = f"{percent(same)} {median.direction.beside}{_t(median.direction.t)}"
        numbers.append(f"{percent(right)} of calls right beside {beside}")
    if median.r2 is not None and median.price is not None:
        numbers.append(f"price R2 {100 * median.r2:+.2f} %{_t(median.price.t)}")
    told = ", ".join(numbers)
    on_direction = [claim for claim in claims if claim.topic in sure and claim.topic != "ranks"]
    if any(not claim.better for claim in on_direction):
        return f"no skill on direction: worse than the random walk, {told}"
    if on_direction:
        return f"better than the random walk on direction: {told}"
    return f"no skill on direction: no better than the random walk, {told}"


def _ranks(median: MedianSkill, sure: set[str]) -> list[str]:
    if median.ranks is None or "ranks" not in sure:
        return []
    how = "better" if median.ranks.mean > 0 else "worse"
    return [f"ranks tickers {how} than luck, rank IC {median.ranks.mean:.3f}{_t(median.ranks.t)}"]


def _against(what: str, others: Mapping[str, Comparison], sure: set[str]) -> list[str]:
    """'volatility 11.0 % better than garch (t 3.6)', and so on for each of `others`."""
    parts = []
    for name, found in others.items():
        size = f"{abs(found.skill):.1f} % {'better' if found.skill >= 0 else 'worse'} than {name}"
        if f"{what} against {name}" in sure:
            parts.append(f"{what} {size}{_t(found.t)}")
        elif found.loss == found.other:
            parts.append(f"{what} the same as {name}")
        elif found.t is None:
            parts.append(f"{what} {size}, on too few days to tell from luck")
        else:
            parts.append(f"{what} {size}, which may be luck{_t(found.t)}")
    return parts


def _coverage(coverage: Mapping[int, float]) -> str:
    return " and ".join(
        f"the {level} % interval held {percent(share)}" for level, share in coverage.items()
    )


def percent(share: float, decimals: int = 1) -> str:
    """A share (0 to 1) as people read it."""
    return f"{100 * share:.{decimals}f} %"


def _t(t: float | None) -> str:
    return "" if t is None else f" (t {t:.1f})"
