"""Ten thousand malformed and hostile webhooks: none ends in a 500, and nothing that was verified is lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from contracts.hubspot.webhooks import sign_v3
from hub.clock import ManualClock
from hub.web.app import application
from tests.support.rig import Rig

POSTS = 10_000
AT_ONCE = 64
URL = "https://hub.example/webhooks/crm"
VALUES = (
    None, True, False, -1, 0, 1.5, 1e308, 10**30, -(10**400), "", "\0", "\ud800", "\u202e", "x" * 5_000, "'; DROP TABLE inbox;--",
    "{{7*7}}", "../../etc/passwd", "http://169.254.169.254/", [], [[]], {}, {"$ne": 1}, ["a", 1, None],
)  # fmt: skip
XXE = b"""<?xml version="1.0"?><!DOCTYPE e [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><id>&x;</id></s:Body></s:Envelope>"""
LAUGHS = (
    b"<!DOCTYPE l ["
    + b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
    + b"]><l>&l9;</l>"
)


def event(dice: random.Random, number: int) -> dict[str, object]:
    return {
        "eventId": number, "subscriptionId": 11, "portalId": 44100200, "occurredAt": 1795510800000 + number,
        "subscriptionType": dice.choice(("contact.propertyChange", "contact.creation", "contact.merge", "deal.deletion")),
        "objectId": dice.randrange(10**6), "propertyName": "city", "changeSource": "CRM_UI", "mergedObjectIds": [1, 2],
    }  # fmt: skip


def bodies() -> Iterator[bytes]:
    """What could come."""
    dice = random.Random(4)
    for number in range(POSTS):
        good = [event(dice, number * 10 + n) for n in range(dice.randrange(1, 4))]
        body = json.dumps(good).encode()
        match dice.randrange(12):
            case 0:  # another value somewhere
                place = dice.choice(list(good[0]))
                good[0][place] = dice.choice(VALUES)
                yield json.dumps(good).encode()
            case 1:  # a byte that flipped
                at = dice.randrange(len(body))
                yield body[:at] + bytes([body[at] ^ (1 << dice.randrange(8))]) + body[at + 1 :]
            case 2:  # half of it
                yield body[: dice.randrange(len(body))]
            case 3:
                yield dice.randbytes(dice.randrange(200))
            case 4:  # keys twice
                yield body.replace(b'"objectId"', b'"objectId": "first", "objectId"')
            case 5:  # another encoding
                yield body.decode().encode(dice.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))
            case 6:  # numbers that no machine holds
                yield body.replace(
                    b'"subscriptionId": 11', b'"subscriptionId": ' + b"9" * dice.randrange(20, 4_000)
                )
            case 7:
                yield dice.choice((XXE, LAUGHS)) + b"<!-- %d -->" % number
            case 8:  # depth
                yield b"[" * dice.randrange(100, 50_000) + b"%d" % number
            case 9:  # something else than events among events
                yield json.dumps([*good, dice.choice(VALUES)]).encode()
            case 10:  # good, but for lone surrogates and NULs written out
                yield body.replace(b"city", dice.choice((b"\\ud800", b"\\u0000", b"\\uDFFF\\uD800")))
            case _:
                yield body


def packed(dice: random.Random, body: bytes) -> tuple[bytes, str]:
    """A body as it goes over the wire, and its Content-Encoding."""
    match dice.randrange(12):
        case 0:
            return gzip.compress(body), "gzip"
        case 1:
            return zlib.compress(body), "deflate"
        case 2:
            return body, dice.choice(("gzip", "deflate", "br", "zstd", "\tgzip ", "x"))
        case 3:
            return gzip.compress(body)[: dice.randrange(1, 20)], "gzip"
        case 4 if dice.random() < 0.05:
            return gzip.compress(b"[" * 20_000_000, 9), "gzip"
        case _:
            return body, ""


async def test_ten_thousand_hostile_posts(
    rig: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.web.intake.PATIENCE_SECONDS", 60.0)  # a busy machine is not what is tested here
    dice, turns = random.Random(5), asyncio.Semaphore(AT_ONCE)
    answers: Counter[tuple[str, int]] = Counter()
    stored = repeated = 0
    kept_whole: set[bytes] = set()
    transport = httpx.ASGITransport(app=application(rig.runtime))  # it raises what the application raises
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as web:

        async def post(body: bytes) -> None:
            nonlocal stored, repeated
            wire, coding = packed(dice, body)
            kind = dice.choices(("right", "forged", "old", "bare"), (8, 1, 1, 1))[0]
            stamp = int((clock.wall() - timedelta(minutes=9 if kind == "old" else 0)).timestamp() * 1000)
            secret = "another" if kind == "forged" else "sandbox-client-secret"
            headers = {
                "X-HubSpot-Signature-v3": sign_v3(secret, "POST", URL, body, stamp),
                "X-HubSpot-Request-Timestamp": str(stamp), "Content-Encoding": coding,
            }  # fmt: skip
            headers = {name: value for name, value in headers.items() if value and kind != "bare"}
            async with turns:
                answer = await web.post("/webhooks/crm", content=wire, headers=headers)
            answers[kind, answer.status_code] += 1
            if answer.status_code == 200:
                told = answer.json()
                stored += told["stored"]
                repeated += told["repeated"]
                if told.get("kept_whole"):
                    kept_whole.add(body)

        await asyncio.gather(*map(post, bodies()))

    assert sum(answers.values()) == POSTS
    assert {status for _, status in answers} <= {200, 400, 401, 413, 415}
    assert {status for kind, status in answers if kind in ("forged", "old", "bare")} <= {400, 401, 413, 415}
    taken = answers["right", 200]
    kept = await rig.value("SELECT count(*) FROM inbox WHERE action = 'unread' AND body IS NOT NULL")
    events = await rig.value("SELECT count(*) FROM inbox WHERE action <> 'unread'")
    print(
        f"\n{POSTS} posts: {dict(answers)}; {stored} events stored, {repeated} repeated, {kept} calls kept whole"
    )
    assert events == stored
    assert kept == len(kept_whole)
    assert taken > POSTS / 2
