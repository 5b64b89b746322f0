"""The arq worker: takes wake-up calls, and sweeps PostgreSQL for work whose call was lost."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC
from typing import Any

import structlog
from arq import cron
from arq.worker import Worker, func
from redis.exceptions import RedisError

from hub.errors import HubError
from hub.jobs import process, stages
from hub.jobs.runtime import Runtime
from hub.jobs.wake import QUEUE, Wake, redis_settings
from hub.store import runs

log = structlog.get_logger()

SWEEP_SECONDS = 2
JOB_SECONDS = 3600

Running = dict[tuple[str, str], asyncio.Task[Any]]  # by kind and key


async def work(ctx: dict[str, Any], kind: str, key: str) -> int:
    """Do all work of a kind that waits now, then wake what follows from it. Returns how many rows were worked.

    One worker process does a kind once at a time; across processes PostgreSQL's locks decide. A failure is
    logged and left to the sweep: what is not committed is still waiting.
    """
    runtime: Runtime = ctx["runtime"]
    running: Running = ctx["running"]
    if (kind, key) in running or runtime.stopping.is_set():
        return 0
    running[kind, key] = asyncio.current_task()  # type: ignore[assignment]  # arq runs it in one
    try:
        done = await stages.run(runtime, kind, key)
        await runtime.bell.ring(done.wakes)
        return done.worked
    except HubError as error:
        log.error("stage failed", kind=kind, key=key, error=str(error))
        return 0
    finally:
        del running[kind, key]


async def sweep(ctx: dict[str, Any]) -> int:
    """Wake every kind of work that waits in PostgreSQL. Returns how many calls were new."""
    runtime: Runtime = ctx["runtime"]
    async with runtime.db.transaction() as conn:
        await runs.close_abandoned(conn, now=runtime.clock.now())
    waiting = await stages.waiting(runtime)
    return await runtime.bell.ring(Wake(w.kind, w.key) for w in waiting)


async def run(runtime: Runtime) -> None:
    """Work until SIGTERM or SIGINT, then finish what is begun and stop. A Redis that goes away is waited for."""
    running: Running = {}
    ctx = {"runtime": runtime, "running": running}
    _stop_on_signals(runtime.stopping)
    process.settle_in()
    log.info("the worker is at work", process=os.getpid())
    while not runtime.stopping.is_set():
        worker = Worker(
            functions=[func(work, name="work", keep_result=0, timeout=JOB_SECONDS, max_tries=1)],
            cron_jobs=[
                cron(
                    sweep,
                    second=set(range(0, 60, SWEEP_SECONDS)),
                    unique=False,
                    run_at_startup=True,
                    keep_result=0,
                    max_tries=1,
                )
            ],
            redis_settings=redis_settings(runtime.bell.url),
            queue_name=QUEUE,
            ctx=dict(ctx),
            poll_delay=0.05,
            max_jobs=8,
            handle_signals=False,
            timezone=UTC,
            keep_result=0,
            log_results=False,
        )
        serving = asyncio.ensure_future(worker.async_run())
        stopping = asyncio.ensure_future(runtime.stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if runtime.stopping.is_set():
            await _drain(running)
        serving.cancel()
        try:
            await serving
        except asyncio.CancelledError:
            log.debug("the worker's loop ended")
        except (RedisError, OSError) as error:
            log.warning("redis is away; trying again", error=type(error).__name__)
            await asyncio.sleep(1.0)
        await _close(worker)


async def _drain(running: Running, seconds: float = 20.0) -> None:
    """Give stages that are under way the time to settle what they began."""
    if running:
        await asyncio.wait(set(running.values()), timeout=seconds)


async def _close(worker: Worker) -> None:
    try:
        await worker.close()
    except (RedisError, OSError) as error:
        log.debug("redis was gone before the worker could be closed", error=type(error).__name__)
    except asyncio.CancelledError:  # arq hands on that a job was cut short when the worker's loop was ended
        log.debug("a job ended with the worker")


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
