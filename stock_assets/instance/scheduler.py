"""Dagster's own scheduler, which brings into a process what the instance changes of Dagster.

One-run backfills, the kept hashes, the kept cells, the light keys and the short log have to be in
the daemon and the webserver, which load no definitions and may have any event log. Dagster has no
place for such a thing. Of what dagster.yaml can name, Dagster builds the storages and the scheduler
whenever it opens an instance, launcher and coordinator only when they are asked for; and a
scheduler needs no configuration, so nobody has a reason to name another one (docs/adr/0008). In
dagster.yaml:

    scheduler:
      module: stock_assets.instance.scheduler
      class: InstallingScheduler

Nothing about schedules belongs here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster._core.scheduler import DagsterDaemonScheduler

from stock_assets.instance.backfill_log import install_short_backfill_log
from stock_assets.instance.backfills import install_one_run_backfills
from stock_assets.instance.light_keys import install_light_keys
from stock_assets.instance.partition_hash import install_kept_partition_hash
from stock_assets.instance.range_keys import install_kept_range_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from dagster._serdes import ConfigurableClassData


class InstallingScheduler(DagsterDaemonScheduler):
    """`DagsterDaemonScheduler`, which installs the rest of this package as it is built."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Self:
        """Build the scheduler as the parent does, in a process that has all of the instance."""
        install_one_run_backfills()
        install_kept_partition_hash()
        install_kept_range_keys()
        install_light_keys()
        install_short_backfill_log()
        return super().from_config_value(inst_data, config_value)
