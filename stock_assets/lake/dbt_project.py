"""Where the dbt project is, and its parsed form.

dbt describes a project in `target/manifest.json`, which Dagster makes assets from; parsing costs
seconds, so it is done again only when the project changed. Running models is not here: the assets
do that, with the request of `dbt_request.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

from stock_assets.errors import LakeError

DBT_PROJECT_DIR = Path(__file__).resolve().parents[2] / "dbt"

BUILD_ARGUMENTS = ("build", "--exclude-resource-type", "unit_test")
"""The dbt command of a production run: models and data tests. Unit tests are for pytest."""

_TARGET = "target"
_STAMP = "manifest.sha256"
_PARSED = ("manifest.json", "partial_parse.msgpack")
_PARSE_SECONDS = 300


def dbt_executable() -> Path:
    """The `dbt` command of this Python environment. Raises `LakeError` when there is none."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (found := folder / "dbt").exists():
            return found
    message = f"dbt is not installed beside {sys.executable}; install the project's requirements"
    raise LakeError(message)


def ensure_manifest(project: Path = DBT_PROJECT_DIR) -> Path:
    """Path of the project's manifest, parsed anew when a file of the project or dbt changed.

    Processes that ask at once wait for the one that parses; a reader never sees half a manifest.
    Raises `LakeError` with what dbt said when the project does not parse.
    """
    target = project / _TARGET
    manifest = target / _PARSED[0]
    fingerprint = _fingerprint(project)
    if _is_current(target, fingerprint):
        return manifest
    # Imported here: usually nothing is to be done.
    from filelock import FileLock  # noqa: PLC0415

    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".parse.lock"):
            if not _is_current(target, fingerprint):
                _parse(project, target, fingerprint)
    except OSError as error:
        message = f"dbt project {project}: cannot write {target} ({error}); make it writable"
        raise LakeError(message) from error
    return manifest


def _is_current(target: Path, fingerprint: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return (target / _PARSED[0]).exists() and (target / _STAMP).read_text() == fingerprint
    return False


def _fingerprint(project: Path) -> str:
    """Digest of all that the manifest is made from: the project's files, where it is, dbt."""
    digest = hashlib.sha256()
    digest.update(f"{project} {version('dbt-core')} {version('dbt-duckdb')}".encode())
    for file in sorted(project.rglob("*")):
        inside = file.relative_to(project)
        if inside.parts[0] not in (_TARGET, "logs") and file.suffix in (".sql", ".yml"):
            digest.update(f"\0{inside}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _parse(project: Path, target: Path, fingerprint: str) -> None:
    with tempfile.TemporaryDirectory(dir=target, prefix=".parse-") as folder:
        environment = {
            **os.environ,
            "DBT_PROJECT_DIR": str(project),
            "DBT_PROFILES_DIR": str(project),
            "DBT_TARGET_PATH": folder,
            "DBT_LOG_PATH": folder,
        }
        done = subprocess.run(  # noqa: S603
            [dbt_executable(), "--quiet", "parse"],
            env=environment,
            cwd=project,
            capture_output=True,
            text=True,
            timeout=_PARSE_SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise LakeError(f"dbt project {project} does not parse; dbt says:\n{said}")
        (target / _STAMP).unlink(missing_ok=True)
        for name in _PARSED:
            (Path(folder) / name).replace(target / name)
        stamp = Path(folder) / _STAMP
        stamp.write_text(fingerprint)
        stamp.replace(target / _STAMP)
