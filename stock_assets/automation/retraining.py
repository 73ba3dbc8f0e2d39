"""A sensor for what no failed check announces: no model yet, or a training due by the calendar.

When drift asks for a training is in `conditions.py`; whether one really happens is decided in
`forecasting/decision.py`, from the same numbers.
"""
