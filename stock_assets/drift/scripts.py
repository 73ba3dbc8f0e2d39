"""What all of Evidently's pages have in common, in files beside them instead of in each.

Evidently writes its scripts (3.5 MB) and a font into every page. Here an inline `<script>` or
`<style>` that is large becomes a file in the page's folder, named by its content and written once,
and the page refers to it: same order, same effect, from disk without a network as from a server.
What is left of a page is its data. A script that holds a page's data is small and stays. Where
Evidently writes its pages another way, nothing is found and the page stays whole.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from stock_assets.drift.pages import save_whole

if TYPE_CHECKING:
    from pathlib import Path

_LARGE = {"script": 1_000_000, "style": 50_000}
"""Characters from which on it is not a page's own: its data has a tenth of the first."""

_INLINE = re.compile(r"<(?P<tag>script|style)>(?P<content>.*?)</(?P=tag)>", re.DOTALL)

_REFERENCES = {
    "script": ("js", '<script src="{}"></script>'),
    "style": ("css", '<link rel="stylesheet" href="{}">'),
}


def with_shared_scripts(page: str, folder: Path) -> str:
    """The page as it is to be saved in `folder`, where its large parts now are.

    Raises `LakeError` when a part cannot be written.
    """

    def shared(found: re.Match[str]) -> str:
        tag, content = found["tag"], found["content"]
        if len(content) < _LARGE[tag]:
            return found[0]
        ending, reference = _REFERENCES[tag]
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        file = folder / f"evidently-{digest}.{ending}"
        if not file.exists():
            save_whole(content, file)
        return reference.format(file.name)

    return _INLINE.sub(shared, page)
