"""A market-data API on loopback, with its faults: what the fake servers of each API build on.

An API's own module says what it answers; here is the server, its log of what it was asked, and the
trouble that it can be told to make.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(frozen=True)
class Fault:
    """Trouble in place of the answer, or around it.

    - `status`: that status, with `body` and `headers`, instead of the answer.
    - `html`: a page of HTML with status 200 instead of it (with `status`: with that one).
    - `cut`: the first half of the answer, as if it were all of it.
    - `drop`: half of it, then the connection is closed.
    - `slow`: the answer after so many seconds.
    - `trickle`: the answer a byte at a time, so many seconds apart; in small pieces when none.
    """

    kind: str
    status: int = 503
    seconds: float = 0.0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    moment: float
    """When it came by the server's `clock`: by default the one that limits are kept by."""
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str
    fault: str
    """Kind of the fault it got; empty for none."""


@dataclass(frozen=True)
class _Random:
    """Trouble by chance."""

    rng: random.Random
    share: float
    faults: tuple[Fault, ...]
    within: str
    in_a_row: int

    def draw(self, path: str, before: int) -> Fault | None:
        """What befalls a question that had `before` faults in a row."""
        if self.within not in path or before >= self.in_a_row:
            return None
        return self.rng.choice(self.faults) if self.rng.random() < self.share else None


class ApiServer:
    """Serves `answer` on a free port of 127.0.0.1 until it is left; use it with `with`."""

    def __init__(self, answer: Callable[[Request], Response], ssl_context: object = None) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._planned: deque[Fault] = deque()
        self._random: _Random | None = None
        self._luck: Counter[str] = Counter()
        self.clock: Callable[[], float] = time.time
        self._broken: dict[str, Fault] = {}
        self.seen: list[Seen] = []
        self._server = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet,
            ssl_context=ssl_context,
        )  # fmt: skip
        scheme = "https" if ssl_context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        # It looks for the end twice a second by itself: half a second for every test.
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail_next(self, *faults: Fault) -> None:
        """The next requests get these faults, one each, whichever they are."""
        with self._lock:
            self._planned.extend(faults)

    def fail_path(self, path: str, fault: Fault) -> None:
        """From now on each request of that path gets this fault."""
        with self._lock:
            self._broken[path] = fault

    def fail_at_random(
        self, share: float, *faults: Fault, seed: int = 1, within: str = "", in_a_row: int = 1000
    ) -> None:
        """From now on that share of the requests gets one of these, drawn with `seed`.

        Of requests alone whose path has `within` in it. No question has such bad luck more often
        than `in_a_row`.
        """
        with self._lock:
            self._luck.clear()
            self._random = (
                _Random(random.Random(seed), share, faults, within, in_a_row) if share else None
            )

    def most_beyond(self, rate: float) -> float:
        """By how many requests any stretch of time, short or long, had more than `rate` a second.

        One is the least there can be: a request alone takes no time.
        """
        most, least = 0.0, math.inf
        for number, moment in enumerate(sorted(item.moment for item in self.seen)):
            beyond = number - rate * moment
            least = min(least, beyond)
            most = max(most, beyond - least + 1)
        return most

    def _fault(self, path: str, question: str) -> Fault | None:
        with self._lock:
            if path in self._broken:
                return self._broken[path]
            if self._planned:
                return self._planned.popleft()
            if self._random is not None:
                fault = self._random.draw(path, self._luck[question])
                self._luck[question] = self._luck[question] + 1 if fault else 0
                return fault
        return None

    def _serve(self, environ: dict[str, object], start: Callable[..., object]) -> Iterable[bytes]:
        request = Request(environ)
        moment = self.clock()
        body = request.get_data(as_text=True)
        fault = self._fault(request.path, f"{request.full_path} {body}")
        with self._lock:
            self.seen.append(
                Seen(
                    moment, request.method, request.path, request.args.to_dict(),
                    {name.lower(): value for name, value in request.headers.items()},
                    body, fault.kind if fault else "",
                )
            )  # fmt: skip
        return self._troubled(request, fault)(environ, start)

    def _troubled(self, request: Request, fault: Fault | None) -> Response:
        if fault is None:
            return self._answer(request)
        if fault.kind == "status":
            return Response(fault.body, fault.status, dict(fault.headers), "application/json")
        if fault.kind == "html":
            page = fault.body or "<html><title>DDOS-GUARD</title></html>"
            status = fault.status if fault.status != Fault.status else 200
            return Response(page, status, dict(fault.headers), "text/html")
        whole = self._answer(request)
        body = whole.get_data()
        if fault.kind == "cut":
            whole.set_data(body[: len(body) // 2])
            return whole
        if fault.kind == "slow":
            time.sleep(fault.seconds)
            return whole
        pieces = _dropped(body) if fault.kind == "drop" else _trickled(body, fault.seconds)
        headers = [*whole.headers.items()]
        return Response(pieces, whole.status, headers, direct_passthrough=True)


def _dropped(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("dropped on purpose")


def _trickled(body: bytes, seconds: float) -> Iterator[bytes]:
    step = 1 if seconds else 97
    for place in range(0, len(body), step):
        time.sleep(seconds)
        yield body[place : place + step]


class _Quiet(WSGIRequestHandler):
    """Keeps connections, and says nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Nothing: requests are in `seen`."""


EACH_FAULT = (
    Fault("status", 429, headers=(("Retry-After", "0"),)),
    Fault("status", 503),
    Fault("status", 502),
    Fault("html"),
    Fault("cut"),
    Fault("drop"),
)
"""What every client must stand, whichever API it asks."""
