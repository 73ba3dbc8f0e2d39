"""Writing by slice: exactly the slice, in one commit or none, whoever else writes or dies."""

from __future__ import annotations

import random
import shutil
import time

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stock_assets.errors import LakeError
from stock_assets.lake.schemas import Models
from stock_assets.lake.store import YEAR, Lake, dataset
from stock_assets.slices import Slice

AB = ("A", "B")

# Programs that run beside the test, in processes of their own.
PREPARE = """
import datetime as dt, sys
import polars as pl
from pathlib import Path
from stock_assets.lake.schemas import Drift
from stock_assets.lake.store import Lake
from stock_assets.slices import Slice

def rows(days, tickers, distance):
    return pl.DataFrame(
        [(day, ticker, "data", "ret_1d", float(distance), 1.0, distance > 1, 250, 20,
          0.5, None, 0.5, 50, None)
         for day in days for ticker in tickers],
        schema=Drift.create_empty().schema, orient="row")

def day(number):
    return dt.date(2024, 12, 20) + dt.timedelta(number)

lake = Lake(Path(sys.argv[1]))
"""


def test_what_is_written_is_read_back_sorted_with_its_types(lake, drift_rows, day):
    frame = drift_rows([day(1), day(0), day(20)], ["B", "A"])
    lake.write("drift", frame.sample(fraction=1, shuffle=True, seed=1), Slice(None, day(30), AB))

    assert_frame_equal(lake.read("drift"), frame.sort("day", "ticker", "feature"))
    assert lake.read("drift").schema == frame.schema


def test_writing_the_same_again_makes_no_version(lake, drift_rows, day):
    area = Slice(day(0), day(3), AB)
    frame = drift_rows([day(0), day(3)], AB)

    first = lake.write("drift", frame, area)
    again = lake.write("drift", frame.reverse(), area)

    assert first.changed
    assert not again.changed
    assert (first.version, again.version) == (0, 0)
    assert lake.version("drift") == 0
    assert again.rows == 4


def test_the_same_values_with_another_lineage_make_no_version(lake, day):
    def decided(features_version: int, model: str = "baseline") -> pl.DataFrame:
        empty = Models.create_empty()
        row = {
            "day": day(0), "ticker": "A", "model": model, "decision": "baseline", "reason": "r",
            "features_version": features_version,
        }  # fmt: skip
        return pl.DataFrame([row | {c: None for c in empty.columns if c not in row}],
                            schema=empty.schema)  # fmt: skip

    area = Slice(day(0), day(0), AB)
    lake.write("models", decided(3), area)

    assert not lake.write("models", decided(4), area).changed
    assert lake.write("models", decided(4, "m7"), area).changed


def test_only_the_rows_of_the_slice_are_replaced(lake, drift_rows, day):
    days = [day(n) for n in range(20)]
    lake.write("drift", drift_rows(days, ["A", "B", "C"]), Slice(None, days[-1], ("A", "B", "C")))

    area = Slice(days[5], days[14], ("A", "C"))
    lake.write("drift", drift_rows(days[5:10], ["A"], 7), area)

    expected = pl.concat(
        [
            drift_rows(days, ["B"]),
            drift_rows(days[:5] + days[15:], ["A", "C"]),
            drift_rows(days[5:10], ["A"], 7),
        ]
    ).sort("day", "ticker", "feature")
    assert_frame_equal(lake.read("drift"), expected)
    assert lake.version("drift") == 1


def test_an_empty_result_empties_its_slice_and_nothing_else(lake, drift_rows, day):
    lake.write("drift", drift_rows([day(0), day(1)], AB), Slice(None, day(1), AB))

    lake.write("drift", drift_rows([], []), Slice(day(1), day(1), ("A",)))

    left = lake.read("drift").select("day", "ticker").rows()
    assert left == [(day(0), "A"), (day(0), "B"), (day(1), "B")]


