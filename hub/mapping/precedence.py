"""Who wins where several connections pull one contact field: authority is said once, and holds for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping as Map

from hub.document import Problem
from hub.mapping.language import NEWEST, Entry, Mapping, Standing


def together(mappings: Map[str, Mapping]) -> dict[str, Mapping]:
    """The mappings of all connections, in the order of hub.yaml, each knowing who wins over whom."""
    said = _said(mappings)
    standing = tuple(
        Standing(connection, name, _rank(said.get(name, ()), connection), order)
        for order, (connection, mapping) in enumerate(mappings.items())
        for name, entry in {**mapping.entries.get("lead", {}), **mapping.entries.get("contact", {})}.items()
        if entry.pulls
    )
    return {name: dataclasses.replace(mapping, standing=standing) for name, mapping in mappings.items()}


def conflicts(mappings: Map[str, Mapping]) -> list[Problem]:
    """Where authority names no connection, or two mappings say different things of one field."""
    said = _said(mappings)
    found = set()
    for entry in _entries(mappings):
        if entry.place is None or not entry.authority:
            continue
        for name in entry.authority:
            if name not in mappings and name != NEWEST:
                what = f"authority names {name!r}, which is no connection"
                found.add(Problem(entry.place, what, f"hub.yaml has {', '.join(mappings)}; or write newest"))
        if entry.authority != said[entry.name]:
            what = f"another mapping gives authority over {entry.name} to {', '.join(said[entry.name])}"
            found.add(Problem(entry.place, what, "say it once; it holds for all connections"))
    return sorted(found)


def _said(mappings: Map[str, Mapping]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in _entries(mappings):
        if entry.authority:
            found.setdefault(entry.name, entry.authority)
    return found


def _entries(mappings: Map[str, Mapping]) -> Iterator[Entry]:
    for mapping in mappings.values():
        yield from mapping.entries.get("contact", {}).values()


def _rank(authority: tuple[str, ...], connection: str) -> int:
    return authority.index(connection) if connection in authority else len(authority)
