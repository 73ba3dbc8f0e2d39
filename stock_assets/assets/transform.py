"""`bars` and `features`: one dbt invocation a run, its tests as checks beside every table's.

The SQL is in `dbt/models`; how dbt gets the slice and stores what it makes is in `lake/dbt_*.py`.
"""

import datetime as dt
import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject, build_dbt_asset_specs

from stock_assets.assets.checks import table_check_results, table_check_specs
from stock_assets.assets.common import BACKFILL, GROUPS, report, slice_of, spec
from stock_assets.assets.lake_resource import LakeResource
from stock_assets.errors import LakeError
from stock_assets.lake.actions import otherwise_adjusted
from stock_assets.lake.dbt_command import NodeResult, build
from stock_assets.lake.dbt_project import ensure_manifest
from stock_assets.lake.dbt_request import DbtRequest, build_request
from stock_assets.lake.store import Lake
from stock_assets.lake.views import rows
from stock_assets.partitions import Grid
from stock_assets.settings import Settings
from stock_assets.slices import Slice

_RUN = "run"
"""dbt source of relations that describe a run (its slice, sessions, splits): no assets."""
_BARS_BEFORE = dt.timedelta(days=60)
"""More than the 30 sessions in which a bar has its previous one."""


class GraphTranslator(DagsterDbtTranslator):
    """dbt's models as our assets: same specs as every other asset."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        # dagster-dbt asks for each spec a dozen times.
        self._described = functools.cache(lambda name: spec(name, grid))

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
        described = self._described(name)
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
    """The dbt project as one asset op: `bars`, `features` and their checks."""
    manifest = json.loads(ensure_manifest().read_bytes())
    translator = GraphTranslator(grid)
    specs = build_dbt_asset_specs(manifest=manifest, dagster_dbt_translator=translator)
    tests = _test_specs(specs, manifest, translator)
    names = [spec.key.path[-1] for spec in specs]

    @dg.multi_asset(
        name="transform",
        specs=specs,
        check_specs=[*tests, *(spec for name in names for spec in table_check_specs(name))],
        can_subset=True,
        backfill_policy=BACKFILL,
    )
    def transform(context: dg.AssetExecutionContext, lake: LakeResource):  # noqa: ANN202
        area = slice_of(context, grid)
        assets = {key.path[-1] for key in context.selected_asset_keys}
        wanted = context.selected_asset_check_keys
        selected = {spec.name: spec.key for spec in tests if spec.key in wanted}
        if assets or selected:
            yield from _built(context, settings, lake, area, grid, assets, selected)
        for name in names:
            yield from table_check_results(name, area, lake, settings, grid, wanted=wanted)

    return transform


def _test_specs(
    specs: Sequence[dg.AssetSpec], manifest: Mapping[str, Any], translator: GraphTranslator
) -> list[dg.AssetCheckSpec]:
    """The checks that dbt's tests of these models are."""
    found: dict[dg.AssetCheckKey, dg.AssetCheckSpec] = {}
    for asset in specs:
        for child in manifest["child_map"][asset.metadata["dagster_dbt/unique_id"]]:
            if child.startswith("test."):
                check = translator.get_asset_check_spec(asset, manifest, child, None)
                if check is not None:
                    found[check.key] = check
    return list(found.values())


def _built(  # noqa: PLR0913, PLR0917
    context: dg.AssetExecutionContext,
    settings: Settings,
    lake: LakeResource,
    area: Slice,
    grid: Grid,
    assets: Collection[str],
    tests: Mapping[str, dg.AssetCheckKey],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Build these models and run these tests; yield all that ended before an error is raised."""
    request = build_request(settings, area, run_id=context.run.run_id)
    _refuse_false_returns(request, lake.lake, area)
    try:
        outcome = build(request, sorted({*assets, *tests}))
    except KeyboardInterrupt as interrupt:
        raise dg.DagsterExecutionInterruptedError from interrupt
    for result in outcome.results:
        if result.name in tests:
            if result.status != "skipped":
                yield _check_result(tests[result.name], result)
        elif result.name in assets and result.status == "success":
            _report(context, result.name, lake, area, grid)
            yield dg.MaterializeResult(result.name)
    if outcome.error is not None:
        raise outcome.error


def _refuse_false_returns(request: DbtRequest, lake: Lake, area: Slice) -> None:
    """A bar is compared with the one before it: both must be adjusted by the same declarations."""
    if area.first_date is None:
        return
    since, until = area.first_date - _BARS_BEFORE, area.first_date - dt.timedelta(1)
    if otherwise_adjusted(request, lake, since, until):
        found = otherwise_adjusted(request, lake, None, until)
        first = min(found.values())
        raise LakeError(
            f"splits or dividends of {', '.join(found)} were declared, or mended, after bars were "
            f"made: those from {first} to {until} are without them, and the next one would jump. "
            f"Run everything from {first} on again, as the evening's schedule does by itself"
        )


def _report(
    context: dg.AssetExecutionContext, name: str, lake: LakeResource, area: Slice, grid: Grid
) -> None:
    """Row counts of what dbt has stored; its own metadata would be repeated in every cell."""
    with lake.get_connection(name) as connection:
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
