"""The graph: thin assets that read a slice, call the pure packages, and write the slice.

What is computed is in `sources`, `forecasting`, `drift` and `dbt/`; when it is computed is in
`automation`. Here is only the wiring: keys, dependencies, metadata, checks.
"""
