"""A mail that a person settles goes the same way as one that the relay answered for: the vendors are told, or it is sent."""

from __future__ import annotations

from hub.jobs import decisions
from tests.support.rig import Rig


async def uncertain(rig: Rig) -> int:
    rig.hubspot.create("contacts", {"email": "ann@example.com", "firstname": "Ann", "city": "Berlin"})
    await rig.run("pull:contacts")
    return int(
        await rig.value(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, subject, relay, attempts, queued_at)
               SELECT 'hello', id, 'a', 'news', email, 'uncertain', 'Hello Ann', 'main', 1, now() FROM contact RETURNING id"""
        )
    )


async def test_as_accepted_the_crm_is_told(rig: Rig) -> None:
    id = await uncertain(rig)
    await decisions.settle(rig.runtime, [id], "accepted", because="in the relay's log", by="Ann")
    await rig.run("results")
    pushes = await rig.rows("SELECT connection, kind, payload ->> 'kind' FROM outbox")
    assert pushes == [("crm", "result", "sent")]
    await decisions.settle(rig.runtime, [id], "accepted", because="again", by="Ann")
    await rig.run("results")
    assert len(await rig.rows("SELECT 1 FROM outbox")) == 1


async def test_as_queued_it_is_offered_again_and_only_then(rig: Rig) -> None:
    id = await uncertain(rig)
    await rig.run("mail")
    assert await rig.rows("SELECT state, attempts FROM delivery") == [("uncertain", 1)]
    await decisions.settle(rig.runtime, [id], "queued", because="not in the relay's log", by="Ann")
    await rig.run("mail")  # its relay is closed: the mail waits to be offered again
    ((state, reason),) = await rig.rows("SELECT state, reason FROM delivery")
    assert state == "queued"
    assert "relay main" in reason
