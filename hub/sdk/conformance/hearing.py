"""Checks of webhooks: only the vendor's own calls are taken, and an event is known again when it is repeated."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hub.errors import SignatureError
from hub.sdk.conformance.case import Bench, ConnectorCase, opened
from hub.sdk.conformance.pulling import some
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable
from hub.sdk.connector import WebhookEvent, WebhookRequest

ACTIONS = ("changed", "deleted", "merged", "restored", "none")
TOO_OLD = timedelta(hours=2)
HOSTILE: tuple[Any, ...] = (None, True, -1, 10**400, "", "\0", "x" * 10_000, [], [[]], {}, {"a": None})
checks: Checks[ConnectorCase] = Checks()


def _signed(
    bench: Bench, body: bytes, *, age: timedelta = timedelta(), wrong: bool = False
) -> WebhookRequest:
    """The call as it arrives now, signed `age` ago."""
    now = bench.case.clock.wall()
    return dataclasses.replace(bench.case.sign(body, now - age, wrong=wrong), received_at=now)


def _taken(bench: Bench, request: WebhookRequest) -> bool:
    try:
        bench.connector().verify(request)
    except SignatureError:
        return False
    return True


@checks("webhook.right", Grade.BRONZE)
async def right(case: type[ConnectorCase]) -> None:
    """A webhook with the vendor's signature is taken."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            try:
                bench.connector().verify(_signed(bench, body))
            except SignatureError as error:
                raise AssertionError(f"a rightly signed webhook is refused: {error}") from None


@checks("webhook.wrong", Grade.BRONZE)
async def wrong(case: type[ConnectorCase]) -> None:
    """A webhook that is signed with another secret is refused."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            assert not _taken(bench, _signed(bench, body, wrong=True)), "another secret's signature is taken"


@checks("webhook.unsigned", Grade.BRONZE)
async def unsigned(case: type[ConnectorCase]) -> None:
    """A webhook without a signature is refused."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            signed = _signed(bench, body)
            bare = dataclasses.replace(signed, headers={}, url=signed.url.partition("?")[0])
            assert not _taken(bench, bare), "a webhook without any signature is taken"


@checks("webhook.altered", Grade.BRONZE)
async def altered(case: type[ConnectorCase]) -> None:
    """A webhook is refused when one byte of its body was altered, wherever, or one was added."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            signed = _signed(bench, body)
            for place in sorted({0, len(body) // 3, len(body) // 2, len(body) - 1}):
                other = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
                assert not _taken(bench, dataclasses.replace(signed, body=other)), (
                    f"a body whose byte {place} was altered is taken"
                )
            longer = dataclasses.replace(signed, body=body + b" ")
            assert not _taken(bench, longer), "a body to which a blank was added is taken: sign the raw bytes"


@checks("webhook.old", Grade.BRONZE)
async def old(case: type[ConnectorCase]) -> None:
    """A webhook that was signed long ago is refused: it may be a replay."""
    if not case.dated_webhooks:
        raise NotApplicable("the vendor signs no time")
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            stale = _signed(bench, body, age=TOO_OLD)
            assert not _taken(bench, stale), "a webhook that was signed two hours ago is taken"


@checks("webhook.events", Grade.BRONZE)
async def events(case: type[ConnectorCase]) -> None:
    """Events name an object, an id, an action and an aware time; a body that is nonsense is a ValueError."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            found = _events(bench, body)
            assert found, "a webhook of the case holds no event"
            for event in found:
                assert event.key and event.object and event.id, (
                    f"an event lacks its key, object or id: {event}"
                )
                assert event.action in ACTIONS, f"action {event.action!r} is none of {', '.join(ACTIONS)}"
                aware = event.occurred_at is None or event.occurred_at.tzinfo
                assert aware, f"event {event.key}: occurred_at has no zone"
        for nonsense in (b"", b"null", b"{", b"\xff\xfe", b'{"a": [1]}', b'["x"]'):
            try:
                assert not _events(bench, nonsense), f"events are found in {nonsense!r}"
            except ValueError:
                continue
            except AssertionError:
                raise
            except Exception as bug:
                words = f"{type(bug).__name__} ({bug})"
                raise AssertionError(f"the body {nonsense!r} ends in {words}; raise ValueError") from None


@checks("webhook.distinct", Grade.SILVER)
async def distinct(case: type[ConnectorCase]) -> None:
    """Different events have different keys."""
    async with opened(case, "webhooks") as bench:
        keys = Counter(e.key for body in bench.case.webhook_bodies() for e in _events(bench, body))
        shared = [key for key, n in keys.items() if n > 1]
        assert not shared, f"different events share a key, so all but one would be dropped: {some(shared)}"


@checks("webhook.stable", Grade.SILVER)
async def stable(case: type[ConnectorCase]) -> None:
    """An event that the vendor repeats later has the key that it had, also after a restart."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            first = [e.key for e in _events(bench, body)]
            bench.case.clock.advance(minutes=1)
            second = [e.key for e in _events(bench, bench.case.repeated(body))]
            assert sorted(first) == sorted(second), f"a repeated event has another key: {first} -> {second}"


@checks("webhook.hostile", Grade.SILVER)
async def hostile(case: type[ConnectorCase]) -> None:
    """What is wrong with one event harms no other, and no body ends in anything but events, `Unreadable` or ValueError."""
    async with opened(case, "webhooks") as bench:
        for body in bench.case.webhook_bodies():
            whole = _events(bench, body)
            for harmed in _harmed(body):
                try:
                    found = bench.connector(fresh=True).events(_signed(bench, harmed))
                except ValueError:
                    continue
                except Exception as bug:
                    words = f"{type(bug).__name__} ({bug})"
                    raise AssertionError(f"the body {harmed[:200]!r} ends in {words}") from None
                lost = len(whole) - len(found)
                assert lost <= 0, (
                    f"{lost} events are dropped silently, not told as Unreadable: {harmed[:200]!r}"
                )


def _harmed(body: bytes) -> Iterator[bytes]:
    """A JSON body with one value at a time made another; and what no parser likes."""
    yield b"[" * 100_000
    yield body + body
    yield body[: len(body) // 2]
    try:
        document = json.loads(body)
    except ValueError:
        return
    for path in _paths(document):
        for value in HOSTILE:
            other = copy.deepcopy(document)
            _put(other, path, value)
            yield json.dumps(other).encode()


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in inner:
        if not isinstance(value, list):  # without its list a call has no events, and none is lost
            yield (*path, key)
        yield from _paths(value, (*path, key))


def _put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def _events(bench: Bench, body: bytes) -> list[WebhookEvent]:
    return [
        each
        for each in bench.connector(fresh=True).events(_signed(bench, body))
        if isinstance(each, WebhookEvent)
    ]
