"""The one way to call a vendor: httpx, pooled and timed, with retries, quotas and token refresh. Only this module imports it.

Pages of bulk reads, which are most of what is ever read, come over `hub.sdk.wire`: there httpx costs as much as all the rest.

A call ends in a `Response`, or in a typed `VendorError`: `Retry` and `QuotaExhausted` (again later), `FixNeeded`
(a person must act), `Unclear` (the vendor may have done it). No error or log line holds a token or a body.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from hub.errors import FixNeeded, QuotaExhausted, Retry, Unclear, VendorError
from hub.sdk.connector import Limit
from hub.sdk.quota import MemoryQuota, Quota, Sleep, admit
from hub.sdk.wire import Answer, Lost, Origin, TooLong, Unreached, Wire

log = structlog.get_logger()
logging.getLogger("httpx").setLevel(
    logging.WARNING
)  # it logs whole URLs, and some vendors want their secret there
T = TypeVar("T")

ATTEMPTS = 5
MAX_PAUSE_SECONDS = 30.0
"""A vendor that asks for a longer pause ends the run instead; it resumes by itself."""
LONGEST_RETRY_AFTER_SECONDS = 7 * 86_400.0
"""A vendor that asks for more, or for nonsense, is asked again after so long."""
MAX_BODY_BYTES = 64 * 1024 * 1024
RETRIED = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


_SECRET_FORM = re.compile(r"token|secret|password|assertion|code")

for _name in (
    "httpx",
    "httpcore",
):  # they would log whole addresses, and some vendors want a secret in the query
    logging.getLogger(_name).setLevel(logging.WARNING)


class Auth(Protocol):
    """Puts credentials on a request. `renew` is asked once after a 401, with the headers that were refused, and says
    whether a retry makes sense."""

    async def headers(self) -> Mapping[str, str]: ...

    async def renew(self, refused: Mapping[str, str]) -> bool: ...


class Bearer:
    """A token that does not change, e.g. of a private app."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __repr__(self) -> str:
        return "Bearer(...)"

    async def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        return False


@dataclass(frozen=True)
class Response:
    """A vendor's answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    shaped: Any = None  # the body as the caller's `shape`, where it gave one

    def json(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else None

    def decode(self, type: type[T]) -> T:
        """The body as `type`, by msgspec. Raises `Retry` when it is not what the vendor promises."""
        if self.shaped.__class__ is type:
            return self.shaped
        try:
            return msgspec.json.decode(self.body, type=type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Retry(
                f"the answer is not what was expected: {error}", code="BAD_BODY", status=self.status
            ) from None


@dataclass
class Stats:
    """What calls cost: for the run's record."""

    calls: int = 0
    retries: int = 0
    by_status: Counter[int] = field(default_factory=Counter)

    def add(self, other: Stats) -> None:
        self.calls += other.calls
        self.retries += other.retries
        self.by_status += other.by_status

    def as_dict(self) -> dict[str, int]:
        refused = {f"http_{status}": n for status, n in sorted(self.by_status.items()) if status >= 300}
        return {"calls": self.calls, "repeated_calls": self.retries, **refused}


_METER: ContextVar[Stats] = ContextVar("_METER")


@contextmanager
def metered() -> Iterator[Stats]:
    """Count the calls that are made inside, also by tasks that are started there, whichever client makes them."""
    stats = Stats()
    mark = _METER.set(stats)
    try:
        yield stats
    finally:
        _METER.reset(mark)


Classify = Callable[[int, Mapping[str, str], bytes], VendorError | None]
"""A vendor's own reading of an error answer; None leaves it to the general one."""


