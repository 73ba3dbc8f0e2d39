"""The model registry: MLflow on SQLite with local artifacts, all inside one folder.

A model is found by its own name (`model_id`, which its inputs determine); people may also say
MLflow's version number or an alias. What is read is checked against the hashes that were stored
with the registration, and a model that other code made is not served: the same features may mean
something else to it. No network, no telemetry, nothing written outside the folder. Whether and
when a model is trained is in `decision.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from stock_assets.errors import ModelError
from stock_assets.forecasting.fingerprint import constants_of_a_fit
from stock_assets.forecasting.gate import Verdict
from stock_assets.forecasting.model import (
    CODE_VERSION,
    PARAMETERS,
    TARGETS,
    VolatilityModel,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlflow import MlflowClient

    from stock_assets.forecasting.training_report import TrainingReport

MODEL_NAME = "stock-assets-volatility"
"""The registered model of which every training is a version."""

EXPERIMENT = "stock-assets"

_ID_TAG, _DAY_TAG, _HASHES_TAG = "model_id", "day", "sha256"
_CODE_TAG = "code.model"
_TRIGGER_TAG, _ALSO = "trigger", "; also "
_BOOSTER_FILE, _REST_FILE, _RECORD_FILE = "model.cb", "rest.json", "training.json"
_IMPORTANCE_FILE = "importance.csv"
_CONTENT = (_BOOSTER_FILE, _REST_FILE, _RECORD_FILE)
"""The files that a model and its record are read from, and whose hashes are kept."""

_DRAFT = ".draft-"

_SAID_AFTER = 2.0
"""Seconds after which who waits for the registry says that another has it."""

_log = logging.getLogger(__name__)

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
    """First days of the training, calibration and validation sets, and the last of all."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the validation days: losses, skills, t, coverage."""
    lake_versions: Mapping[str, int] = field(default_factory=dict)
    """Versions of the tables it was made from."""

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


@dataclass(frozen=True)
class Listed:
    """A version as a list shows it: one that cannot be read or served too."""

    version: int
    model_id: str
    trained: str
    """Day of the training."""
    aliases: tuple[str, ...]
    record: TrainingRecord | None
    """None where it cannot be read."""
    condition: Literal["sound", "damaged", "other code"]
    """Whether it can serve; not where its files are damaged, or other code made it."""
    problem: str | None
    """Why it cannot serve, and what to do."""


@dataclass(frozen=True)
class _Place:
    """Where a registered model lies, and what its files must be."""

    version: int
    model_id: str
    trained: str
    files: Path
    hashes: Mapping[str, str] | None
    """None where it was registered before hashes were kept."""
    code: str | None
    """`CODE_VERSION` of the code that trained it."""
    run: str
    """MLflow's run of the training."""
    triggers: tuple[str, ...]
    """What asked for it, as its run says."""

    @property
    def unfit(self) -> str | None:
        """Why this code cannot serve it, whatever its files hold; None if it can."""
        if self.hashes is None or self.code is None:
            return "was registered by an older version of stock-assets"
        if self.code != str(CODE_VERSION):
            return (
                "was registered by another version of stock-assets "
                f"(code of the model {self.code}, here {CODE_VERSION})"
            )
        return None


