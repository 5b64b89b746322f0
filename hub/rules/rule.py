"""What a rule becomes: SQL about a contact, what it reads, when time alone may change it, and its parts for "why"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec

ALWAYS = frozenset({"contact"})
"""What every rule reads: at least whether the contact is live."""
LINKS = frozenset({"companies", "deals", "segments"})
"""What belongs to a contact through its identities."""


@dataclass(frozen=True)
class Flip:
    """A condition may turn at `moment` plus `after`, by time alone. `source`, `contact`, `moment` and `test` are SQL."""

    source: str
    contact: str
    moment: str
    after: timedelta
    test: str = "true"


@dataclass(frozen=True)
class Condition:
    """One part of a rule that is true or false by itself, for "why".

    `function` is empty for a comparison; then `fields` are what it compares. `given` are the function's arguments.
    """

    text: str
    sql: str
    function: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """How conditions make up a rule: `word` is and, or, not; or is, for the condition `number` of the rule."""

    word: str
    parts: tuple[Shape, ...] = ()
    number: int = -1

    def holds(self, answers: Sequence[bool | None]) -> bool | None:
        """What the rule answers when its conditions answer so; None is SQL's unknown."""
        if self.word == "is":
            return answers[self.number]
        found = [part.holds(answers) for part in self.parts]
        if self.word == "not":
            return not found[0]
        end = self.word == "or"
        return end if end in found else None if None in found else not end

    def deciding(self, answers: Sequence[bool | None]) -> set[int]:
        """The conditions that the answer rests on: were all others different, it would be the same."""
        if self.word == "is":
            return {self.number}
        holds = self.holds(answers) is True
        # One true part is enough for OR, one that is not true for AND; otherwise it takes all of them.
        enough = [part for part in self.parts if (part.holds(answers) is True) is holds]
        return set().union(
            *(part.deciding(answers) for part in (enough if self.word != "not" else self.parts))
        )


@dataclass(frozen=True)
class Rule:
    """A checked rule. `sql` speaks of a contact `c`; run it with `params` and `now`."""

    text: str
    sql: str
    params: dict[str, Any]
    lists: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    reads: frozenset[str] = ALWAYS  # as `list_touch.what`
    flips: tuple[Flip, ...] = ()
    moving: tuple[str, ...] = ()  # SQL of conditions that may turn at any time
    conditions: tuple[Condition, ...] = ()
    shape: Shape = Shape("and")

    @property
    def relative(self) -> bool:
        """Whether time alone may change its answer."""
        return bool(self.flips or self.moving)

    @property
    def streams(self) -> frozenset[str]:
        """What it reads of the vendors beside contacts."""
        return self.reads & LINKS

    @cached_property
    def fingerprint(self) -> str:
        """The same for rules that answer the same: of the SQL and its values."""
        parts = (self.sql, {name: str(value) for name, value in self.params.items()})
        return hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=16).hexdigest()

    def select(self, *, only_contacts: bool = False) -> str:
        """`SELECT c.id ...` over live contacts for whom the rule is true, or those of `%(contacts)s` among them."""
        among = " AND c.id = ANY(%(contacts)s::bigint[])" if only_contacts else ""
        return f"SELECT c.id FROM contact c WHERE c.state = 'live'{among} AND ({self.sql})"

    def values(self, now: datetime, **more: Any) -> dict[str, Any]:
        """The parameters to run it with."""
        return {**self.params, "now": now, **more}


def of_list(name: str) -> str:
    """What a rule reads that asks for the members of a list."""
    return f"list:{name}"


def imported(name: str) -> Rule:
    """The rule of a static list: who was imported into it."""
    sql = (
        "EXISTS (SELECT FROM list_import i JOIN list l ON l.id = i.list_id "
        "WHERE i.contact_id = c.id AND l.name = %(static)s)"
    )
    condition = Condition("was imported", sql, "imported", {"name": name})
    return Rule(
        "", sql, {"static": name}, reads=ALWAYS | {"imports"}, conditions=(condition,), shape=Shape("is", number=0)
    )  # fmt: skip


def excluding(rule: Rule, names: Iterable[str]) -> Rule:
    """A rule that is true of nobody who is on one of these lists."""
    conditions, sql, params, parts = list(rule.conditions), f"({rule.sql})", dict(rule.params), [rule.shape]
    for number, name in enumerate(names):
        on_it = (
            "EXISTS (SELECT FROM list_member m JOIN list l ON l.id = m.list_id "
            f"WHERE m.contact_id = c.id AND l.name = %(excluded{number})s)"
        )
        params[f"excluded{number}"] = name
        sql += f" AND NOT {on_it}"
        parts.append(Shape("not", (Shape("is", number=len(conditions)),)))
        conditions.append(Condition(f"excluded: on list {name}", on_it, "in_list", {"name": name}))
    names = frozenset(names)
    return replace(
        rule, sql=sql, params=params, lists=rule.lists | names, reads=rule.reads | {of_list(name) for name in names},
        conditions=tuple(conditions), shape=Shape("and", tuple(parts)),
    )  # fmt: skip
