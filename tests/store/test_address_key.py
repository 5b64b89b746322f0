"""Hashes of addresses: keyed by what stands in the database only sealed, the same after every change of the secret."""

from __future__ import annotations

import hashlib
import hmac

import psycopg
import pytest
from cryptography.fernet import Fernet

from hub.clock import ManualClock
from hub.errors import SecretError
from hub.store import address_key, consent
from hub.store.database import Database

OLD, NEW, OTHER = (Fernet.generate_key() for _ in range(3))


def suppressed(url: str) -> list[bytes]:
    with psycopg.connect(url) as conn:
        return [bytes(row[0]) for row in conn.execute("SELECT email_hash FROM suppression").fetchall()]


async def test_it_is_hmac_and_what_stood_there_is_keyed_too(database_url: str, clock: ManualClock) -> None:
    async with Database(database_url, size=1) as before, before.transaction() as conn:
        await consent.suppress(conn, "Old@example.com", "bounced", at=clock.now(), evidence={})
        await consent.record(conn, [consent.Statement("old@example.com", "*", "out", "web", clock.now())])
    (salted,) = suppressed(database_url)
    pads = address_key.ready(database_url, [OLD])
    assert pads is not None and address_key.ready(database_url, [OLD]) == pads
    key = bytes(b ^ 0x36 for b in bytes.fromhex(pads)[:32])
    (keyed,) = suppressed(database_url)
    assert keyed == hmac.digest(key, salted, hashlib.sha256)
    async with Database(database_url, size=1, address_key=pads) as db, db.transaction() as conn:
        assert not await consent.suppress(conn, "old@EXAMPLE.com", "again", at=clock.now(), evidence={})
        assert [v["status"] for v in await consent.verdicts(conn, "old@example.com")] == ["out"]


async def test_a_session_without_the_key_gets_an_error_and_no_wrong_hash(database_url: str) -> None:
    address_key.ready(database_url, [OLD])
    async with Database(database_url, size=1) as db, db.connection() as conn:
        with pytest.raises(psycopg.errors.UndefinedObject):
            await conn.execute("SELECT address_hash('ann@example.com')")


async def test_a_new_secret_seals_the_same_key(database_url: str) -> None:
    pads = address_key.ready(database_url, [OLD])
    assert address_key.ready(database_url, [NEW, OLD]) == pads
    assert address_key.ready(database_url, [NEW]) == pads  # the old one may go now
    for keys in ([OLD], [OTHER]):
        with pytest.raises(SecretError, match="cannot be opened with the keys in HUB_SECRET_KEY"):
            address_key.ready(database_url, keys)
    with psycopg.connect(database_url) as conn:
        row = conn.execute("SELECT address_key FROM instance").fetchone()
    assert row and pads and bytes.fromhex(pads)[:32] not in bytes(row[0])


def test_every_table_with_a_hash_is_keyed(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        found = conn.execute(
            """SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_name)
               WHERE c.table_schema = 'public' AND c.column_name = 'email_hash' AND t.table_type = 'BASE TABLE'"""
        ).fetchall()
    assert sorted(name for (name,) in found) == sorted(address_key.HASHES)
