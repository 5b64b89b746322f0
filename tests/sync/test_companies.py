"""Companies from HubSpot to lists, mails and answers: what changes there is seen by those who belong to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.hubspot.records import Record
from contracts.hubspot.sandbox import HubSpotSandbox
from hub import lists
from hub.clock import ManualClock
from hub.jobs import lists as list_jobs
from hub.jobs import preview
from hub.jobs.answers import about
from tests.support.rig import HUB_YAML, Rig, opened

YAML = (
    HUB_YAML.replace("pull: [contacts, deals, segments]", "pull: [contacts, companies, deals, segments]")
    .replace("city = 'Berlin'", "company.industry = 'retail'")
    .replace("  berlin:", "  advised: {{where: \"has_company(industry = 'retail' AND role = 'Adviser')\"}}\n  berlin:")
    .replace("Hello {{{{ contact.first_name or 'there' }}}}", "Hello {{{{ company.name or 'you' }}}}")
)  # fmt: skip
PLAIN, PRIMARY = 280, 2


class World:
    def __init__(self, rig: Rig) -> None:
        self.rig, self.hubspot = rig, rig.hubspot
        self.adviser = rig.hubspot.account.links.define("companies", "contacts", "Adviser")

    def person(self, name: str) -> Record:
        return self.hubspot.create("contacts", {"email": f"{name}@example.com", "firstname": name})

    def firm(self, name: str, industry: str, *people: tuple[Record, int]) -> Record:
        made = self.hubspot.create("companies", {"name": name, "industry": industry})
        for person, kind in people:
            self.link(made, person, kind)
        return made

    def link(self, firm: Record, person: Record, kind: int) -> None:
        with self.hubspot.account.lock:
            self.hubspot.account.links.add("companies", firm.number, "contacts", person.number, [kind])

    async def pull(self) -> None:
        self.rig.clock.advance(minutes=10)
        await self.rig.run("pull:contacts", "pull:companies", "pull:deals", "pull:segments")

    async def members(self, name: str = "berlin") -> set[str]:
        await self.rig.run("lists")
        rows = await self.rig.rows(
            """SELECT c.first_name FROM list_member m JOIN list l ON l.id = m.list_id JOIN contact c ON c.id = m.contact_id
               WHERE l.name = %s""",
            name,
        )
        return {row[0] for row in rows}

    async def looked_at(self) -> dict[str, int | None]:
        return {r.name: r.looked_at for r in await list_jobs.refresh(self.rig.runtime)}


@pytest.fixture
async def world(
    tmp_path: Path, clock: ManualClock, hubspot: HubSpotSandbox, database_url: str, redis_url: str
) -> AsyncIterator[World]:
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, yaml=YAML
    ) as rig:
        yield World(rig)


async def test_lists_follow_the_main_company_and_roles_and_look_at_nobody_else(world: World) -> None:
    ann, bob, cid = (world.person(name) for name in ("ann", "bob", "cid"))
    shop = world.firm("Shop", "RETAIL", (ann, PRIMARY), (bob, world.adviser))
    bank = world.firm("Bank", "BANKING", (bob, PRIMARY), (cid, PRIMARY))
    await world.pull()
    assert await world.members() == {"ann"}
    assert await world.members("advised") == {"bob"}

    world.rig.clock.advance(minutes=1)
    world.hubspot.edit("companies", bank.id, {"industry": "RETAIL"})
    await world.pull()
    assert await world.looked_at() == {"advised": 2, "berlin": 2}  # bob and cid
    assert await world.members() == {"ann", "bob", "cid"}

    world.hubspot.archive("companies", shop.id)
    world.rig.clock.advance(hours=1)  # archived records are looked for once an hour
    await world.pull()
    assert await world.members() == {"bob", "cid"}
    assert await world.members("advised") == set()


async def test_a_list_waits_for_companies_and_every_part_of_the_page_tells_roles(world: World) -> None:
    world.firm("Shop", "RETAIL", (world.person("ann"), world.adviser))
    await world.rig.run("pull:contacts", "lists")
    refreshed = {r.name: r for r in await list_jobs.refresh(world.rig.runtime)}
    assert refreshed["berlin"].waits_for == ("crm/companies",)
    await world.rig.run("pull:companies")
    assert await world.members("advised") == {"ann"}  # the first load already knows the label


async def test_a_company_of_many_is_read_to_its_end(world: World) -> None:
    people = [world.person(f"p{n}") for n in range(620)]  # the vendor gives 500 links at a time
    world.firm("Shop", "RETAIL", *((person, PRIMARY) for person in people))
    await world.pull()
    assert len(await world.members()) == 620


async def test_a_merge_and_a_webhook(world: World) -> None:
    ann = world.person("ann")
    one, two = world.firm("Shop", "RETAIL", (ann, PRIMARY)), world.firm("Shop again", "RETAIL")
    await world.pull()
    both = world.hubspot.merge("companies", one.id, two.id)
    await world.pull()
    assert await world.members() == {"ann"}
    states = await world.rig.rows("SELECT external_id, state FROM company ORDER BY external_id::int")
    assert states == [(one.id, "merged"), (two.id, "merged"), (both.id, "live")]

    world.hubspot.edit("companies", both.id, {"industry": "BANKING"})
    await world.rig.rows(
        """INSERT INTO inbox (connection, event_key, object, external_id, action, received_at)
           VALUES ('crm', 'e1', 'company', %s, 'changed', now()) RETURNING id""",
        both.id,
    )
    await world.rig.run("inbox")
    assert await world.members() == set()
    assert await world.rig.value("SELECT state FROM inbox") == "done"


async def test_what_is_told_of_it(world: World) -> None:
    ann = world.person("ann")
    shop = world.firm("Shop", "RETAIL", (ann, PRIMARY))
    await world.pull()
    await world.members()
    (found,) = await list_jobs.why(world.rig.runtime, "berlin", "ann@example.com")
    (condition,) = found["conditions"]
    (value,) = condition["values"]
    run = await world.rig.value("SELECT id FROM run WHERE stream = 'companies'")
    assert (value["what"], value["value"], value["source"], value["run"]) == (
        "company.industry",
        "retail",
        "crm",
        run,
    )
    (found,) = await list_jobs.why(world.rig.runtime, "advised", "ann@example.com")
    assert found["conditions"][0]["values"][0]["what"] == "company Shop"
    assert found["conditions"][0]["values"][0]["value"] == "retail, primary"

    async with world.rig.runtime.db.connection() as conn:
        story = await _about(world, "ann@example.com")
        assert [(c["external_id"], c["name"], c["primary"]) for c in story["companies"]] == [
            (shop.id, "Shop", True)
        ]
        rule = lists.compiled("berlin", world.rig.runtime.settings.lists["berlin"], world.rig.runtime.catalog)
        assert await lists.why(conn, "berlin", rule, story["contact"], world.rig.clock.now())


async def _about(world: World, email: str) -> dict[str, Any]:
    (found,) = await about(world.rig.runtime, email)
    return found


async def test_mails_name_the_main_company(world: World) -> None:
    ann, bob = world.person("ann"), world.person("bob")
    world.firm("Shop & Co", "RETAIL", (ann, PRIMARY))
    await world.pull()
    await world.members()
    found = await preview.for_contact(world.rig.runtime, "hello", "ann@example.com")
    assert found["subject"] == "Hello Shop & Co"
    assert {"field": "company.name", "value": "Shop & Co", "blank": False, "seen_to": True} in found["fields"]
    found = await preview.for_contact(world.rig.runtime, "hello", bob.properties["email"])
    assert found["subject"] == "Hello you"
    found = await preview.for_list(world.rig.runtime, "hello", "berlin")
    assert {f["field"]: f["blank"] for f in found["fields"]}["company.name"] == 0
