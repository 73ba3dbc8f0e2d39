"""The registry gives back what was put in, elsewhere and later, and never half of it."""

import ctypes
import datetime as dt
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import create_engine

from stock_assets.errors import ModelError
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import VolatilityModel, calibrate, fit, trainable
from stock_assets.forecasting.registry import MODEL_NAME, Registry, TrainingRecord, _client

DAY = dt.date(2024, 5, 6)


def record(name: str, day: dt.date = DAY) -> TrainingRecord:
    verdict = Verdict(True, "a reason", 0.1 + 0.2, None, 1 / 3, 50)
    return TrainingRecord(name, day, ("A", "B"), 1234, verdict, {"validation_first": "2024-01-01"})


@pytest.fixture(scope="module")
def model(features: pl.DataFrame, labelled: pl.DataFrame) -> VolatilityModel:
    rows = trainable(features, labelled)
    booster = fit(rows)
    return VolatilityModel(booster, calibrate(booster, rows.tail(900)))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, model: VolatilityModel) -> Path:
    """A folder with one model: making MLflow's tables takes seconds, copying them none."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(folder).register(model, record("first"))
    return folder


@pytest.fixture
def folder(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "mlflow"))


def heed_permissions() -> None:
    """Let what is executed next obey the files' permissions, even for root."""
    if os.geteuid() == 0:
        drop_from_bounding_set, override_permissions = 24, 1
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, override_permissions) == 0


def run(
    script: str, *arguments: object, cwd: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Python in a clean process, without git on its path."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd, env={"PATH": "", "HOME": str(cwd), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=False, timeout=120, preexec_fn=before,
    )  # fmt: skip


def test_a_registry_that_was_never_made_holds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "none")
    assert registry.find("x") is None
    assert registry.alias("champion") is None
    assert not (tmp_path / "none").exists()


def test_a_model_is_found_where_mlflow_finds_it(folder: Path, model: VolatilityModel) -> None:
    registry, client = Registry(folder), _client(folder)
    for name in ("second", "third"):
        registry.register(model, record(name))
    client.delete_model_version(MODEL_NAME, str(registry.find("second").version))
    # A copy made by hand does not take the name from the first.
    third = registry.find("third")
    twin = client.get_model_version(MODEL_NAME, str(third.version))
    client.create_model_version(
        MODEL_NAME, twin.source, run_id=twin.run_id, tags={"model_id": "third"}
    )
    for name in ("first", "second", "third", "never", "it's"):
        versions = client.search_model_versions(
            f'name = "{MODEL_NAME}" and tags.model_id = "{name}"'
        )
        first = min((int(item.version) for item in versions), default=None)
        found = registry.find(name)
        assert (found and found.version) == first, "MLflow changed how it stores versions"


def test_finding_and_loading_a_model_does_not_import_mlflow(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from stock_assets.forecasting.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "registry.find('first'), registry.load('first')\n"
        "print(sorted({'mlflow', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = run(script, folder, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_registry_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, but long enough to be looked at")
    with pytest.raises(ModelError, match=r"mlflow.db cannot be read: .*check its rights"):
        Registry(tmp_path).find("first")


