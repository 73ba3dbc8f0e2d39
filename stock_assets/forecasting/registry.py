"""The model registry: MLflow on SQLite with local artifacts, all inside one folder.

A model is found by its own name (`model_id`, which its inputs determine), not by MLflow's version
number. No network, no telemetry, nothing written outside the folder. Whether and when a model is
trained is in `decision.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import logging
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stock_assets.errors import ModelError
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import PARAMETERS, Calibration, VolatilityModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

MODEL_NAME = "stock-assets-volatility"
"""The registered model of which every training is a version."""

EXPERIMENT = "stock-assets"

_ID_TAG = "model_id"
_CALIBRATION_FILE, _RECORD_FILE = "calibration.json", "training.json"
_DRAFT = ".draft-"

# Before MLflow is imported: it would send usage statistics, look for git, and narrate.
_QUIET_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_CHATTY_LOGGERS = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    # Says at every save that an environment made by uv has no pip.
    "mlflow.utils.environment": logging.ERROR,
}


@dataclass(frozen=True)
class TrainingRecord:
    """What is kept of a training, so that repeating it can take the outcome instead."""

    model_id: str
    day: dt.date
    tickers: tuple[str, ...]
    """Tickers it was trained on."""
    rows: int
    verdict: Verdict
    sets: Mapping[str, str] = field(default_factory=dict)
    """First days of the calibration and validation sets."""

    def to_json(self) -> str:
        """Text from which `from_json` gives the same record, to the last bit."""
        return json.dumps(asdict(self) | {"day": self.day.isoformat()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainingRecord:
        """The inverse of `to_json`."""
        content = json.loads(text)
        content["day"] = dt.date.fromisoformat(content["day"])
        content["tickers"] = tuple(content["tickers"])
        content["verdict"] = Verdict(**content["verdict"])
        return cls(**content)


@dataclass(frozen=True)
class Registered:
    """A model in the registry: MLflow's version number of it, and its training."""

    version: int
    record: TrainingRecord


