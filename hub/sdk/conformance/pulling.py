"""Checks of reading: everything comes once, every cursor resumes, changes and removals are told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from hub.model import OBJECTS, Record, RecordState
from hub.sdk.conformance.case import Bench, ConnectorCase, Pulled, opened, rest
from hub.sdk.conformance.describing import overrides
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable, NotGiven

checks: Checks[ConnectorCase] = Checks()
READABLE = ("leads", "contacts", "companies", "deals")


def some(ids: Iterable[str], most: int = 5) -> str:
    """Ids for a person to read."""
    listed = sorted(ids)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


@checks("pull.complete", Grade.BRONZE)
async def complete(case: type[ConnectorCase]) -> None:
    """A first pull gives every record that the vendor holds, each once, and none that it does not."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            seeded = set(bench.case.seeded(stream))
            assert seeded, f"the case seeds no record in {stream}"
            pulled = await bench.whole(stream)
            missing, strange = seeded - set(pulled.live), set(pulled.live) - seeded
            assert not missing, (
                f"{stream}: {len(missing)} of {len(seeded)} records never come: {some(missing)}"
            )
            assert not strange, f"{stream}: records come that were not seeded: {some(strange)}"
            often = [id for id, n in Counter(r.id for r in pulled.records).items() if n > 1]
            assert not often, f"{stream}: {len(often)} records come more than once: {some(often)}"


@checks("pull.typed", Grade.BRONZE)
async def typed(case: type[ConnectorCase]) -> None:
    """Records are of the stream's object, with an id, JSON values and aware times; the last page says `done`."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            pulled = await bench.whole(stream)
            for record in pulled.records:
                what = f"{stream}: record {record.id!r}"
                assert record.object == OBJECTS[stream], f"{what} says it is a {record.object!r}"
                assert isinstance(record.id, str), f"{what} has an id that is no text"
                assert record.id.strip(), f"{stream}: a record has no id"
                assert record.changed_at is None or record.changed_at.tzinfo, (
                    f"{what}: changed_at has no zone"
                )
                try:
                    json.dumps(record.fields)
                except (TypeError, ValueError) as error:
                    raise AssertionError(f"{what} has a field that is no JSON value: {error}") from None
            assert pulled.pages[-1].done, f"{stream}: the last page does not say done=True"


@checks("pull.cursor", Grade.BRONZE)
async def cursor(case: type[ConnectorCase]) -> None:
    """Every page's cursor is made of JSON values and says more than `from the beginning`."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            for number, page in enumerate((await bench.whole(stream)).pages, 1):
                what = f"{stream}: the cursor of page {number}"
                try:
                    saved = json.loads(json.dumps(page.cursor))
                except (TypeError, ValueError) as error:
                    raise AssertionError(f"{what} is no JSON: {error}") from None
                assert saved == page.cursor, f"{what} changes when it is saved: {page.cursor} -> {saved}"
                assert saved, f"{what} is empty, which means: from the beginning"


@checks("pull.resume", Grade.BRONZE)
async def resume(case: type[ConnectorCase]) -> None:
    """A pull that ends after any page goes on from its cursor: nothing is lost, and nothing comes twice."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            whole = await bench.whole(stream)
            for number in range(1, len(whole.pages)):
                before = Pulled(whole.pages[:number])
                after = await bench.whole(stream, before.cursor({}), fresh=True)
                same(stream, whole, before, after, f"resumed after page {number}")
                twice = {r.id for r in before.records} & {r.id for r in after.records}
                if stream not in bench.case.full_streams:
                    assert not twice, (
                        f"{stream}: resumed after page {number}, {len(twice)} records come again: {some(twice)}"
                    )


def same(stream: str, whole: Pulled, before: Pulled, after: Pulled, when: str) -> None:
    """AssertionError unless two runs together tell what one whole run told."""
    told = {**before.live, **after.live}
    gone = {r.id for r in after.records if r.state is not RecordState.LIVE}
    lost = set(whole.live) - set(told)
    assert not lost, f"{stream}: {when}, {len(lost)} records are lost: {some(lost)}"
    dead = gone & set(whole.live)
    assert not dead, f"{stream}: {when}, records that live come as gone: {some(dead)}"
    other = {id for id in whole.live if told[id].fields != whole.live[id].fields}
    assert not other, f"{stream}: {when}, {len(other)} records come with other values: {some(other)}"


@checks("pull.again", Grade.SILVER)
async def again(case: type[ConnectorCase]) -> None:
    """A second pull from the end's cursor finds nothing new: it reads the changes, not everything."""
    async with opened(case, "streams") as bench:
        incremental = [s for s in bench.streams() if s not in bench.case.full_streams]
        if not incremental:
            raise NotApplicable("the vendor tells no changes of any stream")
        for stream in incremental:
            whole = await bench.whole(stream)
            second = await bench.whole(stream, whole.cursor({}))
            told = set(second.live)
            assert not told, f"{stream}: {len(told)} of {len(whole.live)} records come again: {some(told)}"


