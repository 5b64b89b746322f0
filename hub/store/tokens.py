"""OAuth tokens in PostgreSQL, sealed with the instance's keys, renewed by one process at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from hub.errors import SecretError
from hub.sdk.oauth import Lease, Token
from hub.store.database import Database


class _Sealed(msgspec.Struct):
    access: str
    expires_at: datetime
    refresh: str


class PostgresTokens:
    """See `hub.sdk.oauth.TokenStore`. The first key seals; all of them open, so that keys can be rotated.

    `prefix` keeps names apart that may be the same: a relay's and a connection's.
    """

    def __init__(self, db: Database, keys: Sequence[bytes], *, prefix: str = "") -> None:
        self.db, self.prefix = db, prefix
        self._box = MultiFernet([Fernet(key) for key in keys])

    async def read(self, connection: str) -> Token | None:
        connection = self.prefix + connection
        async with self.db.connection() as conn:
            row = await (
                await conn.execute("SELECT sealed FROM token WHERE connection = %s", [connection])
            ).fetchone()
        return self._open(connection, row[0]) if row else None

    @asynccontextmanager
    async def lease(self, connection: str) -> AsyncIterator[Lease]:
        connection = self.prefix + connection
        async with self.db.transaction() as conn:
            # The lock is on the name: also the first token of a connection is got by one process only.
            await conn.execute(
                "SELECT pg_advisory_xact_lock(hashtext('hub token'), hashtext(%s))", [connection]
            )
            row = await (
                await conn.execute("SELECT sealed FROM token WHERE connection = %s", [connection])
            ).fetchone()
            lease = Lease(self._open(connection, row[0]) if row else None)
            before = lease.token
            yield lease
            if lease.token is not None and lease.token != before:
                await conn.execute(
                    """INSERT INTO token (connection, sealed, expires_at, changed_at) VALUES (%s, %s, %s, clock_timestamp())
                       ON CONFLICT (connection) DO UPDATE
                       SET sealed = excluded.sealed, expires_at = excluded.expires_at, changed_at = excluded.changed_at""",
                    [connection, self._seal(lease.token), lease.token.expires_at],
                )

    def _seal(self, token: Token) -> bytes:
        return self._box.encrypt(msgspec.json.encode(_Sealed(token.access, token.expires_at, token.refresh)))

    def _open(self, connection: str, sealed: bytes) -> Token:
        try:
            found = msgspec.json.decode(self._box.decrypt(bytes(sealed)), type=_Sealed)
        except InvalidToken:
            raise SecretError(
                f"the stored token of connection {connection!r} cannot be opened with the keys in HUB_SECRET_KEY",
                "add the key that sealed it, or delete the row in table token and connect again",
            ) from None
        return Token(found.access, found.expires_at, found.refresh)
