"""What was measured, kept as JSON: one file a part, one entry a measurement.

Each entry is written as soon as it is there, so that a bench that was interrupted goes on where it
stopped. What is measured, and what the numbers mean, is the parts' affair.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from measuring import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Found = dict[str, dict[str, Any]]
"""Name of a measurement -> what was found."""


class Results:
    """The measurements of one part, in `folder/<part>.json`."""

    def __init__(self, folder: Path, part: str, scale: str) -> None:
        """Open what is there. Raises `SystemExit` for a folder that holds another scale's."""
        self._file = folder / f"{part}.json"
        self._scale = scale
        self.found: Found = {}
        if self._file.exists():
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["scale"] != scale:
                raise SystemExit(
                    f"{self._file} holds a {content['scale']} bench, and this is a {scale} one: "
                    "give another --folder, or delete that one"
                )
            self.found = content["found"]

    def of(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The measurement called `name`: the one kept, else a new one, which is then kept."""
        if name in self.found:
            say(f"{name}: kept from before")
            return self.found[name]
        say(f"{name} ...")
        began = time.monotonic()
        self.found[name] = measure()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".tmp")
        content = {"scale": self._scale, "found": self.found}
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.replace(self._file)
        say(f"{name}: done in {time.monotonic() - began:.0f} s")
        return self.found[name]
