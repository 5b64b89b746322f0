"""Child processes that are kept alive: what `hub up` and the demo run the web and the worker with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

PARENT_VARIABLE = "HUB_PARENT"


@dataclass
class Child:
    """A process that is started again when it dies. Its output goes to `log_file`, or to ours."""

    name: str
    arguments: Sequence[str]
    log_file: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Starts children, restarts those that die, stops them all. Not a thread: call `tend` now and then."""

    environment: Mapping[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)

    def add(self, name: str, *arguments: str, log_file: Path | None = None) -> Child:
        """Start `python -m hub ARGUMENTS` and keep it."""
        child = Child(name, arguments, log_file)
        self.children.append(child)
        self._start(child)
        return child

    def tend(self) -> list[str]:
        """Restart what died, with a growing pause. Returns the names of those that were found dead."""
        dead = [c for c in self.children if c.process is not None and not c.alive]
        for child in dead:
            assert child.process is not None
            log.warning(
                "a process died and is started again", name=child.name, status=child.process.returncode
            )
            child.process = None
            child.restarts += 1
            child.not_before = time.monotonic() + min(0.2 * child.restarts, 5.0)
        for child in self.children:
            if child.process is None and time.monotonic() >= child.not_before:
                self._start(child)
        return [c.name for c in dead]

    def stop(self, seconds: float = 30.0) -> None:
        """Ask all to finish what they began; kill what has not ended after `seconds`."""
        running = [c.process for c in self.children if c.process is not None and c.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.children.clear()

    def _start(self, child: Child) -> None:
        environment = {**os.environ, **self.environment, PARENT_VARIABLE: str(os.getpid())}
        out = child.log_file.open("ab") if child.log_file else None
        try:
            child.process = subprocess.Popen(  # noqa: S603  # our own interpreter and our own arguments
                [sys.executable, "-m", "hub", *child.arguments],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
            )
        finally:
            if out:
                out.close()


def orphaned() -> bool:
    """Whether the supervisor that started this process is gone (killed): then this process should stop, too."""
    parent = os.environ.get(PARENT_VARIABLE)
    return parent is not None and os.getppid() != int(parent)
