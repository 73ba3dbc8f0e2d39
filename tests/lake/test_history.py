"""What was known on a past day can be asked of every table, whatever maintenance has done since."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.errors import LakeError
from stock_assets.lake import maintenance
from stock_assets.lake.history import open_version, version_at, versions_at
from stock_assets.lake.maintenance import maintain
from stock_assets.lake.schemas import Drift, Orders
from stock_assets.lake.store import Lake
from stock_assets.lake.views import connect, versions_of
from stock_assets.slices import Slice

if TYPE_CHECKING:
    from pathlib import Path

AB = ("A", "B")
DAYS = 6


def now() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)


def order(number: int) -> pl.DataFrame:
    row = {
        "day": dt.date(2025, 1, 1), "ordered_by": "ann", "why": "because", "action": "promote",
        "ordered_at": dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(number),
        "model": "m", "trained_day": None, "model_version": None,
    }  # fmt: skip
    return pl.DataFrame([row], schema=Orders.create_empty().schema)


def seen(lake: Lake, moment: dt.datetime) -> dict[str, pl.DataFrame]:
    """Both tables of the tests as SQL shows them at a moment."""
    with connect(lake, versions=versions_at(lake, moment)) as connection:
        return {
            table: connection.sql(f"from {table} order by all").pl()
            for table in ("drift", "orders")
        }  # fmt: skip


def age(lake: Lake, table: str, days: float) -> None:
    """Make all that the table says of time, and its files, so many days older."""
    earlier = int(days * 86_400_000)
    times = {"commitInfo": "timestamp", "remove": "deletionTimestamp", "add": "modificationTime"}
    for file in (lake.root / table).rglob("*"):
        if file.suffix == ".json":
            actions = [json.loads(line) for line in file.read_text().splitlines()]
            for action in actions:
                for kind, name in times.items():
                    if kind in action:
                        action[kind][name] -= earlier
            file.write_text("\n".join(map(json.dumps, actions)) + "\n")
    for file in (lake.root / table).rglob("*"):
        moment = file.stat().st_mtime - earlier / 1000
        os.utime(file, (moment, moment))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, DAYS - 1), st.integers(0, DAYS - 1), st.integers(1, 3)),
        st.just("order"),
        st.just("maintain"),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@given(STEPS)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_past_moment_shows_what_the_lake_held_then(
    tmp_path_factory: pytest.TempPathFactory, drift_rows, day, steps
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    told = [(now(), {name: lake.read(name) for name in ("drift", "orders")})]
    for number, step in enumerate(steps):
        if step == "order":
            lake.append("orders", order(number))
        elif step == "maintain":
            maintain(lake)
        else:
            first, last = sorted(map(day, step[:2]))
            days = [first + dt.timedelta(n) for n in range((last - first).days + 1)]
            lake.write("drift", drift_rows(days, AB, step[2]), Slice(first, last, AB))
        told.append((now(), {name: lake.read(name) for name in ("drift", "orders")}))
        time.sleep(0.002)  # commits count milliseconds
    # A copy has other times on its files, and says the same.
    copy = Lake(lake.root.with_name("copy"))
    shutil.rmtree(copy.root, ignore_errors=True)
    shutil.copytree(lake.root, copy.root, copy_function=shutil.copy)
    for moment, held in told:
        for table, rows in seen(copy, moment).items():
            assert_frame_equal(rows, held[table], check_row_order=False, check_dtypes=False)


def test_a_table_that_was_not_there_is_an_empty_view_without_a_version(
    lake: Lake, drift_rows, day
) -> None:
    before = now()
    time.sleep(0.005)
    lake.write("drift", drift_rows([day(0)], AB), Slice(None, day(0), AB))
    assert version_at(lake, "drift", before) is None
    with connect(lake, versions=versions_at(lake, before)) as connection:
        assert connection.sql("select count(*) from drift").fetchall() == [(0,)]
        assert connection.sql("from drift").columns == lake.read("drift").columns
        assert versions_of(connection) == {}
    with connect(lake, versions=versions_at(lake, now())) as connection:
        assert versions_of(connection) == {"drift": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "made_by", "last"),
    [
        ("drift", "this version", 110),
        ("orders", "an older version", 110),
    ],
)
def test_over_a_hundred_commits_with_an_expired_log_all_stay_readable(
    lake: Lake, drift_rows, day, table: str, made_by: str, last: int
) -> None:
    area = Slice(day(0), day(0), AB)

    def commit(number: int) -> None:
        if table == "orders":
            lake.append("orders", order(number))
        else:
            lake.write("drift", drift_rows([day(0)], AB, number / 8), area)

    commit(0)
    found = lake.open(table)
    assert found is not None
    # Someone's Delta writer, or an older version of this one, wants the log short.
    found.alter.set_table_properties(
        {"delta.logRetentionDuration": "interval 1 days"}
        | ({"delta.enableExpiredLogCleanup": "true"} if made_by == "an older version" else {})
    )
    for number in range(1, last + 1):
        commit(number)
        if number == last // 2:
            # What is older than a checkpoint that has expired goes with the next one, at 100.
            checkpointed = lake.open(table)
            assert checkpointed is not None
            checkpointed.create_checkpoint()
            age(lake, table, 60)
    log = {file.name for file in (lake.root / table / "_delta_log").iterdir()}
    assert any(name.endswith(".checkpoint.parquet") for name in log), "else this proves nothing"
    assert maintain(lake)[0].removed == 0
    latest = lake.version(table)
    assert latest is not None
    assert latest > last
    for version in range(latest + 1):
        kept = open_version(lake, table, version)
        if version % 30 and version < latest:
            continue
        rows = kept.to_pyarrow_table()
        number = max(0, min(version - 1, last))  # version 1 is the properties'
        assert rows.num_rows == (number + 1 if table == "orders" else 2)
        if table == "drift":
            assert rows.column("distance").to_pylist() == [number / 8] * 2


@pytest.mark.slow
def test_what_was_known_within_the_days_kept_stays_and_the_rest_says_what_would_have_kept_it(
    lake: Lake, drift_rows, day
) -> None:
    area = Slice(day(0), day(0), AB)
    lake.write("drift", drift_rows([day(0)], AB, 1), area)
    age(lake, "drift", 20)
    lake.write("drift", drift_rows([day(0)], AB, 2), area)
    # Replaced 20 days ago and written 40 days ago; a checkpoint since then has forgotten it.
    age(lake, "drift", 20)
    lake.write("drift", drift_rows([day(1)], AB, 3), Slice(day(1), day(1), AB))
    found = lake.open("drift")
    assert found is not None
    found.create_checkpoint()
    forgotten = drift_rows([day(0)], AB, 1)

    def at(days: float) -> pl.DataFrame:
        return seen(lake, now() - dt.timedelta(days))["drift"]

    orphan = lake.root / "drift" / "year=2024" / "of-a-killed-run.parquet"
    shutil.copy(next((lake.root / "drift").rglob("*.parquet")), orphan)
    os.utime(orphan, (time.time() - 40 * 86_400,) * 2)
    (done,) = maintain(lake, keep=dt.timedelta(30))
    assert (done.removed, orphan.exists()) == (1, False)
    assert_frame_equal(at(29), forgotten, check_dtypes=False)
    assert at(19)["distance"].to_list() == [2.0, 2.0]

    (done,) = maintain(lake, keep=dt.timedelta(10))
    assert done.removed == 1
    assert at(9)["distance"].to_list() == [2.0, 2.0]
    with pytest.raises(LakeError, match=r"table drift: version 0 cannot be read: 1 of its 1 files"):
        at(29)
    with pytest.raises(LakeError, match=r"lake\.keep_days"):
        at(29)
    assert lake.read("drift").filter(pl.col("day") == day(0))["distance"].to_list() == [2.0, 2.0]


def test_a_log_that_does_not_reach_back_is_an_error_and_not_an_empty_table(
    lake: Lake, drift_rows, day
) -> None:
    for number in (1, 2, 3):
        lake.write("drift", drift_rows([day(0)], AB, number), Slice(None, day(0), AB))
    found = lake.open("drift")
    assert found is not None
    found.create_checkpoint()
    log = lake.root / "drift" / "_delta_log"
    for version in (0, 1):
        (log / f"{version:020d}.json").unlink()
    with pytest.raises(LakeError, match="begins with version 2"):
        version_at(lake, "drift", now() - dt.timedelta(1))
    with pytest.raises(LakeError, match="version 1 cannot be read"):
        open_version(lake, "drift", 1)
    with pytest.raises(LakeError, match="version 9 cannot be read"):
        open_version(lake, "drift", 9)
    assert version_at(lake, "drift", now()) == 2


def test_a_clock_that_was_set_back_does_not_show_what_came_later(
    lake: Lake, drift_rows, day
) -> None:
    def write(number: int) -> None:
        lake.write("drift", drift_rows([day(0)], AB, number), Slice(None, day(0), AB))

    write(1)
    age(lake, "drift", 2)
    write(2)
    write(3)
    log = lake.root / "drift" / "_delta_log"
    file = log / f"{2:020d}.json"
    actions = [json.loads(line) for line in file.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] -= 86_400_000  # before the version that it follows
    file.write_text("\n".join(map(json.dumps, actions)) + "\n")
    assert version_at(lake, "drift", now() - dt.timedelta(hours=12)) == 0
    assert version_at(lake, "drift", now()) == 2


def test_only_crowded_years_are_compacted(lake: Lake, drift_rows, day) -> None:
    """Old years' files are kept for old versions: writing them again would only double them."""
    for number in range(12, 24):
        lake.write("drift", drift_rows([day(number)], AB), Slice(day(number), day(number), AB))
    lake.write("drift", drift_rows([day(0)], AB), Slice(day(0), day(0), AB))

    def files() -> set[str]:
        return set(DeltaTable(lake.uri("drift")).file_uris())

    (old,) = [name for name in files() if "year=2024" in name]
    (done,) = maintain(lake)
    assert (done.files_before, done.files_after) == (13, 2)
    assert old in files()
    version = lake.version("drift")
    maintain(lake)
    assert lake.version("drift") == version


