"""Real servers for the tests: one PostgreSQL and one Valkey for each process of the run, a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.smtp.relay import RelaySandbox
from hub import embedded
from hub.clock import ManualClock
from hub.store.database import Database, migrate
from tests.contracts import smtp_case
from tests.support.rig import HUB_YAML, Rig, hubspot_account, opened


@pytest.fixture(scope="session")
def servers() -> Iterator[embedded.Urls]:
    """Embedded servers, or those that HUB_TEST_DATABASE_URL and HUB_TEST_REDIS_URL name.

    Not in pytest's own folder: each session that starts closes that to all users but the one who runs it, and as root
    our PostgreSQL is another.
    """
    environ = {
        f"HUB_{name}_URL": os.environ[f"HUB_TEST_{name}_URL"]
        for name in ("DATABASE", "REDIS")
        if f"HUB_TEST_{name}_URL" in os.environ
    }
    with (
        tempfile.TemporaryDirectory(prefix="hub-tests-", dir=_memory(), ignore_cleanup_errors=True) as folder,
        embedded.running(Path(folder), environ) as urls,
    ):
        if "HUB_DATABASE_URL" not in environ:
            _careless(urls.database)
        yield urls


def _memory() -> Path | None:
    """A folder in memory where there is one with room: a fresh database is three hundred files. None: the usual one."""
    shared = Path("/dev/shm")  # the folder made in it is this user's alone
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 4 * 1024**3 else None


def _careless(url: str) -> None:
    """Nothing here outlives the tests: without waiting for the disk a fresh database takes a tenth of the time. What is to
    survive a crash is tested on servers of its own."""
    with psycopg.connect(url, autocommit=True) as conn:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            conn.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        conn.execute("SELECT pg_reload_conf()")


def _named(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture(scope="session")
def template(servers: embedded.Urls) -> str:
    """A migrated database to copy from; one for each of the processes that the tests are divided among."""
    name = f"hub_template_{os.environ.get('PYTEST_XDIST_WORKER', 'one')}"
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        conn.execute(f"CREATE DATABASE {name}".encode())
    migrate(_named(servers.database, name))
    return name


@pytest.fixture
def database_url(servers: embedded.Urls, template: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
    yield _named(servers.database, name)
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=8) as opened:
        yield opened


@pytest.fixture
def redis_url(servers: embedded.Urls) -> str:
    """The shared Valkey, emptied."""
    import redis

    client = redis.Redis.from_url(servers.redis)
    client.flushall()
    client.close()
    return servers.redis


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hubspot(clock: ManualClock) -> Iterator[HubSpotSandbox]:
    """An empty HubSpot account on loopback."""
    with hubspot_account(clock) as served:
        yield served


@pytest.fixture
async def rig(
    tmp_path: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    database_url: str,
    redis_url: str,
    hub_yaml: str,
) -> AsyncIterator[Rig]:
    """A hub that syncs with the account; its relay is closed."""
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, yaml=hub_yaml
    ) as rig:
        yield rig


@pytest.fixture
def hub_yaml() -> str:
    """The configuration of `rig` and `post`; a module that needs another one has a fixture of this name."""
    return HUB_YAML


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelaySandbox]:
    """A relay whose readers do nothing; it wants TLS."""
    with smtp_case.relay(tmp_path, require_tls=True) as served:
        yield served


@pytest.fixture
async def post(
    tmp_path: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    relay: RelaySandbox,
    database_url: str,
    redis_url: str,
    hub_yaml: str,
) -> AsyncIterator[Rig]:
    """A hub with that relay."""
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, relay=relay, yaml=hub_yaml
    ) as rig:
        yield rig
