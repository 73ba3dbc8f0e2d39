"""The named automation condition: forecasts follow a new model decision.

What asks for the decision is in `retraining.py`. The condition is evaluated tick by tick in
tests/automation/test_conditions.py: one on a level instead of an edge would request a run at every
tick. So it is an edge that is remembered until it was handled (`since`), asked for once, and
forgotten as soon as it has been asked for.

Stock `any_deps_updated` is not used: of the cells that a run over several of them has updated, it
recognises only the last one as "updated together with the target", and asks for all others again.
"""

import dagster as dg

_LATEST = dg.AutomationCondition.in_latest_time_window()
_MODEL = dg.AssetSelection.assets("model")

_HANDLED = (
    dg.AutomationCondition.newly_updated() | dg.AutomationCondition.newly_requested()
).with_label("updated or asked for")

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
    """The sensor that evaluates it; it must be told to run by default."""
    return dg.AutomationConditionSensorDefinition(
        "forecasts_follow_the_model",
        target=dg.AssetSelection.assets("forecasts"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
