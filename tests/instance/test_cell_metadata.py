"""Metadata for many cells at once says what Dagster's own call would have said."""

import dagster as dg

from stock_assets.instance.cell_metadata import add_cell_metadata

CELLS = {"a": {"rows": 1}, "b": {"rows": 2, "note": "x"}, "c": {}}


def recorded(*, bulk: bool) -> dict[str, dict[str, object]]:
    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(list(CELLS)),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def thing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        if bulk:
            add_cell_metadata(context, "thing", CELLS)
        else:
            for cell, metadata in CELLS.items():
                context.add_asset_metadata(metadata, partition_key=cell)
        return dg.MaterializeResult()

    tags = {
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "c",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([thing], instance=instance, tags=tags)
    return {
        str(event.partition): {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("thing")
    }


def test_bulk_metadata_equals_the_public_call() -> None:
    assert recorded(bulk=True) == recorded(bulk=False) == CELLS, "Dagster changed"
