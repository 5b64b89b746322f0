"""What a vendor's stand-in is built on: a real HTTP server on loopback that fails as vendors fail.

A sandbox subclasses `Sandbox`, offers its routes and keeps its state in memory. Everything that sandboxes
share lives here: serving in a thread, faults on demand, and a log of the requests they saw.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.clock import Clock, SystemClock


@dataclass
class Fault:
    """One way to fail, used up after `times` matching requests.

    kind: `429` (with the vendor's own headers), `500`, `truncated` (the right body cut in half under its full
    Content-Length), `html` (a proxy's page with status 502), `expired_token` (the vendor's 401), `slow` (waits `seconds`),
    `lost_answer` (does the work, then closes the connection without an answer), `status` (the bare `status`, with
    `Retry-After: seconds` when `seconds` is above 0: 423, 477, 503 ...).
    """

    kind: str
    times: int = 1
    path: str = ""  # a regular expression searched in the request's path; empty matches all
    method: str = ""
    skip: int = 0  # let this many matching requests through first
    seconds: float = 1.0
    status: int = 503

    def matches(self, method: str, path: str) -> bool:
        return (not self.method or self.method == method) and re.search(self.path, path) is not None


@dataclass(frozen=True)
class Seen:
    """One request that the sandbox answered."""

    method: str
    path: str
    status: int
    at: float  # time.monotonic()


@dataclass
class Faults:
    """The queue of faults and the log of requests of one sandbox."""

    planned: list[Fault] = field(default_factory=list)
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=200_000))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, kind: str, **settings: object) -> None:
        with self.lock:
            self.planned.append(Fault(kind, **settings))  # type: ignore[arg-type]

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.planned:
                if fault.matches(method, path):
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    if fault.times <= 0:
                        self.planned.remove(fault)
                    return fault
        return None

    def count(self, path: str = "", method: str = "", status: int = 0) -> int:
        """How many requests were seen that match."""
        return sum(
            1
            for s in list(self.seen)
            if re.search(path, s.path)
            and (not method or s.method == method)
            and (not status or s.status == status)
        )


class Sandbox:
    """Base of every vendor's stand-in. A subclass sets `vendor` and defines `routes`.

    `too_many(request)` and `unauthorised(request)` give the vendor's own 429 and expired-token answers, so
    that injected faults look like the vendor's.
    """

    vendor: ClassVar[str] = ""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.faults = Faults()
        self.url = ""  # set while serving: http://127.0.0.1:PORT

    def routes(self) -> Sequence[BaseRoute]:
        raise LookupError(f"{type(self).__name__} defines no routes")

    def control_routes(self) -> Sequence[BaseRoute]:
        """A vendor's own routes under `/_sandbox/`, which no fault touches and no log counts."""
        return []

    def too_many(self, request: Request) -> Response:
        return JSONResponse({"message": "rate limit"}, status_code=429, headers={"Retry-After": "1"})

    def unauthorised(self, request: Request) -> Response:
        return JSONResponse({"message": "expired token"}, status_code=401)

    def app(self) -> ASGIApp:
        """The ASGI application: the vendor's routes, and `/_sandbox/*` to plan faults and ask what was seen."""
        control = [
            Route("/_sandbox/fault", self._plan_fault, methods=["POST"]),
            Route("/_sandbox/seen", self._tell_seen, methods=["GET"]),
        ]
        return _FaultInjector(self, Starlette(routes=[*self.routes(), *self.control_routes(), *control]))

    async def _plan_fault(self, request: Request) -> JSONResponse:
        self.faults.plan(**await request.json())
        return JSONResponse({"planned": len(self.faults.planned)})

    async def _tell_seen(self, request: Request) -> JSONResponse:
        q = request.query_params
        count = self.faults.count(q.get("path", ""), q.get("method", ""), int(q.get("status", 0)))
        return JSONResponse({"count": count})

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve on loopback from a thread; yields the base URL, e.g. `http://127.0.0.1:40123`."""
        with serve_app(self.app(), port) as url:
            self.url = url
            yield url


@contextmanager
def serve_app(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Run any ASGI app on a loopback port (0 = a free one) from a thread until the block ends."""
    # With the protocol named, asyncio switches Nagle off; without it each answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        app, log_level="warning", lifespan="on", access_log=False, timeout_graceful_shutdown=2
    )
    server = _Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the sandbox's server did not start")
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn looks every 0.1 s whether it should stop; a test suite that starts hundreds cannot wait that long."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            for _ in range(10):
                await asyncio.sleep(0.01)
                if self.should_exit:
                    break
            ticks += 1


class _FaultInjector:
    """ASGI middleware: spends planned faults and logs what was answered."""

    def __init__(self, sandbox: Sandbox, inner: ASGIApp) -> None:
        self.sandbox, self.inner = sandbox, inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self.inner(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        fault = self.sandbox.faults.take(method, path)
        if fault is None:
            await self.inner(scope, receive, self._logged(send, method, path))
            return
        await self._fail(fault, scope, receive, send)

    def _logged(self, send: Send, method: str, path: str) -> Send:
        async def logged(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.sandbox.faults.seen.append(Seen(method, path, message["status"], time.monotonic()))
            await send(message)

        return logged

    async def _fail(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        request, logged = Request(scope, receive), self._logged(send, scope["method"], scope["path"])
        page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>"
        pause = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds > 0 else {}
        answers: dict[str, Callable[[], Response]] = {
            "429": lambda: self.sandbox.too_many(request),
            "500": lambda: JSONResponse({"status": "error", "message": "internal error"}, status_code=500),
            "expired_token": lambda: self.sandbox.unauthorised(request),
            "html": lambda: HTMLResponse(page, 502),
            "status": lambda: JSONResponse({"message": f"status {fault.status}"}, fault.status, pause),
        }
        if fault.kind in answers:
            await answers[fault.kind]()(scope, receive, logged)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self.inner(scope, receive, logged)
        elif fault.kind in ("truncated", "lost_answer"):
            await self._cut(fault, scope, receive, send)
        else:
            raise ValueError(f"unknown fault {fault.kind!r}")

    async def _cut(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work, then tell half of the answer or nothing, and hang up."""
        started: list[Message] = []
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.inner(scope, receive, keep)
        if fault.kind == "lost_answer":
            self.sandbox.faults.seen.append(Seen(scope["method"], scope["path"], 0, time.monotonic()))
        else:
            start = dict(started[0])
            headers = [(k, v) for k, v in start.get("headers", []) if k.lower() != b"content-length"]
            start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
            await self._logged(send, scope["method"], scope["path"])(start)
            await send(
                {"type": "http.response.body", "body": bytes(body[: len(body) // 2]), "more_body": True}
            )
        await _hang_up(send)


async def _hang_up(send: Send) -> None:
    """Close the client's connection now. ASGI has no word for it: left alone, uvicorn would answer 500.

    `send` must be the server's own, which is bound to the request cycle that holds the transport.
    """
    cycle: Any = getattr(send, "__self__", None)
    if not hasattr(cycle, "transport"):
        raise RuntimeError("only uvicorn's connections can be hung up; serve the sandbox with serve()")
    cycle.transport.close()
    while not cycle.disconnected:  # noqa: ASYNC110 - uvicorn's flag has no event to wait for
        await asyncio.sleep(0.001)
