"""The key of address hashes: made once, kept sealed by the hub's secret, opened when the hub starts.

Who has the database alone can look up no address in it. The key itself never changes, since hashes of erased people could
not be made anew: a new secret seals the same key again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import psycopg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from hub.errors import SecretError

BLOCK = 64
"""Of SHA-256, in bytes: a key is padded to it (RFC 2104)."""
HASHES = (
    "consent",
    "consent_verdict",
    "consent_request",
    "consent_obligation",
    "suppression",
    "decision",
    "erasure",
)
"""Tables with a column `email_hash`."""


def ready(url: str, keys: Sequence[bytes]) -> str | None:
    """The setting hub.address_key for the sessions of this database, made when there is none yet; hashes that stand there
    are keyed then. None where the tables are older than this. Raises SecretError when no key opens it."""
    box = MultiFernet([Fernet(key) for key in keys])
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('instance') AND attname = 'address_key')"
        ).fetchone()
        if not row or not row[0]:
            return None
        row = conn.execute("SELECT address_key FROM instance").fetchone()
        if row is None or row[0] is None:
            row = conn.execute("SELECT address_key FROM instance FOR UPDATE").fetchone()
        if row is None or row[0] is None:
            key = secrets.token_bytes(32)
            conn.execute("UPDATE instance SET address_key = %s", [box.encrypt(key)])
            for table in HASHES:
                conn.execute(
                    f"UPDATE {table} SET email_hash = keyed_hash(%s, email_hash) WHERE email_hash IS NOT NULL".encode(),
                    [_pads(key)],
                )
            return _pads(key).hex()
        sealed = bytes(row[0])
        try:
            key = box.decrypt(sealed)
        except InvalidToken:
            raise SecretError(
                "the key of this database's address hashes cannot be opened with the keys in HUB_SECRET_KEY",
                "add the key that the hub ran with before: without it nobody's opt-out could be found",
            ) from None
        if not _opens(
            keys[0], sealed
        ):  # there is a new first key: the others may be left out from the next start on
            conn.execute("UPDATE instance SET address_key = %s", [box.rotate(sealed)])
        return _pads(key).hex()


def _pads(key: bytes) -> bytes:
    block = key.ljust(BLOCK, b"\0")
    return bytes(b ^ 0x36 for b in block) + bytes(b ^ 0x5C for b in block)


def _opens(key: bytes, sealed: bytes) -> bool:
    try:
        Fernet(key).decrypt(sealed)
    except InvalidToken:
        return False
    return True
