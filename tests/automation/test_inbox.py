"""What is dropped in the inbox is run once, exactly, and filed; corrections, copies, failures."""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl
import pytest

from stock_assets.automation.inbox import PATIENCE, RETRIES
from stock_assets.errors import SourceError
from stock_assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from stock_assets.slices import Slice
from stock_assets.sources.fetching import fetch_slice
from stock_assets.sources.inbox import SETTLED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Box = Any  # tests/automation/conftest.py

FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED


def row(day: str, close: float = 1.5) -> str:
    """A daily candle of 2026."""
    return f"2026-{day},{close},{close + 1},{close / 2},{close},7"


# Arriving.


def test_a_dropped_file_is_run_once_and_filed_with_a_receipt(box: Box) -> None:
    assert box.asks() == []
    box.drop("BBB.csv", [row("06-02"), row("06-03"), "2026-06-04,1,0.1,5,1.5,7", row("06-06")])
    assert box.tick() == [], "one look is not enough"
    (request,) = box.tick()
    (again,) = box.tick()
    assert again.run_key == request.run_key, "a request that was lost is made again, not twice"
    run = box.run(request)
    assert box.tick() == []
    assert box.waiting() == []
    receipt = box.receipts()["BBB.csv"]
    own = receipt["sources"]["inbox"]
    assert receipt["runs"] == [run]
    assert (own["rows"], own["candles"], own["held_back"]) == (4, 2, 0)
    assert sorted(own["quarantined"].values()) == [1, 1]
    assert (own["first"], own["last"], own["tickers"]) == ("2026-06-02", "2026-06-06", ["BBB"])
    assert box.asks() == []


def test_files_that_come_together_are_one_run_and_leave_no_ticker_between_them_out(
    box: Box,
) -> None:
    for name in ("AAA", "CCC", "USA"):
        box.drop(f"{name}.csv", [row("06-02"), row("06-03")])
    assert box.serve() == [("06-02|AAA", "06-03|USA")]
    assert sorted(box.receipts()) == ["AAA.csv", "CCC.csv", "USA.csv"]


def test_history_in_a_file_means_the_first_day(box: Box) -> None:
    box.drop("AAA.csv", ["2020-01-09,1,2,0.5,1.5,7", "2020-01-10,1,2,0.5,1.5,7"])
    assert box.serve() == [("06-01|AAA", "06-01|AAA")]


def test_a_file_that_grows_waits_until_two_looks_find_it_the_same(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")], age=0)
    assert box.tick() == []
    for lines in (2, 3):
        box.drop("AAA.csv", [row(f"06-0{day}") for day in range(1, lines + 1)], age=0)
        assert box.tick() == []
    box.drop("AAA.csv", [row(f"06-0{day}") for day in range(1, 5)], age=0)
    assert box.tick(1) == []
    assert box.tick(1) == []
    assert box.tick(SETTLED_SECONDS) != []


def test_a_parquet_without_its_footer_is_not_looked_at_yet(box: Box) -> None:
    frame = pl.DataFrame({"date": [dt.date(2026, 6, 2)], "close": [1.0]})
    whole = box.folder / "whole.bin"
    frame.write_parquet(whole)
    content = whole.read_bytes()
    whole.unlink()
    box.drop("AAA.parquet", content[:-4], age=0)
    assert [*box.asks(), *box.asks()] == []
    assert box.warnings == []
    box.drop("AAA.parquet", content)
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]


def test_a_parquet_that_stays_without_a_footer_is_refused_after_a_while(box: Box) -> None:
    box.drop("AAA.parquet", b"PAR1" * 100 + b"end")
    box.asks()
    assert box.warnings == []
    box.tick(200)
    assert len(box.warnings) == 1


@pytest.mark.parametrize(
    "name",
    ["AAA.csv.part", "AAA.part.csv", ".AAA.csv", "~$AAA.csv", "AAA.csv.crdownload", "AAA.tmp.csv"],
)
def test_downloads_in_progress_are_nobodys_business(box: Box, name: str) -> None:
    box.drop(name, [row("06-02")])
    assert box.asks() == []
    assert box.warnings == []