class Registry:
    """The registry in `folder`, which is made when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @property
    def uri(self) -> str:
        """What `mlflow ui --backend-store-uri` takes."""
        return _uri(self.folder / "mlflow.db")

    def find(self, model_id: str) -> Registered | None:
        """The model called `model_id`, with the lowest version if there are several.

        Only one that this code can serve: another does not stand for what would be trained now.
        """
        place = self._place(model_id)
        if place is None or place.unfit is not None:
            return None
        return Registered(place.version, _record(place))

    def unfit(self) -> dict[str, str]:
        """The models that this code cannot serve, each with the reason: other code made them."""
        if not (self.folder / "mlflow.db").exists():
            return {}
        places = _places(self.folder)
        fit = {place.model_id for place in places if place.unfit is None}
        return {
            place.model_id: place.unfit
            for place in places
            if place.unfit is not None and place.model_id not in fit
        }

    def versions(self) -> list[Listed]:
        """All models that are registered, by version, with their aliases and what ails them."""
        if not (self.folder / "mlflow.db").exists():
            return []
        aliases: dict[int, list[str]] = {}
        for alias, version in _aliases(self.folder).items():
            aliases.setdefault(version, []).append(alias)
        return [
            _listed(place, tuple(sorted(aliases.get(place.version, ()))))
            for place in _places(self.folder)
        ]

    def importance(self, model_id: str) -> pl.DataFrame | None:
        """Columns input, importance (%) as logged with the training; None where there is none."""
        place = self._place(model_id)
        file = None if place is None else place.files.parent / _IMPORTANCE_FILE
        return pl.read_csv(file) if file is not None and file.exists() else None

    def resolve(self, name: str) -> Registered:
        """The model that a person means by its id, its version number or an alias.

        Raises `ModelError` when there is none, or its record cannot be read.
        """
        place = self._place(name)
        if place is None and (self.folder / "mlflow.db").exists():
            number = int(name) if name.isdecimal() else _aliases(self.folder).get(name)
            place = next((item for item in _places(self.folder) if item.version == number), None)
        if place is not None:
            return Registered(place.version, _record(place))
        message = (
            f"there is no model {name!r} in {self.folder}; name one by id, version or alias as "
            "`stock-assets model list` shows them"
        )
        raise ModelError(message)

    def load(self, model_id: str) -> VolatilityModel:
        """The model called `model_id`, ready to forecast; read once per process.

        Raises `ModelError` when it is not there, cannot be read or was made by other code.
        """
        place = self._place(model_id)
        if place is None:
            message = (
                f"model {model_id} is named in the lake but missing from the registry "
                f"{self.folder}; restore that folder, or run the `model` asset for that day again; "
                "to go on without it, order another: "
                "`stock-assets model promote baseline --why ...`"
            )
            raise ModelError(message)
        return _load(place.files, model_id, tuple(_hashes(place).items()))

    def register(  # noqa: PLR0913
        self,
        model: VolatilityModel,
        record: TrainingRecord,
        *,
        trigger: str = "",
        report: Callable[[], TrainingReport] | None = None,
        parameters: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Registered:
        """Log and register `model`; the one already called `record.model_id` wins if there is one.

        `trigger` is what asked for the training. `parameters` and `metrics` are logged beside the
        record's own; `report` is asked for what else is shown, once it is needed: drawing costs.

        The version and its name are one transaction and come last: a registration that was killed
        leaves at most files that nothing refers to. One registration at a time per folder.
        """
        _client(self.folder)  # makes the folder, and takes the lock to do so
        with _lock(self.folder):
            found = self.find(record.model_id)
            from mlflow.exceptions import MlflowException

            try:
                if found is not None:
                    self._add_trigger(record.model_id, trigger)
                    return found
                version = _register(
                    self.folder,
                    model,
                    record,
                    trigger=trigger,
                    report=report,
                    parameters=parameters or {},
                    metrics=metrics or {},
                )
            except (OSError, MlflowException) as error:
                message = (
                    f"model {record.model_id} cannot be registered in {self.folder}: {error}; "
                    "free space or mend the folder's rights and run the `model` asset again"
                )
                raise ModelError(message) from error
        return Registered(version, record)

    def note_trigger(self, model_id: str, trigger: str) -> None:
        """Note what asks for a training that is there already, unless its run says so.

        A model's name is its inputs, and what asked for it is none of them: the same training for
        another reason is the same model. Its run tells all of them, the first first, so that each
        row of `Models` finds its own there. Raises `ModelError` where it cannot be written.
        """
        place = self._place(model_id)
        if place is None or trigger in place.triggers:
            return
        _client(self.folder)
        from mlflow.exceptions import MlflowException

        try:
            with _lock(self.folder):
                self._add_trigger(model_id, trigger)
        except (OSError, MlflowException) as error:
            message = (
                f"the run of model {model_id} cannot be written in {self.folder}: {error}; free "
                "space or mend the folder's rights"
            )
            raise ModelError(message) from error

    def _add_trigger(self, model_id: str, trigger: str) -> None:
        """The caller holds the folder's lock."""
        place = self._place(model_id)
        if place is not None and trigger and trigger not in place.triggers:
            told = _ALSO.join([*place.triggers, trigger])
            _client(self.folder).set_tag(place.run, _TRIGGER_TAG, told)

    def set_alias(self, alias: str, model_id: str | None, day: dt.date) -> bool:
        """Point `alias` (champion, challenger) at `model_id` (None: at nothing) as of `day`.

        Not if it was pointed as of a later day already: a backfill of the past leaves the latest
        model its title. Returns whether it is so now. Raises `ModelError` for an unknown model, and
        where it cannot be written.
        """
        if model_id is None and not (self.folder / "mlflow.db").exists():
            return True
        client = _client(self.folder)
        from mlflow.exceptions import MlflowException

        try:
            with _lock(self.folder):
                return self._point(client, alias, model_id, day)
        except (OSError, MlflowException) as error:
            message = (
                f"alias {alias!r} cannot be moved in {self.folder}: {error}; free space or mend "
                "the folder's rights"
            )
            raise ModelError(message) from error

    def _point(self, client: MlflowClient, alias: str, model_id: str | None, day: dt.date) -> bool:
        found = None if model_id is None else self._place(model_id)
        if found is None and model_id is not None:
            raise ModelError(f"alias {alias!r}: there is no model {model_id} in {self.folder}")
        as_of = client.get_registered_model(MODEL_NAME).tags.get(f"{alias}.as_of", "")
        if as_of > day.isoformat():
            return False
        if found is not None:
            client.set_registered_model_alias(MODEL_NAME, alias, str(found.version))
        elif alias in _aliases(self.folder):
            client.delete_registered_model_alias(MODEL_NAME, alias)
        client.set_registered_model_tag(MODEL_NAME, f"{alias}.as_of", day.isoformat())
        return True

    def _place(self, model_id: str) -> _Place | None:
        """The first version called `model_id` that this code can serve, else the first."""
        if not (self.folder / "mlflow.db").exists():
            return None
        found = _places(self.folder, model_id)
        return min(found, key=lambda place: place.unfit is not None, default=None)


