"""Checks of discretion: no secret and no address in what a connector says, and no call to anybody but the vendor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from hub.errors import HubError
from hub.sdk.conformance.case import Bench, ConnectorCase, Pulled, opened, place_of, secrets_of
from hub.sdk.conformance.failing import KINDS
from hub.sdk.conformance.verdict import Checks, Grade, NotGiven
from hub.sdk.conformance.watch import calling, listening
from hub.sdk.http import ATTEMPTS

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
checks: Checks[ConnectorCase] = Checks()


@checks("privacy.secrets", Grade.BRONZE)
async def no_secrets(case: type[ConnectorCase]) -> None:
    """No secret stands in a log line, in what is printed, in an error's words or in an outcome."""
    async with opened(case) as bench:
        secrets = secrets_of(case.connector.Settings, bench.case.settings())
        with listening() as heard:
            tour = await _tour(bench)
        said = "\n".join([str(heard), *tour.words])
        shown = [s for s in secrets if s in said or quote(s, safe="") in said]
        assert not shown, f"a secret is told: ...{_around(said, shown[0])}..." if shown else ""


@checks("privacy.people", Grade.BRONZE)
async def no_people(case: type[ConnectorCase]) -> None:
    """No e-mail address stands in a log line or in what is printed."""
    async with opened(case) as bench:
        with listening() as heard:
            tour = await _tour(bench)
        said = str(heard).lower()
        named = [a for a in sorted(tour.addresses) if a in said or quote(a, safe="").lower() in said]
        assert not named, f"an address is logged: {named[0]}" if named else ""


@checks("privacy.hosts", Grade.BRONZE)
async def no_strangers(case: type[ConnectorCase]) -> None:
    """Nobody is called but the vendor, at the base_url of the settings."""
    async with opened(case) as bench:
        with calling() as called:
            await _tour(bench)
        own = place_of(bench.case.url())
        strangers = sorted(called - {own, (own[0], 0)})
        assert not strangers, "others are called: " + ", ".join(f"{host}:{port}" for host, port in strangers)


class Tour:
    """What came of trying everything: texts that a person may read, and addresses that went by."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.addresses: set[str] = set()

    def saw(self, value: Any) -> None:
        self.addresses.update(found.lower() for text in _texts(value) for found in ADDRESS.findall(text))


async def _tour(bench: Bench) -> Tour:
    """Pull, push, test and hear, in peace and under each fault. What the case does not give is left out."""
    tour = Tour()
    await bench.connector().prepare()
    for kind in ("", *KINDS):
        for stream in bench.manifest.streams:
            _disturb(bench, kind)
            await _pulled(bench, stream, tour)
        if bench.manifest.pushes:
            _disturb(bench, kind)
            await _pushed(bench, tour)
        _disturb(bench, kind)
        await _tested(bench, tour)
        bench.case.heal()
    if bench.manifest.webhooks:
        _heard(bench, tour)
    return tour


def _disturb(bench: Bench, kind: str) -> None:
    bench.case.heal()
    if kind:
        bench.case.fault(kind, times=ATTEMPTS, skip=1)


async def _pulled(bench: Bench, stream: str, tour: Tour) -> None:
    pulled: Pulled = await bench.pull(stream)
    tour.saw([record.fields for record in pulled.records])
    if pulled.error is not None:
        tour.words += [str(pulled.error), repr(pulled.error)]


async def _pushed(bench: Bench, tour: Tour) -> None:
    for give in (bench.case.pushes, bench.case.bad_pushes):
        try:
            pushes = give()
        except NotGiven:
            continue
        tour.saw([{name: getattr(each, name) for name in each.__struct_fields__} for each in pushes])
        tour.words += [repr(outcome) for outcome in (await bench.push(pushes)).values()]


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