@checks("pull.changes", Grade.SILVER)
async def changes(case: type[ConnectorCase]) -> None:
    """A record that changes after a pull comes with its new values in the next one."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            whole = await bench.whole(stream)
            id = _one_of(whole, stream)
            bench.case.clock.advance(minutes=10)
            bench.case.change(stream, id)
            bench.case.clock.advance(minutes=10)
            second = await bench.whole(stream, whole.cursor({}))
            assert id in second.live, f"{stream}: {id} was changed, and the next pull does not tell"
            stale = (
                second.live[id].fields == whole.live[id].fields
                and second.live[id].links == whole.live[id].links
            )
            assert not stale, f"{stream}: {id} comes with its old values"


@checks("pull.removals", Grade.SILVER)
async def removals(case: type[ConnectorCase]) -> None:
    """A record that is deleted or archived comes with that state in the next pull; it does not just stay away."""
    async with opened(case, "streams") as bench:
        for stream in bench.streams():
            whole = await bench.whole(stream)
            id = _one_of(whole, stream)
            rest(bench.case)
            bench.case.remove(stream, id)
            rest(bench.case)
            second = await bench.whole(stream, whole.cursor({}))
            states = [r.state for r in second.records if r.id == id]
            assert states, f"{stream}: {id} is gone, and the next pull does not tell"
            assert states[-1] is not RecordState.LIVE, (
                f"{stream}: {id} is gone, and the next pull calls it live"
            )


@checks("pull.moving", Grade.GOLD)
async def moving(case: type[ConnectorCase]) -> None:
    """A record that vanishes from a page already read pushes none of the next page out of sight."""
    checked = 0
    if not case.connector.manifest.streams:
        raise NotApplicable("the manifest lists no streams")
    for stream in case.connector.manifest.streams:
        async with opened(case, "streams") as bench:
            whole = await bench.whole(stream)
            first = Pulled(whole.pages[:1])
            if len(whole.pages) < 2 or not first.live or set(first.live) == set(whole.live):
                continue
            checked += 1
            id = _one_of(first, stream)
            calm = await bench.whole(stream, first.cursor({}))
            bench.case.remove(stream, id)
            after = await bench.whole(stream, first.cursor({}))
            lost = set(calm.live) - {id} - set(after.live)
            assert not lost, f"{stream}: when {id} of page 1 goes, {some(lost)} of a later page is never told"
    if not checked:
        raise NotGiven("seed more records than a page holds")


def _one_of(pulled: Pulled, stream: str) -> str:
    assert pulled.live, f"{stream}: an undisturbed pull gives no live record"
    return sorted(pulled.live)[0]


def _readable(bench: Bench) -> list[str]:
    if not overrides(bench.kind, "read"):
        raise NotApplicable("the connector reads nothing by id")
    return [s for s in bench.streams() if s in READABLE]


@checks("read.same", Grade.SILVER)
async def read_same(case: type[ConnectorCase]) -> None:
    """Reading a record by its id gives what pulling it gives."""
    async with opened(case, "streams") as bench:
        for stream in _readable(bench):
            whole = await bench.whole(stream)
            ids = sorted(whole.live)[:3]
            found = {r.id: r for r in await bench.connector().read(OBJECTS[stream], ids)}
            assert set(found) == set(ids), f"{stream}: asked for {some(ids)}, got {some(found) or 'nothing'}"
            for id in ids:
                wrong = _differences(whole.live[id], found[id])
                assert not wrong, f"{stream}: {id} read by id differs from what was pulled in {some(wrong)}"


def _differences(pulled: Record, read: Record) -> list[str]:
    names = {n for n in (*pulled.fields, *read.fields) if pulled.fields.get(n) != read.fields.get(n)}
    # A pull may ask for fewer of the vendor's own fields, but what both name must agree.
    return [
        *(n for n in names if n in pulled.fields and n in read.fields),
        *(["state"] if pulled.state != read.state else []),
    ]


@checks("read.gone", Grade.SILVER)
async def read_gone(case: type[ConnectorCase]) -> None:
    """Reading a record that is gone gives its state; a webhook's event would else rest for ever."""
    async with opened(case, "streams") as bench:
        for stream in _readable(bench):
            id = _one_of(await bench.whole(stream), stream)
            bench.case.remove(stream, id)
            found = [r for r in await bench.connector().read(OBJECTS[stream], [id]) if r.id == id]
            assert found, f"{stream}: {id} is gone, and reading it gives nothing"
            assert found[0].state is not RecordState.LIVE, (
                f"{stream}: {id} is gone, and reading it calls it live"
            )


@checks("pull.conversions", Grade.SILVER)
async def conversions(case: type[ConnectorCase]) -> None:
    """A lead that is converted comes as `converted` with the contact that it became, and the contact comes, too."""
    if "leads" not in case.connector.manifest.streams:
        raise NotApplicable("the manifest lists no leads")
    async with opened(case, "streams") as bench:
        leads, contacts = await bench.whole("leads"), await bench.whole("contacts")
        id = _one_of(leads, "leads")
        rest(bench.case)
        became = bench.case.convert(id)
        rest(bench.case)
        told = [r for r in (await bench.whole("leads", leads.cursor({}))).records if r.id == id]
        assert told, f"leads: {id} was converted, and the next pull does not tell"
        found = [
            told[-1],
            *(await bench.connector().read("lead", [id]) if overrides(bench.kind, "read") else []),
        ]
        for record in found:
            assert record.state is RecordState.CONVERTED, (
                f"leads: {id} was converted and is called {record.state}"
            )
            said = {link.object: link.id for link in record.became}
            assert said == dict(became), f"leads: {id} became {dict(became)}, and {said} is told"
        after = await bench.whole("contacts", contacts.cursor({}))
        known = {**contacts.live, **after.live}
        assert became["contact"] in known, f"contacts: {became['contact']}, a lead before, never comes"
