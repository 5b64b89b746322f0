"""How a process that works for long runs: its event loop and its garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

COLLECT_AFTER = 100_000
"""Objects made and not freed before the collector looks at the young ones; Python's 700 is a twelfth of what a mail costs."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """asyncio.run, on uvloop where that exists."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def settle_in() -> None:
    """All that the process needs is loaded: the collector need not look at it again, nor so often at what comes and goes.
    Cycles are still found."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
