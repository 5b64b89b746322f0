"""A system of one's own: what it tells is stored without asking back, whatever the order in which it arrives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from connectors.webhook.connector import WebhookSettings
from hub.clock import ManualClock
from hub.jobs import stages
from hub.web.app import application
from tests.support.rig import Rig, hubspot_account, opened

KEY = b"thirty-two octets that nobody has"
OLD = b"thirty-two octets from last year.."
YAML = """\
connections:
  crm: {{connector: hubspot, base_url: {hubspot}, token: "${{HUBSPOT_TOKEN}}"}}
  shop: {{connector: webhook, secret: "${{SHOP}}", old_secret: "${{SHOP_OLD}}"}}
lists:
  vienna: {{where: "city = 'Wien'"}}
  buyers: {{where: "has_deal(stage => 'won')"}}
# {relay_host} {relay_port} {relay_tls} {relay_ca}
web: {{public_url: "https://hub.example"}}
"""


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from tests.support import rig

    secrets = {"SHOP": base64.b64encode(KEY).decode(), "SHOP_OLD": "whsec_" + base64.b64encode(OLD).decode()}
    monkeypatch.setattr(rig, "SECRETS", {**rig.SECRETS, **secrets})
    yield


@pytest.fixture
async def hub(
    tmp_path: Path, clock: ManualClock, database_url: str, redis_url: str, environ: None
) -> AsyncIterator[Rig]:
    with hubspot_account(clock) as hubspot:
        async with opened(
            tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, yaml=YAML
        ) as rig:
            yield rig


@pytest.fixture
async def web(hub: Rig) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application(hub.runtime))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        yield client


def told(kind: str, id: str, clock: ManualClock, *, minutes: float = 0, **fields: Any) -> dict[str, Any]:
    at = clock.now() + timedelta(minutes=minutes)
    return {"type": kind, "timestamp": at.isoformat(), "data": {"id": id, **fields}}


async def send(
    web: httpx.AsyncClient, clock: ManualClock, what: Any, *, id: str = "msg_1", key: bytes = KEY
) -> httpx.Response:
    body, stamp = json.dumps(what).encode(), str(int(clock.wall().timestamp()))
    signature = base64.b64encode(hmac.digest(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256)).decode()
    headers = {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
    return await web.post("/webhooks/shop", content=body, headers=headers)


async def work(hub: Rig) -> None:
    await stages.run(hub.runtime, "inbox", "shop")
    await stages.run(hub.runtime, "lists", "")


async def test_what_is_told_is_stored_and_lists_follow(
    hub: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    events = [
        told(
            "contact.changed",
            "1",
            clock,
            email=" Ann@Example.com",
            first_name="Ann",
            city="Wien",
            country="Austria",
        ),
        told("deal.changed", "9", clock, name="Ring", stage="Won", amount="12.50", contacts=["1"]),
    ]
    assert (await send(web, clock, events)).json() == {"stored": 2, "repeated": 0}
    assert (await send(web, clock, events)).json() == {"stored": 0, "repeated": 2}
    await work(hub)
    assert await hub.rows("SELECT email, first_name, city, country FROM contact") == [
        ("ann@example.com", "Ann", "Wien", "AT")
    ]
    assert await hub.rows("SELECT l.name FROM list_member m JOIN list l ON l.id = m.list_id ORDER BY 1") == [
        ("buyers",), ("vienna",),
    ]  # fmt: skip
    assert await hub.rows("SELECT state, record FROM inbox") == [("done", None)] * 2
    run = await hub.last_run("webhook")
    assert run["state"] == "done"


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "one after the other"])
async def test_what_is_older_changes_nothing_whenever_it_comes(
    hub: Rig, web: httpx.AsyncClient, clock: ManualClock, apart: bool
) -> None:
    for number, (minutes, city) in enumerate([(2, "Wien"), (3, "Graz"), (1, "Linz"), (2, "Wels")]):
        await send(
            web, clock, told("contact.changed", "1", clock, minutes=minutes, city=city), id=f"msg_{number}"
        )
        if apart:
            await work(hub)
    await work(hub)
    assert await hub.rows("SELECT city FROM contact") == [("Graz",)]


async def test_a_deleted_contact_is_gone_and_one_that_comes_again_is_back(
    hub: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    for minutes, (kind, state) in enumerate(
        [("contact.changed", "live"), ("contact.deleted", "deleted"), ("contact.changed", "live")]
    ):
        await send(
            web, clock, told(kind, "1", clock, minutes=minutes, email="ann@example.com"), id=f"m{minutes}"
        )
        await work(hub)
        assert await hub.rows("SELECT state FROM contact_identity") == [(state,)]


async def test_a_value_that_cannot_be_taken_is_a_rejected_row_and_the_rest_is_taken(
    hub: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    await send(web, clock, told("deal.changed", "9", clock, name="Ring", amount="much"))
    await work(hub)
    assert await hub.rows("SELECT name, amount FROM deal") == [("Ring", None)]
    assert (
        await hub.value("SELECT count(*) FROM run_reject WHERE external_id = '9' AND code = 'BAD_VALUE'") == 1
    )


async def test_bad_events_are_kept_and_told(hub: Rig, web: httpx.AsyncClient, clock: ManualClock) -> None:
    good = told("contact.changed", "1", clock, email="ann@example.com")
    for number, bad in enumerate(
        [
            {**good, "type": "invoice.changed"}, {**good, "type": "contact.exploded"}, {**good, "timestamp": "yesterday"},
            {**good, "timestamp": "2026-11-24T10:00:00"}, {**good, "data": []}, {**good, "data": {"email": "x"}}, 7, None,
        ]
    ):  # fmt: skip
        answer = await send(web, clock, [bad, good], id=f"msg_{number}")
        assert answer.json() == {"stored": 1, "repeated": 0, "kept_whole": True}, bad
    for number, body in enumerate(([], 7, "text", None)):
        answer = await send(web, clock, body, id=f"whole_{number}")
        assert answer.json() == {"stored": 0, "repeated": 0, "kept_whole": True}, body


async def test_the_old_secret_holds_until_it_is_taken_away(
    hub: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    event = told("contact.changed", "1", clock)
    assert (await send(web, clock, event, key=OLD)).status_code == 200
    assert (await send(web, clock, event, key=b"another")).status_code == 401
    assert (await web.get("/webhooks/shop")).status_code == 405


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ=", "not base64 !!", "whsec_"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="openssl rand -base64 32"):
        WebhookSettings.model_validate({"secret": secret})
