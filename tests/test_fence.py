"""The fence: what copies of a database do not send, and what does not count as a copy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from contracts.smtp.relay import RelaySandbox
from hub import embedded
from hub.clock import ManualClock
from hub.jobs import campaigns, stages
from hub.jobs import runtime as runtimes
from hub.store import fence
from hub.store.campaigns import COPIED, OFFERED
from hub.store.database import Database, migrate
from tests.support.rig import HUB_YAML, Rig

YAML = (
    HUB_YAML[: HUB_YAML.index("funnels:")]
    + HUB_YAML[HUB_YAML.index("relays:") :]
    + """
campaigns:
  spring: {{list: berlin, message: hello}}
  autumn: {{list: berlin, message: hello, at: "2027-11-25 09:00", time_zone: Europe/Vienna}}
"""
)


def named(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


def name_in(url: str) -> str:
    return url.partition("?")[0].rsplit("/", 1)[1]


async def moved(url: str, clock: ManualClock) -> str | None:
    """Why nothing is sent from there; None when mails go out."""
    async with Database(url, size=2) as db:
        closed = await fence.closed(db, now=clock.now())
        async with db.connection() as conn:
            standing = await fence.standing(conn)
    assert closed == (standing is not None)
    return standing["why"] if standing else None


async def recovering(db: Database) -> bool:
    async with db.connection() as conn:
        row = await (await conn.execute("SELECT pg_is_in_recovery()")).fetchone()
    return bool(row and row[0])


def run(*command: str) -> None:
    done = subprocess.run(
        [str(embedded._postgres_bin() / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def copied(source: str, target: str, folder: Path, *options: str) -> None:
    run("pg_dump", "-Fc", "-f", str(folder / "dump"), "-d", source)
    run("pg_restore", *options, "-d", target, str(folder / "dump"))


@pytest.fixture
def other_url(servers: embedded.Urls) -> Iterator[str]:
    """An empty database beside the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    yield named(servers.database, name)
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# --- what is a copy ------------------------------------------------------------------------------------------------


