"""`bars` and `features`: one dbt invocation a run, its tests as asset checks.

The SQL is in `dbt/models`; how dbt gets the slice and stores what it makes is in `lake/dbt_*.py`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject, dbt_assets

from stock_assets.assets.common import BACKFILL, GROUPS, report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.lake.dbt_command import NodeResult, build
from stock_assets.lake.dbt_project import ensure_manifest
from stock_assets.lake.dbt_request import build_request
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

_RUN = "run"
"""dbt source of relations that describe a run (its slice, sessions, splits): no assets."""


class GraphTranslator(DagsterDbtTranslator):
    """dbt's models as our assets: same specs as every other asset."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self._grid = grid

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """The spec of one dbt node; see `common.spec`."""
        found = super().get_asset_spec(manifest, unique_id, project)
        name = found.key.path[-1]
        if not unique_id.startswith("model."):
            prefix = [_RUN] if unique_id.startswith(f"source.stock_assets.{_RUN}.") else []
            return found.replace_attributes(key=dg.AssetKey([*prefix, name]))
        if name not in GROUPS:
            return found
        described = spec(name, self._grid)
        return found.replace_attributes(
            key=described.key,
            deps=[dep for dep in found.deps if dep.asset_key.path[0] != _RUN],
            description=described.description,
            group_name=described.group_name,
            kinds=described.kinds,
            owners=list(described.owners),
            partitions_def=described.partitions_def,
            freshness_policy=described.freshness_policy,
        ).merge_attributes(metadata=described.metadata)

    def get_asset_check_spec(
        self,
        asset_spec: dg.AssetSpec,
        manifest: Mapping[str, Any],
        unique_id: str,
        project: DbtProject | None,
    ) -> dg.AssetCheckSpec | None:
        """The check of one dbt test; of its inputs, only those that are assets count."""
        found = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        if found is None:
            return None
        deps = [dep for dep in found.additional_deps if dep.asset_key.path[-1] in GROUPS]
        return found._replace(additional_deps=deps)


def build_transform(settings: Settings, grid: Grid) -> dg.AssetsDefinition:
    """The dbt project as one asset op: `bars`, `features` and their tests."""

    @dbt_assets(
        manifest=ensure_manifest(),
        name="transform",
        dagster_dbt_translator=GraphTranslator(grid),
        partitions_def=grid.definition,
        backfill_policy=BACKFILL,
        exclude="resource_type:unit_test",
    )
    def transform(context: dg.AssetExecutionContext, lake: LakeResource):  # noqa: ANN202
        area = slice_of(context, grid)
        assets = {key.path[-1] for key in context.selected_asset_keys}
        checks = {key.name: key for key in context.selected_asset_check_keys}
        request = build_request(settings, area, run_id=context.run.run_id)
        try:
            outcome = build(request, sorted({*assets, *checks}))
        except KeyboardInterrupt as interrupt:
            raise dg.DagsterExecutionInterruptedError from interrupt
        for result in outcome.results:
            if result.name in checks:
                if result.status != "skipped":
                    yield _check_result(checks[result.name], result)
            elif result.name in assets and result.status == "success":
                _report(context, result.name, lake, area, grid)
                yield dg.Output(None, output_name=result.name)
        if outcome.error is not None:
            raise outcome.error

    return transform


def _report(
    context: dg.AssetExecutionContext, name: str, lake: LakeResource, area: Slice, grid: Grid
) -> None:
    """Row counts of what dbt has stored; its own metadata would be repeated in every cell."""
    with lake.get_connection() as connection:
        made = rows(
            connection,
            name,
            area.first_date,
            area.last_date,
            tickers=area.tickers,
            columns=["day", "ticker"],
        )
    version = lake.lake.version(name)
    report(context, name, made, area, grid, {"rows": made.height, "version": version})


def _check_result(key: dg.AssetCheckKey, result: NodeResult) -> dg.AssetCheckResult:
    """What dagster-dbt would record of a test, with dbt's message."""
    severity = dg.AssetCheckSeverity
    metadata: dict[str, Any] = {
        "unique_id": result.unique_id,
        "status": result.status,
        "Execution Duration": result.seconds,
    }
    if result.failures is not None:
        metadata["dagster_dbt/failed_row_count"] = result.failures
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=result.status == "pass",
        severity=severity.WARN if result.status == "warn" else severity.ERROR,
        description=result.message or None,
        metadata=metadata,
    )
