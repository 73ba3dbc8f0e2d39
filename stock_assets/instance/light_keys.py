"""Cells' keys taken apart without an object of objects for each.

Dagster makes a `MultiPartitionKey`, 4 microseconds and half a kilobyte, of every cell that it
checks, and again of every cell that the UI draws: at 100,000 partitions most of what the pages of
one asset cost (docs/adr/0011). Both places only ask for the key's two parts. They get a definition
here that answers with those, says of many keys at once which exist, and is Dagster's in all else.

Only how a key is read belongs here. The drawing is installed wherever the instance is loaded, and
finds something to do in the webserver; the checking is asked for by `partition_status.py`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from dagster import MultiPartitionsDefinition, TimeWindowPartitionsDefinition
from dagster._core.definitions.partitions.utils.multi import MULTIPARTITION_KEY_DELIMITER
from dagster_shared.check.functions import CheckError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from dagster import PartitionsDefinition

OFF_SWITCH = "STOCK_ASSETS_LIGHT_PARTITION_KEYS"
"""Environment variable: 0 leaves Dagster's own objects."""

DRAWING = (
    "dagster_graphql.implementation.fetch_assets",
    "dagster_graphql.implementation.fetch_asset_checks",
)
"""Modules of Dagster's that group an asset's or a check's cells for the UI."""
_GROUPS = "build_multi_partition_ranges_generic"
"""The function by which each of them does."""

_LISTED_IN_THE_TIME_OF_A_CHECK = 12
"""So many days are listed while Dagster checks whether one of them exists."""


class LightKey(NamedTuple):
    """What is asked of a `MultiPartitionKey` where only its parts are looked at."""

    keys_by_dimension: Mapping[str, str]


class LightKeys(MultiPartitionsDefinition):
    """The cells of a definition, whose keys are strings that can be taken apart."""

    def __init__(self, definition: MultiPartitionsDefinition) -> None:
        """Those of `definition`, which has been checked."""
        self._partitions_defs = list(definition.partitions_defs)

    def is_valid_key_format(self, partition_key: str) -> bool:
        """Whether a key has two parts."""
        return partition_key.count(MULTIPARTITION_KEY_DELIMITER) == 1

    def get_partition_key_from_str(self, partition_key_str: str) -> LightKey:  # type: ignore[override]
        """The parts of a key. Raises Dagster's `CheckError` when they are not two."""
        first, second = self._partitions_defs
        parts = partition_key_str.split(MULTIPARTITION_KEY_DELIMITER)
        if len(parts) != 2:  # noqa: PLR2004 - the dimensions
            raise CheckError(f"the partition key {partition_key_str} has not two parts")
        return LightKey({first.name: parts[0], second.name: parts[1]})

    def filter_valid_partition_keys(self, partition_keys: set[str]) -> set[str]:  # type: ignore[override]
        """Those of the keys whose parts both exist: Dagster's answer, found in another way."""
        first, second = (dimension.partitions_def for dimension in self._partitions_defs)
        parts = {
            key: key.split(MULTIPARTITION_KEY_DELIMITER)
            for key in partition_keys
            if self.is_valid_key_format(key)
        }
        firsts = _existing(first, {one for one, _ in parts.values()})
        seconds = _existing(second, {two for _, two in parts.values()})
        return {key for key, (one, two) in parts.items() if one in firsts and two in seconds}


def _existing(dimension: PartitionsDefinition, keys: set[str]) -> set[str]:
    """Those of the keys that the dimension has."""
    if isinstance(dimension, TimeWindowPartitionsDefinition):
        first, last = dimension.get_first_partition_window(), dimension.get_last_partition_window()
        if first and last:
            days = (last.end - first.start) / (first.end - first.start)
            if days < len(keys) * _LISTED_IN_THE_TIME_OF_A_CHECK:
                return keys & set(dimension.get_partition_keys())
    return dimension.filter_valid_partition_keys(keys)


def with_light_keys(definition: PartitionsDefinition | None) -> PartitionsDefinition | None:
    """The definition, with light keys if it is of cells and the off switch does not say no."""
    if type(definition) is not MultiPartitionsDefinition or os.environ.get(OFF_SWITCH) == "0":
        return definition
    return LightKeys(definition)


def install_light_keys() -> None:
    """Have the webserver, if this process is one, draw cells by light keys."""
    for name in DRAWING:
        module = sys.modules.get(name)
        if module is not None:
            _install(module)


def _install(module: ModuleType) -> None:
    stock: Callable[..., Sequence[Any]] = getattr(module, _GROUPS)
    if getattr(stock, "stock", None) is not None:
        return

    def by_light_keys(
        subsets: Mapping[Any, Any], partitions_def: MultiPartitionsDefinition, *rest: Any
    ) -> Sequence[Any]:
        return stock(subsets, with_light_keys(partitions_def), *rest)

    by_light_keys.stock = stock  # type: ignore[attr-defined]
    setattr(module, _GROUPS, by_light_keys)