def _places(folder: Path, model_id: str | None = None) -> list[_Place]:
    """The models that are registered (those called `model_id`), by version.

    Read from MLflow's own tables: a day on which a model is carried on asks for nothing else, and
    MLflow takes seconds to import. tests/forecasting/test_registry.py compares the answers with
    MLflow's. A database without these tables holds no model: `_client` finishes it or says what
    to do.
    """
    query = """
        with told as (select version, key, value from model_version_tags where name = :model)
        select models.version, models.run_id, named.value, trained.value, hashes.value, code.value,
            trigger.value
        from model_versions models
        join told named on named.version = models.version and named.key = :id
        left join told trained on trained.version = models.version and trained.key = :day
        left join told hashes on hashes.version = models.version and hashes.key = :hashes
        left join tags code on code.run_uuid = models.run_id and code.key = :code
        left join tags trigger on trigger.run_uuid = models.run_id and trigger.key = :trigger
        where models.name = :model and models.current_stage != 'Deleted_Internal'
        and (:wanted is null or named.value = :wanted)
        order by models.version
    """
    values = {
        "model": MODEL_NAME,
        "id": _ID_TAG,
        "day": _DAY_TAG,
        "hashes": _HASHES_TAG,
        "code": _CODE_TAG,
        "trigger": _TRIGGER_TAG,
        "wanted": model_id,
    }
    with _read_database(folder) as connection:
        if not _has_tables(connection, "model_versions", "model_version_tags", "tags"):
            return []
        found = connection.execute(query, values).fetchall()
    return [
        _Place(
            version=int(version),
            model_id=str(name),
            trained=str(trained or ""),
            files=_files(folder, str(run)),
            hashes=None if hashes is None else json.loads(hashes),
            code=code,
            run=str(run),
            triggers=tuple(trigger.split(_ALSO)) if trigger else (),
        )
        for version, run, name, trained, hashes, code, trigger in found
    ]


