"""The database: a pool that outlives a restart of PostgreSQL, migrations that run forward, one lock a kind of work."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from hub.errors import HubError

log = structlog.get_logger()

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x4D61696C  # "Mail"
WAIT_SECONDS = 30.0

Connection = AsyncConnection[Any]
T = TypeVar("T")


class Database:
    """A pool of connections. Open it with `async with Database(url) as db`.

    A restarted PostgreSQL makes calls wait (up to `wait_seconds`) instead of failing; what was under way in a
    cut connection fails and is not committed. `address_key` is what `hub.store.address_key` gives.
    """

    def __init__(
        self, url: str, *, size: int = 16, wait_seconds: float = WAIT_SECONDS, address_key: str | None = None
    ) -> None:
        self.url, self.wait_seconds = _with_key(url, address_key), wait_seconds
        url = self.url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url, min_size=1, max_size=size, open=False, timeout=wait_seconds, check=AsyncConnectionPool.check_connection,
            reconnect_timeout=wait_seconds, name="hub",
        )  # fmt: skip

    async def __aenter__(self) -> Database:
        try:
            await self._pool.open(wait=True, timeout=self.wait_seconds)
        except BaseException as error:
            # Its tasks outlive a cancelled start, and a loop that ends would wait for them for ever.
            await self._pool.close(timeout=1.0)
            if not isinstance(error, PoolTimeout):
                raise
            raise HubError(
                f"PostgreSQL was not reached within {self.wait_seconds:.0f} s",
                "check that the server runs and that HUB_DATABASE_URL names it",
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reading. What is written on it is committed at the end of the block."""
        async with self._taken() as conn:
            yield conn

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end of the block, rolled back by any exception."""
        async with self._taken() as conn, conn.transaction():
            yield conn

    async def repeated(self, work: Callable[[Connection], Awaitable[T]], *, attempts: int = 5) -> T:
        """Do `work` in a transaction, again when the connection is cut or a deadlock is broken at our cost.

        For what must not be lost and may be done twice: a commit whose answer was lost is repeated.
        """
        for attempt in range(1, attempts + 1):
            try:
                async with self.transaction() as conn:
                    return await work(conn)
            except psycopg.OperationalError as error:
                if attempt == attempts:
                    raise
                log.warning("a transaction is repeated", reason=type(error).__name__, attempt=attempt)
                await asyncio.sleep(0.1 * attempt)
        raise HubError("no attempt was made")  # attempts < 1

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.connection() as conn:
                yield conn
        except PoolTimeout as error:
            raise HubError(
                f"PostgreSQL gave no connection within {self.wait_seconds:.0f} s",
                "check that the server runs and has room",
            ) from error

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[bool]:
        """Whether this process may do the named work now; nobody else may until the block ends or the process dies."""
        async with self._pool.connection() as conn:
            await conn.set_autocommit(True)
            try:
                cursor = await conn.execute(
                    "SELECT pg_try_advisory_lock(hashtext('hub work'), hashtext(%s))", [name]
                )
                row = await cursor.fetchone()
                mine = bool(row and row[0])
                yield mine
            finally:
                await self._let_go(conn, name)

    @staticmethod
    async def _let_go(conn: Connection, name: str) -> None:
        try:
            await conn.execute("SELECT pg_advisory_unlock_all()")
            await conn.set_autocommit(False)
        except psycopg.OperationalError:  # the connection is gone, and the lock with it
            log.warning("the connection that held a lock was cut", work=name)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A connection of one's own for the block."""
        line = Line(self.url, self.wait_seconds)
        try:
            yield line
        finally:
            await line.close()

    async def alive(self) -> bool:
        """Whether PostgreSQL answers within two seconds."""
        try:
            async with asyncio.timeout(2), self._pool.connection() as conn:
                await conn.execute("SELECT 1")
        except (psycopg.Error, TimeoutError, PoolTimeout):
            return False
        return True

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[Database]:
        """A database on which everything is done as usual, one thing after the other, and taken back at the end."""
        async with self._pool.connection() as conn, conn.transaction(force_rollback=True):
            yield _Rehearsal(self.url, conn)


def _with_key(url: str, address_key: str | None) -> str:
    """A connection string whose sessions have the key of address hashes."""
    if address_key is None:
        return url
    given = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{given} -c hub.address_key={address_key}".strip())


