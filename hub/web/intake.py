"""Webhook calls on their way into the inbox: while one group of them is being committed, the next one gathers.

A vendor's burst is hundreds of small calls at once; a commit for each would be a disk flush for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from psycopg import DataError, OperationalError

from hub.errors import HubError
from hub.jobs.wake import Bell, Wake
from hub.store import inbox
from hub.store.database import Connection, Database

log = structlog.get_logger()

GROUP = 64
"""Calls committed together at most."""
MAX_WAITING_BYTES = 64_000_000
PATIENCE_SECONDS = 4.0
"""How long a call waits for its commit; HubSpot, the least patient vendor, gives up after five."""


class Busy(Exception):
    """Not stored in time, as far as is known; the vendor should call again."""


@dataclass
class _Waiting:
    post: inbox.Post
    stored: asyncio.Future[inbox.Stored | None]  # None: it could not be stored


class Intake:
    """Stores calls for one web process."""

    def __init__(self, db: Database, bell: Bell) -> None:
        self.db, self.bell = db, bell
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._working: asyncio.Task[None] | None = None

    async def store(self, post: inbox.Post) -> inbox.Stored:
        """Returns once the call is committed. Raises `Busy`."""
        if self._bytes + len(post.body) > MAX_WAITING_BYTES:
            raise Busy
        waiting = _Waiting(post, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += len(post.body)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        try:
            stored = await asyncio.wait_for(asyncio.shield(waiting.stored), PATIENCE_SECONDS)
        except TimeoutError:
            # It may be committed yet. Then the vendor's next call repeats events, which changes nothing.
            raise Busy from None
        finally:
            self._bytes -= len(post.body)
        if stored is None:
            raise Busy
        return stored

    async def _work(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                fresh = await self._keep(group)
                await self.bell.ring(Wake("inbox", connection) for connection in sorted(fresh))
        finally:
            self._working = None

    async def _keep(self, group: list[_Waiting]) -> set[str]:
        """Commit a group and tell each of its calls. Returns the connections that have new events."""
        posts = [waiting.post for waiting in group]
        try:
            stored: list[inbox.Stored | None] = list(await self.db.repeated(lambda conn: _store(conn, posts)))
        except DataError:  # one call holds what PostgreSQL cannot; the others must not wait for it
            stored = [await self._alone(post) for post in posts]
        except (HubError, OperationalError) as error:
            log.warning("webhooks could not be stored", calls=len(posts), reason=type(error).__name__)
            stored = [None] * len(posts)
        for waiting, one in zip(group, stored, strict=True):
            if not waiting.stored.done():
                waiting.stored.set_result(one)
        return {post.connection for post, one in zip(posts, stored, strict=True) if one and one.new}

    async def _alone(self, post: inbox.Post) -> inbox.Stored | None:
        for attempt in (post, inbox.as_unread(post, "it holds what the database cannot keep")):
            try:
                return (await self.db.repeated(lambda conn, one=attempt: _store(conn, [one])))[0]  # type: ignore[misc]
            except DataError as error:
                log.warning(
                    "a webhook is kept whole", connection=post.connection, reason=type(error).__name__
                )
            except (HubError, OperationalError):
                return None
        return None


async def _store(conn: Connection, posts: Sequence[inbox.Post]) -> list[inbox.Stored]:
    return [await inbox.store(conn, post) for post in posts]
