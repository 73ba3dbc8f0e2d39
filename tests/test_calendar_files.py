"""Sessions computed once equal those computed now, whatever happens to their file."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from stock_assets import calendars
from stock_assets.calendar_files import CACHE_VARIABLE, KnownSessions, remembered

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = KnownSessions(
    "Europe/Moscow", dt.time(18, 45), (dt.date(2026, 6, 29), dt.date(2026, 6, 30))
)
LONG = tuple(dt.date(2000, 1, 1) + dt.timedelta(n) for n in range(9000))
MORE = KnownSessions("UTC", dt.time(0), LONG)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "stock-assets"


def never() -> KnownSessions:
    raise AssertionError("computed although it is known")


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_was_computed_once_is_read(folder: Path) -> None:
    assert remembered(["XMOS", "4.13"], lambda: KNOWN) == KNOWN
    assert remembered(["XMOS", "4.13"], never) == KNOWN
    assert len(files(folder)) == 1


def test_another_release_is_computed_anew(folder: Path) -> None:
    remembered(["XMOS", "4.13"], lambda: KNOWN)
    assert remembered(["XMOS", "4.14"], lambda: MORE) == MORE
    assert remembered(["XMOS", "4.13"], never) == KNOWN
    assert len(files(folder)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:0],
        lambda text: text[: len(text) // 2],
        lambda text: "\0" * len(text),
        lambda text: f"[{len(text)}]",
        lambda text: json.dumps({**json.loads(text), "days": ["2026-06-29"]}),
        lambda text: json.dumps({**json.loads(text), "close": "23:59:00"}),
    ],
    ids=["empty", "half", "zeros", "no mapping", "a day is gone", "another close"],
)
def test_a_damaged_file_is_computed_anew_and_mended(folder: Path, damage) -> None:
    remembered(["XMOS"], lambda: KNOWN)
    (file,) = files(folder)
    file.write_text(damage(file.read_text()))
    assert remembered(["XMOS"], lambda: KNOWN) == KNOWN
    assert remembered(["XMOS"], never) == KNOWN


def test_writers_at_once_leave_one_whole_file(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: remembered(["XMOS"], lambda: MORE), range(80)))
    assert found == [MORE] * 80
    assert len(files(folder)) == 1, "no draft is left behind"
    assert remembered(["XMOS"], never) == MORE


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path, monkeypatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    assert remembered(["XMOS"], lambda: KNOWN) == KNOWN


@pytest.mark.usefixtures("folder")
def test_another_way_to_compute_them_is_not_answered_from_the_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fresh(known: KnownSessions) -> KnownSessions:
        calendars._packaged.cache_clear()
        monkeypatch.setattr(calendars, "_computed", lambda *_: known)
        return calendars._packaged("XMOS")

    try:
        assert fresh(KNOWN) == KNOWN
        assert fresh(MORE) == KNOWN
        monkeypatch.setattr(calendars, "COMPUTATION", calendars.COMPUTATION + 1)
        assert fresh(MORE) == MORE
    finally:
        calendars._packaged.cache_clear()


@pytest.mark.parametrize("name", ["XMOS", "XNYS"])
def test_an_exchange_read_from_its_file_is_the_one_computed(folder: Path, name: str) -> None:
    def fresh() -> KnownSessions:
        calendars._packaged.cache_clear()
        return calendars._packaged(name)

    computed, read = fresh(), None
    assert len(files(folder)) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calendars, "_computed", lambda *_: never())
        read = fresh()
    assert read == computed
