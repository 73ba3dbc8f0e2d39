"""Serves the saved HTML reports on this machine, so that links in Dagster's UI open.

Dagster's webserver serves no files of ours and browsers refuse file:// links from its pages.
Read-only, one folder, plain HTTP.
"""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from stock_assets.errors import StockAssetsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Requests are of no interest beside Dagster's own messages."""


@contextmanager
def serving(folder: Path, host: str, port: int) -> Iterator[str]:
    """Serve `folder` in a thread while the context lasts; yields the address.

    Raises `StockAssetsError` when the port is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(_QuietHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        message = (
            f"cannot serve reports on {host}:{port} ({error.strerror}); is another "
            "`stock-assets dev` running? Else set server.reports_port"
        )
        raise StockAssetsError(message) from error
    threading.Thread(target=server.serve_forever, name="reports", daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
