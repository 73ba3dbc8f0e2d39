"""Stock Assets: candles in, honest forecasts out, as one Dagster graph over a Delta lake.

The packages and what each is for are listed in the README; `definitions.py` is the one entry
that Dagster loads and `cli.py` is what a person types.
"""
