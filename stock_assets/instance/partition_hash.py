"""A definition of days, or of cells, that is hashed once instead of at every question.

Dagster hashes a `TimeWindowPartitionsDefinition` by spelling all of it out, each day without a
session included: a millisecond and more after some years; and a `MultiPartitionsDefinition` by
spelling out both of its dimensions. Its own caches ask for these hashes at every look-up, several
times for each day that is checked, so that checking the partitions of an asset costs days x days:
after a change nobody had looked at yet, most of the time of the UI's status query (docs/adr/0011).
The definitions cannot change, so the hash is kept beside each.

Only the hash belongs here: what equals what, and what is listed, is Dagster's. Installed wherever
the instance is loaded, because the webserver builds these definitions itself from snapshots.
"""

import os

from dagster import MultiPartitionsDefinition, TimeWindowPartitionsDefinition

OFF_SWITCH = "STOCK_ASSETS_KEPT_PARTITION_HASH"
"""Environment variable: 0 leaves Dagster's own hash."""

_stock_hash = TimeWindowPartitionsDefinition.__hash__
_stock_hash_of_cells = MultiPartitionsDefinition.__hash__
_KEPT = "_stock_assets_hash"


def kept_hash(definition: TimeWindowPartitionsDefinition | MultiPartitionsDefinition) -> int:
    """What replaces `__hash__`: Dagster's own value, computed once for each object."""
    kept: int | None = definition.__dict__.get(_KEPT)
    if kept is None:
        if isinstance(definition, TimeWindowPartitionsDefinition):
            kept = _stock_hash(definition)
        else:
            kept = _stock_hash_of_cells(definition)
        # Past the record's own guard against assignment; no field of it.
        definition.__dict__[_KEPT] = kept
    return kept


def install_kept_partition_hash() -> None:
    """Have this process keep the hashes, unless the off switch says no."""
    if os.environ.get(OFF_SWITCH) != "0":
        TimeWindowPartitionsDefinition.__hash__ = kept_hash  # type: ignore[method-assign]
        MultiPartitionsDefinition.__hash__ = kept_hash  # type: ignore[method-assign]
