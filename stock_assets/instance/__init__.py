"""What dagster.yaml plugs into Dagster itself: batched event logs, one-run backfills.

Only what an instance is made of belongs here; assets, partitions and automation run the same on a
stock instance, slower. Whatever relies on Dagster's internals lives in this package and nowhere
else, each reliance pinned by a test that says which one a new Dagster has changed.
"""
