"""The consent ledger: whatever the order in which words arrive, the same verdict; the strictest word stands."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from psycopg.errors import CheckViolation
from pytest import mark, raises

from hub.clock import ManualClock
from hub.model import Channel, ConsentHow, ConsentSource
from hub.store import consent
from hub.store.consent import Statement
from hub.store.database import Database

PURPOSES = ("news", "offers", "*")


async def told(database: Database, words: Sequence[Statement]) -> dict[str, str]:
    """The verdicts on an address after each word was recorded in a transaction of its own."""
    for word in words:
        async with database.transaction() as conn:
            await consent.record(conn, [word])
    async with database.connection() as conn:
        return {row["purpose"]: row["status"] for row in await consent.verdicts(conn, words[0].email)}


def verdict(words: Sequence[Statement], purpose: str) -> str:
    """What stands, said once more without SQL."""
    relevant = [w for w in words if w.purpose in (purpose, "*")]
    fresh = [w for w in relevant if w.status == "out" and w.dated]
    flags = sorted((w for w in relevant if not w.dated), key=lambda w: (w.purpose, w.source, w.at, w.status))
    for _, run in groupby(flags, key=lambda w: (w.purpose, w.source)):
        before = ""
        for word in run:
            if word.status == "out" != before:
                fresh.append(word)
            before = word.status
    proven = [w.at for w in relevant if w.status == "in" and w.dated and w.proof]
    if any(not any(at > out.at for at in proven) for out in fresh):
        return "out"
    return "in" if any(w.status == "in" for w in relevant) else "none"


def any_word(draw: random.Random, email: str, now: datetime) -> Statement:
    status = draw.choice(("in", "out"))
    return Statement(
        email, draw.choice(PURPOSES), status, draw.choice(("crm", "sales", "web")), now - timedelta(hours=draw.randrange(6)),
        proof=draw.choice(("", "form 2")) if status == "in" else "", dated=draw.random() < 0.6, recorded_at=now,
    )  # fmt: skip


async def test_the_order_of_arrival_never_changes_the_verdict(database: Database, clock: ManualClock) -> None:
    draw = random.Random(7)
    seen = set()
    for case in range(60):
        words = [any_word(draw, f"a{case}@example.com", clock.now()) for _ in range(draw.randint(1, 7))]
        # One key of the ledger is one entry: the first that arrives is kept, so a case has each only once.
        words = list({(w.purpose, w.status, w.source, w.at): w for w in words}.values())
        found = await told(database, words)
        assert found == {p: verdict(words, p) for p in {"*", *(w.purpose for w in words)}}
        seen |= set(found.values())
        draw.shuffle(words)
        assert await told(database, [replace(w, email=f"b{case}@example.com") for w in words]) == found
        async with database.transaction() as conn:
            await consent.record(conn, [replace(w, email=f"c{case}@example.com") for w in reversed(words)])
            rows = await consent.verdicts(conn, f"c{case}@example.com")
        assert {row["purpose"]: row["status"] for row in rows} == found
    assert seen == {"in", "out", "none"}


async def test_two_transactions_at_once_see_each_other(database: Database, clock: ManualClock) -> None:
    async def say(word: Statement) -> None:
        async with database.transaction() as conn:
            await consent.record(conn, [word])
            await asyncio.sleep(0.02)

    for case in range(10):
        email = f"p{case}@example.com"
        out = Statement(email, "news", "out", "crm", clock.now())
        others = [
            Statement(email, p, "in", "web", clock.now() - timedelta(hours=1), proof="f") for p in PURPOSES
        ]
        await asyncio.gather(*map(say, [*others, out] if case % 2 else [out, *others]))
        async with database.connection() as conn:
            assert {r["purpose"]: r["status"] for r in await consent.verdicts(conn, email)} == {
                "news": "out", "offers": "in", "*": "in",
            }  # fmt: skip


async def test_an_opt_out_in_one_crm_outlasts_what_another_one_says(
    database: Database, clock: ManualClock
) -> None:
    out = Statement("ann@example.com", "news", "out", "crm", clock.now(), dated=False)
    again = replace(
        out, source="sales", status="in", at=clock.now() + timedelta(days=1), recorded_at=clock.now()
    )
    assert await told(database, [out]) == {"*": "none", "news": "out"}
    clock.advance(days=2)
    later = clock.now()
    # A flag without a time, a time without a proof, a proof that is older, and a proof from the future.
    weak = [
        again,
        replace(again, dated=True, at=later - timedelta(minutes=1), recorded_at=later),
        replace(again, dated=True, at=out.at - timedelta(days=1), proof="form 1", recorded_at=later),
        replace(again, dated=False, at=later, proof="form 1", recorded_at=later),
    ]
    assert await told(database, weak) == {"*": "none", "news": "out"}
    strong = replace(again, dated=True, at=later, proof="form 1", recorded_at=later, source="web")
    assert await told(database, [strong]) == {"*": "none", "news": "in"}
    # The CRM's flag that is seen again is no new word; one that was off meanwhile is.
    clock.advance(days=1)
    seen_again = replace(out, at=clock.now())
    assert await told(database, [seen_again]) == {"*": "none", "news": "in"}
    off = replace(out, status="in", at=clock.now() - timedelta(hours=1))
    assert await told(database, [off]) == {"*": "none", "news": "out"}


async def test_a_word_from_the_future_counts_from_now(database: Database, clock: ManualClock) -> None:
    far = Statement(
        "ann@example.com", "news", "in", "crm", clock.now() + timedelta(days=900), proof="form", recorded_at=clock.now()
    )  # fmt: skip
    assert await told(database, [far]) == {"*": "none", "news": "in"}
    clock.advance(hours=1)
    out = Statement("ann@example.com", "*", "out", "web", clock.now())
    assert await told(database, [out]) == {"*": "out", "news": "out"}


async def test_entries_keep_who_said_it_when_and_how_and_are_never_changed(
    database: Database, clock: ManualClock
) -> None:
    word = Statement(
        "Ann@Example.com", "news", "in", "web", clock.now(), proof="form 3: yes, send me news", kind=ConsentSource.PAGE,
        how=ConsentHow.DOUBLE_OPT_IN, channel=Channel.EMAIL, recorded_at=clock.now() + timedelta(seconds=3),
    )  # fmt: skip
    async with database.transaction() as conn:
        assert await consent.record(conn, [word]) == 1
        assert await consent.record(conn, [replace(word, proof="another")]) == 0
        (row,) = await consent.story(conn, "ann@example.com")
        (_, judged) = await consent.verdicts(conn, "ann@example.com")
    assert row | {"id": 0} == {
        "id": 0, "channel": "email", "purpose": "news", "status": "in", "source": "web", "source_kind": "page",
        "how": "double_opt_in", "dated": True, "at": word.at, "recorded_at": word.recorded_at, "proof": word.proof,
    }  # fmt: skip
    assert (judged["status"], judged["entry_id"], judged["source"]) == ("in", row["id"], "web")


@mark.parametrize("bad", [{"status": "maybe"}])
async def test_only_in_and_out_can_be_said(
    database: Database, clock: ManualClock, bad: dict[str, Any]
) -> None:
    with raises(CheckViolation):
        await told(database, [replace(Statement("a@example.com", "news", "in", "web", clock.now()), **bad)])
