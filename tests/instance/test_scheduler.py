"""What dagster.yaml alone brings into a process of Dagster's own, which loads no definitions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_assets.instance import (
    backfill_log,
    backfills,
    light_keys,
    partition_hash,
    range_keys,
)
from stock_assets.instance.batching import BATCH_SIZE_VARIABLE
from stock_assets.settings import PROJECT_DIR

OPEN = """
import json, logging, sys
import dagster as dg
from dagster._core.definitions.partitions.subset.default import DefaultPartitionsSubset
from stock_assets.instance.light_keys import with_light_keys
ONE = dg.StaticPartitionsDefinition(["one"])
CELLS = dg.MultiPartitionsDefinition({"a": ONE, "b": ONE})
with dg.DagsterInstance.get() as instance:
    print(json.dumps({
        "event log": type(instance.event_log_storage).__name__,
        "batches": instance._is_batch_writing_enabled(),
        "ranges": DefaultPartitionsSubset.get_partition_key_ranges.__module__,
        "hash": dg.TimeWindowPartitionsDefinition.__hash__.__module__,
        "cells": dg.MultiPartitionsDefinition.get_partition_keys_in_range.__module__,
        "light": type(with_light_keys(CELLS)).__name__,
        "log": len(logging.getLogger("dagster.daemon.BackfillDaemon").filters),
        "definitions": "stock_assets.graph" in sys.modules,
    }))
"""
INSTALLED = {
    "ranges": backfills.__name__,
    "hash": partition_hash.__name__,
    "cells": range_keys.__name__,
    "light": "LightKeys",
    "log": 1,
    "definitions": False,
}
SWITCHES = (
    BATCH_SIZE_VARIABLE,
    backfills.OFF_SWITCH,
    partition_hash.OFF_SWITCH,
    range_keys.OFF_SWITCH,
    light_keys.OFF_SWITCH,
    backfill_log.OFF_SWITCH,
)


def _opened(home: Path, left_out: str | None = None, **environment: str) -> dict[str, Any]:
    """What a process sees that opens the project's instance, all but the section `left_out`."""
    configured = yaml.safe_load((PROJECT_DIR / "dagster.yaml").read_text(encoding="utf-8"))
    if left_out is not None:
        del configured[left_out]
    (home / "dagster.yaml").write_text(yaml.safe_dump(configured), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OPEN],
        env={
            **{name: value for name, value in os.environ.items() if name not in SWITCHES},
            "DAGSTER_HOME": str(home),
            "STOCK_ASSETS_EVENT_LOG": str(home / "history" / "runs"),
            **environment,
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_who_opens_the_instance_has_all_of_it(tmp_path: Path) -> None:
    expected = {"event log": "BatchedSqliteEventLogStorage", "batches": True, **INSTALLED}
    assert _opened(tmp_path) == expected


@pytest.mark.slow
def test_backfills_and_hash_do_not_depend_on_the_event_log(tmp_path: Path) -> None:
    expected = {"event log": "SqliteEventLogStorage", "batches": False, **INSTALLED}
    assert _opened(tmp_path, left_out="event_log_storage") == expected, (
        "Dagster changed what it builds when it opens an instance: no longer the scheduler"
    )


@pytest.mark.slow
def test_each_has_its_off_switch(tmp_path: Path) -> None:
    found = _opened(tmp_path, **dict.fromkeys(SWITCHES, "0"))
    assert found["batches"] is False
    assert found["ranges"] == "dagster._core.definitions.partitions.subset.default"
    assert not found["hash"].startswith("stock_assets")
    assert not found["cells"].startswith("stock_assets")
    assert found["light"] == "MultiPartitionsDefinition"
    assert found["log"] == 0
