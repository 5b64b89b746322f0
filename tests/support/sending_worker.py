"""A worker that only sends, as a process that can be killed: `python -m tests.support.sending_worker HUB_YAML`.

It ends when nothing is left to send. Pauses between tries are short, since a test cannot wait an hour.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psycopg

from hub.errors import HubError
from hub.jobs import process, stages
from hub.jobs import runtime as runtimes
from hub.mail import lane


async def main(config: Path) -> None:
    lane.FIRST_RETRY_SECONDS = 0.5
    async with runtimes.opened(config, os.environ) as runtime:
        process.settle_in()
        while True:
            try:
                await stages.run(runtime, "mail", "")
                async with runtime.db.connection() as conn:
                    cursor = await conn.execute(
                        "SELECT count(*) FROM delivery WHERE state IN ('queued', 'claimed')"
                    )
                    left = await cursor.fetchone()
            except (psycopg.OperationalError, HubError) as error:
                print("again:", type(error).__name__, error, file=sys.stderr, flush=True)
                continue
            if left == (0,):
                return
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    process.run(main(Path(sys.argv[1])))
