"""When things run: schedules after each exchange's close, the inbox sensor, and retraining.

What runs is in `assets/`; every request made here is a slice, spelled by `partitions.py`.
"""