async def test_a_dump_that_is_read_into_another_database(
    database_url: str, other_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    assert await moved(database_url, clock) is None
    copied(database_url, other_url, tmp_path)
    assert (
        await moved(other_url, clock) == "it is another database of its server; it was read back from a dump"
    )
    assert await moved(database_url, clock) is None


async def test_a_dump_that_is_read_over_the_same_database(
    database_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    assert await moved(database_url, clock) is None
    copied(database_url, database_url, tmp_path, "--clean", "--if-exists")
    assert await moved(database_url, clock) == "it was read back from a dump"


async def test_a_dump_made_before_anything_was_sent_is_no_copy(
    database_url: str, other_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    copied(database_url, other_url, tmp_path)
    assert await moved(other_url, clock) is None


async def test_a_clone_by_the_server_and_a_clone_of_what_is_fenced(
    servers: embedded.Urls, database_url: str, other_url: str, clock: ManualClock
) -> None:
    assert await moved(database_url, clock) is None
    original, clone = name_in(database_url), name_in(other_url)
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {clone}".encode())
        conn.execute(f"CREATE DATABASE {clone} TEMPLATE {original}".encode())
    assert await moved(other_url, clock) == "it is another database of its server"
    with psycopg.connect(servers.database, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {original}".encode())
        conn.execute(f"CREATE DATABASE {original} TEMPLATE {clone}".encode())
    assert await moved(database_url, clock) == "it is another database of its server"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder with a migrated database, its servers stopped; not in pytest's own folder, see tests/conftest.py."""
    with tempfile.TemporaryDirectory(prefix="hub-fence-", ignore_cleanup_errors=True) as whole:
        place = Path(whole) / "data"
        with embedded.EmbeddedServers(place) as servers:
            migrate(servers.urls.database)
        yield place
        for each in (place, place.parent / "copy"):
            embedded.stop_leftovers(each)


async def test_restarts_crashes_and_housekeeping_are_none(folder: Path, clock: ManualClock) -> None:
    with embedded.EmbeddedServers(folder) as servers:
        url = servers.urls.database
        assert await moved(url, clock) is None
        servers.restart_postgres()
        assert await moved(url, clock) is None
        os.kill(servers.pids()["postgres"], signal.SIGKILL)
        servers.start()
        assert await moved(url, clock) is None
        with psycopg.connect(url, autocommit=True) as conn:
            for what in (
                "VACUUM FULL instance",
                "VACUUM FREEZE instance",
                "REINDEX TABLE instance",
                "CHECKPOINT",
            ):
                conn.execute(what.encode())
            conn.execute(
                "ALTER DATABASE hub SET timezone = 'Asia/Tokyo'"
            )  # marks are the same on every clock
        assert await moved(url, clock) is None
    with embedded.EmbeddedServers(folder) as servers:
        assert await moved(servers.urls.database, clock) is None
        with psycopg.connect(servers.urls.database) as conn:
            row = conn.execute("SELECT birthmark FROM instance").fetchone()
        assert row is not None
        assert set(row[0]) == {"database", "system", "timeline", "files"}


async def test_a_copied_data_folder_and_a_recovered_server(folder: Path, clock: ManualClock) -> None:
    with embedded.EmbeddedServers(folder) as servers:
        assert await moved(servers.urls.database, clock) is None
    owner, group = (folder / "pg").owner(), (folder / "pg").group()
    copy = folder.parent / "copy"
    shutil.copytree(folder / "pg", copy / "pg")  # with its times, as good tools of backup do
    for path in (copy, *copy.rglob("*")):
        shutil.chown(path, owner, group)
    with embedded.EmbeddedServers(copy) as servers:
        assert await moved(servers.urls.database, clock) == "its files were copied"
    # A recovery to a point in time ends on a timeline of its own, here without a copy of the files.
    with (folder / "pg" / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (folder / "pg" / "recovery.signal").touch()
    shutil.chown(folder / "pg" / "recovery.signal", owner, group)
    with embedded.EmbeddedServers(folder) as servers:
        async with Database(servers.urls.database, size=2) as db:
            while await recovering(db):  # it answers before it has ended
                assert await fence.closed(db, now=clock.now()) or not await recovering(db)
        assert await moved(servers.urls.database, clock) == "the server was recovered or promoted"


async def test_who_may_ask_less_of_the_server_is_fenced_all_the_same(
    servers: embedded.Urls, database_url: str, other_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    if not servers.embedded:
        pytest.skip("only the embedded server lets every role in")
    with psycopg.connect(servers.database, autocommit=True) as conn:
        if not conn.execute("SELECT FROM pg_roles WHERE rolname = 'hub_plain'").fetchone():
            conn.execute("CREATE ROLE hub_plain LOGIN")
        for url in (database_url, other_url):
            conn.execute(f"DROP DATABASE {name_in(url)}".encode())
            conn.execute(f"CREATE DATABASE {name_in(url)} OWNER hub_plain".encode())
    here, there = (url.replace("postgres@", "hub_plain@") for url in (database_url, other_url))
    migrate(here)
    assert await moved(here, clock) is None
    with psycopg.connect(here) as conn:
        assert conn.execute("SELECT birthmark ? 'files' FROM instance").fetchone() == (False,)
    copied(here, there, tmp_path)
    assert await moved(there, clock) == "it is another database of its server; it was read back from a dump"
    assert await moved(here, clock) is None


# --- what a copy does ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_yaml() -> str:
    return YAML


@pytest.fixture
async def full(post: Rig) -> Rig:
    """Twenty people are on the list."""
    for n in range(20):
        post.hubspot.create("contacts", {"email": f"p{n}@example.com", "city": "Berlin"})
    await post.run("pull:contacts", "pull:deals", "pull:segments", "lists")
    return post


async def states(runtime: Any, campaign: str) -> dict[tuple[str, str], int]:
    async with runtime.db.connection() as conn:
        cursor = await conn.execute(
            "SELECT state, reason, count(*) FROM delivery WHERE occurrence = 'campaign:' || %s GROUP BY 1, 2",
            [campaign],
        )
        return {(state, reason): count for state, reason, count in await cursor.fetchall()}


async def test_a_restored_database_sends_nothing_until_it_is_released_and_never_what_was_on_its_way(
    full: Rig, relay: RelaySandbox, other_url: str, tmp_path: Path
) -> None:
    relay.faults.plan("reply", stage="rcpt", text="450 4.2.1 Try later", times=5)
    await campaigns.approve(full.runtime, "spring", None)
    await campaigns.approve(full.runtime, "autumn", None)
    await full.run("mail")
    async with (
        full.runtime.db.transaction() as conn
    ):  # as in the middle of sending: three waiting, two claimed
        await conn.execute(
            """UPDATE delivery d SET retry_at = NULL, claimed_by = 'w',
                   state = CASE WHEN n.n > 3 THEN 'claimed' ELSE 'queued' END,
                   lease_until = CASE WHEN n.n > 3 THEN now() + interval '1 minute' END
               FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM delivery
                     WHERE state = 'queued' AND occurrence = 'campaign:spring') n WHERE n.id = d.id"""
        )
    copied(full.environ["HUB_DATABASE_URL"], other_url, tmp_path)
    environ = {**full.environ, "HUB_DATABASE_URL": other_url}
    async with runtimes.opened(full.folder / "hub.yaml", environ, clock=full.clock) as copy:
        for _ in range(2):
            await stages.run(copy, "mail", "")
        assert await states(copy, "spring") == {
            ("accepted", ""): 15,
            ("held", COPIED): 3,
            ("held", OFFERED): 2,
        }
        assert await states(copy, "autumn") == {("held", COPIED): 20}
        found = await campaigns.held(copy)
        assert found["fence"]["since"] == full.clock.now()
        assert sum(row["mails"] for row in found["held"]) == 25
        relay.office.wait_drained(30)
        assert len(relay.office.deliveries) == 15
        # One campaign is released: the other one stays where it is.
        assert await campaigns.release(copy, "spring") == {"queued": 3, "uncertain": 2, "held": 20}
        await stages.run(copy, "mail", "")
        found = await campaigns.one(copy, "spring")
        assert (found["state"], found["counts"]) == ("finished", {"accepted": 18, "uncertain": 2})
        assert await campaigns.release(copy, None) == {"queued": 20, "uncertain": 0, "held": 0}
        assert await states(copy, "autumn") == {("queued", ""): 20}
        assert (await campaigns.held(copy))["fence"] is None
        relay.office.wait_drained(30)
        assert len({d.recipient for d in relay.office.deliveries}) == len(relay.office.deliveries) == 18


async def test_what_is_queued_behind_the_fence_waits_too_and_a_paused_campaign_stays_paused(
    full: Rig, relay: RelaySandbox, other_url: str, tmp_path: Path
) -> None:
    await full.run("mail")  # notes where the database is
    await campaigns.approve(full.runtime, "autumn", None)
    await campaigns.pause(full.runtime, "autumn")
    copied(full.environ["HUB_DATABASE_URL"], other_url, tmp_path)
    environ = {**full.environ, "HUB_DATABASE_URL": other_url}
    async with runtimes.opened(full.folder / "hub.yaml", environ, clock=full.clock) as copy:
        await stages.run(copy, "mail", "")
        await campaigns.approve(copy, "spring", None)
        await stages.run(copy, "mail", "")
        assert await states(copy, "spring") == {("queued", ""): 20}
        assert await campaigns.release(copy, "autumn") == {"queued": 0, "uncertain": 0, "held": 40}
        await stages.run(copy, "mail", "")
        assert relay.office.deliveries == []
        await campaigns.release(copy, None)
        await stages.run(copy, "mail", "")
        assert await states(copy, "spring") == {("accepted", ""): 20}
        assert await states(copy, "autumn") == {("held", "the campaign is paused"): 20}
        assert (await campaigns.resume(copy, "autumn"))["mails"] == 20
