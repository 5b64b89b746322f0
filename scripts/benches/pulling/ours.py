"""Our contender: a whole pull of contacts, as a worker does it: connector, quota, mapping, identity, lineage, cursor.

python -m scripts.benches.pulling.ours hub.yaml [--profile FILE]
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


async def pull(config: Path, profile: Path | None) -> None:
    """Pull the contacts of the connection `crm`."""
    async with runtimes.opened(config, os.environ) as runtime:
        await (await runtime.connector("crm", pulling=True)).live_fields(
            "contact"
        )  # connected, as the others are
        process.settle_in()  # as in `hub worker`
        sampler = cProfile.Profile() if profile else None
        measured.begin()
        if sampler:
            sampler.enable()
        await stages.run(runtime, "pull", "crm/contacts")
        if sampler:
            sampler.disable()
        measured.end()
        if sampler and profile:
            with profile.open("w", encoding="utf-8") as file:
                stats = pstats.Stats(sampler, stream=file)
                stats.sort_stats("tottime").print_stats(60)
                stats.sort_stats("cumtime").print_stats(60)
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
    process.run(pull(arguments.config, arguments.profile))


if __name__ == "__main__":
    main()
