"""Asking a market-data API: limited, retried, patient, with connections kept and a name given.

All clients behave alike because all of them go through here (docs/adr/0020). What an answer means
is each source's: it hands over a function that reads answers, and says which are passing trouble.
Secrets travel in headers alone, which are never part of a message; where an answer repeats one, it
is masked before anyone sees it (`masking.py`).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from stock_assets.errors import SourceError
from stock_assets.sources.limits import LONGEST_HOLD, RateLimit
from stock_assets.sources.masking import Mask

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tenacity import RetryCallState

    from stock_assets.source_settings import ApiSection

T = TypeVar("T")
Item = TypeVar("Item")

_log = logging.getLogger(__name__)

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 524})
_NOT_AN_ANSWER = 300
_LONGEST_WAIT = 60.0
_LARGEST_ANSWER = 256 * 1024 * 1024
_NEWS_EVERY = 10.0
_SHOWN = 200
_NAMES_SHOWN = 5
_LOST_IN_A_ROW = 8
"""Requests that failed for all their attempts, with none in between that did not: the host is down,
and each of a thousand others would only be waited for as long again."""


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    url: str
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for a message."""
        text = self.body[: 4 * _SHOWN].decode("utf-8", "replace")
        return " ".join(text.split())[:_SHOWN]


class PassingTroubleError(Exception):
    """The answer is not what it should be, and may be the next time: cut off, a page of HTML.

    `pause` is how many seconds the host wants to be left alone, where it says so.
    """

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


