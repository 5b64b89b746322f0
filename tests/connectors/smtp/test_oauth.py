"""Access tokens for XOAUTH2: a relay that checks them, a token endpoint that ends, rotates and refuses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from connectors.smtp.relay import Smtp, SmtpSettings
from contracts.smtp.relay import RelaySandbox
from contracts.smtp.tokens import CLIENT_ID, CLIENT_SECRET, GMAIL_SCOPE, TokenSandbox
from hub.clock import ManualClock
from hub.sdk.connector import Context
from hub.sdk.http import Http
from hub.sdk.oauth import MemoryTokens, TokenStore
from hub.sdk.relay import NotSent, made
from hub.store.database import Database
from hub.store.tokens import PostgresTokens
from tests.connectors.smtp.case import Book, offers, sent
from tests.contracts import smtp_case
from tests.contracts.conftest import Recorder, contract_of
from tests.contracts.spec_check import Conformance
from tests.sdk.conftest import Pauses

USER = "news@mailyard.example"
KEY = Fernet.generate_key()


class World:
    """A relay that takes access tokens only, the endpoint that gives them, and hubs that send."""

    def __init__(self, relay: RelaySandbox, issuer: TokenSandbox, clock: ManualClock) -> None:
        self.relay, self.issuer, self.clock = relay, issuer, clock
        self.first = issuer.refresh  # as an admin wrote it into hub.yaml, once

    def oauth(self, **other: Any) -> dict[str, Any]:
        about = {
            "token_url": f"{self.issuer.url}/token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
            "refresh_token": self.first, "scope": GMAIL_SCOPE,
        }  # fmt: skip
        return {key: value for key, value in (about | other).items() if value is not None}

    def hub(self, tokens: TokenStore, *, username: str = USER, **oauth: Any) -> Smtp:
        settings = SmtpSettings.model_validate(
            {
                "host": self.relay.host, "port": self.relay.port, "ca_file": str(self.relay.ca_file), "helo": "me",
                "username": username, "oauth": self.oauth(**oauth), "timeout_seconds": 5.0,
            }
        )  # fmt: skip
        smtp = made(
            Smtp, "main", settings, Context(Http(account="relay main", sleep=Pauses()), self.clock, tokens)
        )
        assert isinstance(smtp, Smtp)
        return smtp


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[False, True], ids=["kept", "rotated"])
def world(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    issuer = TokenSandbox(USER, rotates=request.param, clock=clock)
    with (
        issuer.serve(),
        smtp_case.relay(tmp_path, bearer=issuer.takes, require_tls=True, clock=clock) as relay,
    ):
        yield World(relay, issuer, clock)


@pytest.fixture
async def processes(database_url: str) -> AsyncIterator[list[PostgresTokens]]:
    """The token stores of two processes."""
    async with Database(database_url, size=4) as one, Database(database_url, size=4) as two:
        yield [PostgresTokens(db, [KEY], prefix="relay ") for db in (one, two)]


async def send(smtp: Smtp) -> NotSent | None:
    book = Book(offers(2))
    error = await sent(smtp, book)
    if error is None:
        assert book.told == ["250", "250"]
    return error


async def test_it_goes_on_for_days_over_restarts(world: World, processes: list[PostgresTokens]) -> None:
    smtp = world.hub(processes[0])
    for hour in range(30):
        if hour % 7 == 3:
            smtp = world.hub(processes[hour % 2])
        assert await send(smtp) is None
        world.clock.advance(minutes=50)
    assert len(world.issuer.grants) == 15  # each is good for two of these steps
    assert world.relay.handler.refused_logins == 0


async def test_it_is_renewed_ahead_of_its_end(world: World) -> None:
    smtp = world.hub(MemoryTokens())
    assert await send(smtp) is None
    world.clock.advance(minutes=58)
    assert await send(smtp) is None
    assert len(world.issuer.grants) == 1
    world.clock.advance(minutes=1, seconds=30)  # half a minute before its end
    assert await send(smtp) is None
    assert len(world.issuer.grants) == 2
    assert world.relay.handler.refused_logins == 0


async def test_a_token_that_was_revoked_is_renewed_once(world: World) -> None:
    smtp = world.hub(MemoryTokens())
    assert await send(smtp) is None
    world.issuer.revoke()
    assert await send(smtp) is None
    assert len(world.issuer.grants) == 2
    assert world.relay.handler.refused_logins == 1


async def test_a_login_that_stays_refused_is_tried_twice_and_says_what_to_do(world: World) -> None:
    smtp = world.hub(MemoryTokens(), username="other@mailyard.example")
    error = await send(smtp)
    assert error is not None
    assert error.login
    assert error.what == "relay main refuses the login (535)"
    assert "scope" in error.fix
    assert "other@" not in str(error)
    assert world.relay.handler.refused_logins == 2
    assert len(world.issuer.grants) == 2


async def test_two_processes_renew_once(world: World, processes: list[PostgresTokens]) -> None:
    hubs = [world.hub(tokens) for tokens in processes]
    for round_ in range(1, 4):
        assert await asyncio.gather(*(send(hubs[n % 2]) for n in range(8))) == [None] * 8
        assert len(world.issuer.grants) == round_
        if round_ == 2:
            world.issuer.revoke()
        else:
            world.clock.advance(hours=1)


async def test_other_credentials_do_not_get_the_tokens_of_the_former_ones(world: World) -> None:
    tokens = MemoryTokens()
    assert await send(world.hub(tokens)) is None
    world.clock.advance(hours=1)
    world.issuer.refresh = "consented-again"
    error = await send(world.hub(tokens))
    assert error is not None
    assert "does not take the refresh token (400 invalid_grant)" in error.what
    assert await send(world.hub(tokens, refresh_token="consented-again")) is None


@pytest.mark.parametrize(
    ("wrong", "code", "fix"),
    [
        ({"client_secret": "wrong-secret-1"}, "401 invalid_client", "check client_id and client_secret"),
        ({"refresh_token": "revoked-token"}, "400 invalid_grant", "consent again"),
        ({"scope": "https://example.com/none"}, "400 invalid_scope", "check scope"),
    ],
)
async def test_a_refusal_says_what_to_do(world: World, wrong: dict[str, str], code: str, fix: str) -> None:
    error = await send(world.hub(MemoryTokens(), **wrong))
    assert error is not None
    assert error.login
    assert code in error.what
    assert fix in error.fix
    assert not any(each in str(error) for each in (USER, world.first, *wrong.values()))
    assert world.relay.handler.connections == 0


@pytest.mark.parametrize("kind", ["500", "html", "truncated", "lost_answer"])
async def test_an_endpoint_that_fails_is_waited_for(world: World, kind: str) -> None:
    smtp = world.hub(MemoryTokens())
    world.issuer.faults.plan(kind, times=9)
    error = await send(smtp)
    assert error is not None
    assert not error.login
    assert "gets no access token now" in error.what
    world.issuer.faults.planned.clear()
    if world.issuer.rotates and kind in ("truncated", "lost_answer"):
        world.issuer.refresh = world.first  # what was given without being heard is good for nobody
    assert await send(smtp) is None


async def test_client_credentials(tmp_path: Path, clock: ManualClock) -> None:
    scope = "https://outlook.office365.com/.default"
    issuer = TokenSandbox(USER, scope=scope, clock=clock)
    with issuer.serve(), smtp_case.relay(tmp_path, bearer=issuer.takes) as relay:
        world = World(relay, issuer, clock)
        smtp = world.hub(MemoryTokens(), refresh_token=None, scope=scope)
        for _ in range(3):
            assert await send(smtp) is None
            clock.advance(hours=2)
    assert issuer.grants == ["client_credentials"] * 3


@pytest.mark.parametrize(
    "oauth",
    [
        {"token_url": "https://login.example/token"},
        {"token_url": "https://login.example/token", "client_id": "a"},
        {"token_url": "https://login.example/token", "client_id": "a", "client_secret": "b"},
        {"token_url": "https://login.example/token", "client_id": "a", "scope": "c"},
        {"token_url": "http://login.example/token", "client_id": "a", "refresh_token": "c"},
        {"token_url": "login", "client_id": "a", "refresh_token": "c"},
        {"token_url": "https://login.example/token", "client_id": "", "refresh_token": "c"},
    ],
)
def test_sections_that_cannot_be(oauth: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SmtpSettings.model_validate({"host": "relay.example", "username": "me", "oauth": oauth})


def test_what_the_endpoint_answers_keeps_the_contract(world: World) -> None:
    import httpx

    from hub.sdk.sandbox import serve_app

    recorder = Recorder(world.issuer.app(), Conformance(contract_of("smtp")))
    good = {
        "grant_type": "refresh_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
        "refresh_token": world.first,
    }  # fmt: skip
    with serve_app(recorder) as url:
        answers = [
            httpx.post(f"{url}/token", data={**good, **wrong}).status_code
            for wrong in ({}, {"client_id": "x"}, {"refresh_token": "x"}, {"grant_type": "x"}, {"scope": "x"})
        ]
    assert answers == [200, 401, 400, 400, 400]
    assert recorder.problems == []