class Registry:
    """The registry in `folder`, which is made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @property
    def uri(self) -> str:
        """What `mlflow ui --backend-store-uri` takes."""
        return _uri(self.folder / "mlflow.db")

    def find(self, model_id: str) -> Registered | None:
        """The model called `model_id`, with the lowest version if there are several."""
        place = self._place(model_id)
        if place is None:
            return None
        version, files = place
        return Registered(version, TrainingRecord.from_json(_read(files / _RECORD_FILE, model_id)))

    def load(self, model_id: str) -> VolatilityModel:
        """The model called `model_id`, ready to forecast; read once per process.

        Raises `ModelError` when it is not there or cannot be read.
        """
        place = self._place(model_id)
        if place is None:
            message = (
                f"model {model_id} is named in the lake but missing from the registry "
                f"{self.folder}; restore that folder, or run the `model` asset for that day again"
            )
            raise ModelError(message)
        return _load(place[1], model_id)

    def register(
        self,
        model: VolatilityModel,
        record: TrainingRecord,
        *,
        metrics: Mapping[str, float] | None = None,
        lake_versions: Mapping[str, int] | None = None,
    ) -> Registered:
        """Log and register `model`; the one already called `record.model_id` wins if there is one.

        The version and its name are one transaction and come last: a registration that was killed
        leaves at most files that nothing refers to. One registration at a time per folder.
        """
        _client(self.folder)  # makes the folder, and takes the lock to do so
        with _lock(self.folder):
            if (found := self.find(record.model_id)) is not None:
                return found
            from mlflow.exceptions import MlflowException

            try:
                version = _register(self.folder, model, record, metrics or {}, lake_versions or {})
            except (OSError, MlflowException) as error:
                message = (
                    f"model {record.model_id} cannot be registered in {self.folder}: {error}; "
                    "free space or mend the folder's rights and run the `model` asset again"
                )
                raise ModelError(message) from error
        return Registered(version, record)

    def set_alias(self, alias: str, model_id: str) -> bool:
        """Point `alias` (champion, challenger) at `model_id`, unless it points at a later day's.

        A backfill of the past so leaves the latest model its title. Returns whether it points
        there now. Raises `ModelError` for an unknown model.
        """
        client = _client(self.folder)
        with _lock(self.folder):
            found = self.find(model_id)
            if found is None:
                raise ModelError(f"alias {alias!r}: there is no model {model_id} in {self.folder}")
            holder = client.get_registered_model(MODEL_NAME).aliases.get(alias)
            if holder is not None:
                name = client.get_model_version(MODEL_NAME, str(holder)).tags.get(_ID_TAG, "")
                current = self.find(name)
                if current is not None and current.record.day > found.record.day:
                    return False
            client.set_registered_model_alias(MODEL_NAME, alias, str(found.version))
        return True

    def alias(self, alias: str) -> str | None:
        """Name of the model that `alias` points at."""
        if not (self.folder / "mlflow.db").exists():
            return None
        client = _client(self.folder)
        version = client.get_registered_model(MODEL_NAME).aliases.get(alias)
        if version is None:
            return None
        name: str | None = client.get_model_version(MODEL_NAME, str(version)).tags.get(_ID_TAG)
        return name

    def _place(self, model_id: str) -> tuple[int, Path] | None:
        if not (self.folder / "mlflow.db").exists():
            return None
        found = _first_version(self.folder, model_id)
        return None if found is None else (found[0], _files(self.folder, found[1]))


def _first_version(folder: Path, model_id: str) -> tuple[int, str] | None:
    """Version and MLflow run of the model called `model_id`, read from MLflow's own tables.

    A database without these tables holds no model: `_client` finishes it or says what to do.

    A day on which a model is carried on asks for nothing else, and MLflow takes seconds to import.
    tests/forecasting/test_registry.py compares the answers with MLflow's.
    """
    query = """
        select version, run_id from model_versions join model_version_tags using (name, version)
        where name = ? and key = ? and value = ? and current_stage != 'Deleted_Internal'
        order by version limit 1
    """
    with _read_database(folder) as connection:
        if not _has_tables(connection, "model_versions", "model_version_tags"):
            return None
        found = connection.execute(query, [MODEL_NAME, _ID_TAG, model_id]).fetchone()
    return None if found is None else (int(found[0]), str(found[1]))


@contextlib.contextmanager
def _read_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection to MLflow's database, which must be there.

    It may write: what a killed process left half-written is rolled back by whoever opens the
    database next, and cannot be read before. SQLite itself falls back to reading only where the
    file or the folder is write-protected.
    """
    database = folder / "mlflow.db"
    try:
        address = f"{database.as_uri()}?mode=rw"  # never creates it
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
            yield connection
    except sqlite3.Error as error:
        message = f"the model registry {database} cannot be read: {error}; check its rights"
        raise ModelError(message) from error


def _has_tables(connection: sqlite3.Connection, *names: str) -> bool:
    """Whether all the tables are there: not in a database that MLflow has not finished making."""
    found = connection.execute("select name from sqlite_master where type = 'table'")
    return {name for (name,) in found} >= set(names)


def _lock(folder: Path) -> Any:
    from filelock import FileLock  # noqa: PLC0415

    return FileLock(folder / "registry.lock")


