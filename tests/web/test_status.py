"""The status page, its numbers and the health check; and the edges of the webhooks' door."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import httpx

from hub.store.database import Database
from hub.web import bodies
from hub.web.app import application
from tests.support.rig import Rig


async def test_every_number_can_be_counted_again(rig: Rig, web: httpx.AsyncClient) -> None:
    for n in range(3):
        rig.hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": "Berlin"})
    rig.hubspot.create("contacts", {"email": "w@example.com", "firstname": "W", "city": "Wien"})
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists", "funnels")
    found = (await web.get("/status.json")).json()
    for name, query in {
        "contacts": "SELECT count(*) FROM contact",
        "deals": "SELECT count(*) FROM deal",
        "segments": "SELECT count(*) FROM segment",
    }.items():
        assert found[name] == await rig.value(query)
    assert found["contacts"] == 4
    assert found["lists"] == {"berlin": 3}
    assert found["funnels"] == {"greeting": {"active": 3}}
    assert found["deliveries"] == {"queued": 3}
    page = await web.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for words in ("berlin<b>3</b>", "greeting active<b>3</b>", "queued<b>3</b>", "pull"):
        assert words in page.text
    assert "example.com" not in page.text + str(found)  # it names nobody


async def test_an_empty_hub_has_a_page(web: httpx.AsyncClient) -> None:
    page = await web.get("/")
    assert page.status_code == 200
    assert "none yet" in page.text
    assert (await web.get("/status.json")).json()["contacts"] == 0
    assert (await web.get("/nowhere")).status_code == 404
    assert (await web.post("/")).status_code == 405


async def test_vendors_words_stay_words(rig: Rig, web: httpx.AsyncClient) -> None:
    await rig.rows(
        """INSERT INTO run (kind, connection, state, started_at, reason)
           VALUES ('pull', '<b>crm', 'failed', now(), %s) RETURNING id""",
        "<script>alert(1)</script>",
    )
    page = (await web.get("/")).text
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;crm" in page


async def test_health_is_the_databases(rig: Rig, web: httpx.AsyncClient) -> None:
    answer = await web.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"database": True})
    away = dataclasses.replace(rig.runtime, db=Database("postgresql://127.0.0.1:1/nothing"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=application(away)), base_url="https://hub.example"
    ) as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (503, {"database": False})


# --- webhooks ------------------------------------------------------------------------------------------------------


async def test_a_body_in_pieces_is_limited_too_and_read_no_further(rig: Rig, web: httpx.AsyncClient) -> None:
    sent = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            assert sent <= 5 * bodies.MAX_BODY_BYTES, "it is read for ever"
            yield b"x" * 100_000

    answer = await web.post("/webhooks/crm", content=without_end())
    assert (answer.status_code, answer.json()) == (413, {"error": "the body is larger than 4000000 bytes"})
    # A body of just that size is read, and refused for its signature.
    assert (await web.post("/webhooks/crm", content=b"x" * bodies.MAX_BODY_BYTES)).status_code == 401
    assert await rig.value("SELECT count(*) FROM inbox") == 0


async def test_an_unknown_connection(web: httpx.AsyncClient) -> None:
    for name in ("nobody", "CRM", "crm%20", "x" * 20_000, "%00", "%F0%9F%98%80"):
        answer = await web.post(f"/webhooks/{name}", content=b"[]")
        assert (answer.status_code, answer.json()) == (404, {"error": "no such connection"})


async def test_other_methods_and_paths(web: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        assert (await web.request(method, "/webhooks/crm")).status_code == 405
    for path in ("/webhooks", "/webhooks/"):
        assert (await web.post(path, content=b"[]")).status_code in (404, 307)
    assert (
        await web.post("/webhooks/crm/more", content=b"[]")
    ).status_code == 401  # below: for vendors' secrets in paths


async def test_a_connector_that_hears_nothing(rig: Rig, web: httpx.AsyncClient) -> None:
    section = rig.runtime.settings.connections["crm"]
    deaf = section.model_copy(update={"connector": "google_analytics"})
    deaf.__pydantic_extra__ = {
        "measurement_id": "G-ABCDEFGHIJ",
        "api_secret": "x",
        "base_url": "https://ga.example",
    }
    rig.runtime.settings.connections["ga"] = deaf
    answer = await web.post("/webhooks/ga", content=b"[]")
    assert (answer.status_code, answer.json()) == (404, {"error": "google_analytics receives no webhooks"})
