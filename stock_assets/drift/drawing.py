"""A process that draws pages: it loads Evidently while the run that will need it does other work.

Loading takes longer than drawing, and on a second core nobody waits for it. The process ends with
its `Drawer`, and by itself when the run that started it is gone. What it draws is in
`evidently_page.py`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from typing import IO, TYPE_CHECKING, Self

from stock_assets.drift.evidently_page import Drawing, drawn, load
from stock_assets.errors import StockAssetsError

if TYPE_CHECKING:
    from types import TracebackType

_LAST_WORDS = 2000
_ENDS_IN = 5.0


class Drawer:
    """Draws pages in a process of its own, which ends with the `with` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process, unless it is there: it begins to load Evidently at once.

        Raises `StockAssetsError` when it cannot be started.
        """
        if self._process is not None:
            return
        try:
            # A file, not a pipe: nobody reads it while the process lives.
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(  # noqa: S603 - our own code
                [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # It finds the packages where this process does.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            self.close()
            message = (
                f"the process that draws drift pages cannot be started ({error.strerror}); free "
                "memory and space for temporary files, and draw again"
            )
            raise StockAssetsError(message) from error

    def draw(self, drawing: Drawing) -> str:
        """The page.

        Raises `StockAssetsError` when the process is gone, with its last words, and when Evidently
        cannot draw it, with its traceback as the cause.
        """
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(drawing, process.stdin)
            process.stdin.flush()
            answer = pickle.load(process.stdout)  # noqa: S301 - our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._gone() from error
        page, failure = answer
        if failure is not None:
            reason = failure.strip().splitlines()[-1]
            message = f"Evidently could not draw a page ({reason})"
            raise StockAssetsError(message) from RuntimeError(failure)
        assert isinstance(page, str)
        return page

    def close(self) -> None:
        """End the process, whatever it is doing: it has nothing to lose."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # Closes the pipes as well; what was not sent is of no interest. A machine that is out
            # of memory may take longer to end what it was told to end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_ENDS_IN)
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _gone(self) -> StockAssetsError:
        """What is to be told of a process that ended by itself, which has been cleared away."""
        process, errors = self._process, self._errors
        assert process is not None
        assert errors is not None
        # Its pipes are closed before it has said its last words.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ENDS_IN)
        code = process.poll()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()[-_LAST_WORDS:]
        self.close()
        if code is None:
            how = "no longer answers"
        else:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return StockAssetsError(
            f"the process that draws drift pages {how} (a signal 9 that nobody sent is a lack of "
            f"memory: free some and draw again). It said: {said or 'nothing'}"
        )


def serve() -> None:
    """What the process does: load Evidently, then answer each `Drawing` until there are no more.

    An answer is a pair: the page, or else the traceback of the error as text.
    """
    # Ctrl-C reaches the whole process group; it is the run that decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not be among the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        load()
        while True:
            try:
                drawing = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own run
            except EOFError:
                return
            answer: tuple[str | None, str | None]
            try:
                answer = drawn(drawing), None
            except Exception:  # noqa: BLE001 - the run that waits is told all of it
                answer = None, traceback.format_exc()
            pickle.dump(answer, answers)
            answers.flush()
