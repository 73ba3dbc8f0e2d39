"""Telling people what needs them: what a notice says, how it is written, and that it arrives once.

What happened is found in `automation/notices.py`; nothing here knows Dagster.
"""
