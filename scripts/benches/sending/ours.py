"""Our contender: a worker's whole sending path, from the claim in the ledger to the answer recorded there.

    python -m scripts.benches.sending.ours hub.yaml [--profile FILE]

The servers and the key stand in the environment, as for a real worker.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import logging
import os
import pstats
import sys
from pathlib import Path

import structlog

from hub.jobs import process, stages
from hub.jobs import runtime as runtimes
from scripts.benches.common import measured


async def send(config: Path, profile: Path | None) -> None:
    """Send all that is due."""
    async with runtimes.opened(config, os.environ) as runtime:
        process.settle_in()  # as in `hub worker`
        sampler = cProfile.Profile() if profile else None
        measured.begin()
        if sampler:
            sampler.enable()
        done = await stages.run(runtime, "mail", "")
        if sampler:
            sampler.disable()
        measured.end(sent=done.worked)
        if sampler and profile:
            with profile.open("w", encoding="utf-8") as file:
                stats = pstats.Stats(sampler, stream=file)
                stats.sort_stats("tottime").print_stats(70)
                stats.sort_stats("cumtime").print_stats(70)
    await asyncio.sleep(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    process.run(send(arguments.config, arguments.profile))


if __name__ == "__main__":
    main()