def test_an_unwritten_table_reads_as_an_empty_one(lake, day):
    assert lake.version("bars") is None
    found = lake.read("bars", Slice(day(0), day(0), AB), columns=["day", "close"])
    assert found.columns == ["day", "close"]
    assert found.is_empty()


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(
        st.tuples(
            st.integers(0, 24),
            st.integers(0, 24),
            st.sets(st.sampled_from(["A", "B", "C"]), min_size=1),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_series_of_writes_leaves_what_a_dictionary_would_hold(
    tmp_path_factory, drift_rows, day, writes
):
    lake = Lake(tmp_path_factory.mktemp("lake"))
    held: dict[tuple, float] = {}
    for one, other, names, distance in writes:
        days = [day(n) for n in range(min(one, other), max(one, other) + 1)]
        tickers = tuple(sorted(names))
        lake.write(
            "drift", drift_rows(days[::2], tickers, distance), Slice(days[0], days[-1], tickers)
        )
        held = {k: v for k, v in held.items() if k[0] not in days or k[1] not in tickers}
        held |= {(d, t): float(distance) for d in days[::2] for t in tickers}

    found = lake.read("drift").select("day", "ticker", "distance").rows()
    assert found == sorted((*key, value) for key, value in held.items())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=st.integers(0, 24), length=st.integers(0, 10), ticker=st.sampled_from("ABX"))
def test_reading_a_slice_is_reading_all_and_choosing(
    tmp_path_factory, drift_rows, day, first, length, ticker
):
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.write("drift", drift_rows([day(n) for n in range(25)], AB), Slice(None, day(24), AB))
    area = Slice(day(first), day(first + length), (ticker,))

    chosen = lake.read("drift").filter(
        pl.col("day").is_between(area.first_date, area.last_date), pl.col("ticker") == ticker
    )
    assert_frame_equal(lake.read("drift", area), chosen)


@pytest.mark.parametrize(
    ("number", "ticker"), [(4, "A"), (6, "A"), (5, "Z")], ids=["before", "after", "ticker"]
)
@pytest.mark.parametrize("exists", [False, True])
def test_rows_outside_the_slice_are_refused_and_the_table_stays(
    lake, drift_rows, day, number, ticker, exists
):
    area = Slice(day(5), day(5), AB)
    if exists:
        lake.write("drift", drift_rows([day(5)], AB), area)
    before = lake.version("drift")

    stray = pl.concat([drift_rows([day(5)], AB, 3), drift_rows([day(number)], [ticker], 3)])
    with pytest.raises(LakeError, match="outside the slice") as caught:
        lake.write("drift", stray, area)

    assert "drift" in str(caught.value)
    assert lake.version("drift") == before


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda f: f.with_columns(distance=pl.lit(-1.0)), "distance"),
        (lambda f: f.with_columns(distance=pl.lit(float("nan"))), "distance"),
        (lambda f: f.with_columns(drifted=pl.lit(None, dtype=pl.Boolean)), "drifted"),
        (lambda f: f.drop("threshold"), "threshold"),
        (lambda f: f.with_columns(distance=pl.lit("far")), "drift"),
        (lambda f: pl.concat([f, f]), "primary_key"),
    ],
    ids=["rule", "nan", "null", "missing column", "type", "twice"],
)
def test_rows_that_break_the_schema_are_refused_and_the_table_stays(
    lake, drift_rows, day, broken, told
):
    area = Slice(day(0), day(1), AB)
    good = drift_rows([day(0)], AB)
    lake.write("drift", good, area)

    with pytest.raises(LakeError) as caught:
        lake.write("drift", broken(drift_rows([day(1)], AB)), area)

    assert "table drift" in str(caught.value)
    assert told in str(caught.value)
    assert lake.version("drift") == 0
    assert_frame_equal(lake.read("drift"), good)


def test_a_table_nobody_defined_is_named_with_those_there_are(lake):
    with pytest.raises(LakeError, match=r"no table 'candels'.*candles"):
        lake.open("candels")


def test_a_ticker_with_an_apostrophe_is_only_a_name(lake, drift_rows, day):
    names = ("A", "O'NEIL", "x'); drop table drift; --")
    lake.write("drift", drift_rows([day(0), day(1)], names), Slice(None, day(1), names))

    lake.write("drift", drift_rows([day(1)], ["O'NEIL"], 5), Slice(day(1), day(1), ("O'NEIL",)))

    assert lake.read("drift").height == 6
    only = lake.read("drift", Slice(None, day(1), ("O'NEIL",)))
    assert only["distance"].to_list() == [1.0, 5.0]


def test_a_lake_in_a_folder_of_any_name_is_read(tmp_path, drift_rows, day):
    lake = Lake(tmp_path / "Märkte 100% + «ours»")
    frame = drift_rows([day(0), day(20)], AB)
    lake.write("drift", frame, Slice(None, day(20), AB))

    assert_frame_equal(lake.read("drift", Slice(day(20), day(20), AB)), frame.filter(day=day(20)))