def _listed(place: _Place, aliases: tuple[str, ...]) -> Listed:
    """`place` with its record, or with what is wrong."""
    about = place.version, place.model_id, place.trained, aliases
    record = None
    try:
        record = _record(place)
        hashes = _hashes(place)
        for name in _CONTENT:
            _read(place.files / name, place.model_id, hashes)
    except ModelError as error:
        condition: Literal["damaged", "other code"] = "other code" if place.unfit else "damaged"
        return Listed(*about, record, condition, str(error))
    return Listed(*about, record, "sound", None)


def _aliases(folder: Path) -> dict[str, int]:
    """The aliases and the versions they point at, from MLflow's own table."""
    query = "select alias, version from registered_model_aliases where name = ?"
    with _read_database(folder) as connection:
        if not _has_tables(connection, "registered_model_aliases"):
            return {}
        found = connection.execute(query, [MODEL_NAME]).fetchall()
    return {str(alias): int(version) for alias, version in found}


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


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer of a folder at a time; who has to wait for another says so."""
    from filelock import FileLock, Timeout  # noqa: PLC0415

    lock = FileLock(folder / "registry.lock")
    try:
        lock.acquire(timeout=_SAID_AFTER)
    except Timeout:
        _log.warning("%s is in use by another run: waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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


def _register(  # noqa: PLR0913
    folder: Path,
    model: VolatilityModel,
    record: TrainingRecord,
    *,
    trigger: str,
    report: Callable[[], TrainingReport] | None,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
) -> int:
    from mlflow.entities import Metric, Param, RunTag

    client = _client(folder)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # made with the client
    run = client.create_run(experiment.experiment_id, run_name=record.model_id)
    verdict = record.verdict
    about = {
        **PARAMETERS,
        # Of the regression beside the trees, the calibration and the labels.
        **constants_of_a_fit(),
        "day": record.day,
        "rows": record.rows,
        "tickers": len(record.tickers),
        **record.sets,
        **parameters,
    }
    asked = f" ({trigger})" if trigger else ""
    described = f"Trained on {record.day}{asked}, {verdict.decision}: {verdict.reason}."
    told = {
        _ID_TAG: record.model_id,
        "decision": verdict.decision,
        "accepted": str(verdict.accepted).lower(),
        "reason": verdict.reason,
        **({_TRIGGER_TAG: trigger} if trigger else {}),
        **({"leak_alarm": verdict.leak_alarm} if verdict.leak_alarm else {}),
        **{f"lake.{name}": str(number) for name, number in record.lake_versions.items()},
        **_code_tags(),
        # MLflow's own names for what its pages show as description and source.
        "mlflow.note.content": described,
        "mlflow.source.name": "stock-assets",
    }
    client.log_batch(
        run.info.run_id,
        params=[Param(name, str(value)) for name, value in about.items()],
        metrics=[Metric(k, v, 0, 0) for k, v in {**record.measures, **metrics}.items()],
        tags=[RunTag(name, value) for name, value in told.items()],
    )
    # Artifacts are local by design, so the files are written where MLflow looks for them.
    files = _files(folder, run.info.run_id)
    shown = None if report is None else report()
    _save(model, files, None if shown is None else shown.example)
    (files / _RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
    if shown is not None:
        shown.importance.write_csv(files.parent / _IMPORTANCE_FILE)
        for name, picture in shown.pictures.items():
            (files.parent / name).write_bytes(picture)
    hashes = {name: _hash((files / name).read_bytes()) for name in _CONTENT}
    client.set_terminated(run.info.run_id)
    version = client.create_model_version(
        MODEL_NAME,
        source=f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={
            _ID_TAG: record.model_id,
            _DAY_TAG: record.day.isoformat(),
            "decision": verdict.decision,
            _HASHES_TAG: json.dumps(hashes),
        },
        description=described,
    )
    return int(version.version)


def _save(model: VolatilityModel, files: Path, example: pl.DataFrame | None) -> None:
    """Write the model as MLflow's CatBoost flavour does, with what it takes and gives."""
    import catboost
    import mlflow.catboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs = model.booster.feature_names_
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.double, name, required=False) for name in inputs]),
        outputs=Schema([ColSpec(DataType.double, name) for name in TARGETS]),
    )
    mlflow.catboost.save_model(
        model.booster,
        str(files),
        # Named here, or MLflow would import the model in a new process to infer them.
        pip_requirements=[f"catboost=={catboost.__version__}"],
        signature=signature,
        input_example=None if example is None else example.to_pandas(),
    )
    (files / _REST_FILE).write_text(model.to_json(), encoding="utf-8")


