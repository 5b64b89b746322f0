"""Wake-up calls: small arq jobs that say "there is work of this kind". They carry no fact and may be lost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from redis.exceptions import RedisError

log = structlog.get_logger()

QUEUE = "hub:wake"
SLOT_SECONDS = 2.0


@dataclass(frozen=True)
class Wake:
    """A kind of work and, where the kind needs one, its connection."""

    kind: str
    key: str = ""


def redis_settings(url: str) -> RedisSettings:
    """arq's settings for a Redis URL (redis://, rediss:// or unix://)."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_retries = 2
    settings.conn_retry_delay = 0.2  # type: ignore[assignment]  # asyncio.sleep takes fractions
    return settings


class Bell:
    """Rings workers. A Redis that is away only delays work until the sweep finds it, so it is never an error."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: ArqRedis | None = None

    async def ring(self, wakes: Iterable[Wake]) -> int:
        """Enqueue one call per distinct wake and time slot. Returns how many were new."""
        rung = 0
        slot = int(time.time() / SLOT_SECONDS)
        try:
            if self._redis is None:
                self._redis = await create_pool(redis_settings(self.url), default_queue_name=QUEUE)
            for wake in dict.fromkeys(wakes):
                # The slot keeps an id that a killed worker left behind from blocking the next call.
                job = await self._redis.enqueue_job(
                    "work", wake.kind, wake.key, _job_id=f"{wake.kind}:{wake.key}:{slot}", _expires=60
                )
                rung += job is not None
        except (RedisError, OSError) as error:
            log.warning("redis is away; the sweep will find the work", error=type(error).__name__)
            await self.close()
        return rung

    async def close(self) -> None:
        if self._redis is not None:
            redis, self._redis = self._redis, None
            try:
                await redis.aclose()
            except (RedisError, OSError) as error:
                log.debug("redis was gone before it could be closed", error=type(error).__name__)
