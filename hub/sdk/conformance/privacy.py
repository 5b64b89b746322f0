"""Checks of discretion: no secret and no address in what a connector says, and no call to anybody but the vendor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from hub.errors import HubError
from hub.sdk.conformance.case import Bench, ConnectorCase, Pulled, opened, place_of, secrets_of
from hub.sdk.conformance.failing import KINDS
from hub.sdk.conformance.verdict import Checks, Grade, NotGiven
from hub.sdk.conformance.watch import Called, calling, listening
from hub.sdk.http import ATTEMPTS

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
checks: Checks[ConnectorCase] = Checks()


@checks("privacy.secrets", Grade.BRONZE)
async def no_secrets(case: type[ConnectorCase]) -> None:
    """No secret stands in a log line, in what is printed, in an error's words or in an outcome."""
    tour = await _toured(case)
    said = "\n".join([tour.said, *tour.words])
    shown = [s for s in tour.secrets if s in said or quote(s, safe="") in said]
    assert not shown, f"a secret is told: ...{_around(said, shown[0])}..." if shown else ""


@checks("privacy.people", Grade.BRONZE)
async def no_people(case: type[ConnectorCase]) -> None:
    """No e-mail address stands in a log line or in what is printed."""
    tour = await _toured(case)
    said = tour.said.lower()
    named = [a for a in sorted(tour.addresses) if a in said or quote(a, safe="").lower() in said]
    assert not named, f"an address is logged: {named[:1]}"


@checks("privacy.hosts", Grade.BRONZE)
async def no_strangers(case: type[ConnectorCase]) -> None:
    """Nobody is called but the vendor, at the base_url of the settings."""
    tour = await _toured(case)
    strangers = sorted(tour.called - {tour.own, (tour.own[0], 0)})
    assert not strangers, "others are called: " + ", ".join(f"{host}:{port}" for host, port in strangers)


class Tour:
    """What came of trying everything: what was said, what a person may read, who was called, whose address went by."""

    def __init__(self) -> None:
        self.said = ""
        self.words: list[str] = []
        self.addresses: set[str] = set()
        self.secrets: list[str] = []
        self.called: Called = set()
        self.own = ("", 0)

    def saw(self, value: Any) -> None:
        self.addresses.update(found.lower() for text in _texts(value) for found in ADDRESS.findall(text))


_TOURS: WeakKeyDictionary[type[ConnectorCase], Tour] = WeakKeyDictionary()


async def _toured(case: type[ConnectorCase]) -> Tour:
    """The tour of a case: one serves all three checks."""
    if case not in _TOURS:
        async with opened(case) as bench:
            with listening(case.stand_in_loggers) as heard, calling() as called:
                tour = await _tour(bench)
            tour.said, tour.called, tour.own = str(heard), called, place_of(bench.case.url())
            tour.secrets = secrets_of(case.connector.Settings, bench.case.settings())
        _TOURS[case] = tour
    return _TOURS[case]


async def _tour(bench: Bench) -> Tour:
    """Pull, push, test and hear, in peace and under each fault. What the case does not give is left out."""
    tour = Tour()
    await bench.connector().prepare()
    for kind in ("", *KINDS):
        for stream in bench.manifest.streams:
            _disturb(bench, kind)
            await _pulled(bench, stream, tour)
        if bench.manifest.pushes:
            await _pushed(bench, kind, tour)
        _disturb(bench, kind)
        await _tested(bench, tour)
        bench.case.heal()
    if bench.manifest.webhooks:
        _heard(bench, tour)
    return tour


def _disturb(bench: Bench, kind: str, *, skip: int = 1) -> None:
    bench.case.heal()
    if kind:
        bench.case.fault(kind, times=ATTEMPTS, skip=skip)


async def _pulled(bench: Bench, stream: str, tour: Tour) -> None:
    pulled: Pulled = await bench.pull(stream)
    tour.saw([record.fields for record in pulled.records])
    if pulled.error is not None:
        tour.words += [str(pulled.error), repr(pulled.error)]


async def _pushed(bench: Bench, kind: str, tour: Tour) -> None:
    """All at once, and once each alone with its first call failing: what one call says the next may not."""
    for give in (bench.case.pushes, bench.case.bad_pushes):
        try:
            pushes = give()
        except NotGiven:
            continue
        tour.saw([{name: getattr(each, name) for name in each.__struct_fields__} for each in pushes])
        alone = [([each], 0) for each in pushes] if kind == "429" else []
        for batch, skip in [(pushes, 1), *alone]:
            _disturb(bench, kind, skip=skip)
            tour.words += [repr(outcome) for outcome in (await bench.push(batch)).values()]


async def _tested(bench: Bench, tour: Tour) -> None:
    try:
        tour.words += [repr(found) for found in await bench.connector().test()]
    except HubError as error:
        tour.words += [str(error), repr(error)]


def _heard(bench: Bench, tour: Tour) -> None:
    try:
        bodies = bench.case.webhook_bodies()
        now = bench.case.clock.wall()
        requests = [bench.case.sign(body, now, wrong=wrong) for body in bodies for wrong in (False, True)]
    except NotGiven:
        return
    for request in requests:
        tour.saw(request.body.decode(errors="replace"))
        try:
            bench.connector().verify(request)
            tour.words += [repr(event) for event in bench.connector().events(request)]
        except HubError as error:
            tour.words += [str(error), repr(error)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _around(text: str, secret: str) -> str:
    """The words before a secret, never the secret itself: this ends in a test's log."""
    place = max(text.find(secret), text.find(quote(secret, safe="")), 0)
    return " ".join(text[max(0, place - 60) : place].split()) + "[the secret]"
