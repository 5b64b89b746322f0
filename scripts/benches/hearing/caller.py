"""The vendor that calls: so many posts, over so many connections, as fast as they are answered or at a steady rate.

    python -m scripts.benches.hearing.caller '{"url": ..., "first": 0, "posts": 100, "events": 1000, "connections": 8, "rate": 0}'

It says `begin` and `end` as a contender does. `end` tells the answers by status, and with a rate the waits for them in
milliseconds; a wait begins when the post was due, so a stall counts for every post that it held up.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from typing import Any

from scripts.benches.common import measured
from scripts.benches.hearing import posts


async def main(url: str, first: int, count: int, events: int, connections: int, rate: float) -> None:
    host, port = url.split("/")[2].split(":")
    bodies = [posts.body(first + n, events) for n in range(count)]
    lines = [await asyncio.open_connection(host, int(port), limit=1 << 16) for _ in range(connections)]
    statuses: Counter[int] = Counter()
    waits: list[float] = []
    measured.begin()
    started = time.perf_counter()
    coming = iter(range(count))

    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in coming:
            due = started + number / rate if rate else time.perf_counter()
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            writer.write(posts.head(url, bodies[number]) + bodies[number])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in answer.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            waits.append(1000 * (time.perf_counter() - due))
            statuses[int(answer.split(b" ", 2)[1])] += 1

    await asyncio.gather(*(call(*line) for line in lines))
    told: dict[str, Any] = {"statuses": dict(statuses)}
    if rate:
        cuts = statistics.quantiles(waits, n=1000)
        told |= {"p50_ms": cuts[499], "p99_ms": cuts[989], "worst_ms": max(waits)}
    measured.end(**told)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(
        main(
            given["url"], given["first"], given["posts"], given["events"], given["connections"], given["rate"]
        )
    )
