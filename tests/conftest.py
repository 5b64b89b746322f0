"""Real servers for the tests: one PostgreSQL and one Valkey for the whole run, a fresh database for each test."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from hub import embedded
from hub.clock import ManualClock
from hub.store.database import Database, migrate
from tests.support.rig import Rig, hubspot_account, opened


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
        tempfile.TemporaryDirectory(prefix="hub-tests-", ignore_cleanup_errors=True) as folder,
        embedded.running(Path(folder), environ) as urls,
    ):
        yield urls


def _named(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture(scope="session")
def template(servers: embedded.Urls) -> str:
    """A migrated database to copy from."""
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS hub_template")
        conn.execute("CREATE DATABASE hub_template")
    migrate(_named(servers.database, "hub_template"))
    return "hub_template"


@pytest.fixture
def database_url(servers: embedded.Urls, template: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
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
    tmp_path: Path, clock: ManualClock, hubspot: HubSpotSandbox, database_url: str, redis_url: str
) -> AsyncIterator[Rig]:
    """A hub that syncs with the account; its relay is closed."""
    async with opened(tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url) as rig:
        yield rig
