"""Real servers for the tests: one PostgreSQL and one Valkey for the whole run, a fresh database for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from hub import embedded
from hub.clock import ManualClock
from hub.store.database import Database, migrate


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Urls]:
    """Embedded servers, or those that HUB_TEST_DATABASE_URL and HUB_TEST_REDIS_URL name."""
    environ = {
        f"HUB_{name}_URL": os.environ[f"HUB_TEST_{name}_URL"]
        for name in ("DATABASE", "REDIS")
        if f"HUB_TEST_{name}_URL" in os.environ
    }
    with embedded.running(tmp_path_factory.mktemp("servers"), environ) as urls:
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


@pytest.fixture(scope="session")
def vendor_specs() -> Path:
    """The vendors' own API descriptions; without them the tests that need them are skipped, and say so."""
    folder = os.environ.get("VENDOR_SPECS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(
            "VENDOR_SPECS names no folder: the contracts were not held against the vendors' descriptions"
        )
    return Path(folder)
