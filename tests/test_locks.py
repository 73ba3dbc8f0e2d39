"""The lock of the optional extra adds packages and changes none."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def locked(name: str) -> set[str]:
    """Every package of a lock with its version and the machines that it is for."""
    lines = (REPOSITORY / name).read_text().splitlines()
    return {line.rstrip(" \\") for line in lines if re.match(r"[a-zA-Z0-9_.-]+==", line)}


def test_the_extra_leaves_every_other_package_at_its_version() -> None:
    all_else, extra = locked("requirements.lock"), locked("requirements-compare.lock")
    names = {entry.split("==")[0] for entry in all_else}
    added = {entry for entry in extra if entry.split("==")[0] not in names}
    assert {"prophet", "statsforecast"} <= {entry.split("==")[0] for entry in added}
    versions = {entry.split(" ;")[0] for entry in all_else}
    assert {entry.split(" ;")[0] for entry in extra - added} <= versions