@functools.cache
def _code_tags() -> dict[str, str]:
    """Which code trained: the package's version, and the commit where it runs from a checkout."""
    found = {"code.package": metadata.version("stock-assets"), _CODE_TAG: str(CODE_VERSION)}
    project = Path(__file__).parents[2]
    if not (project / ".git").exists():
        return found
    try:
        described = subprocess.run(  # noqa: S603 - a command without anything of a user's
            ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40",  # noqa: S607
             "--exclude=*"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return found  # no git on this machine: the package's version says what can be said
    # MLflow's own name for it, which its UI shows as the source's version.
    return found | {"mlflow.source.git.commit": described.stdout.strip()}


def _files(folder: Path, run_id: str) -> Path:
    """Where a run's model lies: worked out, as a stored absolute path would not survive a move."""
    return folder / "artifacts" / run_id / "artifacts" / "model"


def _record(place: _Place) -> TrainingRecord:
    if place.hashes is None:
        raise _unfit_error(place)
    text = _read(place.files / _RECORD_FILE, place.model_id, place.hashes)
    try:
        return TrainingRecord.from_json(text.decode())
    except (KeyError, TypeError, ValueError) as error:
        if place.unfit is None:
            raise
        raise _unfit_error(place) from error


def _hashes(place: _Place) -> Mapping[str, str]:
    """The hashes of a model that is to be served."""
    if place.hashes is None or place.unfit is not None:
        raise _unfit_error(place)
    return place.hashes


def _unfit_error(place: _Place) -> ModelError:
    return ModelError(
        f"model {place.model_id} {place.unfit} and cannot serve here: run the `model` asset, which "
        "trains another, or order one: `stock-assets model promote baseline --why ...`"
    )


@functools.lru_cache(maxsize=64)
def _load(files: Path, model_id: str, hashes: tuple[tuple[str, str], ...]) -> VolatilityModel:
    from catboost import CatBoostRegressor

    expected = dict(hashes)
    rest = _read(files / _REST_FILE, model_id, expected)
    booster = CatBoostRegressor()
    booster.load_model(blob=_read(files / _BOOSTER_FILE, model_id, expected))
    return VolatilityModel.from_json(booster, rest.decode())


def _read(file: Path, model_id: str, hashes: Mapping[str, str]) -> bytes:
    """The content of `file`. Raises `ModelError` where it is not what was registered."""
    advice = (
        "restore it from a copy, or order another model: "
        "`stock-assets model promote baseline --why ...`"
    )
    try:
        content = file.read_bytes()
    except OSError as error:
        message = f"model {model_id}: {file} cannot be read ({error}); {advice}"
        raise ModelError(message) from error
    if hashes.get(file.name) != _hash(content):
        message = (
            f"model {model_id}: {file} is not what was registered, it was changed or cut short "
            f"(its SHA-256 differs); {advice}"
        )
        raise ModelError(message)
    return content


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
