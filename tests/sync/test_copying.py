"""Two HubSpot accounts that know the same people: what is said in one is written into the other, and both come to rest."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contracts.hubspot.records import Record
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from hub.jobs import plan, stages
from hub.jobs import runtime as runtimes
from hub.jobs.answers import about
from hub.jobs.runtime import Runtime
from tests.support.rig import KEY, hubspot_account

YAML = """\
connections:
  crm: {{connector: hubspot, base_url: {crm}, token: "${{TOKEN}}", mapping: crm.yaml}}
  sales: {{connector: hubspot, base_url: {sales}, token: "${{TOKEN}}", mapping: sales.yaml}}
sync:
  crm: {{every: 5m, pull: [contacts], push: [fields]}}
  sales: {{every: 5m, pull: [contacts], push: [fields]}}
"""
CRM = """\
contact:
  company: {authority: crm}
  phone: {authority: [sales, crm]}
  last_name: {on_blank: clear}
  lifecycle: {direction: pull}
"""
SALES = "contact:\n  last_name: {on_blank: clear}\n  lifecycle: {direction: pull}\n"
FIELDS = {
    "first_name": "firstname", "last_name": "lastname", "company": "company", "job_title": "jobtitle", "phone": "phone",
    "city": "city",
}  # fmt: skip


@dataclass
class Worlds:
    runtime: Runtime
    clock: ManualClock
    crm: HubSpotSandbox
    sales: HubSpotSandbox
    words: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    @property
    def sides(self) -> dict[str, HubSpotSandbox]:
        return {"crm": self.crm, "sales": self.sales}

    def put(self, email: str, **values: str) -> None:
        """The same person in both accounts; values of the CRM."""
        self.crm.create("contacts", {"email": email, **values})
        self.sales.create("contacts", {"email": email})

    async def sync(self, *, full: bool = False, minutes: int = 70) -> None:
        self.clock.advance(minutes=minutes)  # archived records are looked for once an hour
        await stages.sync_now(self.runtime, None, full=full, push_too=True)

    def writes(self) -> int:
        """Calls that wrote into either account so far."""
        return sum(
            side.faults.count(path, method) for side in self.sides.values()
            for path, method in (("/batch/update", ""), ("", "PATCH"), ("", "PUT"), ("", "DELETE"))
        )  # fmt: skip

    def value(self, side: str, email: str, name: str) -> str:
        return self.sides[side].record("contacts", email).properties.get(FIELDS[name], "")

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.runtime.db.connection() as conn:
            return list(await (await conn.execute(query.encode(), values or None)).fetchall())


@pytest.fixture
def sales(clock: ManualClock) -> Iterator[HubSpotSandbox]:
    with hubspot_account(clock) as served:
        yield served


@pytest.fixture
async def worlds(
    tmp_path: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    sales: HubSpotSandbox,
    database_url: str,
    redis_url: str,
) -> AsyncIterator[Worlds]:
    sales.account.objects["contacts"].next_number = 50_001
    (tmp_path / "hub.yaml").write_text(YAML.format(crm=hubspot.url, sales=sales.url))
    (tmp_path / "crm.yaml").write_text(CRM)
    (tmp_path / "sales.yaml").write_text(SALES)
    environ = {
        "TOKEN": hubspot.token, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY,
    }  # fmt: skip
    async with runtimes.opened(tmp_path / "hub.yaml", environ, clock=clock) as runtime:
        yield Worlds(runtime, clock, hubspot, sales)


async def test_a_change_is_written_into_the_other_system_and_its_echo_is_no_news(worlds: Worlds) -> None:
    worlds.put("ann@example.com", firstname="Ann", city="Graz", company="One")
    await worlds.sync()
    assert [worlds.value("sales", "ann@example.com", n) for n in ("first_name", "city", "company")] == [
        "Ann",
        "Graz",
        "One",
    ]
    before = worlds.writes()
    await worlds.sync()
    await worlds.sync(full=True)
    assert worlds.writes() == before

    worlds.clock.advance(minutes=1)
    worlds.sales.edit("contacts", "ann@example.com", {"city": "Linz", "company": "Two"})
    await worlds.sync()
    assert worlds.value("crm", "ann@example.com", "city") == "Linz"
    assert worlds.value("sales", "ann@example.com", "company") == "One"  # the CRM has authority over it
    await worlds.sync()
    assert worlds.writes() == before + 2
    changes = await worlds.rows(
        "SELECT connection, diff FROM contact_change WHERE kind = 'changed' AND diff ? 'city'"
    )
    assert changes == [("sales", {"city": ["Graz", "Linz"]})]


async def test_blanks_follow_the_policy_and_a_later_word_of_the_copied_into_counts(worlds: Worlds) -> None:
    worlds.put("ann@example.com", firstname="Ann", lastname="Lee", city="Graz")
    await worlds.sync()
    worlds.clock.advance(minutes=1)
    worlds.sales.edit("contacts", "ann@example.com", {"city": "", "lastname": ""})
    await worlds.sync()
    assert worlds.value("sales", "ann@example.com", "city") == "Graz"  # a blank says nothing: it is filled
    assert worlds.value("crm", "ann@example.com", "last_name") == ""  # here it clears
    worlds.crm.edit("contacts", "ann@example.com", {"city": "Wien"})
    await worlds.sync()
    assert worlds.value("sales", "ann@example.com", "city") == "Wien"


async def test_the_plan_shows_it_and_a_system_that_takes_no_fields_gets_none(worlds: Worlds) -> None:
    worlds.put("ann@example.com", firstname="Ann")
    found = await plan.plan(worlds.runtime, pull=True, samples=3)
    (write,) = found["writes"]
    assert (write["connection"], write["kind"], write["count"]) == ("sales", "field", 1)
    assert '"first_name": "Ann"' in write["samples"][0]
    assert worlds.writes() == 0
    worlds.runtime.copied.pop("sales")
    await worlds.sync()
    assert worlds.writes() == 0


async def test_what_keeps_changing_back_rests_with_a_reason(worlds: Worlds) -> None:
    worlds.put("ann@example.com", firstname="Ann", city="Graz")
    for _ in range(8):  # somebody's workflow in the other system sets it back at once
        await worlds.sync(minutes=10)
        worlds.sales.edit("contacts", "ann@example.com", {"company": "Workflow"})
        worlds.crm.edit("contacts", "ann@example.com", {"company": "One"})
    written = worlds.writes()
    worlds.clock.advance(minutes=1)
    worlds.sales.edit("contacts", "ann@example.com", {"company": "Workflow", "city": "Linz"})
    await worlds.sync()
    assert worlds.value("sales", "ann@example.com", "company") == "Workflow"
    assert worlds.value("crm", "ann@example.com", "city") == "Linz"  # other fields go on
    assert worlds.writes() == written + 1
    (run,) = await worlds.rows("SELECT id, state FROM run WHERE kind = 'copy'")
    assert run[1] == "partial"
    (row,) = await worlds.rows("SELECT code, message, fix FROM run_reject WHERE run_id = %s", run[0])
    assert row[0] == "PING_PONG"
    assert (
        "company keeps changing back at sales: the same value was written 5 times within six hours" in row[1]
    )
    (story,) = await about(worlds.runtime, "ann@example.com")
    assert [(r["connection"], r["field"]) for r in story["resting"]] == [("sales", "company")]
    worlds.clock.advance(days=2)
    await worlds.sync(full=True)
    assert worlds.value("sales", "ann@example.com", "company") == "One"


async def test_what_a_system_refuses_is_not_offered_again(worlds: Worlds) -> None:
    worlds.put("ann@example.com", firstname="Ann")
    store = worlds.sales.account.store("contacts")
    store.properties["firstname"].read_only = True
    await worlds.sync()
    await worlds.sync(full=True)
    assert await worlds.rows("SELECT state, count(*) FROM outbox GROUP BY 1") == [("dead", 1)]


def observe(worlds: Worlds) -> None:
    """The oracle: what the records say, with the time that a pull would give to it."""
    for side, hubspot in worlds.sides.items():
        for record in hubspot.account.store("contacts").live.values():
            for name, theirs in FIELDS.items():
                key, value = (side, record.properties["email"], name), record.properties.get(theirs, "")
                if value == worlds.seen.get(key, ""):
                    continue
                if value or name == "last_name":
                    worlds.words[key] = (value, record.updated_ms)


def remember(worlds: Worlds) -> None:
    for side, hubspot in worlds.sides.items():
        for record in hubspot.account.store("contacts").live.values():
            for name, theirs in FIELDS.items():
                worlds.seen[side, record.properties["email"], name] = record.properties.get(theirs, "")


def expected(worlds: Worlds, email: str, name: str) -> str:
    said = {
        side: worlds.words[side, email, name] for side in worlds.sides if (side, email, name) in worlds.words
    }
    if not said:
        return ""
    first = {"company": ["crm"], "phone": ["sales", "crm"]}.get(name, [])
    for side in first:
        if side in said:
            return said[side][0]
    return max(said.items(), key=lambda s: (s[1][1], s[0] == "crm"))[1][0]


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_500_deeds_on_both_sides_they_agree_and_nothing_is_written(
    worlds: Worlds, seed: int
) -> None:
    chance = random.Random(seed)
    people = [f"p{n}@example.com" for n in range(40)]
    for email in people:
        for hubspot in worlds.sides.values():
            if chance.random() < 0.9:
                values = {
                    theirs: f"{chance.randrange(9)}" for theirs in FIELDS.values() if chance.random() < 0.6
                }
                hubspot.create("contacts", {"email": email, **values})
    disturbed: set[str] = set()
    deeds = 0
    while deeds < 500:
        observe(worlds)
        await worlds.sync()
        remember(worlds)
        for _ in range(chance.randrange(20, 60)):
            deeds += 1
            worlds.clock.advance(seconds=chance.randrange(1, 90))
            disturbed |= deed(worlds, chance)
    for _ in range(3):
        observe(worlds)
        await worlds.sync()
        remember(worlds)
    before = worlds.writes()
    await worlds.sync()
    await worlds.sync(full=True)
    assert worlds.writes() == before
    assert await worlds.rows("SELECT * FROM outbox WHERE state <> 'done'") == []
    assert await worlds.rows("SELECT * FROM copy_rest") == []

    agreed = 0
    held = await worlds.rows(
        """SELECT c.id, to_jsonb(c), i.connection, i.external_id FROM contact c JOIN contact_identity i ON i.contact_id = c.id
           WHERE i.state = 'live' AND c.id IN (SELECT contact_id FROM contact_identity WHERE state = 'live'
                                               GROUP BY 1 HAVING count(*) > 1)"""
    )
    for _, contact, side, ref in held:
        record = worlds.sides[side].record("contacts", ref)
        for name, theirs in FIELDS.items():
            assert record.properties.get(theirs, "") == (contact[name] or ""), (side, ref, name)
            agreed += 1
    assert agreed > 200
    sure = 0
    for email in set(people) - disturbed:
        if all(_there(hubspot, email) for hubspot in worlds.sides.values()):
            for name in FIELDS:
                assert worlds.value("crm", email, name) == expected(worlds, email, name), (email, name)
                sure += 1
    assert sure > 60


def deed(worlds: Worlds, chance: random.Random) -> set[str]:
    """Something that a person does in one account. Returns whose records came or went by it."""
    side = chance.choice(["crm", "sales"])
    hubspot = worlds.sides[side]
    live: list[Record] = list(hubspot.account.store("contacts").live.values())
    one = chance.choice(live)
    what = chance.random()
    if what < 0.02 and len(live) > 15:
        hubspot.archive("contacts", one.id)
        return {one.properties["email"]}
    if what < 0.04 and len(live) > 15:
        other = chance.choice([each for each in live if each is not one])
        emails = {one.properties["email"], other.properties["email"]}
        hubspot.merge("contacts", one.id, other.id)
        return emails
    value = "" if what < 0.2 else f"{side}-{chance.randrange(99)}"
    hubspot.edit("contacts", one.id, {chance.choice(list(FIELDS.values())): value})
    return set()


def _there(hubspot: HubSpotSandbox, email: str) -> bool:
    return hubspot.account.store("contacts").find(email, "email") is not None
