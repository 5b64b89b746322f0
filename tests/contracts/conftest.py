"""What the contract tests share: the vendors' descriptions, and sandboxes whose every answer is held against the contract."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.sdk.sandbox import Sandbox, serve_app
from tests.contracts.spec_check import Conformance, load

ROOT = Path(__file__).resolve().parents[2]


def contract_of(vendor: str) -> dict[str, Any]:
    """Our contract with a vendor, as loaded YAML."""
    return load(ROOT / "contracts" / vendor / "openapi.yaml")


@pytest.fixture(scope="session")
def vendor_specs() -> Path:
    """The folder with one folder of API descriptions a vendor."""
    folder = os.environ.get("VENDOR_SPECS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(
            "VENDOR_SPECS names no folder: the contracts were not held against the vendors' descriptions"
        )
    return Path(folder)


class Recorder:
    """ASGI middleware: reads along and collects what an answer has that its contract does not allow."""

    def __init__(self, inner: ASGIApp, conformance: Conformance) -> None:
        self.inner, self.conformance = inner, conformance
        self.problems: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self.inner(scope, receive, send)
            return
        status, body = 0, bytearray()

        async def read_along(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    answer = json.loads(body) if body else None  # judged before the client goes on
                    self.problems += self.conformance.answer_errors(
                        scope["method"], scope["path"], status, answer
                    )
            await send(message)

        await self.inner(scope, receive, read_along)


Serve = Callable[[Sandbox, Conformance], Any]


@pytest.fixture(scope="session")
def serve_recorded() -> Serve:
    """`with serve_recorded(sandbox, conformance) as url:` fails at its end when an answer broke the contract."""

    @contextmanager
    def serve(sandbox: Sandbox, conformance: Conformance) -> Iterator[str]:
        recorder = Recorder(sandbox.app(), conformance)
        with serve_app(recorder) as url:
            sandbox.url = url
            yield url
        assert recorder.problems == []

    return serve
