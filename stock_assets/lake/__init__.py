"""The lake: schemas (one class a table), reading and writing by slice, the SQL view of it all.

Delta tables are the only store of data; DuckDB is an engine over them, never a place. Nothing
here imports Dagster.
"""
