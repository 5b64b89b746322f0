"""The memory of a worker while it sends."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from scripts.benches.common.table import Said

TELLING = 50_000  # recipients: with fewer, memory that stays flat proves nothing


class Samples:
    """The worker's resident memory over a run, looked at four times a second; tells how far it is."""

    def __init__(self, said: Said, count: int, taken: Callable[[], int]) -> None:
        self.said, self.count, self.taken = said, count, taken
        self.megabytes: list[float] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def start(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._watch, args=(pid,))
        self._thread.start()

    def _watch(self, pid: int) -> None:
        last_step = time.monotonic()
        while not self.megabytes or not self._over.wait(0.25):  # once at least, however short it is
            try:
                worker = psutil.Process(pid)
                everyone = [worker, *worker.children(recursive=True)]
                size = sum(each.memory_info().rss for each in everyone) / 1e6
            except psutil.NoSuchProcess:
                return
            if not size:  # it has ended and was not waited for yet
                return
            self.megabytes.append(size)
            if len(self.megabytes) % 4 == 0:
                text = f"memory: about {self.taken():,} of {self.count:,} sent, worker {self.megabytes[-1]:.0f} MB"
                if time.monotonic() - last_step > 20:
                    last_step = time.monotonic()
                    self.said.step(text)
                else:
                    self.said.passing(text)

    def row(self) -> dict[str, Any]:
        found = self.megabytes
        if not found:
            return {"peak_mb": None, "flat": "too short to tell"}
        row: dict[str, Any] = {"peak_mb": round(max(found), 1), "start_mb": round(found[0], 1)}
        quarter = len(found) // 4
        if quarter < 4 or self.count < TELLING:
            return {**row, "flat": "too short to tell"}
        second, last = statistics.median(found[quarter : 2 * quarter]), statistics.median(found[-quarter:])
        growth = 100 * (last / second - 1)
        return {
            **row, "second_quarter_mb": round(second, 1), "last_quarter_mb": round(last, 1),
            "growth_percent": round(growth, 1), "flat": "yes" if growth < 5 else "no",
        }  # fmt: skip