class Client:
    """One source's connections to one host. Threads share it; close it when done."""

    def __init__(  # noqa: PLR0913
        self,
        source: str,
        settings: ApiSection,
        base_url: str,
        limits: Path,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        verify: ssl.SSLContext | bool = True,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """`limits` is the folder of the shared limits; `rates` adds named ones to the host's.

        Requests a second of a named limit are those of one kind of request (`send(limit=...)`).
        `secrets` are texts within `headers` that must be seen nowhere else.
        """
        # Imported here: only runs that ask an API need it.
        import httpx  # noqa: PLC0415

        self.source = source
        self._settings = settings
        self._base = base_url.rstrip("/")
        host = urlsplit(self._base).netloc.replace(":", "_") or "host"
        every = {"": settings.requests_per_second, **(rates or {})}
        self._limits = {
            name: RateLimit(limits, f"{host}-{name}" if name else host, rate)
            for name, rate in every.items()
        }
        self._http = httpx.Client(
            headers={"User-Agent": settings.user_agent, **(headers or {})},
            timeout=settings.timeout,
            verify=verify,
            limits=httpx.Limits(max_connections=settings.connections),
            follow_redirects=False,
        )
        self._mask = Mask(secrets)
        self._mask.cover_logs()
        self._count = threading.Lock()
        self._lost = 0
        self.requests = 0
        self.finish_by: float | None = None
        """After this (`time.monotonic`) nothing is sent or waited for; None: no end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()
        self._mask.uncover_logs()

    def hold(self, seconds: float, limit: str = "") -> None:
        """Send nothing for so long, in no thread and no run: the host asked for it."""
        self._limits[limit].hold(seconds)

    def held_for(self, limit: str = "") -> float:
        """Seconds until a request may be sent."""
        return max(self._limits[name].held_for() for name in {"", limit})

    def send(  # noqa: PLR0913
        self,
        method: str,
        path: str,
        read: Callable[[Answer], T],
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        limit: str = "",
        refuse: Callable[[Answer], None] | None = None,
        heed: Callable[[Mapping[str, str]], None] | None = None,
    ) -> T:
        """What `read` makes of the answer.

        `read` sees an answer that is no error by its status; it raises `PassingTroubleError` for
        one that is worth another try, `SourceError` for one that is not. `refuse` sees the others
        first and raises `SourceError` for what no other try would mend, `PassingTroubleError` where
        the answer says itself that it will pass. What it lets pass is tried again when its status
        means "not now" (429, 503, ...), and is refused here when not. `heed` hears the headers of
        every answer as they come, of one that is cut off behind them too. Raises `SourceError`
        after `attempts`, naming the source, the address and the last trouble.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt  # noqa: PLC0415

        url = f"{self._base}{path}"
        often_enough = stop_after_attempt(self._settings.attempts)
        retrying = Retrying(
            stop=lambda state: often_enough(state) or self._is_too_late(state),
            wait=self._wait,
            retry=retry_if_exception_type(PassingTroubleError),
            before_sleep=self._tell_of_retry,
            reraise=True,
        )

        def once() -> T:
            if self._seconds_left() <= self.held_for(limit):
                message = (
                    f"source {self.source}: there was no time left to ask {url}: it answers slowly "
                    "or is busy with runs; what is not known yet is asked again later"
                )
                raise SourceError(message)
            answer = self._ask(method, url, params, json, limit, heed)
            if answer.status >= _NOT_AN_ANSWER:
                if refuse is not None:
                    refuse(answer)
                if answer.status in _PASSING:
                    raise self._not_now(answer, limit)
                message = (
                    f"source {self.source}: {answer.url} answered {answer.status} "
                    f"({answer.excerpt}); look with `stock-assets sources check {self.source}`"
                )
                raise SourceError(message)
            return read(answer)

        try:
            found = retrying(once)
        except PassingTroubleError as trouble:
            with self._count:
                self._lost += 1
            tried = retrying.statistics["attempt_number"]
            message = (
                f"source {self.source}: {method} {url} was tried {tried} times, "
                f"the last time {trouble}. What has been fetched is kept: run the slice again to "
                f"go on, or look with `stock-assets sources check {self.source}`"
            )
            raise SourceError(message) from trouble
        with self._count:
            self._lost = 0
        return found

    def _ask(  # noqa: PLR0913, PLR0917
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        json: Any,
        limit: str,
        heed: Callable[[Mapping[str, str]], None] | None,
    ) -> Answer:
        import httpx  # noqa: PLC0415

        for name in dict.fromkeys(("", limit)):
            self._limits[name].wait()
        with self._count:
            self.requests += 1
        patience = max(0.0, min(self._settings.timeout, self._seconds_left()))
        deadline = time.monotonic() + patience
        try:
            with self._http.stream(
                method, url, params=params, json=json, timeout=patience
            ) as response:
                headers = {
                    name.lower(): self._mask.text(value) for name, value in response.headers.items()
                }
                if heed is not None:
                    heed(headers)
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:
                        waited = f"{patience:.3g} s"
                        raise PassingTroubleError(f"its answer was not whole after {waited}")
                    if len(body) > _LARGEST_ANSWER:
                        message = f"source {self.source}: {url} answers without end; not read"
                        raise SourceError(message)
                masked = self._mask.body(bytes(body))
                return Answer(str(response.url), response.status_code, headers, masked)
        except httpx.ConnectError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise SourceError(self._distrust(url, error)) from error
            raise PassingTroubleError(f"there was no connection ({error})") from error
        except httpx.HTTPError as error:
            # Its text may be empty; the type tells then.
            words = self._mask.text(str(error)) or type(error).__name__
            # A malformed header is quoted: the cause would show what is masked.
            cause = error if self._mask.text(str(error)) == str(error) else None
            raise PassingTroubleError(f"the connection failed ({words})") from cause

    def _not_now(self, answer: Answer, limit: str) -> PassingTroubleError:
        pause = _seconds(answer.headers.get("retry-after"))
        if pause is not None:
            self._limits[limit].hold(pause)
        return PassingTroubleError(f"it answered {answer.status} ({answer.excerpt})", pause)

    def _wait(self, state: RetryCallState) -> float:
        """Exponential with full jitter up to a minute, and never less than the host asked for."""
        from tenacity import wait_random_exponential  # noqa: PLC0415

        pause = wait_random_exponential(self._settings.first_wait, _LONGEST_WAIT)(state)
        trouble = state.outcome.exception() if state.outcome else None
        asked = trouble.pause if isinstance(trouble, PassingTroubleError) else None
        return max(pause, min(asked or 0.0, LONGEST_HOLD))

    def _seconds_left(self) -> float:
        return math.inf if self.finish_by is None else self.finish_by - time.monotonic()

    def _is_too_late(self, state: RetryCallState) -> bool:
        """Whether another try would come after `finish_by`."""
        return self._seconds_left() <= state.upcoming_sleep

    def _tell_of_retry(self, state: RetryCallState) -> None:
        trouble = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        _log.info("source %s: %s; trying again in %.1f s", self.source, trouble, pause)

    def _distrust(self, url: str, error: Exception) -> str:
        return (
            f"source {self.source}: the certificate of {url} is of an authority that this machine "
            f"does not know ({error}); give its PEM file as [sources.{self.source}] ca_bundle"
        )

    def map(
        self,
        work: Callable[[Item], T],
        items: Sequence[Item],
        *,
        what: str,
        name: Callable[[Item], str],
    ) -> list[T]:
        """`work` of each item, as many at once as there are connections, in the items' order.

        One that fails does not keep the others from being fetched, but where nothing gets through
        any more the rest is not tried: then `SourceError` names those that failed (`name`) and
        why the first did. Tells its progress
        every few seconds as so many of so many `what`.
        """
        done, began = 0, time.monotonic()
        told = began
        failed: list[tuple[str, SourceError]] = []
        found: list[T] = []

        def attempt(item: Item) -> T | SourceError:
            nonlocal done, told
            if self._lost >= _LOST_IN_A_ROW:
                return SourceError(f"source {self.source}: not tried, for the host is down")
            try:
                result: T | SourceError = work(item)
            except SourceError as error:
                result = error
            with self._count:
                done += 1
                now = time.monotonic()
                if now - told > _NEWS_EVERY and done < len(items):
                    told = now
                    left = (now - began) / done * (len(items) - done)
                    _log.info(
                        "source %s: %d of %d %s, about %.0f s left",
                        self.source, done, len(items), what, left,
                    )  # fmt: skip
            return result

        with ThreadPoolExecutor(self._settings.connections) as pool:
            for item, result in zip(items, pool.map(attempt, items), strict=True):
                if isinstance(result, SourceError):
                    failed.append((name(item), result))
                else:
                    found.append(result)
        if failed:
            raise SourceError(_failures(self.source, what, failed, len(items)))
        return found


def _failures(source: str, what: str, failed: Sequence[tuple[str, SourceError]], total: int) -> str:
    named, first = failed[0]
    if total == 1 and named in str(first):
        return str(first)
    names = list(dict.fromkeys(name for name, _ in failed))
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"source {source}: {len(failed)} of {total} {what} failed ({shown}); the first: {first}"


def _seconds(text: str | None) -> float | None:
    """A Retry-After or a reset in seconds; None where it is no number (a date: rare, and late)."""
    try:
        seconds = None if text is None else max(0.0, float(text))
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None
