"""Rows of a file under a former name belong to the instrument that had it that day."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from stock_assets.name_claims import claims_of
from stock_assets.settings import Settings
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.windows import windows_of

if TYPE_CHECKING:
    from pathlib import Path

    from stock_assets.sources.rules import Judged

LAST = dt.date(2018, 1, 31)
UNTIL = dt.date(2018, 1, 5)
DAYS = [dt.date(2018, 1, 3) + dt.timedelta(at) for at in range(6)]
"""Three up to `UNTIL` and three after it, a weekend among them: WEEK trades on all days."""
FORMERLY = [{"symbol": "FIVE", "until": UNTIL}]


def settings(path: Path, *universe: dict[str, Any]) -> Settings:
    return Settings(
        lake={"path": path / "lake"},
        partitions={"first_day": DAYS[0]},
        universe=[{"source": "mine", "exchange": "24/7", **item} for item in universe],
        sources={"mine": {"kind": "files", "path": path / "files"}},
    )


def written(path: Path, name: str, rows: list[tuple[str, dt.date, float]] | str) -> None:
    folder = path / "files"
    folder.mkdir(exist_ok=True)
    if not isinstance(rows, str):
        lines = [f"{ticker},{day},{close}" for ticker, day, close in rows]
        rows = "\n".join(["ticker,date,close", *lines]) + "\n"
    (folder / name).write_text(rows)


def fetched(config: Settings) -> Judged:
    return fetch_slice(config, Slice(None, LAST, config.tickers))


def closes(found: Judged) -> dict[str, list[tuple[dt.date, float]]]:
    rows = found.candles.sort("ticker", "day").select("ticker", "day", "close")
    return {
        str(ticker): list(group.select("day", "close").iter_rows())
        for (ticker,), group in rows.group_by("ticker", maintain_order=True)
    }


def reasons(found: Judged) -> list[tuple[str, dt.date, str]]:
    return list(found.quarantine.sort("ticker", "day").select("ticker", "day", "reason").rows())


def test_history_under_a_former_name_stays_with_the_new_one(tmp_path: Path) -> None:
    early = [("FIVE", day, 1.0) for day in DAYS[:3]]
    late = [("X5", day, 2.0) for day in DAYS[3:]]
    written(tmp_path, "all.csv", early + late)
    found = fetched(settings(tmp_path, {"ticker": "X5", "formerly": FORMERLY}))
    assert closes(found) == {"X5": [(day, 1.0 if day <= UNTIL else 2.0) for day in DAYS]}
    assert found.quarantine.is_empty()


def test_a_name_that_another_uses_today_is_each_ones_on_its_own_days(tmp_path: Path) -> None:
    written(tmp_path, "all.csv", [("FIVE", day, 5.0) for day in DAYS])
    universe = [{"ticker": "X5", "formerly": FORMERLY}, {"ticker": "FIVE"}]
    found = fetched(settings(tmp_path, *universe))
    assert closes(found) == {
        "X5": [(day, 5.0) for day in DAYS[:3]], "FIVE": [(day, 5.0) for day in DAYS[3:]],
    }  # fmt: skip
    # Asked for one of them, it is the same.
    config = settings(tmp_path, *universe)
    alone = fetch_slice(config, Slice(None, LAST, ("X5",)))
    assert closes(alone) == {"X5": [(day, 5.0) for day in DAYS[:3]]}


def test_a_reused_name_brings_nothing_of_the_stranger(tmp_path: Path) -> None:
    """After the rename FIVE is somebody else's, and before it X5 was."""
    rows = [("FIVE", DAYS[4], 7.0), ("X5", DAYS[1], 8.0), ("X5", DAYS[5], 2.0)]
    written(tmp_path, "all.csv", rows)
    found = fetched(settings(tmp_path, {"ticker": "X5", "formerly": FORMERLY}))
    assert closes(found) == {"X5": [(DAYS[5], 2.0)]}
    assert reasons(found) == [
        ("X5", DAYS[1], f"day: X5 is called FIVE until {UNTIL} in the settings"),
        (
            "X5", DAYS[4],
            f"day: FIVE is the name of X5 until {UNTIL} in the settings, not on this day",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["FIVE.csv", "five_1d.csv"])
def test_a_file_named_by_a_former_name_is_read(tmp_path: Path, name: str) -> None:
    lines = "".join(f"{day},{at + 1}\n" for at, day in enumerate(DAYS[:3]))
    written(tmp_path, name, f"date,close\n{lines}")
    written(tmp_path, "X5.csv", f"date,close\n{DAYS[4]},9\n")
    found = fetched(settings(tmp_path, {"ticker": "X5", "formerly": FORMERLY}))
    assert closes(found) == {"X5": [*zip(DAYS[:3], (1.0, 2.0, 3.0), strict=True), (DAYS[4], 9.0)]}


def test_a_symbol_is_what_files_call_the_ticker(tmp_path: Path) -> None:
    written(tmp_path, "all.csv", [("SBER.ME", DAYS[0], 3.0), ("SBER", DAYS[1], 4.0)])
    found = fetched(settings(tmp_path, {"ticker": "SBER", "symbol": "SBER.ME"}))
    assert closes(found) == {"SBER": [(DAYS[0], 3.0), (DAYS[1], 4.0)]}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            {"formerly": [{"symbol": "FIVE", "until": UNTIL}]},
            {"formerly": [{"symbol": "FIVE", "until": LAST}]},
            f"ONE until {UNTIL}; TWO until {LAST}",
        ),
        (
            {"formerly": [{"symbol": "FIVE", "until": UNTIL}]},
            {"listed": UNTIL, "formerly": [{"symbol": "FIVE", "until": LAST}]},
            f"ONE until {UNTIL}; TWO from {UNTIL} until {LAST}",
        ),
        (
            {"formerly": [{"symbol": "FIVE", "until": UNTIL}]},
            {"symbol": "FIVE", "listed": UNTIL},
            f"ONE until {UNTIL}; TWO from {UNTIL}",
        ),
        (
            {"formerly": [{"symbol": "FIVE", "until": UNTIL}]},
            {"symbol": "FIVE", "formerly": [{"symbol": "OLD", "until": DAYS[0]}]},
            f"ONE until {UNTIL}; TWO from {DAYS[1]}",
        ),
        (
            {"formerly": [{"symbol": "FIVE", "until": UNTIL}]},
            {"symbol": "FIVE", "delisted": DAYS[0]},
            f"ONE until {UNTIL}; TWO until {DAYS[0]}",
        ),
    ],
    ids=["both were", "from the last day on", "listed too early", "renamed too early", "gone"],
)
def test_two_that_claim_one_name_on_the_same_days_are_refused_by_both_names(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    universe = [{"ticker": "ONE", **one}, {"ticker": "TWO", **other}]
    for order in (universe, universe[::-1]):
        with pytest.raises(ValueError, match="both claim the name 'FIVE' on the same days") as told:
            settings(tmp_path, *order)
        assert set(said.split("; ")) == set(str(told.value).split("(")[1].split(")")[0].split("; "))


def test_names_that_are_handed_on_from_day_to_day_are_taken(tmp_path: Path) -> None:
    handed = [{"symbol": "FIVE", "until": LAST}]
    universe = [
        {"ticker": "ONE", "formerly": FORMERLY},
        {"ticker": "TWO", "listed": UNTIL + dt.timedelta(1), "formerly": handed},
        {"ticker": "THREE", "symbol": "FIVE"},
    ]
    assert settings(tmp_path, *universe).instrument("THREE").listed == LAST + dt.timedelta(1)
    # Another source's names are other names.
    elsewhere = {"ticker": "FOUR", "source": "moex", "formerly": handed}
    assert settings(tmp_path, *universe, elsewhere).instrument("FOUR").listed is None


def test_a_symbol_that_was_anothers_is_no_more_than_its_own_days(tmp_path: Path) -> None:
    written(tmp_path, "all.csv", [("FIVE", day, 5.0) for day in DAYS])
    found = fetched(
        settings(
            tmp_path, {"ticker": "NEW", "symbol": "FIVE"}, {"ticker": "X5", "formerly": FORMERLY}
        )
    )
    assert closes(found) == {
        "NEW": [(day, 5.0) for day in DAYS[3:]], "X5": [(day, 5.0) for day in DAYS[:3]],
    }  # fmt: skip


def test_a_reused_name_is_asked_of_an_api_from_the_day_after_the_stranger(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        {"ticker": "X5", "source": "moex", "formerly": FORMERLY},
        {"ticker": "FIVE", "source": "moex"},
    )
    (window,) = windows_of(found.instrument("FIVE"), None, LAST)
    assert (window.symbol, window.first) == ("FIVE", UNTIL + dt.timedelta(1))
    assert not found.instrument("FIVE").is_listed(UNTIL), "no cell is expected before"
    names = [window.symbol for window in windows_of(found.instrument("X5"), None, LAST)]
    assert names == [claim.name for claim in claims_of(found.instrument("X5"))] == ["FIVE", "X5"]


@pytest.mark.slow
@effort(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_row_is_the_one_owners_of_its_day_or_set_aside(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names that went round among three tickers, against looking each row up by itself."""
    folder = tmp_path_factory.mktemp("names")
    tickers = ["A", "B", "C"]
    universe, owners = [], {}
    for ticker in tickers:
        ends = data.draw(st.lists(st.sampled_from(DAYS[:-1]), unique=True, max_size=2))
        free = [name for name in ("A", "B", "C", "OLD") if name != ticker]
        formerly, first = [], dt.date.min
        for end in sorted(ends):
            name = data.draw(st.sampled_from(free))
            taken = {owners.get((name, day)) for day in DAYS if first <= day <= end}
            if taken - {None}:
                continue
            owners |= {(name, day): ticker for day in DAYS if first <= day <= end}
            formerly.append({"symbol": name, "until": end})
            first = end + dt.timedelta(1)
        universe.append({"ticker": ticker, "formerly": formerly})
    # Its own name is a ticker's after its former ones, and after all who had that name before.
    begins = {}
    for item in universe:
        ticker, own = item["ticker"], [f["until"] for f in item["formerly"]]
        others = [day for name, day in owners if name == ticker]
        assume(not own or not others or max(others) <= max(own))
        begins[ticker] = max([*own, *others], default=dt.date.min)
    cells = data.draw(
        st.lists(
            st.tuples(st.sampled_from([*tickers, "OLD"]), st.sampled_from(DAYS)),
            unique=True, min_size=1,
        )
    )  # fmt: skip
    written(folder, "all.csv", [(name, day, 1.0) for name, day in cells])
    expected = set()
    for name, day in cells:
        owner = owners.get((name, day))
        if owner is None and name in tickers and day > begins[name]:
            owner = name
        if owner is not None:
            expected.add((owner, day))
    known = [c for c in cells if c[0] in tickers or any(n == c[0] for n, _ in owners)]
    if not known:
        return
    found = fetched(settings(folder, *universe))
    assert set(found.candles.select("ticker", "day").iter_rows()) == expected
    assert found.candles.height + found.quarantine.height == len(known)
    assert found.candles.select(pl.col("close").unique()).to_series().to_list() in ([], [1.0])
