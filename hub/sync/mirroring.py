"""Carry the members of lists into static segments of a vendor: differences only, held against the vendor's own every night."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hub.clock import Clock
from hub.errors import FixNeeded, VendorError
from hub.model import Rejected
from hub.sdk.connector import Connector
from hub.store import mirrors, runs
from hub.store.backlog import last_night
from hub.store.database import Database
from hub.store.mirrors import Mirror

BATCH = 10_000
Wanted = Mapping[tuple[str, str], str]
"""(list, connection) -> the segment's name there."""


async def prepare(connector: Connector[Any], names: list[str], *, dry: bool) -> list[str]:
    """Make the segments that are not there. Returns what was, or would be, made."""
    made = []
    for name in names:
        if await connector.static_segment(name):
            continue
        if not dry:
            await connector.make_segment(name)
        made.append(f"segment {name!r} {'is missing' if dry else 'created'}")
    return made


async def mirror(
    db: Database, clock: Clock, connector: Connector[Any], wanted: Wanted, *, verify: bool = False
) -> int:
    """Bring every mirror of a connection up to date. Returns how many members were changed.

    A run is kept where something was changed or found different, and where it could not be done: then what to do stands there.
    """
    async with db.transaction() as conn:
        await mirrors.register(conn, wanted)
        ours = await mirrors.of(conn, connector.name)
    return sum([await _one(db, clock, connector, each, verify=verify) for each in ours if each.ready])


async def _one(db: Database, clock: Clock, connector: Connector[Any], one: Mirror, *, verify: bool) -> int:
    counts, problem, lasting = runs.Counts(), "", False
    rejected: list[Rejected] = []
    try:
        late = one.verified_at is None or one.verified_at < last_night(clock.now())
        if verify or late or not one.segment:
            one = await _verify(db, clock, connector, one, rejected)
        await _carry(db, connector, one, counts, rejected)
    except VendorError as error:
        problem, lasting = str(error), isinstance(error, FixNeeded)
    if problem and problem == one.problem:
        return counts.written  # it was told already
    async with db.transaction() as conn:
        if problem and lasting:
            await mirrors.note(conn, one, read_to=one.read_to, problem=problem)
        if problem or rejected or counts.written:
            counts.rejected = len(rejected)
            run_id = await runs.start(conn, "mirror", connector.name, one.list, now=clock.now())
            await runs.reject(conn, run_id, rejected, now=clock.now())
            state = "failed" if problem else "done"
            await runs.finish(conn, run_id, counts, state=state, now=clock.now(), reason=problem)
    return counts.written


async def _verify(
    db: Database, clock: Clock, connector: Connector[Any], one: Mirror, rejected: list[Rejected]
) -> Mirror:
    """Read who is in the segment. A difference to what the hub left there is told; the next step puts it right."""
    segment = await connector.static_segment(one.name)
    if not segment:
        raise FixNeeded(
            f"there is no segment {one.name!r}", where=connector.name,
            fix=f"`hub connections prepare {connector.name}` makes it",
        )  # fmt: skip
    members = await connector.members(segment)
    async with db.transaction() as conn:
        missing, strange = await mirrors.found(conn, one, segment, members, now=clock.now())
    if segment == one.segment and (missing or strange):
        what = f"{missing} of the members that the hub put into {one.name!r} were gone, {strange} were there that it did not put"
        fix = "it was put right; tell people that the hub keeps this segment"
        rejected.append(Rejected(object="segment", id=segment, code="DRIFT", message=what, fix=fix))
    return replace(one, segment=segment, problem="")


async def _carry(
    db: Database, connector: Connector[Any], one: Mirror, counts: runs.Counts, rejected: list[Rejected]
) -> None:
    """Write the differences, each batch noted when the vendor has taken it."""
    async with db.transaction() as conn:
        read_to = await mirrors.newest_change(conn, one.list)
        add, remove = await mirrors.difference(conn, one)
    steps = itertools.zip_longest(_batches(add), _batches(remove), fillvalue=())
    for coming, going in steps:
        unknown = set(await connector.change_members(one.segment, coming, going))
        async with db.transaction() as conn:
            await mirrors.changed(conn, one, [ref for ref in coming if ref not in unknown], going)
        counts.written += len(coming) - len(unknown & set(coming)) + len(going)
        fix = "the next pull tells what became of it"
        rejected += [
            Rejected(
                object="contact", id=ref, code="NO_CONTACT", message="the vendor does not know it", fix=fix
            )
            for ref in sorted(unknown & set(coming))
        ]
    if read_to != one.read_to or one.problem:
        async with db.transaction() as conn:
            await mirrors.note(conn, one, read_to=read_to)


def _batches(refs: list[str]) -> Iterator[Sequence[str]]:
    return (refs[start : start + BATCH] for start in range(0, len(refs), BATCH))
