"""A package in Evidently's place that takes no seconds to load: what is tested is the process.

The environment's ORDER tells it what to do instead of drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EVIDENTLY = """
import os, time
from pathlib import Path
print("noise on stdout")
class Dataset:
    @staticmethod
    def from_pandas(frame, data_definition): return frame
class DataDefinition:
    def __init__(self, numerical_columns): pass
class Report:
    def __init__(self, metrics): self.metrics = metrics
    def run(self, current, reference): return Snapshot(self.metrics, current, reference)
class Snapshot:
    def __init__(self, metrics, current, reference):
        self.said = f"{[m.column for m in metrics]} {current.shape} {reference.shape}"
    def get_html_str(self, as_iframe):
        print("more noise")
        for order in os.environ.get("ORDER", "").split():
            if order == "raise": raise ValueError("no such histogram")
            if order == "die": os.write(2, b"out of luck"); os._exit(3)
            if order == "sleep": time.sleep(60)
            if order == "killed": os.kill(os.getpid(), 9)
        return self.said
"""
METRICS = """
import os
if os.environ.get("ORDER") == "broken": raise ImportError("no module named plotly")
class ValueDrift:
    def __init__(self, column, method, threshold): self.column = column
"""


def write_package(folder: Path) -> Path:
    """Write it below `folder`; what is to be on the path."""
    package = folder / "packages" / "evidently"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(EVIDENTLY)
    (package / "metrics.py").write_text(METRICS)
    return package.parent