class Http:
    """Calls to one vendor account. `share` below 1 keeps room in long quotas for more urgent callers.

    Build it with the base URL; every path is relative to it, and no other host is ever called.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        auth: Auth | None = None,
        quota: Quota | None = None,
        account: str = "",
        limits: Sequence[Limit] = (),
        classify: Classify | None = None,
        timeout_seconds: float = 30.0,
        connections: int = 10,
        share: float = 1.0,
        sleep: Sleep = asyncio.sleep,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.auth, self.account, self.limits, self.classify = auth, account, tuple(limits), classify
        self.quota: Quota = quota or MemoryQuota()
        self.share, self.sleep = share, sleep
        self.timeout_seconds = timeout_seconds
        self._headers = {"User-Agent": "mailyard/0.1", "Accept": "application/json", **(headers or {})}
        self._connections = connections
        self._client: httpx.AsyncClient | None = None
        self._wire: Wire | None = None

    def configured(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        limits: Sequence[Limit] = (),
        classify: Classify | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Http:
        """This client made ready for a vendor: what a connector does in `open`."""
        return Http(
            base_url, auth=auth, quota=self.quota, account=self.account, limits=limits, classify=classify,
            timeout_seconds=self.timeout_seconds, connections=self._connections, share=self.share, sleep=self.sleep,
            headers=headers,
        )  # fmt: skip

    @property
    def stats(self) -> Stats:
        """The counts of the `metered` block that this call belongs to."""
        return _METER.get(None) or Stats()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        if self._wire is not None:
            await self._wire.close()
            self._wire = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str | int] | Sequence[tuple[str, str | int]] | None = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        scope: str = "",
        cost: int = 1,
        repeatable: bool | None = None,
        expect_json: bool = True,
        shape: type[Any] | None = None,
        attempts: int = ATTEMPTS,
    ) -> Response:
        """One call, retried while that is safe and useful. A 2xx answer comes back; anything else is raised.

        `shape`, a msgspec type, says that this is a page of a bulk read: it comes over the fast wire, and its JSON is read
        once, as that type, instead of being checked first and read by `decode` later.
        `repeatable` says whether a second call has no second effect (default: by method). A call that is not
        is never repeated once it may have arrived: then `Unclear` is raised.
        """
        if repeatable is None:
            repeatable = method in SAFE_METHODS
        body = msgspec.json.encode(json) if json is not None else content
        kinds = {"Content-Type": "application/json"} if json is not None else {}
        renewed, attempt = False, 0
        while attempt < attempts:
            await admit(
                self.quota,
                self.account,
                self.limits,
                scope=scope,
                cost=cost,
                share=self.share,
                sleep=self.sleep,
            )
            attempt += 1
            try:
                credentials = dict(await self.auth.headers()) if self.auth else {}
                once = self._page if shape else self._once
                response = await once(
                    method, path, params, form, body, {**kinds, **(headers or {}), **credentials}
                )
                self.stats.by_status[response.status] += 1
                if (
                    response.status == 401
                    and not renewed
                    and self.auth
                    and await self.auth.renew(credentials)
                ):
                    renewed, attempt = True, attempt - 1
                    continue
                return self._checked(_discreet(response, credentials, form), expect_json, path, shape)
            except Unclear as error:
                if not repeatable:
                    raise
                failure: VendorError = Retry(error.message, code=error.code, where=error.where)
            except QuotaExhausted as error:
                await self.quota.pause(
                    self.account, "vendor", error.retry_after_seconds or 60.0, error.message
                )
                raise
            except Retry as error:
                if error.status not in (0, 408, 423, 425, 429, 503) and not repeatable:
                    raise Unclear(
                        error.message, code=error.code, status=error.status, where=error.where
                    ) from None
                failure = error
            pause = self._pause(attempt, failure)
            if attempt == attempts or pause > MAX_PAUSE_SECONDS:
                raise failure
            self.stats.retries += 1
            log.info(
                "a vendor's call is repeated",
                account=self.account,
                path=path,
                status=failure.status,
                attempt=attempt,
            )
            await self.sleep(pause)
        raise Retry("no attempt was made", where=path)  # attempts < 1

    async def in_thread(
        self,
        work: Callable[[str], T],
        *,
        translate: Callable[[Exception], VendorError | None],
        scope: str = "",
        repeatable: bool = False,
        timeout_seconds: float = 60.0,
        attempts: int = ATTEMPTS,
    ) -> T:
        """Run a vendor's synchronous SDK in a thread, with the same quota, token renewal and retries as `request`.

        `work` gets the Authorization header's value. `translate` reads the SDK's exceptions; what it does not
        know is raised as it is.
        """
        renewed, attempt = False, 0
        while attempt < attempts:
            attempt += 1
            await admit(
                self.quota, self.account, self.limits, scope=scope, share=self.share, sleep=self.sleep
            )
            credentials = dict(await self.auth.headers()) if self.auth else {}
            self.stats.calls += 1
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await asyncio.to_thread(work, credentials.get("Authorization", ""))
            except TimeoutError:
                failure: VendorError = Unclear(
                    f"no answer within {timeout_seconds:.0f} s", code="TIMEOUT", where=self.account
                )
            except Exception as error:
                known = error if isinstance(error, VendorError) else translate(error)
                if known is None:
                    raise
                failure = known
            self.stats.by_status[failure.status] += 1
            if failure.status == 401 and not renewed and self.auth and await self.auth.renew(credentials):
                renewed, attempt = True, attempt - 1
                continue
            if isinstance(failure, QuotaExhausted):
                await self.quota.pause(
                    self.account, "vendor", failure.retry_after_seconds or 60.0, failure.message
                )
                raise failure
            again = isinstance(failure, Retry) or (isinstance(failure, Unclear) and repeatable)
            pause = self._pause(attempt, failure)
            if not again or attempt == attempts or pause > MAX_PAUSE_SECONDS:
                raise (
                    Retry(failure.message, code=failure.code)
                    if again and isinstance(failure, Unclear)
                    else failure
                )
            self.stats.retries += 1
            await self.sleep(pause)
        raise Retry("no attempt was made", where=self.account)

    async def _once(
        self,
        method: str,
        path: str,
        params: Any,
        form: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Response:
        url = self._url(path)
        self.stats.calls += 1
        try:
            async with self._open().stream(
                method, url, params=params, data=form, content=body, headers={**self._headers, **headers}
            ) as answer:  # fmt: skip
                parts = bytearray()
                async for chunk in answer.aiter_bytes():
                    parts.extend(chunk)
                    if len(parts) > MAX_BODY_BYTES:
                        raise _too_large(path)
                return Response(
                    answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, bytes(parts)
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Retry(f"cannot connect: {type(error).__name__}", code="CONNECT", where=path) from None
        except httpx.HTTPError as error:
            raise Unclear(
                f"the answer was lost: {type(error).__name__}", code="LOST_ANSWER", where=path
            ) from None

    async def _page(
        self,
        method: str,
        path: str,
        params: Any,
        form: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Response:
        """As `_once`, over the wire."""
        request = httpx.Request(
            method, self._url(path), params=params, data=form, content=body,
            headers={**self._headers, "Accept-Encoding": "gzip, deflate", **headers},
        )  # fmt: skip
        if self._wire is None:
            self._wire = Wire(
                connections=self._connections, seconds=self.timeout_seconds, connect_seconds=10.0, max_bytes=MAX_BODY_BYTES,
                trust=_trust(),
            )  # fmt: skip
        self.stats.calls += 1
        try:
            answer = await self._wire.ask(_origin(request.url), _written(request), bodiless=method == "HEAD")
            content = await _unpacked(answer)
        except TooLong:
            raise _too_large(path) from None
        except Unreached as error:
            raise Retry(f"cannot connect: {error}", code="CONNECT", where=path) from None
        except (Lost, httpx.DecodingError) as error:
            what = "it is damaged" if isinstance(error, httpx.DecodingError) else str(error)
            raise Unclear(f"the answer was lost: {what}", code="LOST_ANSWER", where=path) from None
        return Response(
            answer.status,
            {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in answer.headers},
            content,
        )

    def _checked(self, response: Response, expect_json: bool, path: str, shape: type[Any] | None) -> Response:
        """The response when it is good; the typed error when it is not."""
        if 200 <= response.status < 300:
            if expect_json and response.body and response.status != 204:
                found = self._must_be_json(response, path, shape or msgspec.Raw)
                return replace(response, shaped=found) if shape else response
            return response
        special = self.classify(response.status, response.headers, response.body) if self.classify else None
        raise special or _general(response, path)

    @staticmethod
    def _must_be_json(response: Response, path: str, shape: type[T]) -> T:
        if "json" not in response.headers.get("content-type", "json"):
            raise Retry(
                "a page came instead of JSON, as from a proxy or a login",
                code="NOT_JSON",
                status=502,
                where=path,
            )
        try:
            return msgspec.json.decode(response.body, type=shape)
        except msgspec.ValidationError:
            return None  # type: ignore[return-value]  # it is JSON: `decode` says what is wrong with it
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Retry(
                "the answer's JSON is cut off or damaged", code="BAD_JSON", status=502, where=path
            ) from None

    def _url(self, path: str) -> str:
        if not path.startswith("/") or path.startswith("//"):
            try:
                own = urlsplit(path)[:2] == urlsplit(self.base_url)[:2]
            except ValueError:
                own = False
            if not own:
                raise FixNeeded(
                    "a call outside the vendor's own host was refused", code="FOREIGN_URL", where=self.account
                )
            return path
        return self.base_url + path

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self.timeout_seconds, connect=10.0),
                limits=httpx.Limits(
                    max_connections=self._connections, max_keepalive_connections=self._connections
                ),
                follow_redirects=False,
                trust_env=False,
                verify=_trust(),
            )
        return self._client

    @staticmethod
    def _pause(attempt: int, failure: VendorError) -> float:
        """Full jitter, but never less than what the vendor asked for."""
        jitter = random.uniform(0, min(0.5 * 2.0**attempt, 15.0))  # noqa: S311
        return max(jitter, failure.retry_after_seconds)


_PORTS = {"http": 80, "https": 443}


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.raw_host.decode().strip("[]"), url.port or _PORTS[url.scheme]


def _written(request: httpx.Request) -> bytes:
    """A request as its bytes (RFC 9112, 3)."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    head = b"\r\n".join(lines)
    if head.count(b"\n") + head.count(b"\r") != 2 * len(lines) - 2 or b"\0" in head:
        raise FixNeeded("a header holds a line break or a NUL", code="BAD_HEADER", where=request.url.path)
    return head + b"\r\n\r\n" + request.content


