"""A vendor that answers as it is told, over real HTTP."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hub.sdk.http import Http
from hub.sdk.sandbox import Sandbox


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Vendor(Sandbox):
    """Answers `{"ok": true}` unless `answers` holds something else for the next calls."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: deque[Response] = deque()
        self.calls: list[Call] = []

    def routes(self) -> Sequence[BaseRoute]:
        return [Route("/{path:path}", self.answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]

    async def answer(self, request: Request) -> Response:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.calls.append(Call(request.method, path, dict(request.headers), await request.body()))
        return self.answers.popleft() if self.answers else said(200)

    def then(self, *answers: Response | int) -> None:
        self.answers.extend(said(one) if isinstance(one, int) else one for one in answers)


def said(status: int, body: Any = None, **headers: str) -> Response:
    """An answer in JSON; header names are written with underscores."""
    content = json.dumps(
        {"ok": True} if body is None and status == 200 else body or {"message": f"status {status}"}
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, {"Content-Type": "application/json", **named})


class Pauses(list[float]):
    """Stands in for sleeping: remembers how long."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    served = Vendor()
    with served.serve():
        yield served


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def http(vendor: Vendor, pauses: Pauses) -> AsyncIterator[Http]:
    client = Http(vendor.url, sleep=pauses, account="crm")
    yield client
    await client.close()
