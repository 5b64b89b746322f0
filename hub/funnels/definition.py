"""A funnel's steps by address: `2` is the third step, `2.then.0` the first one of its branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hub.config.settings import FunnelSection, Step, When
from hub.rules import Catalog, Rule, parse

END = "end"


@dataclass(frozen=True)
class Definition:
    """A compiled funnel. `after` tells which step follows each one (a branch's last step leads out of the branch)."""

    name: str
    section: FunnelSection
    steps: Mapping[str, Step]
    after: Mapping[str, str]
    rules: Mapping[str, Rule]
    leave: Rule | None

    def branch(self, position: str, *, holds: bool) -> str:
        """Where a person goes after the branch at `position`."""
        step = self.steps[position]
        assert isinstance(step, When)
        arm = "then" if holds else "else"
        taken = step.then if holds else step.else_
        return f"{position}.{arm}.0" if taken else self.after[position]


def compiled(name: str, section: FunnelSection, catalog: Catalog) -> Definition:
    """Raises RuleError for a condition that is wrong."""
    steps: dict[str, Step] = {}
    after: dict[str, str] = {}
    for position, step, following in _addressed("", section.steps, END):
        steps[position], after[position] = step, following
    rules = {
        position: parse(step.when, catalog) for position, step in steps.items() if isinstance(step, When)
    }
    leave = parse(section.leave.when, catalog) if section.leave else None
    return Definition(name, section, steps, after, rules, leave)


def _addressed(prefix: str, steps: Sequence[Step], beyond: str) -> Iterator[tuple[str, Step, str]]:
    for number, step in enumerate(steps):
        position = f"{prefix}{number}"
        following = f"{prefix}{number + 1}" if number + 1 < len(steps) else beyond
        yield position, step, following
        if isinstance(step, When):
            yield from _addressed(f"{position}.then.", step.then, following)
            yield from _addressed(f"{position}.else.", step.else_, following)