class Line:
    """A connection for short statements in great number, each a transaction of its own: a quarter of the round trips
    that one from the pool needs. A cut one is opened anew.

    Rows are looked up by index on it, whatever the statistics say: they are about the ledger as it was before the sending
    began, and a scan of the whole of it for each group of mails would make a large one endless.
    """

    def __init__(self, url: str, wait_seconds: float) -> None:
        self.url, self.wait_seconds = url, wait_seconds
        self._conn: Connection | None = None

    async def do(self, work: Callable[[Connection], Awaitable[T]], *, attempts: int = 1) -> T:
        """`work` does one statement; with more attempts it is done again when the connection is cut or a deadlock is
        broken at our cost, also when only the answer was lost."""
        for attempt in range(1, attempts + 1):
            try:
                return await work(self._conn or await self._opened())
            except psycopg.OperationalError as error:
                await self.close()
                if attempt == attempts:
                    raise
                log.warning("a statement is repeated", reason=type(error).__name__, attempt=attempt)
                await asyncio.sleep(0.1 * attempt)
        raise HubError("no attempt was made")  # attempts < 1

    async def _opened(self) -> Connection:
        deadline = time.monotonic() + self.wait_seconds
        while True:
            try:
                conn = await AsyncConnection.connect(self.url, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
                continue
            for kind in ("seqscan", "hashjoin", "mergejoin"):
                await conn.execute(f"SET enable_{kind} = off".encode())
            self._conn = conn
            return conn

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()


class _Rehearsal(Database):
    """Every transaction is a savepoint of one transaction that never commits."""

    def __init__(self, url: str, conn: Connection) -> None:
        super().__init__(url)
        self._conn, self._turn = conn, asyncio.Lock()

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Connection]:
        async with self._turn:
            yield self._conn

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[bool]:
        yield True


def migrate(url: str, folder: Path = MIGRATIONS) -> list[str]:
    """Apply what is missing, in order, one starter at a time. Returns the names applied.

    Raises HubError when the database is newer than this program.
    """
    with _migrating(url, folder) as (backend, pending):
        for migration in pending:
            _apply(backend, migration)
        return [migration.id for migration in pending]


def _apply(backend: Any, migration: Any) -> None:
    """Do it and mark it done in one transaction: a process killed between the two would have it done twice."""
    migration.load()
    if migration.use_transactions:
        with backend.transaction():
            migration.process_steps(backend, "apply")
            backend.mark_one(migration)
    else:
        migration.process_steps(backend, "apply")
        with backend.transaction():
            backend.mark_one(migration)


def pending_migrations(url: str, folder: Path = MIGRATIONS) -> list[str]:
    """Names of migrations that are not applied yet. Changes nothing; raises HubError as `migrate` does."""
    from yoyo import read_migrations

    with psycopg.connect(url, autocommit=True) as conn:
        applied = _applied(conn)
    names = [migration.id for migration in read_migrations(str(folder))]
    _refuse_newer(applied, names)
    return [name for name in names if name not in applied]


def _refuse_newer(applied: set[str], known: list[str]) -> None:
    newer = sorted(applied - set(known))
    if newer:
        raise HubError(
            f"the database has migrations that this version does not know: {', '.join(newer)}",
            "start the newer version, or restore a backup made before it",
        )


@contextmanager
def _migrating(url: str, folder: Path) -> Iterator[tuple[Any, Any]]:
    """(yoyo's backend, what is to be applied), while nobody else migrates this database."""
    from yoyo import get_backend, read_migrations

    with psycopg.connect(url, autocommit=True) as holder:
        _take_lock(holder)
        backend = get_backend(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url))
        try:
            backend.break_lock()  # its lock is a row that a killed process leaves behind; ours is not
            migrations = read_migrations(str(folder))
            with backend.lock():
                _refuse_newer(_applied(holder), [migration.id for migration in migrations])
                yield backend, backend.to_apply(migrations)
        finally:
            backend.connection.close()


def _applied(conn: psycopg.Connection[Any]) -> set[str]:
    exists = conn.execute("SELECT to_regclass('_yoyo_migration') IS NOT NULL").fetchone()
    if not exists or not exists[0]:
        return set()
    return {row[0] for row in conn.execute("SELECT migration_id FROM _yoyo_migration").fetchall()}


def _take_lock(conn: psycopg.Connection[Any], seconds: float = 120.0) -> None:
    """Poll for the lock: a blocking waiter would deadlock with CREATE INDEX CONCURRENTLY."""
    deadline = time.monotonic() + seconds
    while True:
        row = conn.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK]).fetchone()
        if row and row[0]:
            return
        if time.monotonic() > deadline:
            raise HubError(
                "another process has been migrating the database for too long",
                "see what it does, then try again",
            )
        time.sleep(0.1)
