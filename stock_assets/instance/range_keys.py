"""The cells of a range, made once instead of at every question.

Dagster lists the cells between two keys for each asset of a run anew, when it creates the run, when
the daemon notes what it has asked for, and several times in each step: an object of objects for
each cell, 5 microseconds, for 65,000 cells and 8 assets half a minute. The cells are a product of
what the two dimensions list, so that product is kept, for the range asked for last; what each
dimension lists, which changes as time passes, is asked of Dagster every time (docs/adr/0011).

Only the product belongs here. Installed wherever the instance is loaded, and with the definitions.
"""

import itertools
import os
from collections.abc import Sequence
from functools import lru_cache

from dagster import MultiPartitionKey, MultiPartitionsDefinition, PartitionKeyRange
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.instance import DynamicPartitionsStore

OFF_SWITCH = "STOCK_ASSETS_KEPT_RANGE_KEYS"
"""Environment variable: 0 leaves Dagster's own listing."""

_stock_keys_in_range = MultiPartitionsDefinition.get_partition_keys_in_range


def keys_in_range(
    definition: MultiPartitionsDefinition,
    partition_key_range: PartitionKeyRange,
    dynamic_partitions_store: DynamicPartitionsStore | None = None,
) -> Sequence[str]:
    """What replaces `get_partition_keys_in_range`: the same keys in the same order."""
    with partition_loading_context(dynamic_partitions_store=dynamic_partitions_store):
        first, last = (
            definition.get_partition_key_from_str(key).keys_by_dimension
            for key in (partition_key_range.start, partition_key_range.end)
        )
        lists = [
            dimension.partitions_def.get_partition_keys_in_range(
                PartitionKeyRange(first[dimension.name], last[dimension.name])
            )
            for dimension in definition.partitions_defs
        ]
    return list(_product(tuple(definition.partition_dimension_names), *map(tuple, lists)))


@lru_cache(maxsize=1)
def _product(names: tuple[str, ...], *lists: tuple[str, ...]) -> tuple[MultiPartitionKey, ...]:
    return tuple(
        MultiPartitionKey(dict(zip(names, keys, strict=True))) for keys in itertools.product(*lists)
    )


def install_kept_range_keys() -> None:
    """Have this process keep the cells of a range, unless the off switch says no."""
    if os.environ.get(OFF_SWITCH) != "0":
        MultiPartitionsDefinition.get_partition_keys_in_range = keys_in_range  # type: ignore[assignment]
