"""Each opt-out is owed to every system that knows the person, until that system confirms it; what is late is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from hub.clock import ManualClock
from hub.jobs import consent as people
from hub.store import consent, obligations
from hub.web.app import application
from tests.support.rig import HUB_YAML, Rig

STATUSES = "/communication-preferences/v4/statuses"


@pytest.fixture
def hub_yaml() -> str:
    return HUB_YAML.replace(
        '  news: {{title: News, subscriptions: {{crm: "730001"}}}}\n',
        '  news: {{title: News, subscriptions: {{crm: "730001"}}}}\n  tips: {{title: Tips, subscriptions: {{crm: "730002"}}}}\n'
        "  shop: {{title: Orders}}\n",
    )


@pytest.fixture
async def ann(rig: Rig) -> Rig:
    """Ann is known to the CRM, Bob to the hub alone."""
    with rig.hubspot.account.lock:
        for number, name in ((730001, "News"), (730002, "Tips")):
            rig.hubspot.account.preferences.define(number, name, name, rig.hubspot.account.now_ms())
    rig.hubspot.create("contacts", {"email": "ann@example.com"})
    await rig.run("pull:contacts")
    async with rig.runtime.db.transaction() as conn:
        await conn.execute("INSERT INTO contact (email, changed_at) VALUES ('bob@example.com', now())")
    return rig


async def withdraw(rig: Rig, email: str, purpose: str) -> None:
    await people.record(rig.runtime, email, purpose, granted=False, source="phone", proof="call 7", at=None)


async def owed(rig: Rig) -> list[tuple[Any, ...]]:
    found = (await people.clock(rig.runtime, everything=True, limit=99))["obligations"]
    return [(o["connection"], o["purpose"], o["state"], o["overdue"]) for o in found]


async def again(rig: Rig) -> None:
    """Time passes on the database's clock, too."""
    async with rig.runtime.db.transaction() as conn:
        await conn.execute("UPDATE outbox SET due_at = now() - interval '1 s' WHERE state = 'queued'")
    await rig.run("push")


def there(rig: Rig, email: str = "ann@example.com") -> dict[int, str]:
    return {number: s.state for number, s in rig.hubspot.account.preferences.statuses.get(email, {}).items()}


async def test_an_opt_out_is_owed_in_the_transaction_that_records_it_and_closed_by_the_answer(
    ann: Rig, clock: ManualClock
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with ann.runtime.db.transaction() as conn:
            said = consent.Statement("ann@example.com", "news", "out", "phone", clock.now())
            await consent.record(conn, [said])
            assert await obligations.sums(conn, now=clock.now()) == {
                "confirmed": 0,
                "open": 1,
                "overdue": 0,
                "late": 0,
            }
            raise ZeroDivisionError
    assert await owed(ann) == []
    await withdraw(ann, "Ann@example.com", "news")
    assert await owed(ann) == [("crm", "news", "waiting", False)]
    row = (await people.clock(ann.runtime, everything=True, limit=9))["obligations"][0]
    assert (row["said_at"], row["due_at"]) == (clock.now(), clock.now() + timedelta(hours=48))
    await ann.run("push")
    assert await owed(ann) == [("crm", "news", "confirmed", False)]
    assert there(ann) == {730001: "UNSUBSCRIBED"}
    assert await ann.rows("SELECT confirmed_at FROM consent_clock") == [(clock.now(),)]


async def test_all_purposes_at_once_and_only_who_can_be_told(ann: Rig) -> None:
    await withdraw(ann, "ann@example.com", "*")
    await withdraw(ann, "ann@example.com", "shop")  # no subscription there
    await withdraw(ann, "bob@example.com", "*")  # unknown there
    await withdraw(ann, "nobody@example.com", "*")
    assert await owed(ann) == [("crm", "news", "waiting", False), ("crm", "tips", "waiting", False)]
    await ann.run("push")
    assert there(ann) == {730001: "UNSUBSCRIBED", 730002: "UNSUBSCRIBED"}


async def test_what_a_system_said_itself_is_not_told_back_and_nothing_twice(
    ann: Rig, clock: ManualClock
) -> None:
    ann.hubspot.opt_out("ann@example.com")
    await ann.run("pull:contacts")
    assert await ann.rows("SELECT purpose, source FROM consent") == [("*", "crm")]
    assert await owed(ann) == []
    await withdraw(ann, "ann@example.com", "news")
    clock.advance(hours=1)
    await withdraw(ann, "ann@example.com", "news")
    assert await owed(ann) == [("crm", "news", "waiting", False)]
    # Who came back and leaves again is owed anew.
    clock.advance(hours=1)
    await people.record(
        ann.runtime, "ann@example.com", "news", granted=True, source="form", proof="form 2", at=None
    )
    clock.advance(hours=1)
    await withdraw(ann, "ann@example.com", "news")
    assert len(await owed(ann)) == 2


async def test_a_crm_that_refuses_for_long_is_asked_on_and_told_as_overdue(
    ann: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    ann.hubspot.faults.plan("status", status=503, times=10_000, path=STATUSES)
    await withdraw(ann, "ann@example.com", "news")
    await ann.run("push")
    for _ in range(11):
        clock.advance(hours=4)
        await again(ann)
        assert await owed(ann) == [("crm", "news", "waiting", False)]
    clock.advance(hours=5)
    await again(ann)
    (row,) = (await people.clock(ann.runtime, everything=False, limit=9))["obligations"]
    assert (row["state"], row["overdue"], row["attempts"], row["code"]) == ("waiting", True, 13, "SERVER")
    assert (
        row["do"]
        == "`hub connections test crm`; it is tried on. Until it is taken, opt them out there by hand"
    )
    transport = httpx.ASGITransport(app=application(ann.runtime))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as web:
        assert (await web.get("/status.json")).json()["opt_outs"] == {
            "confirmed": 0,
            "open": 1,
            "overdue": 1,
            "late": 0,
        }
        assert "1 opt-outs were not confirmed" in (await web.get("/")).text
    ann.hubspot.faults.planned.clear()
    await again(ann)
    assert there(ann) == {730001: "UNSUBSCRIBED"}
    found = await people.clock(ann.runtime, everything=True, limit=9)
    assert found["sums"] == {"confirmed": 1, "open": 0, "overdue": 0, "late": 1}
    assert found["obligations"][0]["do"] == ""


async def test_a_refusal_says_what_to_do_and_a_replay_closes_it(ann: Rig) -> None:
    with ann.hubspot.account.lock:
        del ann.hubspot.account.preferences.definitions[730001]
    await withdraw(ann, "ann@example.com", "news")
    await ann.run("push")
    (row,) = (await people.clock(ann.runtime, everything=False, limit=9))["obligations"]
    assert row["state"] == "refused" and row["message"]
    assert row["do"].endswith("then `hub replay crm`")


async def test_hub_yaml_decides_who_is_told(ann: Rig) -> None:
    assert await ann.rows("SELECT connection, purpose, subscription, needs_contact FROM consent_target ORDER BY 2") == [
        ("crm", "news", "730001", True), ("crm", "tips", "730002", True),
    ]  # fmt: skip
    async with ann.runtime.db.transaction() as conn:
        await obligations.know(conn, [])
    await withdraw(ann, "ann@example.com", "news")
    assert await owed(ann) == []
