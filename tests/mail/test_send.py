"""Sending through a relay that fails in every way a relay can: the ledger, the relay's own books, and their sums."""

from __future__ import annotations

import email
import email.policy
import random
from collections import Counter
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from contracts.smtp.relay import RelaySandbox
from hub.clock import ManualClock
from hub.mail import send
from hub.mail.breaker import FAILURES
from tests.support.rig import HUB_YAML, Rig, opened

PATH = ("pull:contacts", "lists", "funnels", "mail")


def fill(rig: Rig, count: int) -> None:
    for n in range(count):
        rig.hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": "Berlin"})


async def states(rig: Rig) -> dict[str, int]:
    return dict(await rig.rows("SELECT state, count(*) FROM delivery GROUP BY state"))


async def send_later(rig: Rig) -> None:
    """As if the pauses between tries were over."""
    async with rig.runtime.db.transaction() as conn:
        await conn.execute("UPDATE delivery SET retry_at = clock_timestamp() WHERE state = 'queued'")
    await rig.run("mail")


async def test_everybody_gets_the_mail_once_and_a_second_round_sends_nothing(
    post: Rig, relay: RelaySandbox
) -> None:
    fill(post, 45)
    await post.run(*PATH)
    await post.run("lists", "funnels", "mail", *PATH)
    assert await states(post) == {"accepted": 45}
    relay.office.wait_drained(30)
    assert len(relay.office.deliveries) == 45
    assert len({d.recipient for d in relay.office.deliveries}) == 45
    assert all(d.secure for d in relay.office.deliveries)


@pytest.mark.parametrize(
    ("fault", "settings", "first", "finally_"),
    [
        ("reply", {"stage": "rcpt", "text": "450 4.2.1 Try later", "times": 3}, {"accepted": 7, "queued": 3}, {"accepted": 10}),
        ("reply", {"stage": "data", "text": "452 4.3.1 Full", "times": 2}, {"accepted": 8, "queued": 2}, {"accepted": 10}),
        ("reply", {"stage": "rcpt", "text": "550 5.1.1 No such user", "times": 2}, None, {"accepted": 8, "rejected": 2}),
        ("reply", {"stage": "mail", "text": "421 4.7.0 Too many", "times": 1}, None, {"accepted": 10}),
        ("drop", {"stage": "rcpt"}, None, {"accepted": 10}),
        ("drop", {"stage": "connect", "times": 4}, {"queued": 10}, {"accepted": 10}),
        ("drop_after_data", {"times": 2}, None, {"accepted": 8, "uncertain": 2}),
        ("lose_after_data", {"times": 1}, None, {"accepted": 9, "uncertain": 1}),
    ],
    ids=["greylisted", "full", "unknown users", "421", "dropped at RCPT", "dropped at once", "answer lost", "mail lost"],
)  # fmt: skip
async def test_a_faulty_relay(
    post: Rig,
    relay: RelaySandbox,
    fault: str,
    settings: dict[str, Any],
    first: dict[str, int] | None,
    finally_: dict[str, int],
) -> None:
    fill(post, 10)
    relay.faults.plan(fault, **settings)
    await post.run(*PATH)
    if first is not None:
        assert await states(post) == first
    for _ in range(3):
        await send_later(post)
    assert await states(post) == finally_
    taken = [d.recipient for d in relay.office.deliveries]
    assert len(taken) == len(set(taken))  # nobody got it twice
    told = {row[0] for row in await post.rows("SELECT email FROM delivery WHERE state = 'accepted'")}
    assert told <= set(taken)


async def test_a_storm_of_faults_loses_nothing_and_doubles_nothing(post: Rig, relay: RelaySandbox) -> None:
    fill(post, 200)
    dice = random.Random(20261124)
    for _ in range(25):
        kind = dice.choice(["reply", "drop", "drop_after_data", "lose_after_data", "drop_in_data"])
        stage = dice.choice(["mail", "rcpt", "data"])
        text = dice.choice(["451 4.3.0 Later", "421 4.3.2 Closing"])
        relay.faults.plan(kind, stage=stage, text=text, skip=dice.randrange(12))
    await post.run(*PATH)
    for _ in range(6):
        await send_later(post)
    found = await states(post)
    taken = Counter(d.recipient for d in relay.office.deliveries)
    assert max(taken.values()) == 1
    assert sum(found.values()) == 200
    assert set(found) <= {"accepted", "uncertain"}
    assert found["accepted"] <= len(taken) <= found["accepted"] + found["uncertain"]
    struck = sum(
        relay.faults.struck.get(k, 0) for k in ("drop_after_data", "lose_after_data", "drop_in_data", "drop")
    )
    assert found["uncertain"] <= struck


async def test_a_relay_that_fails_once_a_round_is_left_alone(post: Rig, relay: RelaySandbox) -> None:
    fill(post, 1)
    relay.faults.plan("drop", stage="connect", times=50)
    await post.run(*PATH)
    for _ in range(FAILURES - 1):
        assert await post.rows("SELECT count(*) FROM relay_state WHERE state = 'open'") == [(0,)]
        await send_later(post)
    assert await post.rows("SELECT relay FROM relay_state WHERE state = 'open'") == [("main",)]
    await send_later(post)
    assert relay.handler.connections == FAILURES


