"""Named automation conditions: a failed drift check asks for a training, forecasts follow it.

They are evaluated tick by tick in tests/automation/test_conditions.py: a condition on a level
instead of an edge would request a run at every tick. So each is an edge that is remembered until
it was handled (`since`), asked for once, and forgotten as soon as it has been asked for.

Stock `any_deps_updated` is not used: of the cells that a run over several of them has updated, it
recognises only the last one as "updated together with the target", and asks for all others again.
"""

import dagster as dg

_LATEST = dg.AutomationCondition.in_latest_time_window()
_MODEL = dg.AssetSelection.assets("model")

_HANDLED = (
    dg.AutomationCondition.newly_updated() | dg.AutomationCondition.newly_requested()
).with_label("updated or asked for")

# Only the drift verdict is a blocking check of `drift` (it warns, so it stops nothing): Dagster
# cannot name a check in a condition, and a schema check must not ask for a training.
_DRIFT_JUST_FAILED = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.any_checks_match(
        dg.AutomationCondition.check_failed() & dg.AutomationCondition.newly_updated(),
        blocking_only=True,
    )
).allow(dg.AssetSelection.assets("drift"))

RETRAIN_WHEN_DRIFT_FAILS: dg.AutomationCondition = (
    _LATEST
    # A backfill of the past fails its check too; the latest day may have no data yet then.
    & (_LATEST & _DRIFT_JUST_FAILED & ~dg.AutomationCondition.any_deps_missing()).since(_HANDLED)
    & ~dg.AutomationCondition.in_progress()
    # The check fails while its run has yet to forecast. Asked for after that, the training and the
    # forecasts that follow it are one run.
    & ~dg.AutomationCondition.asset_matches("forecasts", dg.AutomationCondition.in_progress())
).with_label("retrain when the drift check has just failed")

_MODEL_IS_NEW = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).allow(
    _MODEL
)

_MODEL_IS_ASKED_FOR = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.will_be_requested()
).allow(_MODEL)

FOLLOW_THE_MODEL: dg.AutomationCondition = (
    _LATEST
    # Model and forecasts updated between two ticks count as one run's: nothing is left to do.
    & ((_LATEST & _MODEL_IS_NEW).since(_HANDLED) | _MODEL_IS_ASKED_FOR)
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.in_progress()
    # A run that makes the model may be about to make the forecasts as well.
    & ~dg.AutomationCondition.any_deps_match(dg.AutomationCondition.in_progress()).allow(_MODEL)
).with_label("forecast again when the model decision is new")


def build_automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates both; it must be told to run by default."""
    return dg.AutomationConditionSensorDefinition(
        "retraining",
        target=dg.AssetSelection.assets("model", "forecasts"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
