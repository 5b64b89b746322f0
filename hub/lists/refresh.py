"""Refresh lists: in the order in which they build on each other, each as one statement that writes differences.

A list waits until every stream that it builds on was once read to its end. People whose deals are not here yet
must not join a list of people without deals: funnels would write to them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.clock import Clock
from hub.config.settings import ListSection
from hub.errors import RuleError
from hub.rules import Catalog, Rule, parse
from hub.store import lists, runs
from hub.store.database import Database


@dataclass(frozen=True)
class Refreshed:
    """One list after its refresh, or what it waits for (as connection/stream)."""

    name: str
    size: int = 0
    joined: int = 0
    left: int = 0
    waits_for: tuple[str, ...] = ()


async def refresh_all(
    db: Database,
    clock: Clock,
    sections: Mapping[str, ListSection],
    catalog: Catalog,
    pulled: Mapping[str, Sequence[str]],
) -> list[Refreshed]:
    """Bring every list up to date. Each is one transaction; a list that is used by another comes first.

    `pulled` is connection -> the streams that hub.yaml pulls of it.
    """
    rules = {name: parse(section.where, catalog) for name, section in sections.items()}
    async with db.transaction() as conn:
        ids = await lists.register(conn, {name: rule.text for name, rule in rules.items()}, now=clock.now())
        missing = await runs.not_loaded(conn, pulled)
    needs: dict[str, set[str]] = {}
    done = []
    for name in in_order(rules):
        needs[name] = {"contacts", *rules[name].streams}.union(
            *(needs[used] for used in rules[name].lists & rules.keys())
        )
        waits_for = tuple(f"{connection}/{stream}" for connection, stream in missing if stream in needs[name])
        if waits_for:
            async with db.transaction() as conn:
                await lists.hold(conn, ids[name], waits_for)
            done.append(Refreshed(name, waits_for=waits_for))
            continue
        now = clock.now()
        async with db.transaction() as conn:
            moved = await lists.refresh(
                conn, ids[name], rules[name].select(), rules[name].values(now), now=now
            )
        done.append(Refreshed(name, moved.size, moved.joined, moved.left))
    return done


def in_order(rules: Mapping[str, Rule]) -> list[str]:
    """List names so that each comes after those it uses. Raises RuleError for a circle."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise RuleError(f"lists build on each other in a circle: {circle}", "take one in_list(...) out")
        path.append(name)
        for used in sorted(rules[name].lists & rules.keys()):
            visit(used)
        path.pop()
        order.append(name)

    for name in rules:
        visit(name)
    return order


async def why(db: Database, clock: Clock, rule: Rule, contact_id: int) -> list[dict[str, Any]]:
    """Each condition of a rule, with whether it holds for this contact now."""
    async with db.connection() as conn:
        answers = await lists.ask(
            conn, [c.sql for c in rule.conditions], rule.values(clock.now()), contact_id
        )
    return [{"condition": c.text, "holds": bool(a)} for c, a in zip(rule.conditions, answers, strict=True)]
