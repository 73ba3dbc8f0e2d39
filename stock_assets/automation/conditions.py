"""Named automation conditions: a failed drift check asks for a training, forecasts follow it.

They are evaluated tick by tick in tests/automation/test_conditions.py: a condition on a level
instead of an edge would request a run at every tick.
"""

import dagster as dg

# Only the drift verdict is a blocking check of `drift` (it warns, so it stops nothing): Dagster
# cannot name a check in a condition, and a schema check must not ask for a training.
_DRIFT_JUST_FAILED = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.any_checks_match(
        dg.AutomationCondition.check_failed() & dg.AutomationCondition.newly_updated(),
        blocking_only=True,
    )
).allow(dg.AssetSelection.assets("drift"))

RETRAIN_WHEN_DRIFT_FAILS: dg.AutomationCondition = (
    dg.AutomationCondition.in_latest_time_window()
    & _DRIFT_JUST_FAILED
    # A backfill of the past fails its check too; the latest day may have no data yet then.
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.in_progress()
).with_label("retrain when the drift check has just failed")

FOLLOW_THE_MODEL: dg.AutomationCondition = (
    dg.AutomationCondition.in_latest_time_window()
    & dg.AutomationCondition.any_deps_updated().allow(dg.AssetSelection.assets("model"))
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.in_progress()
).with_label("forecast again when the model decision is new")


def build_automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates both; it must be told to run by default."""
    return dg.AutomationConditionSensorDefinition(
        "retraining",
        target=dg.AssetSelection.assets("model", "forecasts"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