@functools.cache
def _client(folder: Path) -> MlflowClient:
    """A client of the folder's database, which is made, with the experiment, if it is not there."""
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name, level in _CHATTY_LOGGERS.items():
        logging.getLogger(name).setLevel(level)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    database = folder / "mlflow.db"
    try:
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        # Two processes must not create or upgrade the same tables at once.
        with _lock(folder):
            if not database.exists():
                _create(database)
            client = MlflowClient(tracking_uri=_uri(database), registry_uri=_uri(database))
            if client.get_experiment_by_name(EXPERIMENT) is None:
                client.create_experiment(
                    EXPERIMENT, artifact_location=(folder / "artifacts").as_uri()
                )
            if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
                client.create_registered_model(
                    MODEL_NAME, description="Scale of the next sessions' returns, by CatBoost."
                )
    except OSError as error:
        message = f"the model registry {folder} cannot be opened: {error}; check its rights"
        raise ModelError(message) from error
    except (MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        message = f"the model registry {database} cannot be opened: {reason}; {_remedy(folder)}"
        raise ModelError(message) from error
    return client


def _create(database: Path) -> None:
    """Make MLflow's tables beside the database's place, and put it there when they are whole.

    MLflow makes them in hundreds of steps, each on its own, and cannot go on after most of them.
    The caller holds the folder's lock: drafts found here are of killed processes.
    """
    from mlflow import MlflowClient

    for left in database.parent.glob(f"{_DRAFT}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=database.parent) as folder:
        draft = Path(folder) / database.name
        client = MlflowClient(tracking_uri=_uri(draft), registry_uri=_uri(draft))
        client.get_experiment_by_name(EXPERIMENT)  # the first question makes the tables
        draft.replace(database)


def _remedy(folder: Path) -> str:
    """What to do about a database that MLflow cannot open."""
    if not _holds_versions(folder):
        return (
            "check its rights and the free space; if its tables are half made, delete that file, "
            "which holds no model, and run the `model` asset again"
        )
    return (
        "check its rights and the free space; if its tables are out of date, copy that file and "
        f"run `mlflow db upgrade {_uri(folder / 'mlflow.db')}`; if that fails, restore a copy of it"
    )


def _holds_versions(folder: Path) -> bool:
    with _read_database(folder) as connection:
        if not _has_tables(connection, "model_versions"):
            return False
        return connection.execute("select 1 from model_versions limit 1").fetchone() is not None


def _uri(database: Path) -> str:
    return f"sqlite:///{database}"


def _register(
    folder: Path,
    model: VolatilityModel,
    record: TrainingRecord,
    metrics: Mapping[str, float],
    lake_versions: Mapping[str, int],
) -> int:
    import catboost
    import mlflow.catboost
    from mlflow.entities import Metric, Param, RunTag

    client = _client(folder)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # made with the client
    run = client.create_run(experiment.experiment_id, run_name=record.model_id)
    verdict = record.verdict
    losses = {
        "challenger_loss": verdict.challenger_loss,
        "in_force_loss": verdict.in_force_loss,
        "baseline_loss": verdict.baseline_loss,
    }
    measured = {k: v for k, v in losses.items() if v is not None} | dict(metrics)
    client.log_batch(
        run.info.run_id,
        params=[
            *(Param(name, str(value)) for name, value in PARAMETERS.items()),
            Param("day", record.day.isoformat()),
            Param("rows", str(record.rows)),
            Param("tickers", str(len(record.tickers))),
            *(Param(name, value) for name, value in record.sets.items()),
        ],
        metrics=[Metric(name, value, 0, 0) for name, value in measured.items()],
        tags=[
            RunTag(_ID_TAG, record.model_id),
            RunTag("accepted", str(verdict.accepted).lower()),
            RunTag("reason", verdict.reason),
            *(RunTag(f"lake.{name}", str(number)) for name, number in lake_versions.items()),
        ],
    )
    # Artifacts are local by design, so the files are written where MLflow looks for them.
    files = _files(folder, run.info.run_id)
    # Named here, or MLflow would import the model in a new process to infer them.
    requirements = [f"catboost=={catboost.__version__}"]
    mlflow.catboost.save_model(model.booster, str(files), pip_requirements=requirements)
    (files / _CALIBRATION_FILE).write_text(model.calibration.to_json(), encoding="utf-8")
    (files / _RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
    client.set_terminated(run.info.run_id)
    version = client.create_model_version(
        MODEL_NAME,
        source=f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={_ID_TAG: record.model_id, "day": record.day.isoformat()},
    )
    return int(version.version)


def _files(folder: Path, run_id: str) -> Path:
    """Where a run's model lies: worked out, as a stored absolute path would not survive a move."""
    return folder / "artifacts" / run_id / "artifacts" / "model"


@functools.lru_cache(maxsize=64)
def _load(files: Path, model_id: str) -> VolatilityModel:
    from catboost import CatBoostError, CatBoostRegressor

    calibration = Calibration.from_json(_read(files / _CALIBRATION_FILE, model_id))
    booster = CatBoostRegressor()
    try:
        booster.load_model(str(files / "model.cb"))
    except CatBoostError as error:
        raise _unreadable(files, model_id, error) from error
    return VolatilityModel(booster, calibration)


def _read(file: Path, model_id: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise _unreadable(file, model_id, error) from error


def _unreadable(file: Path, model_id: str, error: Exception) -> ModelError:
    return ModelError(f"model {model_id}: {file} cannot be read ({error}); restore it")