def test_a_year_that_is_over_is_compacted_once_more_and_rests(lake: Lake, drift_rows, day) -> None:
    for number in (0, 1, 2, 20):
        lake.write("drift", drift_rows([day(number)], AB), Slice(day(number), day(number), AB))
    (done,) = maintain(lake)
    assert (done.files_before, done.files_after) == (4, 2)
    version = lake.version("drift")
    maintain(lake)
    assert lake.version("drift") == version


def test_a_run_that_writes_while_a_table_is_compacted_has_the_last_word(
    lake: Lake, drift_rows, day, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(seed: int) -> None:
        days = [day(number) for number in range(12, 24)]
        for one in days:
            lake.write("drift", drift_rows([one], AB, seed), Slice(one, one, AB))

    write(1)
    compacted = maintenance._compact

    def overtaken(table: str, found: DeltaTable) -> None:
        write(2)
        compacted(table, found)

    monkeypatch.setattr(maintenance, "_compact", overtaken)
    with pytest.raises(LakeError, match="drift: a run wrote it while it was compacted"):
        maintain(lake)
    told = lake.read("drift")
    monkeypatch.undo()
    (done,) = maintain(lake)
    assert done.files_after < done.files_before
    key = Drift.primary_key()
    assert_frame_equal(lake.read("drift").sort(key), told.sort(key))


def test_a_lake_that_someone_copies_to_another_place_keeps_its_past(
    lake: Lake, drift_rows, day, tmp_path: Path
) -> None:
    for number in (1, 2):
        lake.write("drift", drift_rows([day(0)], AB, number), Slice(None, day(0), AB))
    shutil.move(lake.root, tmp_path / "moved")
    moved = Lake(tmp_path / "moved")
    assert open_version(moved, "drift", 0).to_pyarrow_table().column("distance").to_pylist() == [
        1.0, 1.0,
    ]  # fmt: skip
