"""The manifest is parsed when it must be, and only then. A stand-in for dbt counts its calls."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from stock_assets.errors import LakeError
from stock_assets.lake import dbt_project
from stock_assets.lake.dbt_project import ensure_manifest

if TYPE_CHECKING:
    from pathlib import Path

STAND_IN = """#!{python}
import os, pathlib, sys
project = pathlib.Path(os.environ["DBT_PROJECT_DIR"])
with open(project.parent / "calls", "a") as calls:
    calls.write("parse ")
if (project / "broken").exists():
    sys.exit("Compilation Error: no such macro")
for name in ("manifest.json", "partial_parse.msgpack"):
    pathlib.Path(os.environ["DBT_TARGET_PATH"], name).write_text((project / "m.sql").read_text())
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in = tmp_path / "dbt-stand-in"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setattr(dbt_project, "dbt_executable", lambda: stand_in)
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    (folder / "m.sql").write_text("one")
    return folder


def calls(project: Path) -> int:
    return len((project.parent / "calls").read_text().split())


def test_manifest_is_parsed_once_and_again_after_a_change(project: Path) -> None:
    assert ensure_manifest(project).read_text() == "one"
    ensure_manifest(project)
    assert calls(project) == 1
    (project / "m.sql").write_text("two")
    assert ensure_manifest(project).read_text() == "two"
    assert calls(project) == 2
    (project / "models" / "new.yml").write_text("")
    ensure_manifest(project)
    assert calls(project) == 3


def test_half_gone_target_is_parsed_again(project: Path) -> None:
    ensure_manifest(project).unlink()
    assert ensure_manifest(project).read_text() == "one"


def test_processes_that_ask_at_once_parse_once(project: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ensure_manifest(project).read_text(), range(4)))
    assert found == ["one"] * 4
    assert calls(project) == 1


def test_project_that_does_not_parse_says_what_dbt_said(project: Path) -> None:
    (project / "broken").touch()
    with pytest.raises(LakeError, match=r"project does not parse.*(\n.*)*no such macro"):
        ensure_manifest(project)
    (project / "broken").unlink()
    assert ensure_manifest(project).exists()


def test_target_that_cannot_be_written_is_named(project: Path) -> None:
    (project / "target").write_text("a file stands in the way")
    with pytest.raises(LakeError, match=r"cannot write .*target"):
        ensure_manifest(project)
