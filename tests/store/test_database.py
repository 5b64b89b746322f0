"""The pool through a restart of PostgreSQL, and migrations that only run forward, one starter at a time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from hub.embedded import EmbeddedServers, Urls
from hub.errors import HubError
from hub.store.database import MIGRATIONS, Connection, Database, migrate, pending_migrations


@pytest.fixture
def empty_url(servers: Urls) -> Iterator[str]:
    """A database without a table."""
    name = "empty_database"
    base, query = servers.database.split("?", 1) if "?" in servers.database else (servers.database, "")
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
        yield f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def own_servers() -> Iterator[EmbeddedServers]:
    """Servers that a test may restart."""
    folder = Path(tempfile.mkdtemp(prefix="hub-test-", dir="/tmp"))
    with EmbeddedServers(folder) as servers:
        yield servers
    shutil.rmtree(folder)


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        return {row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def write(folder: Path, name: str, sql: str) -> None:
    (folder / f"{name}.sql").write_text(sql)


async def select_one(conn: Connection) -> object:
    row = await (await conn.execute("SELECT 1")).fetchone()
    return row[0] if row else None


async def one(database: Database) -> object:
    async with database.connection() as conn:
        return await select_one(conn)


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    async with database.transaction() as conn:
        await conn.execute("CREATE TABLE fact (n int)")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as conn:
            await conn.execute("INSERT INTO fact VALUES (1)")
            raise ZeroDivisionError
    async with database.connection() as conn:
        assert await (await conn.execute("SELECT * FROM fact")).fetchall() == []


async def test_a_restart_of_postgres_makes_calls_wait_and_not_fail(own_servers: EmbeddedServers) -> None:
    async with Database(own_servers.urls.database, size=4) as database:
        assert await asyncio.gather(*(one(database) for _ in range(4))) == [1] * 4  # connections to be cut
        await asyncio.to_thread(own_servers.restart_postgres)
        assert await asyncio.gather(*(one(database) for _ in range(8))) == [1] * 8


async def test_repeated_work_bears_a_restart_in_its_middle(own_servers: EmbeddedServers) -> None:
    async with Database(own_servers.urls.database, size=4) as database:
        restart = asyncio.create_task(asyncio.to_thread(own_servers.restart_postgres))
        answers: list[object] = []
        while not restart.done():
            answers.append(await database.repeated(select_one))
        await restart
        answers.append(await database.repeated(select_one))
        assert set(answers) == {1}


async def test_a_server_that_is_not_there_is_named_as_the_reason(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="HUB_DATABASE_URL"):
        async with Database(f"postgresql://postgres@/hub?host={tmp_path}", wait_seconds=0.2):
            pass


async def test_named_work_is_done_by_one_process_at_a_time(database_url: str) -> None:
    async with Database(database_url) as one, Database(database_url) as other:
        async with one.exclusive("pull:crm") as mine:
            assert mine
            async with other.exclusive("pull:crm") as theirs, other.exclusive("pull:sales") as unrelated:
                assert (theirs, unrelated) == (False, True)
        async with other.exclusive("pull:crm") as theirs:
            assert theirs


def test_the_shipped_migrations_run_once_and_are_then_known(empty_url: str) -> None:
    names = sorted(path.stem for path in MIGRATIONS.glob("*.sql"))
    assert pending_migrations(empty_url) == names
    assert tables(empty_url) == set()  # asking changed nothing
    assert migrate(empty_url) == names
    assert (pending_migrations(empty_url), migrate(empty_url)) == ([], [])


def test_a_later_migration_is_applied_alone(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    assert migrate(empty_url, tmp_path) == ["0001_first"]
    write(tmp_path, "0002_second", "CREATE TABLE second (n int);")
    assert pending_migrations(empty_url, tmp_path) == ["0002_second"]
    assert migrate(empty_url, tmp_path) == ["0002_second"]
    assert {"first", "second"} <= tables(empty_url)


def test_a_migration_that_fails_leaves_nothing_and_can_be_mended(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    write(tmp_path, "0002_second", "CREATE TABLE second (n int);\nSELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url, tmp_path)
    assert "first" in tables(empty_url)
    assert "second" not in tables(empty_url)
    write(tmp_path, "0002_second", "CREATE TABLE second (n int);")
    assert migrate(empty_url, tmp_path) == ["0002_second"]


def test_a_migration_is_marked_in_the_transaction_that_does_it(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    migrate(empty_url, tmp_path)
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute("DELETE FROM _yoyo_migration")
        conn.execute("DROP TABLE first")
        conn.execute("ALTER TABLE _yoyo_migration ADD CHECK (migration_id <> '0001_first')")
    with pytest.raises(psycopg.errors.CheckViolation):  # the mark fails, so what it marks must be undone
        migrate(empty_url, tmp_path)
    assert "first" not in tables(empty_url)


def test_an_index_can_be_built_without_a_transaction(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    write(
        tmp_path,
        "0002_index",
        "-- transactional: false\nCREATE INDEX CONCURRENTLY first_n ON first (n);",
    )
    assert migrate(empty_url, tmp_path) == ["0001_first", "0002_index"]


def test_a_database_of_a_newer_version_is_refused(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    write(tmp_path, "0002_newer", "CREATE TABLE newer (n int);")
    migrate(empty_url, tmp_path)
    (tmp_path / "0002_newer.sql").unlink()
    with pytest.raises(HubError, match="does not know: 0002_newer; start the newer version"):
        migrate(empty_url, tmp_path)
    with pytest.raises(HubError, match="0002_newer"):
        pending_migrations(empty_url, tmp_path)


def test_starters_at_once_apply_each_migration_once(empty_url: str, tmp_path: Path) -> None:
    for number in range(1, 4):
        write(tmp_path, f"000{number}_table", f"CREATE TABLE table_{number} (n int);")
    applied: list[str] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(migrate(empty_url, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(applied) == ["0001_table", "0002_table", "0003_table"]


def test_a_lock_that_a_killed_process_left_behind_does_not_stop_the_next(
    empty_url: str, tmp_path: Path
) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    migrate(empty_url, tmp_path)
    with psycopg.connect(empty_url, autocommit=True) as conn:
        conn.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 99999)")
    write(tmp_path, "0002_second", "CREATE TABLE second (n int);")
    assert migrate(empty_url, tmp_path) == ["0002_second"]


def test_the_other_spelling_of_a_postgres_url_works(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_first", "CREATE TABLE first (n int);")
    assert migrate(empty_url.replace("postgresql://", "postgres://", 1), tmp_path) == ["0001_first"]