def test_an_empty_placeholder_of_a_download_waits_for_it(box: Box) -> None:
    box.drop("AAA.csv", b"", age=1000)
    box.drop("AAA.csv.part", [row("06-02")])
    assert box.asks() == []
    assert box.warnings == []
    (box.folder / "AAA.csv.part").replace(box.folder / "AAA.csv")
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]


def test_whole_files_wait_a_little_for_one_that_is_being_written(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")])
    box.tick()
    box.drop("BBB.csv", [row("06-02")], age=0)
    assert box.tick() == []
    assert "BBB.csv may still be being written" in box.waits_for
    assert box.serve() == [("06-02|AAA", "06-02|BBB")]


def test_they_do_not_wait_for_ever(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")])
    asked = []
    for look in range(int(PATIENCE.total_seconds() / 15) + 3):
        box.drop("BBB.csv", [row("06-02")] * (look + 1), age=0)
        asked += [request.tags["stock_assets/why"] for request in box.tick()]
    assert "inbox: a file: AAA.csv" in asked


# What is refused.


def test_a_ticker_nobody_knows_stays_with_one_warning_and_is_read_once_it_is_added(
    box: Box,
) -> None:
    box.drop("ZZZ.csv", [row("06-02")])
    for _ in range(5):
        assert box.asks() == []
    (warning,) = box.warnings
    assert "'ZZZ'" in warning
    assert 'source = "inbox"' in warning
    assert box.waiting() == ["ZZZ.csv"]
    text = box.file.read_text()
    box.configure(text.replace('"CCC"]', '"CCC", "ZZZ"]'))
    assert box.serve() == [("06-02|ZZZ", "06-02|ZZZ")]


def test_rubbish_stays_with_one_warning_each_and_stops_nobody(box: Box) -> None:
    box.drop("BBB.parquet", b"\x00\x01rubbish" * 100, age=1000)
    box.drop("CCC.csv", b"\x00\x01", age=1000)
    box.drop("notes.docx", b"hello", age=1000)
    box.drop("AAA.csv", [row("06-02")])
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]
    assert box.waiting() == ["BBB.parquet", "CCC.csv", "notes.docx"]
    assert len(box.warnings) == 3


def test_a_folder_that_no_source_reads_is_told_of_once_and_stops_nobody(box: Box) -> None:
    for name in ("june", "CCC.parquet"):  # as some write a table: a folder with its parts
        (box.folder / name).mkdir()
        box.drop(f"{name}/CCC.csv", [row("06-02")])
    box.drop("AAA.csv", [row("06-02")])
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]
    (first, second) = box.warnings
    assert "'CCC.parquet' asks for nothing: it is a folder, and no source reads it" in first
    assert "'june'" in second
    state = (box.folder / ".state.json").read_text()
    box.drop("june/BBB.csv", [row("06-02")])
    box.tick()
    assert (box.folder / ".state.json").read_text() == state
    assert len(box.warnings) == 2


def test_a_folder_that_a_source_reads_is_none_that_nobody_reads(box: Box) -> None:
    box.configure(box.file.read_text().replace('"data/inbox"', '"data/inbox/deep/own"'))
    (box.folder / "deep" / "own" / "other").mkdir(parents=True)
    (box.folder / "deep" / "beside").mkdir()
    box.drop("deep/own/AAA.csv", [row("06-02")])
    box.drop("deep/BBB.csv", [row("06-02")])
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]
    (beside, other, file) = box.warnings
    assert "'deep/beside' asks for nothing: it is a folder" in beside
    assert "'deep/own/other' asks for nothing: it is a folder" in other
    assert "'deep/BBB.csv' asks for nothing: no source of the settings reads" in file


@pytest.mark.parametrize("path", ["deep/AAA.csv", "all.parquet"])
def test_a_source_may_read_one_file_in_a_folder_or_a_folder_named_like_a_file(
    box: Box, path: str
) -> None:
    box.configure(box.file.read_text().replace('"data/inbox"', f'"data/inbox/{path}"'))
    file = path if path.endswith(".csv") else f"{path}/AAA.csv"
    (box.folder / file).parent.mkdir()
    box.drop(file, [row("06-02")])
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]
    assert box.warnings == []
    assert box.closes("AAA") != {}
    assert not (box.folder / file).exists()
    assert len(list(box.folder.glob("filed/*/*/receipt.json"))) == 1