async def test_pipelining_that_was_lowered_rises_again_after_a_day(
    tmp_path: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    relay: RelaySandbox,
    database_url: str,
    redis_url: str,
) -> None:
    yaml = HUB_YAML.replace("{relay_ca}", "{relay_ca}, limits: {{connections: 1}}")
    levels = []
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, relay=relay, yaml=yaml
    ) as post:
        for n, hours in enumerate((0, 23, 2)):
            clock.advance(hours=hours)
            for m in range(60):
                post.hubspot.create("contacts", {"email": f"p{n}.{m}@example.com", "city": "Berlin"})
            await post.run(*PATH)
            levels += [(row[0], post.runtime.relays["main"].pipelining) for row in await post.rows(
                "SELECT pipelining FROM relay_state")]  # fmt: skip
            if n == 0:
                async with post.runtime.db.transaction() as conn:
                    await conn.execute("UPDATE relay_state SET pipelining = 'off'")
        assert levels == [("full", "full"), ("off", "off"), ("full", "full")]
        assert await states(post) == {"accepted": 180}


async def test_a_relay_that_is_away_keeps_everything_waiting(rig: Rig) -> None:
    fill(rig, 5)
    await rig.run(*PATH)
    assert await rig.rows("SELECT state, attempts FROM delivery GROUP BY 1, 2") == [("queued", 0)]


async def test_who_may_not_be_mailed_is_excluded_at_the_last_moment_with_the_reason(
    post: Rig, relay: RelaySandbox
) -> None:
    fill(post, 4)
    await post.run("pull:contacts", "lists", "funnels")
    async with post.runtime.db.transaction() as conn:
        await conn.execute(
            """INSERT INTO consent (email_hash, purpose, status, source, at)
               SELECT address_hash(v.email), v.purpose, 'out', 'crm', now()
               FROM (VALUES ('p0@example.com', 'news'), ('p1@example.com', '*')) AS v (email, purpose)"""
        )
        await conn.execute(
            "INSERT INTO suppression (email_hash, reason, at) VALUES (address_hash('p2@example.com'), 'complained', now())"
        )
    await post.run("mail")
    rows = await post.rows("SELECT email, state, reason FROM delivery ORDER BY email")
    assert [(e, s, r.split(",")[0].split(":")[0]) for e, s, r in rows] == [
        ("p0@example.com", "excluded", "opted out"),
        ("p1@example.com", "excluded", "opted out"),
        ("p2@example.com", "excluded", "suppressed"),
        ("p3@example.com", "accepted", ""),
    ]
    assert [d.recipient for d in relay.office.deliveries] == ["p3@example.com"]


async def test_the_day_of_a_relay_ends_and_begins_again(
    tmp_path: Path,
    clock: ManualClock,
    hubspot: HubSpotSandbox,
    relay: RelaySandbox,
    database_url: str,
    redis_url: str,
) -> None:
    yaml = HUB_YAML.replace(
        "tls: {relay_tls}{relay_ca}", "tls: {relay_tls}{relay_ca}, limits: {{per_day: 400}}"
    )
    async with opened(
        tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url, relay=relay, yaml=yaml
    ) as rig:
        fill(rig, 450)
        await rig.run(*PATH)
        assert await states(rig) == {"accepted": 400, "queued": 50}
        clock.advance(hours=25)
        await rig.run("mail")
        assert await states(rig) == {"accepted": 450}


async def test_what_stands_in_a_mail(post: Rig, relay: RelaySandbox) -> None:
    post.hubspot.create(
        "contacts",
        {
            "email": "ann@example.com",
            "city": "Berlin",
            "firstname": "Änn <b>\r\nBcc: evil@example.net\r\n\r\nhi {{ 7*7 }}",
        },
    )
    await post.run(*PATH)
    relay.office.wait_drained(30)
    raw = relay.office.deliveries[0].content
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Hello Änn <b> Bcc: evil@example.net hi {{ 7*7 }}"
    html, text = mail.get_body(("html",)), mail.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "&lt;b&gt;" in html.get_content()  # markup in a name stays words, and a template in it stays text
    assert "49" not in html.get_content()
    assert "Hello Änn" in text.get_content()
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["List-Unsubscribe"].startswith("<https://hub.example/u/")
    assert mail["To"] == "ann@example.com"
    assert mail["From"] == "Ann <ann@mailyard.example>"
    assert relay.office.deliveries[0].return_path.startswith("bounce+")
    assert "Mailyard, Vienna" in html.get_content()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))


async def test_a_mail_that_cannot_be_composed_is_rejected_and_the_others_go(
    post: Rig, relay: RelaySandbox
) -> None:
    fill(post, 3)
    (post.folder / "hello.html").write_text(
        "<p>{{ 10 / (contact.first_name | replace('P', '') | int) }}</p>{{ unsubscribe_url }}"
    )
    await post.run(*PATH)
    rows = await post.rows("SELECT email, state, reason FROM delivery ORDER BY email")
    assert [(e, s) for e, s, _ in rows] == [
        ("p0@example.com", "rejected"),
        ("p1@example.com", "accepted"),
        ("p2@example.com", "accepted"),
    ]
    assert "cannot be composed" in rows[0][2]


async def test_two_workers_share_the_ledger(
    post: Rig, relay: RelaySandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from hub.jobs import runtime as runtimes
    from hub.jobs import stages

    monkeypatch.setattr(send, "CHUNK", 100)
    fill(post, 900)
    await post.run("pull:contacts", "lists", "funnels")
    async with runtimes.opened(post.folder / "hub.yaml", post.environ, clock=post.clock) as other:
        done = await asyncio.gather(stages.run(post.runtime, "mail", ""), stages.run(other, "mail", ""))
    assert sum(d.worked for d in done) == 900
    assert min(d.worked for d in done) > 0
    assert await states(post) == {"accepted": 900}
    relay.office.wait_drained(60)
    assert max(Counter(d.recipient for d in relay.office.deliveries).values()) == 1
