"""Answers between the wire and the lake: kept, taken up again, cleared away."""

from __future__ import annotations

import json
import os
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from stock_assets.sources.journal import FRESH, Journal, clear

if TYPE_CHECKING:
    from pathlib import Path

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
        assert Journal(tmp_path).answers("SBER 2020", wire, settled=True) == BODIES
    assert wire.asked == 1
    assert Journal(tmp_path).answers("SBER 2021", wire, settled=True) == BODIES
    assert wire.asked == 2


@pytest.mark.parametrize("why", ["not settled", "old", "from the future", "cut", "another's"])
def test_a_piece_that_cannot_stand_in_is_asked_for_anew(tmp_path: Path, why: str) -> None:
    wire = Wire()
    Journal(tmp_path).answers("SBER 2020", wire, settled=True)
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
    found = Journal(tmp_path).answers("SBER 2020", wire, settled=why != "not settled")
    assert found == BODIES
    assert wire.asked == 2


def test_a_fetch_that_fails_leaves_no_piece(tmp_path: Path) -> None:
    def broken() -> list[bytes]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Journal(tmp_path).answers("SBER 2020", broken, settled=True)
    wire = Wire()
    Journal(tmp_path).answers("SBER 2020", wire, settled=True)
    assert wire.asked == 1


def test_a_look_asks_anew_and_leaves_nothing_behind(tmp_path: Path) -> None:
    Journal(tmp_path).answers("SBER 2020", Wire(), settled=True)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    wire = Wire([b"new"])
    look = Journal(tmp_path, resume=False)
    assert look.answers("SBER 2020", wire, settled=True) == [b"new"]
    assert look.read("SBER 2020") == [b"new"]
    assert look.pieces == ()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_pieces_are_removed_when_done_or_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    folder, raw = tmp_path / "fetched", tmp_path / "raw"
    mine, theirs = Journal(folder), Journal(folder)
    for number in range(3):
        mine.answers(f"mine {number}", Wire(), settled=True)
    theirs.answers("theirs", Wire(), settled=True)
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
    journal.answers("mine", Wire(), settled=True)
    old, young = tmp_path / "old.part", tmp_path / "young.part"
    old.touch()
    age(tmp_path, FRESH.total_seconds() + 1)
    young.touch()
    clear(journal.pieces)
    assert not old.exists()
    assert young.exists()