def test_hidden_folders_are_nobodys_affair(box: Box) -> None:
    for name in (".sync", "~lock"):
        (box.folder / name).mkdir()
    assert box.serve() == []
    assert box.warnings == []


def test_links_are_refused_and_never_followed(box: Box, tmp_path: Any) -> None:
    secret = tmp_path / "AAA.csv"
    secret.write_text("date,close\n2026-06-02,1")
    os.utime(secret, (1, 1))
    (box.folder / "AAA.csv").symlink_to(secret)
    assert box.asks() == []
    assert box.tick(1000) == []
    assert "it is a link" in box.warnings[0]
    area = Slice(None, dt.date(2026, 7, 1), ("AAA",))
    with pytest.raises(SourceError, match="no candle file"):
        fetch_slice(box.settings, area)
    assert secret.exists()


@pytest.mark.parametrize(
    "name", ["AAA_[1].csv", "AAA_*?.csv", "AAA_ новый\n\t'\".csv", "AAA_%s{}.csv"]
)
def test_names_with_odd_characters_are_names(box: Box, name: str) -> None:
    box.drop(name, [row("06-02"), "2026-06-03,1,0.1,5,1.5,7"])
    box.drop("AAA_1.csv", [row("06-04", 4)])
    assert box.serve() == [("06-02|AAA", "06-04|AAA")]
    assert sorted(box.receipts()) == sorted(["AAA_1.csv", name])
    assert box.closes("AAA") == {"06-02": 1.5, "06-04": 4}
    assert box.lake.read("quarantine")["file"].str.starts_with(name).all()


def test_a_name_that_is_no_text_is_refused(box: Box) -> None:
    path = os.fsencode(box.folder) + b"/AAA_\xff.csv"
    with open(path, "wb") as file:  # noqa: PTH123 - no Path can say it
        file.write(b"date,close\n2026-06-02,1\n")
    os.utime(path, (1, 1))
    assert box.asks() == []
    assert "not UTF-8" in box.warnings[0]


# The same again.