def _too_large(path: str) -> FixNeeded:
    return FixNeeded(f"the answer is larger than {MAX_BODY_BYTES} bytes", code="TOO_LARGE", where=path)


async def _unpacked(answer: Answer) -> bytes:
    """The body of an answer, unpacked where it came packed."""
    if all(name.lower() != b"content-encoding" for name, _ in answer.headers):
        return b"".join(answer.body)

    async def pieces() -> AsyncIterator[bytes]:
        for piece in answer.body:
            yield piece

    found = bytearray()
    async for piece in httpx.Response(answer.status, headers=answer.headers, content=pieces()).aiter_bytes():
        found.extend(piece)
        if len(found) > MAX_BODY_BYTES:
            raise TooLong
    return bytes(found)


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that are trusted: read once, since reading them takes longer than a call."""
    return httpx.create_ssl_context(trust_env=False)


def retry_after(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Seconds that `Retry-After` asks for (a number or a date, RFC 9110), or 0."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - now()).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else 0.0


def _discreet(response: Response, credentials: Mapping[str, str], form: Mapping[str, str] | None) -> Response:
    """A refusal without the secrets of its request: some vendors quote what they refuse, and errors quote vendors."""
    if 200 <= response.status < 300:
        return response
    secrets = [value.split()[-1] for value in credentials.values() if value.strip()]
    secrets += [value for key, value in (form or {}).items() if _SECRET_FORM.search(key)]
    body = response.body
    for secret in secrets:
        if len(secret) >= 8:
            body = body.replace(secret.encode(), b"***")
    return replace(response, body=body)


def message_of(body: bytes) -> str:
    """The vendor's words out of an error body; a page of HTML is not quoted."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    if isinstance(document, dict):
        for key in ("message", "error_description", "error", "detail", "title"):
            if isinstance(value := document.get(key), str):
                return value[:500]
            if isinstance(value, dict) and isinstance(value.get("message"), str):
                return str(value["message"])[:500]
    return ""


def _general(response: Response, path: str) -> VendorError:
    words = message_of(response.body) or f"HTTP {response.status}"
    if response.status in RETRIED or response.status >= 500:
        return Retry(
            words, status=response.status, where=path, retry_after_seconds=retry_after(response.headers)
        )
    if response.status == 401:
        return FixNeeded(words, status=401, where=path, fix="renew the connection's credentials")
    if response.status == 403:
        return FixNeeded(words, status=403, where=path, fix="give the connection the missing permission")
    return FixNeeded(words, status=response.status, where=path)
