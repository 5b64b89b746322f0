"""A click's verdict follows the next click: in the ledger, in lists, in what the CRM is told, and in both counts."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hub.results import engagement
from hub.results.engagement import Visit
from hub.store import events
from hub.web.app import application
from tests.support.rig import HUB_YAML, Rig

FIREFOX = Visit("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "203.0.113.9")
APPLE = Visit("Mozilla/5.0", "203.0.113.9")
A, B = "https://mailyard.example/a", "https://mailyard.example/b"


@pytest.fixture
async def mail(rig: Rig) -> int:
    return await sent(rig)


async def sent(rig: Rig) -> int:
    rig.hubspot.create("contacts", {"email": "ann@example.com", "firstname": "Ann", "city": "Berlin"})
    await rig.run("pull:contacts")
    return int(
        await rig.value(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, queued_at, sent_at)
               SELECT 'hello', id, 'a', 'news', email, 'accepted', %s, %s FROM contact RETURNING id""",
            rig.clock.now(), rig.clock.now(),
        )
    )  # fmt: skip


async def click(rig: Rig, mail: int, link: str, visit: Visit = FIREFOX) -> bool:
    return await engagement.clicked(rig.runtime.db, rig.clock, mail, link, visit, rig.runtime.watch)


async def open_(rig: Rig, mail: int, visit: Visit = FIREFOX) -> bool:
    return await engagement.opened(rig.runtime.db, rig.clock, mail, visit, rig.runtime.watch)


async def verdicts(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows("SELECT kind, detail ->> 'link', machine FROM event ORDER BY id")


async def told(rig: Rig) -> list[str]:
    await rig.run("results")
    return [kind for (kind,) in await rig.rows("SELECT payload ->> 'kind' FROM outbox ORDER BY id")]


async def counts(rig: Rig) -> dict[str, int]:
    async with rig.runtime.db.connection() as conn:
        return await events.totals(conn)


async def test_the_second_click_turns_the_first(rig: Rig, mail: int) -> None:
    rig.clock.advance(minutes=1)
    assert await click(rig, mail, A)
    assert await verdicts(rig) == [("clicked", A, False)]
    assert await told(rig) == []  # it may still turn out to be a machine
    rig.clock.advance(seconds=1)
    assert await click(rig, mail, B)
    assert await verdicts(rig) == [("clicked", A, True), ("clicked", B, True)]
    ((evidence,),) = await rig.rows("SELECT evidence FROM event ORDER BY id LIMIT 1")
    assert evidence == {
        "network": "203.0.113.0/24",
        "seconds": 60.0,
        "signs": ["different links at once (100)"],
    }
    assert await counts(rig) == {"clicked": 0, "clicked_raw": 1}
    rig.clock.advance(minutes=1)
    assert await told(rig) == []


async def test_a_person_after_a_machine_counts(rig: Rig, mail: int) -> None:
    rig.clock.advance(minutes=1)
    assert await open_(rig, mail, APPLE)
    assert await rig.value("SELECT result FROM delivery") == "sent"  # nobody has read it yet
    rig.clock.advance(minutes=1)
    assert await told(rig) == []
    assert await open_(rig, mail)
    assert not await open_(rig, mail)
    assert await counts(rig) == {"opened": 1, "opened_raw": 1}
    assert await rig.value("SELECT result FROM delivery") == "delivered"
    rig.clock.advance(seconds=10)
    assert await told(rig) == ["opened"]


async def test_the_same_program_again_counts_once_it_is_a_person(rig: Rig, mail: int) -> None:
    assert await click(rig, mail, A)  # at the second of sending
    rig.clock.advance(hours=1)
    assert await click(rig, mail, A)
    assert not await click(rig, mail, A)
    assert await verdicts(rig) == [("clicked", A, True), ("clicked", A, False)]


LISTS = """lists:
  clickers: {{where: "clicked('hello')"}}
  raw: {{where: "clicked('hello', by => 'anybody')"}}
"""


@pytest.fixture
def hub_yaml() -> str:
    return HUB_YAML.replace("lists:\n", LISTS)


async def test_lists_follow_a_verdict(post: Rig) -> None:
    rig, mail = post, await sent(post)

    async def on_the_list() -> int:
        await rig.run("lists")
        return int(await rig.value("SELECT size FROM list WHERE name = 'clickers'"))

    async def raw() -> int:
        return int(await rig.value("SELECT size FROM list WHERE name = 'raw'"))

    assert await on_the_list() == 0
    rig.clock.advance(minutes=1)
    await click(rig, mail, A)
    assert (await on_the_list(), await raw()) == (1, 1)
    rig.clock.advance(seconds=1)
    await click(rig, mail, B)
    assert (await on_the_list(), await raw()) == (0, 1)
    rig.clock.advance(hours=1)
    await click(rig, mail, A)
    assert (await on_the_list(), await raw()) == (1, 1)


async def test_whoever_has_the_links_cannot_fill_the_ledger(rig: Rig, mail: int) -> None:
    rig.clock.advance(hours=1)
    for number in range(engagement.MOST_HITS + 5):
        await open_(rig, mail, Visit(f"Program {number}", "203.0.113.9"))
    assert await rig.value("SELECT count(*) FROM event") == engagement.MOST_HITS


async def test_the_trap_over_the_web(rig: Rig, mail: int) -> None:
    signer = rig.runtime.signer
    rig.clock.advance(hours=1)
    transport = httpx.ASGITransport(app=application(rig.runtime), client=("203.0.113.80", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as web:
        await click(rig, mail, A)
        path = f"/t/{signer.token('click', mail)}"
        answer = await web.get(path, headers={"User-Agent": FIREFOX.agent})
        assert (answer.status_code, "location" in answer.headers) == (200, False)
        assert (await web.head(path)).status_code == 200
        assert (await web.get(f"/t/{signer.token('open', mail)}")).status_code == 404
    assert await verdicts(rig) == [("clicked", A, True), ("clicked", None, True)]


async def test_raw_and_human_stand_side_by_side_on_the_page(rig: Rig, mail: int) -> None:
    transport = httpx.ASGITransport(app=application(rig.runtime))
    rig.clock.advance(hours=1)
    await open_(rig, mail, APPLE)
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as web:
        assert (await web.get("/status.json")).json()["results"] == {"opened": 0, "opened_raw": 1}
        assert "opened_raw" in (await web.get("/")).text
