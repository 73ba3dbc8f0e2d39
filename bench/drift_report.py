"""docs/drift.md from what `drift.py` measured. Nothing is measured or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from measuring import middle
from tables import markdown_table, section

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

_TARGET = 0.07
"""Share of months in which the market's check may alarm without cause."""

_POWER = {
    "unit error (x100)": 0.95,
    "stuck price": 0.95,
    "volatility x3 of one ticker": 0.80,
    "volatility x3 of the market": 0.80,
    "regime change in one sector": 0.60,
}

_DAY_SECONDS, _YEARS_SECONDS = 15, 120


def drift_page(  # noqa: PLR0913, PLR0917
    calm: Sequence[dict[str, Any]],
    planted: Sequence[dict[str, Any]],
    real: dict[str, Any] | None,
    within: Mapping[str, int],
    command: str,
    today: dt.date,
) -> str:
    """The page: false alarms, power, real days, cost."""
    parts = [
        "# Drift: how often it is wrong, and what it finds\n",
        (
            f"Measured by `{command}` on {today}. What is compared with what, and why, is in "
            "[ADR 0024](adr/0024-calibrated-drift.md).\n"
        ),
        _false_alarms(calm),
        _found(planted, within),
    ]
    if real is not None:
        parts += [_real_days(real), _cost(real)]
    return "\n".join(parts)


def _false_alarms(calm: Sequence[dict[str, Any]]) -> str:
    months = sum(item["months"] for item in calm)
    lines = [
        (
            words,
            _percent(sum(item[name] for item in calm) / months),
            f"{100 * _TARGET:.0f} %" if name == "market" else "",
        )
        for name, words in (
            ("market", "the check on the universe: any of"),
            ("pairs", "- share of drifted pairs"),
            ("volatility", "- mean rise of volatility"),
            ("sector", "- a sector's share beside the market's"),
        )
    ]
    ticker_months = sum(item["ticker_months"] for item in calm)
    alarms = sum(item["ticker_alarms"] for item in calm)
    lines.append(("one ticker's own verdict", _percent(alarms / ticker_months), ""))
    days = sum(item["ticker_days"] for item in calm)
    counted: dict[str, int] = {}
    for item in calm:
        for name, count in item["faults"].items():
            counted[name] = counted.get(name, 0) + count
    faults = ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items())) or "none"
    return section(
        "False alarms",
        f"{len(calm)} simulated markets that do not change (volatility clusters, fat tails, a "
        f"common factor), {months:,} months, asked every day. Share of months with an alarm:",
        markdown_table(["", "months with an alarm", "at most"], lines),
        f"Faults of prices found in {days:,} ticker-days without any: {faults}.",
    )


def _found(planted: Sequence[dict[str, Any]], within: Mapping[str, int]) -> str:
    lines = []
    for name, sessions in within.items():
        found, there = (sum(item[name][place] for item in planted) for place in (0, 1))
        waits = [wait for item in planted for wait in item[name][2]]
        lines.append(
            (
                name,
                f"{there:,}",
                f"{sessions}",
                _percent(found / there),
                f"{100 * _POWER[name]:.0f} %",
                f"{middle(waits):.0f}" if waits else "",
            )
        )
    return section(
        "What is found",
        "Planted in the same markets. A unit error is one candle; a stuck feed repeats the last "
        "close; a regime is volatility x 2.5, betas x 1.4, volume x 1.6 and prices that fall. Of "
        "one ticker its own verdict must alarm, of a market or a sector the check on the universe.",
        markdown_table(
            ["", "planted", "within sessions", "found", "at least", "median session"], lines
        ),
    )


def _real_days(real: dict[str, Any]) -> str:
    lines = []
    for month, days in real["alarmed"].items():
        causes = max((causes for _, causes in days), key=len)
        lines.append((month, f"{len(days)}", days[0][0], days[-1][0], "; ".join(causes)))
    share = len(real["alarmed"]) / real["months"]
    share_of_tickers = real["ticker_alarms"] / real["ticker_months"]
    faults = ", ".join(f"{name} {count:,}" for name, count in sorted(real["faults"].items()))
    return section(
        "Moscow, 2013 to 2026",
        f"{real['tickers']} stocks, {real['months']} months, of which {_percent(share)} hold an "
        "alarm. A real market does change:",
        markdown_table(["month", "days", "first", "last", "because"], lines),
        f"One ticker's own verdict alarms in {_percent(share_of_tickers)} of ticker-months. Faults "
        f"in {real['ticker_days']:,} ticker-days: {faults}.",
    )


def _cost(real: dict[str, Any]) -> str:
    day, years = real["day"], real["years"]
    lines = [
        (
            f"a day, with its {day['pages']} pages and Evidently's import",
            f"{day['wall']:.1f}",
            f"{day['cpu']:.1f}",
            f"{_DAY_SECONDS}",
        ),
        ("- of which numbers", f"{day['numbers']:.1f}", "", ""),
        ("13 years, no page", f"{years['wall']:.1f}", f"{years['cpu']:.1f}", f"{_YEARS_SECONDS}"),
    ]
    return section(
        "Cost",
        f"{real['tickers']} tickers.",
        markdown_table(["", "wall s", "CPU s", "at most"], lines),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
