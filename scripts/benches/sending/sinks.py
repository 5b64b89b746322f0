"""The relay's side of the bench, as processes of their own: Postfix's smtp-sink, or ours where it must answer late."""

# ruff: noqa: S603  # programs that the bench itself names
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from scripts.benches.common.measured import BenchError
from scripts.benches.sending.install import Postfix

START_SECONDS = 10.0


class Sink(Protocol):
    """Takes mail on `port` of this machine."""

    title: str
    port: int

    def taken(self) -> int:
        """Messages taken since the start."""
        ...

    def stop(self) -> None: ...


class OwnSink:
    """`scripts.benches.sending.sink`."""

    def __init__(self, log: Path, *, delay_ms: float = 0.0) -> None:
        self.title = f"our own sink, answers after {delay_ms:g} ms" if delay_ms else "our own sink"
        command = [sys.executable, "-m", "scripts.benches.sending.sink", "--delay-ms", str(delay_ms)]
        self._turn = threading.Lock()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._process.stdout
        word, _, port = self._process.stdout.readline().partition(" ")
        if word != "port":
            raise BenchError(f"the sink did not start: {log.read_text()[-500:]}")
        self.port = int(port)

    def ask(self, question: str) -> Any:
        """`counts`, `last` or `reset`, see the sink."""
        assert self._process.stdin and self._process.stdout
        with self._turn:
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def taken(self) -> int:
        counts = self.ask("counts")
        if counts["wrong"]:
            raise BenchError(f"{counts['wrong']} messages were not whole")
        return int(counts["messages"])

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class PostfixSink:
    """smtp-sink, which tells its running counters."""

    def __init__(self, postfix: Postfix) -> None:
        self.title = "smtp-sink"
        self.port = _free_port()
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [postfix.sink, *as_user, "-c", f"127.0.0.1:{self.port}", "512"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **postfix.environ},
        )  # fmt: skip
        self._last = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        _wait_for(self.port)

    def _read(self) -> None:
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        while piece := os.read(descriptor, 65536):
            self._last = (self._last + piece)[-200:]
            time.sleep(0.01)  # in large pieces, so that it costs little

    def taken(self) -> int:
        """Waits until the counter stands still for a moment."""
        while True:
            before = self._last
            time.sleep(0.1)
            if self._last == before:
                break
        found = re.findall(rb"mesg=(\d+)\r", self._last)
        return int(found[-1]) if found else 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                client.recv(100)
                client.sendall(b"QUIT\r\n")
                client.recv(100)
                return
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError("smtp-sink did not start") from None
            time.sleep(0.05)
