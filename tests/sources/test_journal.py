"""Answers between the wire and the lake: kept, taken up again, cleared away."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from stock_assets.sources.journal import FRESH, Journal, clear

if TYPE_CHECKING:
    from pathlib import Path

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
AHEAD = dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=1)
BODIES = [b'{"a": 1}', "Доллар".encode("cp1251"), b""]


class Wire:
    """Counts how often it was asked."""

    def __init__(self, bodies: list[bytes] = BODIES) -> None:
        self.asked = 0
        self.bodies = bodies

    def __call__(self) -> list[bytes]:
        self.asked += 1
        return self.bodies


def age(folder: Path, seconds: float) -> None:
    for file in folder.iterdir():
        then = time.time() - seconds
        os.utime(file, (then, then))


def test_a_finished_piece_is_not_asked_for_again(tmp_path: Path) -> None:
    wire = Wire()
    for _ in range(2):
        assert Journal(tmp_path).answers("SBER 2020", wire, settles=LONG_AGO) == BODIES
    assert wire.asked == 1
    assert Journal(tmp_path).answers("SBER 2021", wire, settles=LONG_AGO) == BODIES
    assert wire.asked == 2


@pytest.mark.parametrize("why", ["not settled", "old", "from the future", "cut", "another's"])
def test_a_piece_that_cannot_stand_in_is_asked_for_anew(tmp_path: Path, why: str) -> None:
    wire = Wire()
    Journal(tmp_path).answers("SBER 2020", wire, settles=LONG_AGO)
    (file,) = tmp_path.iterdir()
    if why == "old":
        age(tmp_path, FRESH.total_seconds() + 1)
    if why == "from the future":
        age(tmp_path, -3600)
    if why == "cut":
        file.write_bytes(file.read_bytes()[:40])
    if why == "another's":
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("about.json", json.dumps({"asked": "GAZP"}))
    found = Journal(tmp_path).answers(
        "SBER 2020", wire, settles=AHEAD if why == "not settled" else LONG_AGO
    )
    assert found == BODIES
    assert wire.asked == 2


def test_a_fetch_that_fails_leaves_no_piece(tmp_path: Path) -> None:
    def broken() -> list[bytes]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Journal(tmp_path).answers("SBER 2020", broken, settles=LONG_AGO)
    wire = Wire()
    Journal(tmp_path).answers("SBER 2020", wire, settles=LONG_AGO)
    assert wire.asked == 1


def test_a_look_asks_anew_and_leaves_nothing_behind(tmp_path: Path) -> None:
    Journal(tmp_path).answers("SBER 2020", Wire(), settles=LONG_AGO)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    wire = Wire([b"new"])
    look = Journal(tmp_path, resume=False)
    assert look.answers("SBER 2020", wire, settles=LONG_AGO) == [b"new"]
    assert look.read("SBER 2020") == [b"new"]
    assert look.pieces == ()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_pieces_are_removed_when_done_or_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    folder, raw = tmp_path / "fetched", tmp_path / "raw"
    mine, theirs = Journal(folder), Journal(folder)
    for number in range(3):
        mine.answers(f"mine {number}", Wire(), settles=LONG_AGO)
    theirs.answers("theirs", Wire(), settles=LONG_AGO)
    clear(mine.pieces, raw)
    assert len(list(folder.iterdir())) == 1, "another run's piece stays"
    kept = sorted(raw.rglob("*.zip"))
    asked = set()
    for file in kept:
        with zipfile.ZipFile(file) as packed:
            about = json.loads(packed.read("about.json"))
            asked.add(about["asked"])
            assert packed.read("00001") == BODIES[1]
            assert about["fetched"].startswith("20")
    assert asked == {"mine 0", "mine 1", "mine 2"}
    clear(theirs.pieces)
    clear(theirs.pieces)
    assert list(folder.iterdir()) == []


def test_drafts_of_killed_runs_go_once_they_are_old(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.answers("mine", Wire(), settles=LONG_AGO)
    old, young = tmp_path / "old.part", tmp_path / "young.part"
    old.touch()
    age(tmp_path, FRESH.total_seconds() + 1)
    young.touch()
    clear(journal.pieces)
    assert not old.exists()
    assert young.exists()


def test_a_piece_asked_for_before_its_sessions_settled_is_asked_for_again(tmp_path: Path) -> None:
    """A run that died in the evening had the day's candle unfinished; the next day's must not."""
    settles = dt.datetime.now(tz=dt.UTC) + dt.timedelta(milliseconds=100)
    assert Journal(tmp_path).answers("SBER", lambda: [b"unfinished"], settles=settles)

    while dt.datetime.now(tz=dt.UTC) < settles:
        pass
    assert Journal(tmp_path).answers("SBER", lambda: [b"final"], settles=settles) == [b"final"]


def test_an_answer_is_as_old_as_its_question(tmp_path: Path) -> None:
    settles = dt.datetime.now(tz=dt.UTC) + dt.timedelta(milliseconds=50)

    def slow() -> list[bytes]:
        while dt.datetime.now(tz=dt.UTC) < settles + dt.timedelta(milliseconds=10):
            pass
        return [b"unfinished"]

    Journal(tmp_path).answers("SBER", slow, settles=settles)

    assert Journal(tmp_path).answers("SBER", lambda: [b"final"], settles=settles) == [b"final"]
