"""Market data: what a source is, the sources there are, and the rules that rows must keep.

`base` says what a source gives, one module a source says how it is got (`simulated`, `files`),
`rules` judges the rows and `fetching` does all of it for a slice. Nothing here knows Dagster, or
how tables are stored.
"""