def test_a_version_is_made_readable_once(lake, drift_rows, day):
    asked = []
    for distance in (1.0, 2.0):
        lake.write("drift", drift_rows([day(0)], AB, distance), Slice(day(0), day(0), AB))
        asked += [dataset("drift", lake.open("drift")) for _ in range(2)]
    assert asked[0] is asked[1]
    assert asked[2] is asked[3]
    found = [set(one.to_table().column("distance").to_pylist()) for one in asked]
    assert found == [{1.0}, {1.0}, {2.0}, {2.0}]


def test_a_copy_that_was_put_in_the_place_of_a_lake_is_read_as_what_it_is(
    tmp_path, drift_rows, day
):
    """And goes on from there: its next version has the number of one that was read before."""
    lake, area = Lake(tmp_path / "lake"), Slice(day(0), day(0), AB)
    lake.write("drift", drift_rows([day(0)], AB, 1.0), area)
    shutil.copytree(tmp_path / "lake", tmp_path / "copy")
    lake.write("drift", drift_rows([day(0)], AB, 2.0), area)
    assert set(lake.read("drift")["distance"]) == {2.0}
    shutil.rmtree(tmp_path / "lake")
    shutil.copytree(tmp_path / "copy", tmp_path / "lake")
    assert set(lake.read("drift")["distance"]) == {1.0}
    lake.write("drift", drift_rows([day(0)], AB, 3.0), area)
    assert set(lake.read("drift")["distance"]) == {3.0}


def test_the_physical_year_is_hidden_and_right(lake, drift_rows, day):
    lake.write("drift", drift_rows([day(0), day(20)], AB), Slice(None, day(20), AB))

    stored = pl.from_arrow(lake.open("drift").to_pyarrow_table())
    assert stored.filter(pl.col(YEAR) != pl.col("day").dt.year()).is_empty()
    assert YEAR not in lake.read("drift").columns
    assert len(lake.open("drift").file_uris()) == 2, "one file a year"


def test_a_write_leaves_files_of_other_years_alone(lake, drift_rows, day):
    lake.write("drift", drift_rows([day(0), day(20)], AB), Slice(None, day(20), AB))
    before = set(lake.open("drift").file_uris())

    lake.write("drift", drift_rows([day(20)], AB, 4), Slice(day(20), day(20), AB))

    kept = before & set(lake.open("drift").file_uris())
    assert ["2024" in uri for uri in kept] == [True]


def test_the_commit_says_what_it_is(lake, drift_rows, day):
    lake.write("drift", drift_rows([day(0)], AB), Slice(day(0), day(0), AB), note={"run": "r1"})

    entry = lake.open("drift").history(1)[0]
    assert entry["run"] == "r1"
    assert "2024-12-20" in entry["slice"]


def test_a_file_in_place_of_the_lake_is_named_with_the_fix(tmp_path, drift_rows, day):
    place = tmp_path / "lake"
    place.write_text("mine")

    with pytest.raises(LakeError) as caught:
        Lake(place).write("drift", drift_rows([day(0)], AB), Slice(day(0), day(0), AB))

    assert str(place) in str(caught.value)
    assert "lake.path" in str(caught.value)
    assert place.read_text() == "mine"


def test_a_file_in_place_of_a_table_is_named_when_reading(tmp_path, drift_rows, day):
    (tmp_path / "drift").write_text("mine")

    with pytest.raises(LakeError, match="drift"):
        Lake(tmp_path).write("drift", drift_rows([day(0)], AB), Slice(day(0), day(0), AB))


def test_a_damaged_log_is_an_error_not_an_empty_table(lake, drift_rows, day):
    lake.write("drift", drift_rows([day(0)], AB), Slice(day(0), day(0), AB))
    for entry in (lake.root / "drift" / "_delta_log").glob("*.json"):
        entry.write_text("{ rubbish")

    with pytest.raises(LakeError, match="drift"):
        lake.read("drift")


