"""SPF (RFC 7208) of the return path's domain, evaluated by pyspf with answers of our own resolver.

pyspf knows nothing of asyncio. It is run until it needs an answer that is not there yet, the answer is awaited,
and it is run again: a few milliseconds, no thread, and each question is asked once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import spf

from hub.mail.resolver import Answers, Kind, Unanswered, Value

LOOKUPS, VOIDS = 10, 2  # RFC 7208, section 4.6.4
NOBODY = ("240.0.0.1", "255.255.255.254")
"""Addresses that no host has: an SPF record that lets both of them in lets everybody in."""
ROUNDS = 100


@dataclass(frozen=True)
class Evaluation:
    """`result` is pass, fail, softfail, neutral, none or permerror; `lookups` and `voids` are counted past the limit."""

    result: str
    why: str
    lookups: int
    voids: int


async def records(answers: Answers, domain: str) -> list[str]:
    """The texts that receivers take for SPF records. Raises Unanswered."""
    return [text for text in await answers.texts(domain) if text.lower().split(" ")[0] == "v=spf1"]


async def evaluate(answers: Answers, domain: str, address: str) -> Evaluation:
    """What a receiver says of mail from `address` whose return path is in `domain`. Raises Unanswered."""
    known: dict[tuple[str, str], list[Value]] = {}
    for _ in range(ROUNDS):
        query = _Query(known, address, domain)
        try:
            result, _, why = query.check()
        except _Needed as needed:
            known[needed.name, needed.kind] = await answers.of(needed.name, needed.kind)
        except (ValueError, LookupError, AssertionError, RecursionError, AttributeError, TypeError):
            return Evaluation("permerror", "it cannot be read", query.lookups, query.voids)
        else:
            return Evaluation(result, why.removeprefix("SPF Permanent Error: "), query.lookups, query.voids)
    raise Unanswered(domain, "SPF", "its chain does not end")


class _Needed(Exception):
    def __init__(self, name: str, kind: Kind) -> None:
        self.name, self.kind = name, kind


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's evaluation; not strict, so that it counts on past the limit before it says permerror."""

    def __init__(self, known: dict[tuple[str, str], list[Value]], address: str, domain: str) -> None:
        self.known, self.voids = known, 0
        super().__init__(address, f"postmaster@{domain}", domain, strict=False)

    def dns(self, name: Any, qtype: Kind, cnames: Any = None, ignore_void: bool = False) -> list[Value]:
        """What pyspf asks DNS. The limit of void look-ups is ours to tell of."""
        asked = str(name).rstrip(".").lower()
        if not all(0 < len(label) < 64 for label in asked.split(".")):
            return []
        if (asked, qtype) not in self.known:
            raise _Needed(asked, qtype)
        found = self.known[asked, qtype]
        self.voids += not found and not ignore_void
        return list(found)
