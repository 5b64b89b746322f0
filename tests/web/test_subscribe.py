"""Double opt-in: a typed address becomes consent only by its mailbox, and a form cannot be used against anybody."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from contracts.smtp.relay import RelaySandbox
from hub.clock import ManualClock
from hub.store import consent
from hub.store.database import Connection
from hub.web.app import application
from tests.support.rig import HUB_YAML, Rig

PURPOSES = """\
purposes:
  news: {title: News}
  tips: {title: Tips, basis: opt_in, double_opt_in: {message: ask, expires: 7d, wording: "Send me a tip a week. Form 3."}}
  more: {title: More, basis: opt_in, double_opt_in: {message: ask, wording: "Send me more."}}
  account: {title: Confirmations, marketing: false}
"""
MESSAGE = """\
messages:
  ask:
    subject: Please confirm
    html: '<p><a href="{{ confirm_url }}">Confirm</a></p>'
    from: "Ann <ann@mailyard.example>"
    purpose: account
"""


@pytest.fixture
def hub_yaml() -> str:
    def quoted(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    yaml = re.sub(r"purposes:\n.*\n", quoted(PURPOSES), HUB_YAML)
    return yaml.replace("messages:\n", quoted(MESSAGE)) + "deliverability: {{gate: 'off'}}\n"


@pytest.fixture
async def web(post: Rig) -> Any:
    transport = httpx.ASGITransport(app=application(post.runtime), client=("203.0.113.77", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        yield client


async def link(post: Rig, relay: RelaySandbox, email: str) -> str:
    """The path of the link in the newest mail to an address."""
    await post.run("mail")
    relay.office.wait_drained()
    (mail, *_) = relay.office.find(email)
    body = mail.content.decode().replace("=\r\n", "").replace("=3D", "=")
    found = re.search(r'https://hub\.example(/confirm/[\w-]+)"', body)
    assert found, body
    assert "List-Unsubscribe" not in body
    return found[1]


def mails(relay: RelaySandbox, email: str) -> int:
    return len(relay.office.find(email))


async def test_asked_for_confirmed_and_only_then_consent(
    post: Rig, web: httpx.AsyncClient, relay: RelaySandbox, clock: ManualClock
) -> None:
    form = await web.get("/subscribe/tips")
    assert "Send me a tip a week. Form 3." in form.text and '<input id="email"' in form.text
    asked = await web.post(
        "/subscribe/tips", data={"email": " Eve@Example.com "}, headers={"Accept-Language": "de"}
    )
    assert (asked.status_code, "Postfach" in asked.text) == (200, True)
    assert await post.rows("SELECT email, state, language FROM contact") == [
        ("eve@example.com", "requested", "de")
    ]
    path = await link(post, relay, "eve@example.com")
    clock.advance(days=1)
    for ask in (web.get, web.head):
        assert (await ask(path)).status_code == 200
    page = (await web.get(path)).text
    assert "Send me a tip a week" in page and '<form method="post">' in page and "eve" not in page
    assert await post.rows("SELECT * FROM consent") == []
    done = await web.post(path)
    assert "Danke" in done.text and "Tips" in done.text
    ((purpose, status, source, kind, how, at, proof),) = await post.rows(
        "SELECT purpose, status, source, source_kind, how, at, proof FROM consent"
    )
    assert (purpose, status, source, kind, how, at) == (
        "tips",
        "in",
        "web",
        "page",
        "double_opt_in",
        clock.now(),
    )
    assert proof == (
        "Send me a tip a week. Form 3. [asked for at 2026-11-24 09:00:00 UTC from 203.0.113.0/24;"
        " confirmed by the link of delivery 1 from 203.0.113.0/24]"
    )
    assert await post.rows("SELECT state FROM contact") == [("live",)]
    before = await post.rows("SELECT * FROM consent")
    clock.advance(hours=1)
    again = await web.post(path)
    assert (again.status_code, "schon" in again.text) == (200, True)
    assert await post.rows("SELECT * FROM consent") == before


async def test_a_link_that_is_too_old_or_nobodys_changes_nothing(
    post: Rig, web: httpx.AsyncClient, relay: RelaySandbox, clock: ManualClock
) -> None:
    await web.post("/subscribe/tips", data={"email": "eve@example.com"})
    path = await link(post, relay, "eve@example.com")
    for bad in (path[:-1], "/confirm/x", "/confirm/" + "A" * 5_000, "/confirm/%00"):
        for ask in (web.get, web.post):
            assert (await ask(bad)).status_code == 404
    other = post.runtime.signer.token("unsubscribe", 4711)
    assert (await web.post(f"/confirm/{other}")).status_code == 404
    assert (await web.post(path.replace("/confirm/", "/c/"))).status_code == 405
    clock.advance(days=7, seconds=1)
    for ask in (web.get, web.post):
        late = await ask(path)
        assert (late.status_code, "too old" in late.text) == (410, True)
    assert await post.rows("SELECT * FROM consent") == []
    assert await post.rows("SELECT state FROM contact") == [("requested",)]


async def test_nobody_can_be_bombed_and_nothing_can_be_learned(
    post: Rig, web: httpx.AsyncClient, relay: RelaySandbox, clock: ManualClock
) -> None:
    async def known(conn: Connection) -> None:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) VALUES ('ann@example.com', now()), ('in@example.com', now())"
        )
        await consent.record(conn, [
            consent.Statement("in@example.com", "tips", "in", "web", clock.now(), proof="form"),
            consent.Statement("ann@example.com", "*", "out", "web", clock.now()),
        ])  # fmt: skip

    await post.runtime.db.repeated(known)
    answers = set()
    for email in (
        "ann@example.com",
        "in@example.com",
        "new@example.com",
        "ann@example.com",
        "ann@example.com",
    ):
        answer = await web.post("/subscribe/tips", data={"email": email})
        answers.add((answer.status_code, answer.text, tuple(sorted(answer.headers.items()))))
    assert len(answers) == 1
    await post.run("mail")
    relay.office.wait_drained()
    assert [mails(relay, e) for e in ("ann@example.com", "in@example.com", "new@example.com")] == [1, 0, 1]
    for _ in range(10):
        clock.advance(minutes=11)
        for purpose in ("tips", "more"):
            await web.post(f"/subscribe/{purpose}", data={"email": "ann@example.com"})
        await post.run("mail")
    relay.office.wait_drained()
    assert mails(relay, "ann@example.com") == 3
    # Who had said no to everything is asked all the same, and says yes to this one purpose.
    await web.post(await link(post, relay, "ann@example.com"))
    async with post.runtime.db.connection() as conn:
        found = {v["purpose"]: v["status"] for v in await consent.verdicts(conn, "ann@example.com")}
    assert found["*"] == "out" and sorted(found.values()) == ["in", "out"]


async def test_one_network_cannot_have_thousands_of_mails_sent(post: Rig, web: httpx.AsyncClient) -> None:
    for number in range(70):
        answer = await web.post("/subscribe/tips", data={"email": f"p{number}@example.com"})
        assert answer.status_code == 200
    assert await post.value("SELECT count(*) FROM delivery") == 60


async def test_forms_of_programs_and_bad_input(post: Rig, web: httpx.AsyncClient) -> None:
    plain = {"Accept": "application/json"}
    good = await web.post("/subscribe/tips", data={"email": "eve@example.com"}, headers=plain)
    assert (good.status_code, good.json()) == (202, {"asked": True})
    for email in (
        "",
        "eve",
        "a@b",
        "a@b.example\nBcc: x@y.example",
        "x" * 300 + "@example.com",
        "a\x00b@example.com",
    ):
        bad = await web.post("/subscribe/tips", data={"email": email}, headers=plain)
        assert (bad.status_code, bad.json()) == (400, {"error": "email is no e-mail address"})
        assert (await web.post("/subscribe/tips", data={"email": email})).status_code == 400
    for purpose in ("news", "nothing", "account"):
        assert (await web.post(f"/subscribe/{purpose}", data={"email": "eve@example.com"})).status_code == 404
        assert (await web.get(f"/subscribe/{purpose}")).status_code == 404
    assert (await web.post("/subscribe/tips", content=b"email=" + b"x" * 10_001)).status_code == 413
    assert await post.value("SELECT count(*) FROM delivery") == 1


async def test_a_suppressed_address_gets_no_such_mail(
    post: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    async with post.runtime.db.transaction() as conn:
        await consent.suppress(conn, "eve@example.com", "bounced", at=clock.now(), evidence={})
    assert (await web.post("/subscribe/tips", data={"email": "eve@example.com"})).status_code == 200
    await post.run("mail")
    assert await post.rows("SELECT state, reason FROM delivery") == [("excluded", "suppressed: bounced")]


async def test_who_only_asked_gets_nothing_else(
    post: Rig, web: httpx.AsyncClient, clock: ManualClock
) -> None:
    await web.post("/subscribe/tips", data={"email": "eve@example.com"})
    async with post.runtime.db.transaction() as conn:
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at)
               SELECT 'hello', id, 'x', 'news', %s FROM contact""",
            [clock.now()],
        )
    await post.run("mail")
    assert await post.rows("SELECT message, state, reason FROM delivery ORDER BY message") == [
        ("ask", "accepted", ""), ("hello", "excluded", "the contact is requested"),
    ]  # fmt: skip


async def test_on_the_preference_page_such_a_purpose_is_asked_for_by_mail(
    post: Rig, web: httpx.AsyncClient, relay: RelaySandbox, clock: ManualClock
) -> None:
    await web.post("/subscribe/tips", data={"email": "eve@example.com"})
    path = await link(post, relay, "eve@example.com")
    clock.advance(hours=1)
    page = path.replace("/confirm/", "/p/")
    answer = await web.post(page, data={"shown": ["tips=off", "more=off"], "on": ["more"]})
    assert "sent you a mail" in answer.text
    assert await post.rows("SELECT * FROM consent") == []
    await web.post(await link(post, relay, "eve@example.com"))
    assert await post.rows("SELECT purpose, status FROM consent") == [("more", "in")]
