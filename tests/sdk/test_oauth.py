"""OAuth tokens: sealed in PostgreSQL, renewed ahead of their end, and once however many need them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.fernet import Fernet
from starlette.requests import Request
from starlette.responses import Response

from hub.clock import ManualClock
from hub.errors import FixNeeded, Retry, SecretError, VendorError
from hub.sdk.connector import Limit
from hub.sdk.http import Http
from hub.sdk.oauth import MARGIN, OAuth, Token, TokenStore
from hub.store.database import Database
from hub.store.quotas import PostgresQuota
from hub.store.tokens import PostgresTokens
from tests.sdk.conftest import Pauses, Vendor, said

KEY, OLD_KEY = Fernet.generate_key(), Fernet.generate_key()


class Issuer(Vendor):
    """Gives tokens of half an hour; each refresh token is good for one use, as with vendors that rotate them."""

    def __init__(self) -> None:
        super().__init__()
        self.good = "refresh-0000"
        self.forms: list[dict[str, str]] = []

    async def answer(self, request: Request) -> Response:
        if request.url.path != "/token" or self.answers:
            return await super().answer(request)
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        self.forms.append(form)
        if form["refresh_token"] != self.good:
            return said(
                400, {"error": "invalid_grant", "error_description": f"{form['refresh_token']} is used up"}
            )
        self.good = f"refresh-{len(self.forms):04}"
        return said(
            200,
            {"access_token": f"access-{len(self.forms):04}", "refresh_token": self.good, "expires_in": 1800},
        )


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    served = Issuer()
    with served.serve():
        yield served


class Caller:
    """A process that calls the vendor: its database, its client, its credentials."""

    def __init__(self, db: Database, clock: ManualClock, issuer: Issuer, *keys: bytes) -> None:
        self.tokens: TokenStore = PostgresTokens(db, keys or (KEY,))
        quota = PostgresQuota(db)
        limits = (Limit("daily", 10_000, 86_400),)
        plain = Http(quota=quota, account="crm", sleep=Pauses()).configured(issuer.url, limits=limits)
        self.auth = OAuth(
            "crm", self.tokens, clock, plain, "/token",
            lambda kept: {"client_secret": "app-secret-1234", "refresh_token": kept or "refresh-0000"},
        )  # fmt: skip
        self.http = plain.configured(issuer.url, auth=self.auth, limits=limits)
        self.plain = plain

    async def token(self) -> str:
        return (await self.auth.headers())["Authorization"].removeprefix("Bearer ")

    async def close(self) -> None:
        await self.plain.close()
        await self.http.close()


@pytest.fixture
async def caller(database: Database, clock: ManualClock, issuer: Issuer) -> AsyncIterator[Caller]:
    made = Caller(database, clock, issuer)
    yield made
    await made.close()


async def stored(db: Database) -> list[tuple[Any, ...]]:
    async with db.connection() as conn:
        return list(await (await conn.execute("SELECT * FROM token")).fetchall())


async def test_a_token_is_kept_sealed(caller: Caller, database: Database) -> None:
    assert await caller.token() == "access-0001"
    ((connection, sealed, *_),) = await stored(database)
    assert connection == "crm"
    assert b"access" not in bytes(sealed)
    assert b"refresh" not in bytes(sealed)
    assert json.loads(Fernet(KEY).decrypt(bytes(sealed)))["refresh"] == "refresh-0001"
    async with database.connection() as conn:
        dump = await (await conn.execute("SELECT row_to_json(t)::text FROM token t")).fetchall()
    assert "0001" not in str(dump)
    assert "access" not in repr(await caller.tokens.read("crm")) + repr(caller.auth)


async def test_it_is_renewed_a_minute_ahead_of_its_end(
    caller: Caller, clock: ManualClock, issuer: Issuer
) -> None:
    await caller.token()
    clock.advance(seconds=1800 - MARGIN.total_seconds() - 1)
    assert await caller.token() == "access-0001"
    clock.advance(seconds=1)
    assert await caller.token() == "access-0002"
    assert [form["refresh_token"] for form in issuer.forms] == ["refresh-0000", "refresh-0001"]


async def test_another_process_uses_the_kept_token(
    caller: Caller, database: Database, clock: ManualClock, issuer: Issuer
) -> None:
    await caller.token()
    assert await Caller(database, clock, issuer).token() == "access-0001"
    assert len(issuer.forms) == 1


async def test_ten_callers_at_once_ask_once(database_url: str, clock: ManualClock, issuer: Issuer) -> None:
    """Also when the pool is small: who waits for a token must not hold what the one who gets it needs."""
    async with Database(database_url, size=3, wait_seconds=5) as db:
        caller = Caller(db, clock, issuer)
        assert await asyncio.gather(*(caller.token() for _ in range(10))) == ["access-0001"] * 10
        clock.advance(hours=1)
        answers = await asyncio.gather(*(caller.http.request("GET", "/x") for _ in range(10)))
        await caller.close()
    assert [answer.status for answer in answers] == [200] * 10
    assert len(issuer.forms) == 2
    assert {call.headers["authorization"] for call in issuer.calls} == {"Bearer access-0002"}


async def test_two_processes_at_once_ask_once(
    database: Database, database_url: str, clock: ManualClock, issuer: Issuer
) -> None:
    async with Database(database_url) as second:
        callers = [Caller(db, clock, issuer) for db in (database, second, database, second)]
        for round in (1, 2, 3):
            assert set(await asyncio.gather(*(c.token() for c in callers for _ in range(5)))) == {
                f"access-{round:04}"
            }
            clock.advance(hours=1)
        assert len(issuer.forms) == 3


async def test_ten_refused_at_once_renew_once(caller: Caller, issuer: Issuer) -> None:
    """The first 401 renews; the others, also those that come later, take what it got."""
    refused = await caller.auth.headers()
    assert all(await asyncio.gather(*(caller.auth.renew(refused) for _ in range(10))))
    assert await caller.auth.renew(refused)
    assert len(issuer.forms) == 2
    assert await caller.token() == "access-0002"
    assert await caller.auth.renew(await caller.auth.headers())  # but the new one may be refused in its turn
    assert await caller.token() == "access-0003"


async def test_a_refused_token_that_another_process_has_replaced(
    caller: Caller, database: Database, clock: ManualClock, issuer: Issuer
) -> None:
    other = Caller(database, clock, issuer)
    refused = await caller.auth.headers()
    assert await other.token() == "access-0001"
    assert await caller.auth.renew(refused)
    assert await other.auth.renew(refused)
    assert (await caller.token(), await other.token(), len(issuer.forms)) == ("access-0002", "access-0002", 2)


async def test_a_401_in_the_middle_of_work(caller: Caller, issuer: Issuer) -> None:
    await caller.token()
    issuer.then(said(401, {"message": "access-0001 has expired"}))
    # The scripted answer is for the call; the renewal that follows is answered as always.
    assert (await caller.http.request("POST", "/x", json={})).status == 200
    assert [call.headers["authorization"] for call in issuer.calls] == [
        "Bearer access-0001",
        "Bearer access-0002",
    ]


async def test_keys_are_rotated(database: Database, clock: ManualClock, issuer: Issuer) -> None:
    await Caller(database, clock, issuer, OLD_KEY).token()
    both = Caller(database, clock, issuer, KEY, OLD_KEY)
    assert await both.token() == "access-0001"  # the old key opens
    clock.advance(hours=1)
    assert await both.token() == "access-0002"  # the new one seals
    assert await Caller(database, clock, issuer, KEY).token() == "access-0002"


async def test_a_wrong_key_says_whose_token_it_is(
    database: Database, clock: ManualClock, issuer: Issuer
) -> None:
    await Caller(database, clock, issuer, OLD_KEY).token()
    wrong = Caller(database, clock, issuer, KEY)
    for ask in (wrong.token, lambda: wrong.tokens.read("crm")):
        with pytest.raises(
            SecretError,
            match=r"token of connection 'crm' cannot be opened with the keys in HUB_SECRET_KEY; add",
        ):
            await ask()
    assert len(issuer.forms) == 1


async def test_a_vendor_that_renews_no_more(
    caller: Caller, clock: ManualClock, issuer: Issuer, database: Database
) -> None:
    await caller.token()
    before = await stored(database)
    issuer.good = "somebody-else's"
    clock.advance(hours=1)
    with pytest.raises(FixNeeded) as raised:
        await caller.token()
    assert str(raised.value) == (
        "crm: 400: the vendor renews no token: *** is used up; check client id, secret and refresh token, or connect again"
    )
    assert "app-secret" not in repr(raised.value)
    assert await stored(database) == before


async def test_passing_trouble_keeps_the_refresh_token(
    caller: Caller, clock: ManualClock, issuer: Issuer
) -> None:
    await caller.token()
    clock.advance(hours=1)
    issuer.then(*[503] * 5)
    with pytest.raises(Retry):
        await caller.token()
    issuer.then(said(200, {"no": "token"}))
    with pytest.raises(VendorError, match="has no access_token"):
        await caller.token()
    assert await caller.token() == "access-0002"
    assert [form["refresh_token"] for form in issuer.forms] == ["refresh-0000", "refresh-0001"]


async def test_an_answer_without_an_end_or_a_new_refresh_token(
    caller: Caller, clock: ManualClock, issuer: Issuer
) -> None:
    issuer.then(said(200, {"access_token": "a"}))
    assert await caller.token() == "a"
    kept = await caller.tokens.read("crm")
    assert kept is not None
    assert kept == Token("a", kept.expires_at, "")
    assert (kept.expires_at - clock.wall()).total_seconds() == 1800
