"""HTTP/1.1 on asyncio and httptools: connections that carry one call at a time and are kept for the next one.

For pages of bulk reads only: httpx takes 2 ms for one of a hundred contacts, half of what pulling them computes; this takes a
twentieth of that. There is no HTTP/2, no redirect and no proxy, and an answer is handed on when it is whole.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, cast

import httptools

KEEP_SECONDS = 5.0
"""A connection that idled longer is not used again: servers close theirs at about that time."""
MAX_HEAD_BYTES = 128 * 1024
Origin = tuple[str, str, int]
"""Scheme, host (in ASCII, without brackets) and port."""


class Unreached(Exception):
    """The server was not reached: nothing has been said to it."""


class Lost(Exception):
    """Something has been said, and no whole answer came."""


class TooLong(Exception):
    """The answer has more bytes than anybody is willing to take."""


@dataclass(frozen=True)
class Answer:
    """What came: header names and values as they were sent, and the body in the pieces in which it was read."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: list[bytes]


class Wire:
    """Connections to any hosts, `connections` of them in use at most. An answer that pauses for `seconds` is lost, one of more
    than `max_bytes` is refused."""

    def __init__(
        self,
        *,
        connections: int,
        seconds: float,
        connect_seconds: float,
        max_bytes: int,
        trust: ssl.SSLContext,
    ) -> None:
        self._room = asyncio.Semaphore(connections)
        self._seconds, self._connect_seconds = seconds, connect_seconds
        self._max_bytes, self._trust = max_bytes, trust
        self._idle: dict[Origin, list[_Line]] = {}

    async def ask(self, origin: Origin, request: bytes, *, bodiless: bool = False) -> Answer:
        """The answer to a request, whole. `bodiless` says that none has a body, as of HEAD. Raises Unreached, Lost, TooLong."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._room.acquire()
        except TimeoutError:
            raise Unreached("no connection became free") from None
        line = None
        try:
            line = self._kept(origin) or await self._connected(origin)
            answer = await line.ask(request, bodiless=bodiless)
        except BaseException:
            if line is not None:
                line.close()
            raise
        finally:
            self._room.release()
        if line.reusable:
            self._idle.setdefault(origin, []).append(line)
        return answer

    def _kept(self, origin: Origin) -> _Line | None:
        lines = self._idle.get(origin, [])
        oldest = asyncio.get_running_loop().time() - KEEP_SECONDS
        while lines:
            line = lines.pop()
            if line.reusable and line.at >= oldest:
                return line
            line.close()
        return None

    async def _connected(self, origin: Origin) -> _Line:
        scheme, host, port = origin
        secured: dict[str, Any] = {"ssl": self._trust, "server_hostname": host} if scheme == "https" else {}
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, line = await asyncio.get_running_loop().create_connection(
                    lambda: _Line(self._seconds, self._max_bytes), host, port, **secured
                )
        except TimeoutError:
            raise Unreached("no connection in time") from None
        except (OSError, UnicodeError) as error:
            raise Unreached(type(error).__name__) from None
        return line

    async def close(self) -> None:
        for lines in self._idle.values():
            for line in lines:
                line.close()
        self._idle.clear()


class _Line(asyncio.Protocol):
    """One connection. httptools calls the `on_` methods while bytes are fed to it."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._bodiless = self._to_the_end = self._headed = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._bytes = 0
        self.reusable = False
        self.at = 0.0  # of the last byte

    async def ask(self, said: bytes, *, bodiless: bool) -> Answer:
        """Say a request; its answer. A line that raised is of no use any more."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Lost("the connection was closed")
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._answer = answer
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless, self.reusable, self.at = bodiless, False, self._loop.time()
        self._begin()
        transport.write(said)
        watch = self._loop.call_later(self._seconds, self._too_slow, answer)
        try:
            return await answer
        finally:
            watch.cancel()
            self._answer = None

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.at = self._loop.time()
        if self._answer is None or self._answer.done() or self._parser is None:
            self.close()  # it speaks unasked
            return
        if not self._headed:
            self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Lost(f"this is not HTTP: {type(error).__name__}"))
        if not self._headed and self._bytes > MAX_HEAD_BYTES:
            self._fail(Lost("its headers are too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if exc is None and self._headed and self._to_the_end:
            self._done()
        self._fail(
            Lost(
                type(exc).__name__ if exc else "the server closed the connection before its answer was whole"
            )
        )
        self._transport = None

    # --- httptools ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if self._parser.get_status_code() < 200:  # something before the answer (RFC 9110, 15.2)
            return
        self._headed, self._bytes = True, 0
        names = {name.lower() for name, _ in self._headers}
        self._to_the_end = not names & {b"content-length", b"transfer-encoding"}
        if self._bodiless:
            self._done()
            self.close()  # httptools would wait for the body that its length tells of

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._bytes += len(body)
        if self._bytes > self._max_bytes:
            self._fail(TooLong("the answer is too long"))

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if not self._headed:
            self._begin()
            return
        self.reusable = self._parser.should_keep_alive()
        self._done()
        if not self.reusable:
            self.close()

    # --- what becomes of it ---

    def _begin(self) -> None:
        self._headed = self._to_the_end = False
        self._headers, self._chunks, self._bytes = [], [], 0

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done() and self._parser is not None:
            status = self._parser.get_status_code()
            self._answer.set_result(Answer(status, self._headers, self._chunks))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def _too_slow(self, answer: asyncio.Future[Answer]) -> None:
        if answer.done():
            return
        left = self.at + self._seconds - self._loop.time()
        if left <= 0:
            self._fail(Lost("no answer in time"))
        else:
            self._loop.call_later(left, self._too_slow, answer)
