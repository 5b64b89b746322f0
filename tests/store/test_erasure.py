"""A person's data as one document, and its end: nothing of them in any column of any table, and nobody takes them in again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.cli.place import plain
from hub.clock import ManualClock
from hub.errors import HubError
from hub.jobs import consent as words
from hub.jobs import erasure
from hub.model import ResultKind
from hub.store import consent, events, persons
from hub.store.decisions import Decision, lift, record
from tests.support.rig import HUB_YAML, Rig

EMAIL, OTHER = "zephyrine@quandt.example", "z.quandt@old.example"
TRACES = ("zephyrine", "quandt", "xylograph", "4420 777")
"""Of the person: names, addresses, the company, a phone number."""


@pytest.fixture
def hub_yaml() -> str:
    yaml = HUB_YAML.replace(
        "sync:\n",
        "  ga: {{connector: google_analytics, measurement_id: G-ABCDEFGH12, api_secret: x}}\nsync:\n",
        1,
    )
    return yaml.replace("api_secret: x", 'api_secret: "${{HUBSPOT_TOKEN}}"')


async def everywhere(rig: Rig) -> dict[str, list[str]]:
    """table.column -> which traces of the person it holds."""
    found: dict[str, list[str]] = {}
    columns = await rig.rows(
        """SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t
           USING (table_schema, table_name) WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"""
    )
    for table, column in columns:
        for trace in TRACES:
            text = f"""lower(CASE WHEN pg_typeof("{column}") = 'bytea'::regtype
                              THEN encode("{column}"::text::bytea, 'escape') ELSE "{column}"::text END)"""
            query = f'SELECT EXISTS (SELECT FROM "{table}" WHERE strpos({text}, %s) > 0)'
            if await rig.value(query, trace):
                found.setdefault(f"{table}.{column}", []).append(trace)
    return found


@pytest.fixture
async def lived(rig: Rig, clock: ManualClock) -> AsyncIterator[Rig]:
    """A person with a long story, and another one beside them."""
    with rig.hubspot.account.lock:
        rig.hubspot.account.preferences.define(730001, "News", "News", rig.hubspot.account.now_ms())
    values = {
        "email": EMAIL, "firstname": "Zephyrine", "lastname": "Quandt", "company": "Xylograph", "phone": "+43 4420 777",
        "city": "Berlin", "hs_additional_emails": OTHER,
    }  # fmt: skip
    person = rig.hubspot.create("contacts", values)
    rig.hubspot.create("contacts", {"email": "ann@example.com", "firstname": "Ann", "city": "Berlin"})
    await rig.run("pull:contacts", "lists", "funnels")
    now = clock.now()
    async with rig.runtime.db.transaction() as conn:
        await conn.execute(
            'UPDATE contact SET fields = \'{"note": "knows Quandt"}\' WHERE email = %s', [EMAIL]
        )
        await conn.execute(
            """WITH d AS (INSERT INTO deal (connection, external_id, name, stage, changed_at, content_hash) VALUES
                          ('crm', 'd1', 'Quandt - trial', 'trial', now(), 'h'), ('crm', 'd2', 'Big one', 'trial', now(), 'h')
                          RETURNING id, external_id)
               INSERT INTO deal_contact SELECT id, 'crm', %s, '' FROM d
               UNION SELECT id, 'crm', '77', '' FROM d WHERE external_id = 'd2'""",
            [person.id],
        )
        await conn.execute(
            """UPDATE delivery SET email = c.email, subject = 'Hello ' || c.first_name, state = 'accepted', sent_at = %s,
                   reply_text = '250 ok ' || c.email FROM contact c WHERE c.id = delivery.contact_id""",
            [now],
        )
        (delivery,) = await (
            await conn.execute("SELECT id FROM delivery WHERE email = %s", [EMAIL])
        ).fetchone() or (0,)
        detail = {"link": f"https://x.example/?e={EMAIL}", "user_agent": "Zephyrine's phone"}
        await events.record(
            conn, events.Evidence(delivery, ResultKind.CLICKED, now, "web", "k1", detail), now=now
        )
        bounce = {"class": "policy", "reason": f"<{EMAIL}> refused"}
        await events.record(
            conn, events.Evidence(delivery, ResultKind.BOUNCED, now, "dsn", "k2", bounce), now=now
        )
        await events.keep_report(conn, "r1", "bounced", delivery, bounce, now=now)
        proof = "asked at the fair, says Zephyrine Quandt"
        await consent.record(conn, [consent.Statement(EMAIL, "news", "in", "admin", now, proof=proof)])
        await record(conn, Decision("suppressed", "Quandt called", "me", now, email=EMAIL))
        await conn.execute(
            """INSERT INTO inbox (connection, event_key, object, external_id, action, payload, received_at, body) VALUES
               ('crm', 'e1', 'contact', %s, 'changed', jsonb_build_object('mail', %s::text), %s, NULL),
               ('crm', 'e2', '', '', 'unread', '{}', %s, convert_to('<mail>' || %s || '</mail>', 'UTF8'))""",
            [person.id, EMAIL, now, now, EMAIL],
        )
        await conn.execute(
            """INSERT INTO run_reject (run_id, object, external_id, code, message, row, at)
               SELECT min(id), 'contact', %s, 'BAD', 'no ' || %s, '{"phone": "4420 777"}', %s FROM run""",
            [person.id, EMAIL, now],
        )
        await conn.execute("UPDATE run SET reason = 'refused ' || %s WHERE id = 1", [OTHER])
        await conn.execute(
            "INSERT INTO contact_identity VALUES ('ga', 'contact', 'g1', (SELECT id FROM contact WHERE email = %s), NULL, NULL,"
            ' \'live\', now(), \'{"first_name": {"v": "Zephyrine"}}\')',
            [EMAIL],
        )
        await conn.execute(
            "INSERT INTO list_import SELECT id, %s, NULL, now(), NULL FROM list LIMIT 1", [OTHER]
        )
    await rig.run("results")
    yield rig


async def test_everything_held_is_told(lived: Rig) -> None:
    found = await erasure.export(lived.runtime, OTHER)
    assert found["addresses"] == [OTHER, EMAIL]
    text = json.dumps(found, default=plain).lower()
    for trace in (
        *TRACES,
        "knows quandt",
        "says zephyrine",
        "250 ok",
        "zephyrine's phone",
        "quandt called",
        "big one",
    ):
        assert trace in text, trace
    assert "ann@example.com" not in text
    assert set(found["held"]) >= {
        "contact", "contact_address", "contact_identity", "contact_change", "deal", "list_member", "list_change", "list_import",
        "funnel_entry", "funnel_log", "delivery", "event", "report", "consent", "consent_verdict", "decision", "inbox", "outbox",
        "run_reject",
    }  # fmt: skip
    nobody = await erasure.export(lived.runtime, "nobody@example.com")
    assert (nobody["contacts"], nobody["held"]) == ([], {})
    with pytest.raises(HubError, match="no address"):
        await erasure.export(lived.runtime, "nobody")


async def test_every_table_is_known_to_hold_people_or_not(lived: Rig) -> None:
    tables = await lived.rows(
        """SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
           AND table_name NOT LIKE '%%yoyo%%'"""
    )
    assert {name for (name,) in tables} == set(persons.HELD) | persons.OF_NOBODY


async def test_what_would_be_done_is_said_and_not_done(lived: Rig) -> None:
    before = await everywhere(lived)
    planned = await erasure.plan(lived.runtime, EMAIL)
    assert planned["systems"] == [
        {"connection": "crm", "how": "by its API"},
        {"connection": "ga", "how": "by hand"},
    ]
    assert planned["rows"]["delivery"] == 1
    assert await everywhere(lived) == before != {}


async def sums(rig: Rig) -> list[tuple[Any, ...]]:
    return await rig.rows(
        """SELECT 'd ' || state, count(*) FROM delivery GROUP BY 1 UNION ALL SELECT 'e ' || kind, count(*) FROM event GROUP BY 1
           UNION ALL SELECT 'c', count(*) FROM contact ORDER BY 1"""
    )


async def test_nothing_is_left_but_hashes_and_sums(lived: Rig, clock: ManualClock) -> None:
    before = await sums(lived)
    found = await erasure.erase(lived.runtime, EMAIL, by="me")
    assert [(s["connection"], s["state"]) for s in found["systems"]] == [
        ("crm", "waiting"),
        ("ga", "by hand"),
    ]
    assert await everywhere(lived) == {}
    await lived.run("push")
    assert await everywhere(lived) == {}
    (found,) = await erasure.receipts(lived.runtime, EMAIL)
    assert [(s["connection"], s["state"]) for s in found["systems"]] == [("crm", "erased"), ("ga", "by hand")]
    with pytest.raises(KeyError):
        lived.hubspot.record("contacts", EMAIL)
    assert await lived.rows("SELECT payload FROM outbox WHERE kind = 'erase'") == [({},)]
    assert await sums(lived) == before
    await lived.run("lists", "funnels")
    assert await lived.rows("SELECT c.email FROM list_member m JOIN contact c ON c.id = m.contact_id") == [
        ("ann@example.com",)
    ]
    assert await lived.rows("SELECT name FROM deal ORDER BY external_id") == [(None,), ("Big one",)]
    assert await lived.value("SELECT detail FROM event WHERE kind = 'bounced'") == {"class": "policy"}
    # What was said is still known, by the hash alone; and nothing can be sent there.
    shown = await words.show(lived.runtime, EMAIL)
    assert [(e["purpose"], e["proof"]) for e in shown["entries"]] == [("news", "(erased)")]
    assert shown["suppressed"][0]["reason"] == "erased at the person's request"


async def test_who_was_erased_is_not_taken_in_again(lived: Rig, clock: ManualClock) -> None:
    await erasure.erase(lived.runtime, EMAIL, by="me")
    # The CRM still has the record; then somebody there makes another one of the same address.
    clock.advance(minutes=5)
    lived.hubspot.edit("contacts", EMAIL, {"city": "Graz"})
    lived.hubspot.create("contacts", {"email": "new@example.com", "firstname": "New"})
    await lived.run("pull:contacts")
    counts = (await lived.last_run())["counts"]
    assert (counts["erased"], counts["created"]) == (1, 1)
    lived.hubspot.archive("contacts", EMAIL)
    lived.hubspot.create("contacts", {"email": EMAIL, "firstname": "Zephyrine"})
    clock.advance(minutes=5)
    await lived.run("pull:contacts")
    assert (await lived.last_run())["counts"]["erased"] >= 1
    assert await everywhere(lived) == {}
    assert await lived.value("SELECT count(*) FROM contact WHERE email IS NOT NULL") == 2
    async with lived.runtime.db.transaction() as conn:
        await lift(conn, EMAIL, because="came back", by="me", now=clock.now())
    lived.hubspot.edit("contacts", EMAIL, {"city": "Linz"})
    clock.advance(minutes=5)
    await lived.run("pull:contacts")
    assert await lived.value("SELECT count(*) FROM contact WHERE email = %s", EMAIL) == 1


async def test_a_system_that_refuses_is_asked_on(
    lived: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    lived.hubspot.faults.plan("status", status=503, times=99, path="gdpr-delete")
    await erasure.erase(lived.runtime, EMAIL, by="me")
    for _ in range(10):
        async with lived.runtime.db.transaction() as conn:
            await conn.execute("UPDATE outbox SET due_at = now() - interval '1 s' WHERE state = 'queued'")
        await lived.run("push")
    (found,) = await erasure.receipts(lived.runtime, None)
    assert found["systems"][0]["state"] == "waiting" and found["systems"][0]["code"] == "SERVER"
    lived.hubspot.faults.planned.clear()
    async with lived.runtime.db.transaction() as conn:
        await conn.execute("UPDATE outbox SET due_at = now() - interval '1 s' WHERE state = 'queued'")
    await lived.run("push")
    assert (await erasure.receipts(lived.runtime, EMAIL))[0]["systems"][0]["state"] == "erased"


async def test_who_is_unknown_is_kept_from_ever_getting_mail(rig: Rig) -> None:
    found = await erasure.erase(rig.runtime, "nobody@example.com", by="me")
    assert found["systems"] == []
    assert (await words.show(rig.runtime, "nobody@example.com"))["suppressed"]
