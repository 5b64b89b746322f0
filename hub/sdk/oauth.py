"""OAuth 2 tokens (RFC 6749): renewed ahead of their end, once for all processes, kept sealed.

A `TokenStore` lends a connection's token to one renewer at a time; a refresh token that the vendor rotates is
stored before the new access token is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from hub.clock import Clock
from hub.errors import FixNeeded, VendorError
from hub.sdk.http import Http

MARGIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Token:
    """An access token with its end (wall time) and, where there is one, the refresh token."""

    access: str
    expires_at: datetime
    refresh: str = ""

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at.isoformat()})"


@dataclass
class Lease:
    """A token that only the holder may replace: set `token` to store a new one."""

    token: Token | None


class TokenStore(Protocol):
    """Where tokens live between runs."""

    async def read(self, connection: str) -> Token | None: ...

    def lease(self, connection: str) -> AbstractAsyncContextManager[Lease]:
        """The token under a lock that holds across processes; a changed `lease.token` is stored at the end."""
        ...


class MemoryTokens:
    """Tokens of one process, for tests of a connector alone."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def read(self, connection: str) -> Token | None:
        return self._tokens.get(connection)

    @asynccontextmanager
    async def lease(self, connection: str) -> AsyncIterator[Lease]:
        async with self._locks.setdefault(connection, asyncio.Lock()):
            lease = Lease(self._tokens.get(connection))
            yield lease
            if lease.token is not None:
                self._tokens[connection] = lease.token


class OAuth:
    """Credentials by a token endpoint. `grant` builds the form from the refresh token kept so far (may be empty).

    Raises `FixNeeded` when the vendor refuses to renew: an admin must connect again.
    """

    def __init__(
        self,
        connection: str,
        store: TokenStore,
        clock: Clock,
        http: Http,
        token_path: str,
        grant: Callable[[str], Mapping[str, str]],
    ) -> None:
        self.connection, self.store, self.clock = connection, store, clock
        self.http, self.token_path, self.grant = http, token_path, grant
        self._token: Token | None = None
        # One of this object's callers asks the store, the others wait here, where they hold nothing.
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"OAuth({self.connection!r})"

    async def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await self.token()}"}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """After a 401: take the token that another caller or process has got meanwhile, or get one."""
        await self.token(refused.get("Authorization", "").removeprefix("Bearer "))
        return True

    async def token(self, refused: str = "") -> str:
        """An access token that is not about to end, and not `refused`, which the vendor did not take."""
        if not self._usable(self._token, refused):
            async with self._turn:
                if not self._usable(self._token, refused):
                    self._token = await self._renewed(refused)
        assert self._token is not None
        return self._token.access

    def _usable(self, token: Token | None, refused: str) -> bool:
        return token is not None and token.access != refused and token.expires_at - MARGIN > self.clock.wall()

    async def _renewed(self, refused: str) -> Token:
        async with self.store.lease(self.connection) as lease:
            known = lease.token
            if known is not None and self._usable(known, refused):
                return known
            lease.token = await self._ask(known.refresh if known else "")
            return lease.token

    async def _ask(self, refresh: str) -> Token:
        try:
            answer = (
                await self.http.request("POST", self.token_path, form=self.grant(refresh), repeatable=True)
            ).json()
        except FixNeeded as error:
            raise FixNeeded(
                f"the vendor renews no token: {error.message}", code=error.code, status=error.status, where=self.connection,
                fix="check client id, secret and refresh token, or connect again",
            ) from None  # fmt: skip
        if not isinstance(answer, dict) or "access_token" not in answer:
            raise VendorError("the token endpoint's answer has no access_token", where=self.connection)
        seconds = float(answer.get("expires_in") or 1800)
        return Token(
            answer["access_token"],
            self.clock.wall() + timedelta(seconds=seconds),
            answer.get("refresh_token") or refresh,
        )
