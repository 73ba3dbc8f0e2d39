"""Metadata for many cells at once, and for the one that Dagster reports last."""

import dagster as dg

from stock_assets.instance.cell_metadata import add_cell_metadata, last_reported_cell

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


def test_the_last_reported_cell_is_that_of_the_latest_event() -> None:
    days = [f"2026-01-{day:02d}" for day in range(1, 32)]
    cells = dg.MultiPartitionsDefinition(
        {"day": dg.StaticPartitionsDefinition(days), "ticker": dg.StaticPartitionsDefinition("AB")}
    )
    expected = []

    @dg.asset(partitions_def=cells, backfill_policy=dg.BackfillPolicy.single_run())
    def thing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        expected.append(last_reported_cell(context, cells))
        return dg.MaterializeResult()

    tags = {
        "dagster/asset_partition_range_start": f"{days[0]}|A",
        "dagster/asset_partition_range_end": f"{days[-1]}|B",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([thing], instance=instance, tags=tags)
        latest = instance.get_latest_materialization_event(dg.AssetKey("thing"))
    assert latest is not None
    assert latest.asset_materialization is not None
    assert [latest.asset_materialization.partition] == expected, "Dagster changed"
