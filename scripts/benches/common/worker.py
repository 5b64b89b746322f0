"""The hub as a contender: one piece of a worker's work, in a process of its own set up as `hub worker` is.

    python -m scripts.benches.sending.ours hub.yaml [--profile FILE]

The servers and the key stand in the environment, as for a real worker.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from hub.jobs import process
from hub.jobs import runtime as runtimes
from hub.jobs.runtime import Runtime
from scripts.benches.common import measured

PROFILE_LINES = 70
Work = Callable[[Runtime], Awaitable[dict[str, Any]]]


def main(work: Work, set_up: Callable[[Runtime], Awaitable[object]] | None = None) -> None:
    """Do `work`, which tells what it did; only its time counts, not that of `set_up`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--profile", type=Path)
    given = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    process.run(_measured(given.config, given.profile, work, set_up))


async def _measured(
    config: Path,
    profile: Path | None,
    work: Work,
    set_up: Callable[[Runtime], Awaitable[object]] | None,
) -> None:
    async with runtimes.opened(config, os.environ) as runtime:
        if set_up is not None:
            await set_up(runtime)
        process.settle_in()  # as in `hub worker`
        sampler = cProfile.Profile() if profile else None
        measured.begin()
        if sampler:
            sampler.enable()
        told = await work(runtime)
        if sampler:
            sampler.disable()
        measured.end(**told)
        if sampler and profile:
            with profile.open("w", encoding="utf-8") as file:
                stats = pstats.Stats(sampler, stream=file)
                for order in ("tottime", "cumtime"):
                    stats.sort_stats(order).print_stats(PROFILE_LINES)