def test_the_same_content_again_asks_for_nothing_also_under_another_name(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")])
    box.serve()
    box.drop("AAA.csv", [row("06-02")])
    box.drop("AAA_1d.csv", [row("06-02")])
    box.drop("BBB.csv", [row("06-02")])
    # Another ticker's name makes it another ticker's candles: they change the whole day.
    assert box.serve() == [("06-02|AAA", "06-02|CCC")]
    assert box.waiting() == []
    copies = {name: bool(found["duplicate_of"]) for name, found in box.receipts().items()}
    assert copies == {"AAA.csv": True, "AAA_1d.csv": True, "BBB.csv": False}
    assert len(list(box.folder.glob("filed/*/*/AAA.csv"))) == 2


def test_where_a_column_tells_the_ticker_any_name_will_do(box: Box) -> None:
    content = "ticker,date,close\nAAA,2026-06-02,1\nBBB,2026-06-02,2\n"
    box.drop("one.csv", content)
    assert box.serve() == [("06-02|AAA", "06-02|BBB")]
    box.drop("two.csv", content)
    assert box.serve() == []
    assert box.receipts()["two.csv"]["duplicate_of"].startswith("one.csv")


def test_a_copy_of_what_was_corrected_since_does_not_take_the_correction_back(box: Box) -> None:
    for close in (1.0, 2.0, 1.0):
        box.drop("AAA.csv", [row("06-02", close)])
        box.serve()
    assert box.closes("AAA") == {"06-02": 2.0}
    box.work(Slice(None, dt.date(2026, 6, 2), ("AAA",)))
    assert box.closes("AAA") == {"06-02": 2.0}


def test_a_touched_file_is_the_same_file(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")])
    (request,) = [*box.tick(), *box.tick()]
    box.touch(box.folder / "AAA.csv")
    box.asks()
    box.run(request)
    assert box.serve() == []
    assert box.waiting() == []


# Corrections, and what is built on them.


def fill(box: Box) -> None:
    """Three tickers on five days, run."""
    for name in ("AAA", "BBB", "CCC"):
        box.drop(f"{name}.csv", [row(f"06-0{day}") for day in range(1, 6)])
    assert box.serve() == [("06-01|AAA", "06-05|CCC")]


def test_a_correction_asks_for_its_day_and_all_later_ones_of_the_exchange(box: Box) -> None:
    fill(box)
    box.drop("BBB_fix.csv", [row("06-02"), row("06-03", 9)])
    assert box.serve() == [("06-03|AAA", "06-05|CCC")]
    assert box.closes("BBB") == {f"06-0{day}": 9 if day == 3 else 1.5 for day in range(1, 6)}
    assert box.lake.read("quarantine").is_empty(), "a revision is nothing that is broken"


def test_a_history_that_is_dropped_again_with_one_more_day_asks_for_that_day(box: Box) -> None:
    fill(box)
    days = [row(f"06-0{day}") for day in range(1, 6)]
    for name in ("AAA", "BBB", "CCC"):
        box.drop(f"{name}.csv", [*days, row("06-08")])
    assert box.serve() == [("06-08|AAA", "06-08|CCC")]


def test_the_newest_day_of_one_ticker_asks_for_its_cell_alone(box: Box) -> None:
    fill(box)
    box.drop("BBB.csv", [row("06-08")])
    assert box.serve() == [("06-08|BBB", "06-08|BBB")]
    box.drop("AAA.csv", [row("06-08")])
    assert box.serve() == [("06-08|AAA", "06-08|CCC")], "the others' features span the market"


def test_another_exchange_is_not_touched(box: Box) -> None:
    fill(box)
    box.drop("USA.csv", [row("06-02")])
    assert box.serve() == [("06-02|USA", "06-02|USA")]


def test_what_says_nothing_new_is_filed_without_a_run(box: Box) -> None:
    fill(box)
    box.drop("BBB_again.csv", [row("06-03"), row("06-02")])
    assert box.serve() == []
    assert box.receipts()["BBB_again.csv"]["runs"] == []


def test_a_broken_row_that_comes_again_is_set_aside_once(box: Box) -> None:
    broken = "2026-06-03,1,0.1,5,1.5,7"
    box.drop("AAA.csv", [row("06-02"), broken])
    box.serve()
    before = box.tables()["quarantine"]
    box.drop("AAA.csv", [row("06-02"), broken, row("06-04")])
    assert box.serve() == [("06-04|AAA", "06-04|AAA")]
    box.work(Slice(None, dt.date(2026, 6, 4), ("AAA",)))
    assert box.tables()["quarantine"].equals(before)
    assert list(box.receipts()["AAA.csv"]["sources"]["inbox"]["quarantined"].values()) == [1]


def test_a_broken_row_alone_asks_for_its_cell(box: Box) -> None:
    fill(box)
    box.drop("BBB_x.csv", [row("06-02"), "2026-06-03,1,0.1,5,1.5,7"])
    assert box.serve() == [("06-03|BBB", "06-03|BBB")]
    assert box.closes("BBB")["06-03"] == 1.5


def test_duplicates_within_a_file_are_set_aside_those_of_files_are_revisions(box: Box) -> None:
    box.drop("AAA_1.csv", [row("06-02", 1), row("06-02", 2)])
    box.drop("AAA_2.csv", [row("06-02", 3)])
    box.serve()
    assert box.closes("AAA") == {"06-02": 3.0}
    assert box.lake.read("quarantine")["row"].to_list() == [1]


def test_of_files_of_one_look_the_one_changed_later_is_the_later_one(box: Box) -> None:
    box.drop("AAA_b.csv", [row("06-02", 1)], age=100)
    box.drop("AAA_a.csv", [row("06-02", 2)], age=50)
    box.serve()
    assert box.closes("AAA") == {"06-02": 2.0}


def test_the_order_is_the_same_before_and_after_filing(box: Box) -> None:
    box.drop("AAA_new.csv", [row("06-02", 1)], age=50)
    box.asks()
    box.drop("AAA_old.csv", [row("06-02", 2)], age=90_000)
    area = Slice(None, dt.date(2026, 6, 2), ("AAA",))
    before = fetch_slice(box.settings, area).candles["close"].to_list()
    box.serve()
    box.serve()
    assert box.waiting() == []
    assert fetch_slice(box.settings, area).candles["close"].to_list() == before == [2.0]


# Runs that end otherwise.


def test_a_failed_run_is_asked_for_again_a_few_times_then_it_is_a_persons_turn(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02")])
    (request,) = [*box.tick(), *box.tick()]
    keys = set()
    for wait in RETRIES:
        keys.add(request.run_key)
        box.run(request, FAILURE)
        assert box.tick() == []
        assert "is asked for again in" in box.warnings[-1]
        assert box.tick() == []
        (request,) = box.tick(wait.total_seconds())
    box.run(request, FAILURE)
    for _ in range(5):
        assert box.tick(3600) == []
    assert len({*keys, request.run_key}) == 1 + len(RETRIES)
    assert len(box.warnings) == 1 + len(RETRIES)
    assert box.waiting() == ["AAA.csv"]
    # A person mends the cause and runs the slice, more of it even.
    everything = box.grid.slice(dt.date(2026, 6, 1), dt.date(2026, 6, 3), box.settings.tickers)
    box.work(everything)
    run = box.record(box.grid.tags(everything), dg.DagsterRunStatus.SUCCESS)
    assert box.asks() == []
    assert box.receipts()["AAA.csv"]["runs"] == [run]


def test_a_persons_run_of_less_than_its_cells_or_assets_does_not_file_it(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02"), row("06-03")])
    (request,) = [*box.tick(), *box.tick()]
    box.run(request, CANCELED)
    box.tick()
    assert "was canceled" in box.warnings[-1]
    success = dg.DagsterRunStatus.SUCCESS
    part = box.grid.slice(dt.date(2026, 6, 2), dt.date(2026, 6, 2), ("AAA",))
    box.record(box.grid.tags(part), success)
    only = frozenset({dg.AssetKey("candles")})
    box.record(dict(request.tags) | {"stock_assets/inbox": "-"}, success, asset_selection=only)
    assert box.asks() == []
    assert box.waiting() == ["AAA.csv"]


def test_what_failed_runs_along_with_the_corrected_file(box: Box) -> None:
    fill(box)
    box.drop("BBB_x.csv", [row("06-02", 7)])
    (request,) = [*box.tick(), *box.tick()]
    box.work(box.grid.slice_of_range(request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]))
    box.run(request, CANCELED)  # after its candles, before its features
    box.tick()
    box.drop("BBB_x.csv", [row("06-02", 7), row("06-08")])
    assert box.serve() == [("06-02|AAA", "06-08|CCC")]
    assert box.waiting() == []


def test_a_file_that_changes_while_its_run_goes_is_run_again_and_filed_as_it_is(box: Box) -> None:
    box.drop("AAA.csv", [row("06-02", 1), row("06-03", 1)])
    (request,) = [*box.tick(), *box.tick()]
    box.run(request)
    box.drop("AAA.csv", [row("06-02", 2)])
    asked = box.serve()
    assert asked == [("06-02|AAA", "06-03|AAA")], "also the day that nobody says any more"
    assert box.closes("AAA") == {"06-02": 2.0}
    assert box.waiting() == []


def test_a_file_that_is_renamed_or_taken_away_meanwhile_leaves_nothing_behind(box: Box) -> None:
    box.drop("CCC.csv", [row("06-02")])
    box.drop("AAA.csv", [row("06-02", 1)])
    (request,) = [*box.tick(), *box.tick()]
    box.run(request)
    (box.folder / "AAA.csv").rename(box.folder / "BBB.csv")
    box.serve()
    assert (box.closes("AAA"), box.closes("BBB")) == ({}, {"06-02": 1.0})
    assert sorted(box.receipts()) == ["BBB.csv", "CCC.csv"]


def test_the_next_files_wait_while_a_run_makes_candles_of_their_exchange(box: Box) -> None:
    fill(box)
    other = box.grid.slice(dt.date(2026, 6, 5), dt.date(2026, 6, 5), ("AAA", "BBB"))
    run = box.record(box.grid.tags(other), dg.DagsterRunStatus.STARTED)
    box.drop("CCC.csv", [row("06-08")])
    assert box.asks() == []
    assert run in box.waits_for
    box.instance.delete_run(run)
    assert box.serve() == [("06-08|CCC", "06-08|CCC")]


def test_a_session_that_is_not_over_is_held_back_and_its_file_filed(box: Box) -> None:
    today = dt.datetime.now(tz=dt.UTC).date() + dt.timedelta(3)
    box.drop("AAA.csv", [row("06-02"), f"{today},1,2,0.5,1.5,7"])
    assert box.serve() == [("06-02|AAA", "06-02|AAA")]
    assert box.receipts()["AAA.csv"]["sources"]["inbox"]["held_back"] == 1


# What counts of it.


def test_a_slice_reads_only_the_filed_files_that_touch_it(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stock_assets.sources import files  # noqa: PLC0415

    box.drop("AAA_1.csv", [row("06-02")])
    box.drop("BBB.csv", [row("06-05")])
    box.drop("AAA_2.csv", [row("06-09")])
    box.serve()
    opened = []
    stock = files.open_table
    monkeypatch.setattr(
        files, "open_table", lambda path, *rest: opened.append(path.name) or stock(path, *rest)
    )
    day = dt.date(2026, 6, 5)
    fetch_slice(box.settings, Slice(day, day, ("AAA", "BBB", "CCC")))
    assert opened == ["BBB.csv"]


def test_a_ticker_that_joins_the_universe_finds_its_rows_in_filed_files(box: Box) -> None:
    box.drop("all.csv", "ticker,date,close\nAAA,2026-06-02,1\nZZZ,2026-06-09,5\n")
    box.serve()
    box.configure(box.file.read_text().replace('"CCC"]', '"CCC", "ZZZ"]'))
    box.work(Slice(None, dt.date(2026, 6, 30), ("ZZZ",)))
    assert box.closes("ZZZ") == {"06-09": 5.0}


def test_the_index_of_receipts_is_only_a_copy_of_them(box: Box) -> None:
    fill(box)
    index = box.folder / "filed" / "index.jsonl"
    area = Slice(None, dt.date(2026, 6, 30), ("AAA", "BBB", "CCC"))
    whole = fetch_slice(box.settings, area).candles
    lines = index.read_text().splitlines()
    index.write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    assert fetch_slice(box.settings, area).candles.equals(whole)
    index.unlink()
    assert fetch_slice(box.settings, area).candles.equals(whole)


def test_a_filed_file_that_somebody_changes_is_an_error_that_names_it(box: Box) -> None:
    fill(box)
    (filed,) = box.folder.glob("filed/*/*/AAA.csv")
    filed.write_text(filed.read_text() + row("06-08") + "\n")
    with pytest.raises(SourceError, match=r"AAA\.csv is not the file that its receipt tells of"):
        fetch_slice(box.settings, Slice(None, dt.date(2026, 6, 30), ("AAA",)))


def test_a_file_dropped_just_now_is_read_by_a_run_that_is_started_then(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    (box.folder / "AAA.csv").write_text("date,close\n2026-06-02,1\n")
    area = Slice(None, dt.date(2026, 6, 30), ("AAA",))
    monkeypatch.setattr("time.time", lambda: (box.folder / "AAA.csv").stat().st_mtime + 1)
    assert fetch_slice(box.settings, area).candles.is_empty()
    assert waited == [pytest.approx(SETTLED_SECONDS - 1)]
    monkeypatch.setattr("time.time", lambda: (box.folder / "AAA.csv").stat().st_mtime + 6)
    assert fetch_slice(box.settings, area).candles.height == 1


def test_what_cannot_be_read_does_not_stop_a_run(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.drop("AAA.csv", [row("06-02")])
    box.drop("BBB.parquet", b"rubbish" * 10, age=1000)
    box.drop("CCC.csv", "these,are,no,candles\n1,2,3,4\n", age=1000)
    with caplog.at_level(logging.WARNING):
        found = fetch_slice(box.settings, Slice(None, dt.date(2026, 6, 30), ("AAA", "BBB", "CCC")))
    assert found.candles["ticker"].to_list() == ["AAA"]
    assert "BBB.parquet" in caplog.text
    assert "CCC.csv" in caplog.text


def test_a_file_that_is_filed_while_a_run_reads_it_is_found_where_it_went(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stock_assets.sources import files  # noqa: PLC0415

    box.drop("AAA.csv", [row("06-02"), "2026-06-03,1,0.1,5,1.5,7"])
    (request,) = [*box.tick(), *box.tick()]
    box.run(request)
    stock = files.open_table

    def filing(path: Any, *rest: Any) -> Any:
        box.tick()
        return stock(path, *rest)

    monkeypatch.setattr(files, "open_table", filing)
    found = fetch_slice(box.settings, Slice(None, dt.date(2026, 6, 30), ("AAA",)))
    assert box.waiting() == []
    assert (found.candles.height, found.quarantine.height) == (1, 1)


def test_a_source_outside_of_the_inbox_keeps_its_files_and_its_rules(
    new_box: Callable[..., Box],
) -> None:
    other = new_box("other")
    other.configure(other.file.read_text().replace("data/inbox", "candles"))
    folder = other.file.parent / "candles"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, close in (("AAA.csv", 1), ("AAA_2.csv", 2)):
        (folder / name).write_text("\n".join(["date,close", f"2026-06-02,{close}"]))
    assert other.asks() == []
    found = fetch_slice(other.settings, Slice(None, dt.date(2026, 6, 30), ("AAA",)))
    assert found.quarantine["file"].to_list() == ["AAA.csv"]
    assert "row 1 of AAA_2.csv" in found.quarantine["reason"][0]
    assert sorted(item.name for item in folder.iterdir()) == ["AAA.csv", "AAA_2.csv"]


def test_a_bomb_is_refused_by_the_look_and_by_a_run(box: Box) -> None:
    import gzip  # noqa: PLC0415

    lines = (row("06-02") + "\n").encode() * 40_000
    with gzip.open(box.folder / "AAA.csv.gz", "wb") as stream:
        stream.write(b"Date,Open,High,Low,Close,Volume\n")
        for _ in range(80):
            stream.write(lines)
    box.touch(box.folder / "AAA.csv.gz", age=1000)
    box.drop("BBB.csv", [row("06-02")])
    area = Slice(None, dt.date(2026, 6, 30), ("AAA", "BBB"))
    before = fetch_slice(box.settings, area)
    assert before.candles["ticker"].to_list() == ["BBB"]
    assert box.serve() == [("06-02|BBB", "06-02|BBB")]
    assert "unpacks to more than" in box.warnings[0]
    assert fetch_slice(box.settings, area).candles.equals(before.candles)


def test_the_status_tells_what_waits_and_why(box: Box) -> None:
    from stock_assets.sources.inbox import Inbox  # noqa: PLC0415

    def states() -> dict[str, str]:
        return {
            item.file: item.state for item in Inbox(box.settings.inbox_dir).waiting(box.settings)
        }

    box.drop("AAA.csv", [row("06-02")])
    box.drop("ZZZ.csv", [row("06-02")])
    (box.folder / "june").mkdir()
    assert states() == {"AAA.csv": "new", "ZZZ.csv": "new", "june": "refused"}
    assert box.tick() == []
    assert states() == {"AAA.csv": "settling", "ZZZ.csv": "settling", "june": "refused"}
    (request,) = box.tick()
    assert states() == {"AAA.csv": "running", "ZZZ.csv": "refused", "june": "refused"}
    box.run(request, CANCELED)
    box.tick()
    assert states() == {"AAA.csv": "failed", "ZZZ.csv": "refused", "june": "refused"}
