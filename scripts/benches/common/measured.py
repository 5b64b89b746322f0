"""One contender, one process: it says when it begins and ends, and its CPU time between the two is the figure.

A contender is a program that sets itself up, prints `begin {json}`, waits for a line on standard input, works, and prints
`end {json}`, both with `cpu`: the CPU seconds that it and its finished children have used so far, by getrusage. Children
that still run (a pool of signers, say) are added from outside. So neither a runtime's start nor loading the people counts.
"""

# ruff: noqa: S603  # programs that the bench itself names
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


class BenchError(Exception):
    """A contender failed; the text says how."""


@dataclass(frozen=True)
class Spent:
    """What a piece of work took."""

    cpu_seconds: float
    wall_seconds: float
    told: dict[str, Any] = field(default_factory=dict)


def own_cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def begin(**more: Any) -> None:
    """A contender's word that it is set up; returns when the bench has heard it."""
    print("begin", json.dumps({"cpu": own_cpu(), **more}), flush=True)
    sys.stdin.readline()


def end(**more: Any) -> None:
    """A contender's word that all is done."""
    print("end", json.dumps({"cpu": own_cpu(), **more}), flush=True)


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and all its descendants, also of those that have ended and were waited for."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        everyone = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for each in everyone:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _running_children_cpu(pid: int) -> float:
    try:
        return sum(tree_cpu(child.pid) for child in psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return 0.0


def contend(
    command: Sequence[str | Path],
    log: Path,
    *,
    seconds: float,
    environ: Mapping[str, str] | None = None,
    at_begin: Callable[[int], None] | None = None,
    at_end: Callable[[], None] | None = None,
) -> Spent:
    """Run a contender that says `begin` and `end`. It is ended after `seconds`. Raises BenchError when it fails.

    `at_begin` is called with its process id, `at_end` at once when it has said so; standard error goes to `log`.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **(environ or {})},
        )  # fmt: skip
    assert process.stdin and process.stdout
    guard = threading.Timer(seconds, process.kill)
    guard.start()
    try:
        before = _heard(process, "begin", log)
        children_before = _running_children_cpu(process.pid)
        if at_begin:
            at_begin(process.pid)
        started = time.perf_counter()
        process.stdin.write("\n")
        process.stdin.flush()
        after = _heard(process, "end", log)
        wall = time.perf_counter() - started
        children_after = _running_children_cpu(process.pid)
        if at_end:
            at_end()
        process.stdin.close()
        process.wait(timeout=30)
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise BenchError(f"{Path(str(command[0])).name} ended with {process.returncode}: {tail(log)}")
    cpu = after.pop("cpu") - before.pop("cpu") + children_after - children_before
    return Spent(cpu, wall, {**before, **after})


def _heard(process: subprocess.Popen[str], word: str, log: Path) -> dict[str, Any]:
    assert process.stdout
    for line in process.stdout:
        said, _, rest = line.partition(" ")
        if said == word:
            return dict(json.loads(rest))
    process.wait()
    raise BenchError(
        f"a contender ended before it said {word!r} (exit code {process.returncode}): {tail(log)}"
    )


def whole(command: Sequence[str | Path], log: Path, *, environ: Mapping[str, str] | None = None) -> Spent:
    """Run a program to its end; its whole CPU time is the figure. For programs of others that start at once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with log.open("ab") as output:
        done = subprocess.run(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
            timeout=300, env={**os.environ, **(environ or {})},
        )  # fmt: skip
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{Path(str(command[0])).name} ended with {done.returncode}: {tail(log)}")
    return Spent(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def tail(log: Path) -> str:
    """The end of a log file."""
    return log.read_text(errors="replace")[-800:].strip() if log.exists() else ""
