"""Deals of HubSpot with several contacts: each in the roles that the account's own labels say, from the first load on."""

from __future__ import annotations

from hub.jobs.answers import about
from hub.rules import parse
from hub.store import ledger, lists
from tests.support.rig import Rig


async def who(rig: Rig, rule: str) -> list[str]:
    async with rig.runtime.db.connection() as conn:
        found = await lists.some(conn, parse(rule, rig.runtime.catalog), rig.clock.now(), 10)
        return [each["name"] for each in found]


async def test_roles_are_known_from_the_first_load_and_follow_what_changes(rig: Rig) -> None:
    account = rig.hubspot.account
    decides, pays = (
        account.links.define("deals", "contacts", word) for word in ("Decision maker", "Billing")
    )
    ann, bob = (
        rig.hubspot.create("contacts", {"email": f"{n}@example.com", "firstname": n}) for n in ("ann", "bob")
    )
    deal = rig.hubspot.create("deals", {"dealname": "Roof", "dealstage": "appointmentscheduled"})
    account.links.add("deals", deal.number, "contacts", ann.number, [decides, pays])
    account.links.add("deals", deal.number, "contacts", bob.number, [3])
    await rig.run("pull:contacts", "pull:deals")
    assert await who(rig, "has_deal(role => 'decision MAKER')") == ["ann"]
    assert await who(rig, "has_deal(stage = 'trial' AND role IN ('Billing', 'Champion'))") == ["ann"]
    assert await who(rig, "has_deal('trial')") == ["ann", "bob"]
    assert (await rig.last_run())["counts"]["created"] == 1

    rig.clock.advance(minutes=10)
    await rig.run("pull:deals")
    assert (await rig.last_run())["counts"].get("changed") is None  # a search tells what the page told

    account.links.add("deals", deal.number, "contacts", bob.number, [decides])
    rig.hubspot.edit("deals", deal.id, {"amount": "5"})
    await rig.run("pull:deals")
    assert await who(rig, "has_deal(role => 'Decision maker', amount_over => 4)") == ["ann", "bob"]

    (story,) = await about(rig.runtime, "ann@example.com")
    assert [(d["name"], d["role"]) for d in story["deals"]] == [("Roof", "Billing, Decision maker")]
    async with rig.runtime.db.connection() as conn:
        people = await ledger.people(conn, [story["contact"]["id"]], {"email"}, deals=True)
    (seen,) = people[story["contact"]["id"]][1]  # once, although in two roles
    assert (seen["name"], seen["roles"]) == ("Roof", ["Billing", "Decision maker"])


async def test_a_deal_that_was_merged_away_is_nobodys(rig: Rig) -> None:
    ann = rig.hubspot.create("contacts", {"email": "ann@example.com", "firstname": "ann"})
    made = [
        rig.hubspot.create("deals", {"dealname": name, "dealstage": "appointmentscheduled"})
        for name in ("Roof", "Roof 2")
    ]
    for deal in made:
        rig.hubspot.account.links.add("deals", deal.number, "contacts", ann.number, [3])
    await rig.run("pull:contacts", "pull:deals")
    both = rig.hubspot.merge("deals", made[0].id, made[1].id)
    rig.clock.advance(minutes=10)
    await rig.run("pull:deals")
    assert await rig.rows("SELECT external_id FROM contact_deal") == [(both.id,)]
    assert (await rig.last_run())["counts"]["gone"] == 2
    rig.clock.advance(hours=2)
    await rig.run("pull:deals")
    assert await rig.rows("SELECT external_id FROM contact_deal") == [(both.id,)]
