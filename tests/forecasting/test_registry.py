"""The registry gives back what was put in, elsewhere and later, and never half of it."""

import ctypes
import datetime as dt
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import create_engine

from stock_assets.errors import ModelError
from stock_assets.forecasting import registry as registry_module
from stock_assets.forecasting.fingerprint import constants_of_a_fit
from stock_assets.forecasting.forecaster import Known
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import (
    CODE_VERSION,
    TARGETS,
    VolatilityModel,
    fit,
    importance,
    model_inputs,
    trainable,
)
from stock_assets.forecasting.registry import (
    MODEL_NAME,
    Registry,
    TrainingRecord,
    _client,
    _code_tags,
    _places,
)
from stock_assets.forecasting.training_report import report

pytestmark = pytest.mark.slow

DAY = dt.date(2024, 5, 6)


def record(name: str, day: dt.date = DAY) -> TrainingRecord:
    verdict = Verdict(True, "a reason", 0.1 + 0.2, None, 1 / 3, 50)
    return TrainingRecord(name, day, ("A", "B"), 1234, verdict, {"validation_first": "2024-01-01"})


@pytest.fixture(scope="module")
def model(
    features: pl.DataFrame, labelled: pl.DataFrame, sessions: list[dt.date]
) -> VolatilityModel:
    first = sessions[250]
    return fit(trainable(features, labelled).filter(pl.col("label_end") <= first), first)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, model: VolatilityModel) -> Path:
    """A folder with one model: making MLflow's tables takes seconds, copying them none."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(folder).register(model, record("first"))
    return folder


@pytest.fixture
def folder(empty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty, tmp_path / "mlflow"))


def commit() -> str:
    """That of the checkout which the tests run in; nothing where it is none."""
    project = Path(__file__).parents[2]
    if not (project / ".git").exists():
        return ""
    found = subprocess.run(
        ["git", "-C", str(project), "rev-parse", "HEAD"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.strip()


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
    assert registry.versions() == []
    for name in ("1", "champion", "x"):
        with pytest.raises(ModelError, match=f"no model '{name}'"):
            registry.resolve(name)
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
        Registry(folder).set_alias("champion", "first", DAY)
    assert "delete" not in str(told.value)


def test_a_missing_model_is_an_error_that_names_it_and_the_fix(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model lost .*restore that folder, or run the `model`"):
        Registry(folder).load("lost")


def test_a_model_whose_files_are_gone_is_an_error_that_names_them(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts")
    with pytest.raises(ModelError, match=r"model first: .*rest.json cannot be read"):
        Registry(folder).load("first")


def test_the_record_comes_back_to_the_last_bit(folder: Path) -> None:
    assert Registry(folder).find("first").record == record("first")


def test_a_clean_process_in_another_place_forecasts_the_same_and_stays_quiet(
    folder: Path,
    model: VolatilityModel,
    features: pl.DataFrame,
    labelled: pl.DataFrame,
    tmp_path: Path,
) -> None:
    features.write_parquet(tmp_path / "features.parquet")
    labelled.write_parquet(tmp_path / "labelled.parquet")
    script = (
        "import sys, polars as pl; from pathlib import Path\n"
        "from stock_assets.forecasting.forecaster import Known\n"
        "from stock_assets.forecasting.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "model = registry.load(registry.resolve('1').record.model_id)\n"
        "known = Known(pl.read_parquet('features.parquet'), pl.read_parquet('labelled.parquet'))\n"
        "model.forecast(known.features.tail(60), known).write_parquet('made.parquet')\n"
    )
    done = run(script, folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr + done.stdout == ""
    made = pl.read_parquet(tmp_path / "made.parquet")
    expected = model.forecast(features.tail(60), Known(features, labelled))
    assert made.height == 60 * 5
    assert_frame_equal(made, expected, check_exact=True)


def test_mlflow_alone_loads_a_version_by_its_name_in_a_clean_process(
    empty: Path, model: VolatilityModel, features: pl.DataFrame, tmp_path: Path
) -> None:
    inputs = model_inputs(features.tail(60))
    inputs.write_parquet(tmp_path / "inputs.parquet")
    script = (
        "import sys, numpy, pandas, mlflow.pyfunc\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "loaded = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "made = loaded.predict(pandas.read_parquet('inputs.parquet'))\n"
        "numpy.save('made.npy', made)\n"
        "print('stock_assets' in sys.modules)\n"
    )
    done = run(script, Registry(empty).uri, f"models:/{MODEL_NAME}/1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    made = np.load(tmp_path / "made.npy")
    assert made.shape == (60, len(TARGETS))
    assert made == pytest.approx(model.booster.predict(inputs.to_numpy()))


def test_nothing_is_written_outside_the_folder(
    folder: Path, model: VolatilityModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    registry = Registry(folder)
    registry.register(model, record("second"))
    registry.set_alias("champion", "second", DAY)
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
    began = time.process_time()
    registry.register(model, record("second"))
    assert time.process_time() - began < 1


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
    assert registry.load("stopped").to_json() == model.to_json()


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


def test_an_alias_is_as_of_a_day_and_does_not_go_back(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    later = DAY + dt.timedelta(30)
    registry.register(model, record("later", later))
    assert registry.set_alias("champion", "first", DAY)
    assert registry.set_alias("champion", "later", later)
    assert not registry.set_alias("champion", "first", DAY)
    assert registry.resolve("champion").record.model_id == "later"
    # Going back to an earlier model later on is no going back in time.
    assert registry.set_alias("champion", "first", later + dt.timedelta(1))
    assert registry.resolve("champion").record.model_id == "first"
    assert not registry.set_alias("champion", None, later)
    assert registry.set_alias("champion", None, later + dt.timedelta(2))
    with pytest.raises(ModelError, match="no model 'champion'"):
        registry.resolve("champion")
    assert registry.set_alias("champion", None, later + dt.timedelta(3))
    with pytest.raises(ModelError, match="no model nobody"):
        registry.set_alias("champion", "nobody", later)


def test_no_title_is_taken_away_in_a_registry_that_was_never_made(tmp_path: Path) -> None:
    assert Registry(tmp_path / "none").set_alias("champion", None, DAY)
    assert not (tmp_path / "none").exists()


def test_a_model_is_meant_by_its_id_version_or_alias(folder: Path, model: VolatilityModel) -> None:
    registry = Registry(folder)
    second = registry.register(model, record("second"))
    registry.set_alias("champion", "second", DAY)
    assert [item.model_id for item in registry.versions()] == ["first", "second"]
    assert [item.aliases for item in registry.versions()] == [(), ("champion",)]
    for name in ("second", str(second.version), "champion"):
        assert registry.resolve(name).record.model_id == "second"
    assert registry.load("second").to_json() == model.to_json()
    for name in ("nobody", "99", "challenger"):
        with pytest.raises(ModelError, match=f"no model '{name}' .*model list"):
            registry.resolve(name)


@pytest.mark.parametrize("file", ["model.cb", "rest.json", "training.json"])
def test_a_file_that_is_not_as_registered_is_refused(folder: Path, file: str) -> None:
    (place,) = folder.glob(f"artifacts/*/artifacts/model/{file}")
    content = place.read_bytes()
    for harmed in (content[: len(content) // 2], content.replace(b"1", b"2", 1), None):
        if harmed is None:
            place.unlink()
        else:
            place.write_bytes(harmed)
        told = "cannot be read" if harmed is None else "is not what was registered"
        registry = Registry(folder)
        with pytest.raises(ModelError, match=f"model first: .*{file} {told}.*restore it.*promote"):
            registry.resolve("first"), registry.load("first")
        registry_module._load.cache_clear()


def test_a_damaged_version_is_listed_as_such_beside_the_others(
    folder: Path, model: VolatilityModel
) -> None:
    registry = Registry(folder)
    registry.register(model, record("second"))
    place = _places(folder)[0].files
    for file in ("model.cb", "training.json"):
        place.joinpath(file).write_bytes(b"harmed")
        first, second = registry.versions()
        assert (first.model_id, first.trained, first.condition) == ("first", str(DAY), "damaged")
        assert "changed or cut short" in (first.problem or "")
        assert (second.record, second.condition, second.problem) == (
            record("second"),
            "sound",
            None,
        )
    assert first.record is None
    # Damage is not hidden by serving something else.
    assert registry.unfit() == {}


def assert_unfit(registry: Registry, told: str) -> None:
    assert registry.find("first") is None
    assert registry.unfit() == {"first": told}
    (listed,) = registry.versions()
    assert (listed.trained, listed.condition) == (str(DAY), "other code")
    assert told in (listed.problem or "")
    with pytest.raises(ModelError, match=r"model first was registered by .*promote baseline"):
        registry.load("first")


def test_a_version_of_before_hashes_is_no_damage_and_not_served(
    folder: Path, model: VolatilityModel
) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("delete from model_version_tags where key = 'sha256'")
    registry = Registry(folder)
    assert_unfit(registry, "was registered by an older version of stock-assets")
    with pytest.raises(ModelError, match="model first was registered by an older version"):
        registry.resolve("1")
    # The same training again is registered, and serves.
    again = registry.register(model, record("first"))
    assert again.version == 2
    assert registry.find("first") == again
    assert registry.unfit() == {}
    assert registry.load("first").to_json() == model.to_json()


def test_a_model_that_other_code_trained_is_shown_and_not_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(folder)
    registry.load("first")
    other = CODE_VERSION + 1
    monkeypatch.setattr(registry_module, "CODE_VERSION", other)
    assert_unfit(
        registry,
        "was registered by another version of stock-assets "
        f"(code of the model {CODE_VERSION}, here {other})",
    )
    assert registry.resolve("1").record == record("first")


def test_an_alias_that_cannot_be_moved_is_an_error_that_names_the_fix(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def full(*_: object) -> None:
        raise MlflowException("database or disk is full")

    monkeypatch.setattr(type(_client(folder)), "set_registered_model_alias", full)
    with pytest.raises(ModelError, match=r"alias 'champion' cannot be moved .*full; free space"):
        Registry(folder).set_alias("champion", "first", DAY)


def test_a_run_shows_all_of_a_training(
    folder: Path, model: VolatilityModel, features: pl.DataFrame, labelled: pl.DataFrame
) -> None:
    """As MLflow's own client and loader see it."""
    import mlflow.pyfunc
    from mlflow import MlflowClient

    rows = trainable(features, labelled).tail(600)
    shown = report(
        importance(model),
        model_inputs(rows.head(3)),
        model.forecast(rows, Known(features, labelled)),
        rows,
    )
    told = replace(
        record("shown"), measures={"skill": 1.5, "baseline_t": 2.5}, lake_versions={"bars": 4}
    )
    registry = Registry(folder)
    _code_tags.cache_clear()  # the code of now, whatever it was when another test asked
    found = registry.register(
        model, told, trigger="cadence", report=lambda: shown, parameters={"window": 250}
    )
    client = MlflowClient(registry.uri, registry.uri)
    version = client.get_model_version(MODEL_NAME, str(found.version))
    run = client.get_run(version.run_id)
    assert run.data.params["window"] == "250"
    assert run.data.params["validation_first"] == "2024-01-01"
    assert run.data.params["depth"] == "4"
    for name, value in constants_of_a_fit().items():
        assert run.data.params[name] == value, "all that a fit hangs on, not the trees' alone"
    assert {"model.RIDGE_PENALTY", "model.ONE_SESSION_WEIGHTS", "model.MEDIAN_KEPT"} <= set(
        run.data.params
    )
    assert run.data.metrics == {"skill": 1.5, "baseline_t": 2.5}
    assert run.data.tags["decision"] == "trained"
    assert run.data.tags["lake.bars"] == "4"
    assert run.data.tags["code.package"]
    assert run.data.tags["trigger"] == "cadence"
    assert run.data.tags.get("mlflow.source.git.commit", "").removesuffix("-dirty") == commit()
    assert "a reason" in version.description
    assert set(json.loads(version.tags["sha256"])) == {
        "model.cb", "rest.json", "training.json",
    }  # fmt: skip
    files = folder / "artifacts" / version.run_id / "artifacts"
    assert {item.name for item in files.iterdir()} == {
        "importance.csv",
        "importance.png",
        "calibration.png",
        "pit.png",
        "model",
    }
    weights = registry.importance("shown")
    assert weights["importance"].sum() == pytest.approx(100)
    assert weights["input"][0] == shown.importance["input"][0]
    # What people load with MLflow alone: signature, example, and the booster's own numbers.
    loaded = mlflow.pyfunc.load_model(str(files / "model"))
    example = loaded.input_example
    assert loaded.metadata.signature.inputs.input_names() == model_inputs(rows).columns
    expected = model.booster.predict(model_inputs(rows.head(3)).to_numpy())
    assert expected.shape == (3, len(TARGETS))
    assert loaded.predict(example) == pytest.approx(expected)