FULL = (
    PREPARE
    + """
import resource, signal
from stock_assets.errors import LakeError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
days = [day(n) for n in range(2000)]
try:
    frame = rows(days, ["A", "B"], 3)
    lake.write("drift", frame, Slice(days[0], days[-1], ("A", "B")))
except LakeError as error:
    print(error)
    sys.exit(error.exit_code)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("limit", [100, 2000])
def test_a_full_disk_is_a_clear_error_and_the_table_stays(
    lake, drift_rows, day, start, limit, exists
):
    """A limit on the size of files stands for the full disk: writing fails halfway."""
    before = drift_rows([day(0)], AB)
    if exists:
        lake.write("drift", before, Slice(day(0), day(0), AB))

    process = start(FULL, lake.root, limit)
    out, err = process.communicate(timeout=120)

    assert process.returncode == LakeError.exit_code, out + err
    assert "table drift: cannot write" in out
    if exists:
        assert lake.version("drift") == 0
        assert_frame_equal(lake.read("drift"), before)
    else:
        assert lake.read("drift").is_empty()
    whole = drift_rows([day(0), day(1)], AB, 2)
    lake.write("drift", whole, Slice(day(0), day(1), AB))
    assert_frame_equal(lake.read("drift"), whole)


WRITER = (
    PREPARE
    + """
number, writers = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for step in range(4):
    own = day(step * writers + number)
    lake.write("drift", rows([own], ["A", "B"], number + 1), Slice(own, own, ("A", "B")))
    shared = day(200 + step % 2)
    lake.write("drift", rows([shared], ["A", "B"], number + 1), Slice(shared, shared, ("A", "B")))
"""
)


@pytest.mark.slow
def test_four_processes_writing_at_once_end_in_the_right_table(lake, day, start):
    """From an empty lake: each writes its own days, and all write the same two days."""
    writers = 4
    processes = [start(WRITER, lake.root, number, writers) for number in range(writers)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err

    found = lake.read("drift")
    own = found.filter(pl.col("day") < day(200)).select("day", "ticker", "distance").rows()
    assert own == [
        (day(n), ticker, float(n % writers + 1)) for n in range(4 * writers) for ticker in AB
    ]
    same = found.filter(pl.col("day") >= day(200))
    assert same.select("day", "ticker").rows() == [(day(200 + n), t) for n in (0, 1) for t in AB]
    for rows_of_day in same.partition_by("day"):
        assert rows_of_day["distance"].n_unique() == 1, "one writer's rows, not a mixture"


CREATOR = (
    PREPARE
    + """
days = [day(n) for n in range(400)]
frame = rows(days, ["A"], 1)
for turn in sys.stdin:
    Lake(lake.root / turn.strip()).write("drift", frame, Slice(None, days[-1], ("A",)))
    print("done", flush=True)
"""
)


@pytest.mark.slow
def test_runs_that_create_a_table_at_once_leave_one_set_of_rows(lake, start):
    """Delta's own retry would add the second writer's rows to the first one's."""
    rounds = 40
    processes = [start(CREATOR, lake.root) for _ in range(3)]
    for turn in range(rounds):
        for process in processes:
            process.stdin.write(f"{turn}\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout.readline().strip() in {"ready", "done"}, process.stderr.read()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    for turn in range(rounds):
        assert Lake(lake.root / str(turn)).read("drift").height == 400
        assert Lake(lake.root / str(turn)).version("drift") == 0


KILLED = (
    PREPARE
    + """
days = [day(n) for n in range(400)]
tickers = tuple(f"T{n:02}" for n in range(20))
for turn in range(1, 1000):
    frame = rows(days, tickers, turn)
    print(turn, flush=True)
    lake.write("drift", frame, Slice(days[0], days[-1], tickers))
"""
)


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_the_table_as_before_or_as_after(
    tmp_path, drift_rows, day, start
):
    """Each writer replaces the whole table again and again until it is killed."""
    days = [day(n) for n in range(400)]
    tickers = tuple(f"T{n:02}" for n in range(20))
    area = Slice(days[0], days[-1], tickers)
    lakes = [Lake(tmp_path / f"lake{number}") for number in range(6)]
    pause = random.Random(11)
    for two in (lakes[:2], lakes[2:4], lakes[4:]):
        writers = [start(KILLED, lake.root) for lake in two]
        for writer, lake in zip(writers, two, strict=True):
            for _ in range(3):
                assert writer.stdout.readline(), writer.stderr.read()
            time.sleep(pause.uniform(0.0, 0.15))
            writer.kill()
            # What `readline` has buffered counts too: `communicate` would pass it over.
            begun = int(["3", *writer.stdout.read().split()][-1])
            writer.wait()

            found = lake.read("drift")

            assert found.height == len(days) * len(tickers)
            values = found["distance"].unique().to_list()
            assert values in ([begun - 1.0], [float(begun)]), "never between"
            lake.write("drift", drift_rows(days, tickers, 0), area)
            assert_frame_equal(lake.read("drift"), drift_rows(days, tickers, 0))
