"""What the data says of rules that are right by themselves: stages and segments that no record has."""

from __future__ import annotations

from collections.abc import Iterator

from hub.errors import RuleError
from hub.rules import Rule
from hub.rules.reading import nearest, place_of
from hub.store import facts, segments
from hub.store.database import Connection


async def doubts(conn: Connection, rule: Rule) -> list[RuleError]:
    """Each name in a rule that matches nothing of what was read, with its place. Nothing where nothing was read yet."""
    stages, known_segments = await facts.stages(conn), await segments.names(conn)
    found = []
    for stage, pipeline in _stages(rule):
        known = {s for s, p in stages if pipeline in (None, p)}
        if stages and stage.lower() not in known:
            where = f"of pipeline {pipeline!r} " if pipeline else ""
            found.append(_doubt(rule, stage, f"no deal {where}that was read is in stage {stage!r}", known))
    for name in sorted(rule.segments):
        if known_segments and name not in known_segments:
            found.append(_doubt(rule, name, f"no segment that was read is called {name!r}", known_segments))
    return found


def _stages(rule: Rule) -> Iterator[tuple[str, str | None]]:
    for condition in rule.conditions:
        if condition.function == "has_deal" and "stage" in condition.given:
            pipeline = condition.given.get("pipeline")
            yield condition.given["stage"], pipeline.lower() if pipeline else None


def _doubt(rule: Rule, word: str, what: str, known: set[str]) -> RuleError:
    offset = rule.text.find("'" + word.replace("'", "''") + "'")
    return RuleError(what, nearest(word, known), *place_of(rule.text, max(offset, 0)))