def test_a_transaction_that_was_killed_is_rolled_back_by_the_next_reader(
    folder: Path, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sqlite3, sys\n"
        "writer = sqlite3.connect(sys.argv[1])\n"
        "writer.execute('pragma cache_size = 1')\n"  # so that pages are written before the commit
        "writer.execute('begin immediate')\n"
        "writer.execute(\"update model_version_tags set value = 'torn'\")\n"
        "writer.execute('create table more (data)')\n"
        "writer.executemany('insert into more values (zeroblob(?))', [(4000,)] * 500)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    database = folder / "mlflow.db"
    assert run(script, database, cwd=tmp_path).returncode == -signal.SIGKILL
    journal = folder / "mlflow.db-journal"
    assert journal.stat().st_size > 0
    with (
        closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader.execute("select * from model_version_tags")
    assert Registry(folder).find("first").record == record("first")
    assert not journal.exists()


def test_a_write_protected_registry_can_be_read(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from stock_assets.forecasting.registry import Registry\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    (folder / 'new').touch()\n"
        "    sys.exit('it can be written')\n"
        "except PermissionError:\n"
        "    print(Registry(folder).find('first').version)\n"
    )
    (folder / "mlflow.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        done = run(script, folder, cwd=tmp_path, before=heed_permissions)
    finally:
        folder.chmod(0o755)
    assert done.stdout.strip() == "1", done.stderr


def test_a_half_made_database_holds_no_model_and_the_next_registration_finishes_it(
    tmp_path: Path, model: VolatilityModel
) -> None:
    from mlflow.store.tracking.dbmodels import initial_models

    # MLflow makes these tables first, and carries on from there.
    engine = create_engine(f"sqlite:///{tmp_path / 'mlflow.db'}")
    initial_models.Base.metadata.create_all(engine)
    engine.dispose()
    registry = Registry(tmp_path)
    assert registry.find("first") is None
    assert registry.register(model, record("first")).version == 1
    assert registry.find("first").record == record("first")


def test_a_killed_first_creation_leaves_no_database_and_can_be_repeated(
    tmp_path: Path, model: VolatilityModel
) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sqlalchemy import event; from sqlalchemy.engine import Engine\n"
        "from stock_assets.forecasting.registry import _client\n"
        "@event.listens_for(Engine, 'after_cursor_execute')\n"
        "def kill(connection, cursor, statement, *_):\n"
        "    if 'CREATE TABLE datasets' in statement: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_client(Path(sys.argv[1]))\n"
    )
    folder = tmp_path / "mlflow"
    assert run(script, folder, cwd=tmp_path).returncode == -signal.SIGKILL
    registry = Registry(folder)
    assert registry.find("first") is None
    assert not (folder / "mlflow.db").exists()
    (draft,) = folder.glob(".draft-*/mlflow.db")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(draft.parent, elsewhere)
    assert registry.register(model, record("first")).version == 1
    assert registry.find("first").record == record("first")
    assert sorted(item.name for item in folder.iterdir()) == [
        "artifacts", "mlflow.db", "registry.lock",
    ]  # fmt: skip
    # Where the database itself was left so, as by MLflow alone, MLflow cannot carry on.
    other = Registry(elsewhere)
    assert other.find("first") is None
    with pytest.raises(ModelError, match=r"elsewhere/mlflow.db cannot be .*delete that file"):
        other.register(model, record("first"))


def test_a_database_with_models_that_mlflow_cannot_open_is_not_called_empty(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = 'old'")
    with pytest.raises(ModelError, match=r"mlflow.db cannot be .*mlflow db upgrade sql") as told:
        Registry(folder).set_alias("champion", "first")
    assert "delete" not in str(told.value)


def test_a_missing_model_is_an_error_that_names_it_and_the_fix(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model lost .*restore that folder, or run the `model`"):
        Registry(folder).load("lost")


def test_a_model_whose_files_are_gone_is_an_error_that_names_them(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts")
    with pytest.raises(ModelError, match=r"model first: .*calibration.json cannot be read"):
        Registry(folder).load("first")


def test_the_record_comes_back_to_the_last_bit(folder: Path) -> None:
    assert Registry(folder).find("first").record == record("first")


def test_a_clean_process_in_another_place_forecasts_the_same_and_stays_quiet(
    folder: Path, model: VolatilityModel, features: pl.DataFrame, tmp_path: Path
) -> None:
    rows = features.tail(60)
    rows.write_parquet(tmp_path / "rows.parquet")
    script = (
        "import sys, polars as pl; from pathlib import Path\n"
        "from stock_assets.forecasting.registry import Registry\n"
        "model = Registry(Path(sys.argv[1])).load('first')\n"
        "model.forecast(pl.read_parquet('rows.parquet')).write_parquet('made.parquet')\n"
    )
    done = run(script, folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr + done.stdout == ""
    made = pl.read_parquet(tmp_path / "made.parquet")
    assert_frame_equal(made, model.forecast(rows), check_exact=True)


def test_nothing_is_written_outside_the_folder(
    folder: Path, model: VolatilityModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    registry = Registry(folder)
    registry.register(model, record("second"))
    registry.set_alias("champion", "second")
    registry.load("second")
    assert list(elsewhere.iterdir()) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == ["elsewhere", "mlflow"]


def test_the_same_model_registered_twice_is_the_first(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    before = registry.find("first")
    assert registry.register(model, record("first")) == before
    assert registry.register(model, record("second")).version == before.version + 1


def test_registering_is_quick(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    registry.find("first")
    began = time.perf_counter()
    registry.register(model, record("second"))
    assert time.perf_counter() - began < 3


def test_a_killed_registration_is_not_found_and_can_be_repeated(
    folder: Path, model: VolatilityModel, tmp_path: Path
) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from stock_assets.forecasting import registry as kept\n"
        "from dataclasses import replace\n"
        "registry = kept.Registry(Path(sys.argv[1]))\n"
        "model, found = registry.load('first'), registry.find('first')\n"
        "client = type(kept._client(registry.folder))\n"
        "client.create_model_version = lambda *a, **k: os._exit(9)\n"
        "registry.register(model, replace(found.record, model_id='stopped'))\n"
    )
    assert run(script, folder, cwd=tmp_path).returncode == 9
    assert_stopped_and_repeatable(folder, model)


@pytest.mark.parametrize("step", ["create_run", "log_batch", "set_terminated"])
def test_an_interrupted_registration_is_not_found_and_can_be_repeated(
    folder: Path, model: VolatilityModel, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(_client(folder)), step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            Registry(folder).register(model, record("stopped"))
    assert_stopped_and_repeatable(folder, model)


def assert_stopped_and_repeatable(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    assert registry.find("stopped") is None
    with pytest.raises(ModelError):
        registry.load("stopped")
    version = registry.register(model, record("stopped")).version
    assert registry.find("stopped").version == version
    assert registry.load("stopped").calibration == model.calibration


def test_processes_that_register_the_same_model_at_once_agree_on_one(
    folder: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from stock_assets.forecasting.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "model, found = registry.load('first'), registry.find('first')\n"
        "record = replace(found.record, model_id='shared')\n"
        "print(registry.register(model, record).version)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        )
        for _ in range(2)
    ]  # fmt: skip
    versions = {process.communicate(timeout=120)[0].strip() for process in both}
    assert versions == {str(Registry(folder).find("shared").version)}


def test_an_alias_does_not_go_back_in_time(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    registry.register(model, record("later", DAY + dt.timedelta(30)))
    assert registry.set_alias("champion", "first")
    assert registry.set_alias("champion", "later")
    assert not registry.set_alias("champion", "first")
    assert registry.alias("champion") == "later"
    with pytest.raises(ModelError, match="no model nobody"):
        registry.set_alias("champion", "nobody")
