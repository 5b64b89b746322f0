"""What `hub mapping` answers: both directions and who wins, drift against the live schema, and what to write instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from hub.config.settings import SetFields
from hub.errors import FixNeeded, HubError
from hub.jobs.runtime import Runtime
from hub.mapping import Mapping, drift
from hub.mapping.language import NEWEST, PEOPLE, Entry
from hub.mapping.transforms import Step
from hub.model import OBJECTS, VendorField
from hub.store import schemas

STREAMS = {object: stream for stream, object in OBJECTS.items() if object != "segment"}


def show(runtime: Runtime, connection: str) -> dict[str, Any]:
    """`pull` and `push` (a row a field), `overwrites` (who wins over whom), `consent` and `match` of a connection."""
    mapping = _mapping(runtime, connection)
    pull, push, overwrites = [], [], []
    for object, entries in mapping.entries.items():
        for entry in entries.values():
            if entry.pulls:
                pull.append({"object": object, "from": entry.field, "to": entry.name, "type": str(entry.type),
                             "how": _in(entry), "on_blank": entry.on_blank})  # fmt: skip
                overwrites.append(
                    {"object": object, "field": entry.name, **_wins(mapping, connection, object, entry)}
                )
            if entry.pushes:
                push.append({"object": object, "from": entry.name, "to": entry.field, "how": _out(entry),
                             "set_by": list(_setters(runtime, connection, entry.name))})  # fmt: skip
    return {
        "connection": connection,
        "pull": pull,
        "push": push,
        "overwrites": overwrites,
        "consent": [{"purpose": c.purpose, "field": c.field} for c in mapping.consents],
        "match": [h.field if not h.of else f"{h.field} (an id of {h.of})" for h in mapping.match],
    }


async def check(runtime: Runtime, connection: str, *, accept: bool) -> dict[str, Any]:
    """`findings` of a connection's mapping against the live schema; `since` tells what schema was accepted when."""
    mapping = _mapping(runtime, connection)
    found: list[drift.Finding] = []
    since: dict[str, datetime | None] = {}
    for object in _objects(runtime, connection, mapping):
        live, before, since[object] = await _schemas(runtime, connection, object)
        found += drift.against(mapping, object, live, before)
        if accept or since[object] is None:
            async with runtime.db.transaction() as conn:
                await schemas.accept(conn, connection, object, live.values(), now=runtime.clock.now())
    return {
        "connection": connection,
        "since": since,
        "accepted": accept,
        "findings": [dataclasses.asdict(finding) for finding in found],
    }


async def suggest(runtime: Runtime, connection: str) -> dict[str, Any]:
    """`yaml` to paste into the connection's own mapping file, and its lines as `entries`."""
    mapping = _mapping(runtime, connection)
    entries: list[drift.Suggestion] = []
    for object in _objects(runtime, connection, mapping):
        live, before, _ = await _schemas(runtime, connection, object)
        entries += drift.suggest(mapping, object, live, before)
    lines: list[str] = []
    for object in STREAMS:
        chosen = [entry for entry in entries if entry.object == object]
        lines += [f"{object}:"] if chosen else []
        lines += [f"  {entry.line}  # {entry.why}" for entry in chosen]
    return {
        "connection": connection,
        "yaml": "\n".join(lines),
        "entries": [dataclasses.asdict(entry) for entry in entries],
    }


def _mapping(runtime: Runtime, connection: str) -> Mapping:
    if connection not in runtime.settings.connections:
        known = ", ".join(runtime.settings.connections) or "none"
        raise HubError(f"there is no connection {connection!r}", f"hub.yaml has {known}")
    return runtime.mapping(connection)


def _objects(runtime: Runtime, connection: str, mapping: Mapping) -> list[str]:
    """The objects that are mapped and read, those that hub.yaml syncs or, where it says nothing, all."""
    section = runtime.settings.sync.get(connection)
    return [
        object
        for object, stream in STREAMS.items()
        if mapping.entries.get(object) and (section is None or not section.pull or stream in section.pull)
    ]


async def _schemas(
    runtime: Runtime, connection: str, object: str
) -> tuple[dict[str, VendorField], dict[str, VendorField], datetime | None]:
    """The live schema, the one that was accepted, and when."""
    live = await (await runtime.connector(connection)).live_fields(object)
    if live is None:
        raise FixNeeded(
            "the connector cannot tell the vendor's schema",
            where=connection,
            fix="`hub check` holds the mapping against what is known without asking",
        )
    async with runtime.db.connection() as conn:
        before, since = await schemas.accepted(conn, connection, object)
    return live, before, since


def _in(entry: Entry) -> str:
    parts = [_step(step) for step in entry.transforms]
    if entry.options:
        parts.append(_table(entry, "->"))
    if entry.default is not None:
        parts.append(f"blank is {entry.default}")
    return ", ".join(parts)


def _out(entry: Entry) -> str:
    parts = [_step(step) for step in entry.push_transforms]
    return ", ".join([*parts, _table(entry, "<-")] if entry.options else parts)


def _step(step: Step) -> str:
    name, given = step
    return name if given is None else f"{name} {given!r}"


def _table(entry: Entry, arrow: str) -> str:
    rows = ", ".join(f"{theirs} {arrow} {ours}" for theirs, ours in entry.options.items())
    unknown = {"pass": "others as they are", "blank": "others blank", "reject": "others rejected"}[
        entry.unknown
    ]
    return f"{rows}; {unknown}"


def _wins(mapping: Mapping, connection: str, object: str, entry: Entry) -> dict[str, Any]:
    """`with`: the other connections that pull this field; `wins`: whose word stands; `blank`: what an empty value does."""
    blank = {
        "keep": "leaves ours", "fill": "leaves ours; a value only fills our blank", "clear": "empties ours",
    }[entry.on_blank]  # fmt: skip
    standing = [s for s in mapping.standing if object in PEOPLE and s.field == entry.name]
    ranks: dict[int, list[str]] = {}
    for each in sorted(standing, key=lambda s: (s.rank, s.order)):
        ranks.setdefault(each.rank, []).append(each.connection)
    alike = [names[0] if len(names) == 1 else f"{NEWEST} of {', '.join(names)}" for names in ranks.values()]
    wins = ", then ".join(alike) or connection
    others = [s.connection for s in standing if s.connection != connection]
    return {"wins": wins, "with": others, "blank": blank}


def _setters(runtime: Runtime, connection: str, name: str) -> Iterator[str]:
    """The funnels that set this field at this connection."""
    for funnel, section in runtime.settings.funnels.items():
        if any(name in fields for fields in _sets(section.steps, connection)):
            yield funnel


def _sets(steps: Any, connection: str) -> Iterator[dict[str, Any]]:
    for step in steps:
        if isinstance(step, SetFields):
            yield dict(step.set.get(connection, {}))
        for branch in ("then", "else_"):
            yield from _sets(getattr(step, branch, None) or [], connection)
