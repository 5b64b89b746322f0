"""A list's definition: the rule that its section of hub.yaml makes, and the order in which lists build on each other."""

from __future__ import annotations

from collections.abc import Mapping

from hub.config.settings import ListSection
from hub.errors import HubError, RuleError
from hub.rules import Catalog, Rule, excluding, imported, parse


def compiled(name: str, section: ListSection, catalog: Catalog) -> Rule:
    """The whole rule of a list, who was imported and who is excluded among it. Raises RuleError for a mistake in `where`."""
    if section.static == (section.where is not None):
        raise HubError(f"list {name} needs either where or static", "see `hub check`")
    rule = imported(name) if section.where is None else parse(section.where, catalog)
    return excluding(rule, section.exclude) if section.exclude else rule


def told(section: ListSection) -> str:
    """The rule as an admin wrote it."""
    text = section.where or "imported"
    return f"{text} EXCLUDING {', '.join(section.exclude)}" if section.exclude else text


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
