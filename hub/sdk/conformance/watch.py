"""What a connector says and whom it calls while it works: logs, prints, and the addresses that it connects to."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from structlog.testing import capture_logs

TRANSPORT = ("httpx", "httpcore", "urllib3", "asyncio", "hpack", "aiosmtplib")
"""Libraries whose chatter below WARNING is not the connector's: to keep them quiet is the SDK's part."""


class Heard:
    """Everything that was said, as one text."""

    def __init__(self) -> None:
        self.printed, self.records = io.StringIO(), io.StringIO()
        self.events: list[Any] = []

    def __str__(self) -> str:
        return "\n".join([self.printed.getvalue(), self.records.getvalue(), *map(str, self.events)])


class _Handler(logging.StreamHandler[io.StringIO]):
    def __init__(self, stream: io.StringIO, others: Sequence[str]) -> None:
        super().__init__(stream)
        self.others = tuple(others)

    def emit(self, record: logging.LogRecord) -> None:
        chatter = record.levelno < logging.WARNING and record.name.split(".")[0] in TRANSPORT
        if not chatter and not record.name.startswith(self.others or ("\0",)):
            super().emit(record)


@contextmanager
def listening(others: Sequence[str] = ()) -> Iterator[Heard]:
    """Collect what is printed and logged inside the block: by structlog, by logging (at every level), by print.

    `others` are loggers that are not the connector's: the stand-in lives in the same process.
    """
    heard, root = Heard(), logging.getLogger()
    handler, level = _Handler(heard.records, others), root.level
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with capture_logs() as events, redirect_stdout(heard.printed), redirect_stderr(heard.printed):
            heard.events = events
            yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


Called = set[tuple[str, int]]
_watching: list[Called] = []
_hooked = False


@contextmanager
def calling() -> Iterator[Called]:
    """Collect (host, port) of every connection and every name looked up inside the block, whichever library does it."""
    global _hooked
    if not _hooked:  # an audit hook cannot be taken away again; it rests while nobody watches
        sys.addaudithook(_hear)
        _hooked = True
    called: Called = set()
    _watching.append(called)
    try:
        yield called
    finally:
        _watching.remove(called)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    address: Any = None
    if event == "socket.connect":
        address = args[1]
    elif event == "socket.getaddrinfo":
        address = args[:2]
    if isinstance(address, tuple) and len(address) >= 2 and address[0]:
        host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
        for called in _watching:
            called.add((host, int(address[1] or 0)))
