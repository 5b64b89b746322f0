"""A message held against everybody who would get it: what they lack for it, who could not be sent it, how large it gets.

What is blank and which language somebody gets is counted of all recipients, by the database. Mails are composed of some of
them: two of each pattern of blanks, those with the longest values, and some who are drawn at random. Of a small audience
everybody's mail is composed, and nothing is estimated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.mail.compose import UNCOMPOSABLE, Message, Recipient, why_not
from hub.mail.fields import DEALS
from hub.mail.preview import GMAIL_CLIPS_BYTES
from hub.store import audience, ledger
from hub.store.audience import Pattern
from hub.store.database import Connection

CHUNK = 500
LONGEST = 20
MOST_PATTERNS = 500
"""Of more patterns only the largest are composed: a message with so many has few people in each of the others."""
EXAMPLES = 3


@dataclass
class _Composed:
    """What became of the mails that were composed."""

    sizes: dict[int, int] = field(default_factory=dict)  # contact id -> bytes of HTML
    failed: dict[int, str] = field(default_factory=dict)  # contact id -> why not


async def coverage(conn: Connection, message: Message, *, now: datetime, compose: int) -> dict[str, Any]:
    """The report over the transaction's `campaign_audience`, as `hub preview --list` shows it.

    `compose`: of how many recipients, drawn at random, the mails are composed; of all when there are no more.
    """
    fields = used(message)
    patterns = await audience.patterns(conn, fields)
    languages = tags(message, patterns)
    recipients = sum(pattern.recipients for pattern in patterns)
    drawn = await audience.drawn(conn, compose)
    like = [id for each in patterns[:MOST_PATTERNS] for id in {each.first_id, each.last_id}]
    longest = [id for its in languages.values() for id in await audience.longest(conn, fields, its, LONGEST)]
    composed = await _composed(conn, message, list(dict.fromkeys([*drawn, *like, *longest])), now=now)
    whole = len(composed.sizes) + len(composed.failed) == recipients
    sample = _Sample(recipients, drawn, whole)
    return {
        "recipients": recipients,
        "composed": {
            "mails": len(composed.sizes) + len(composed.failed), "everybody": whole, "drawn": len(drawn),
            "of_patterns": len(like), "longest": len(longest), "patterns": len(patterns),
        },
        "languages": _languages(message, patterns),
        "fields": [await _lack(conn, message, name, patterns, languages) for name in fields],
        "rejected": await _rejected(conn, composed, patterns, sample),
        "html": await _sizes(conn, composed, sample),
    }  # fmt: skip


def used(message: Message) -> list[str]:
    """The fields that a message uses in any language; all of them where it takes the contact as a whole."""
    found = {DEALS} if message.needs_deals else set()
    for each in message.uses.values():
        found |= set(message.all_fields if each is None else each)
    return sorted(found)


def tags(message: Message, patterns: Iterable[Pattern]) -> dict[str, set[str]]:
    """language of the message -> those of the recipients, as contacts have them, for which it is taken."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for pattern in patterns:
        found[message.language_for(pattern.language)].add(pattern.language)
    return dict(found)


def uses(message: Message, language: str, name: str) -> bool:
    its = message.uses[language]
    return its is None or name in its


# --- counted -----------------------------------------------------------------------------------------------------


def _languages(message: Message, patterns: Iterable[Pattern]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for pattern in patterns:
        counts[message.language_for(pattern.language)] += pattern.recipients
    return [
        {"language": message.wording(key).language, "recipients": count}
        for key, count in counts.most_common()
    ]


async def _lack(
    conn: Connection,
    message: Message,
    name: str,
    patterns: Sequence[Pattern],
    languages: dict[str, set[str]],
) -> dict[str, Any]:
    """How many of those whose mail uses a field have it blank, and the first few of them."""
    its = {tag for language, tags in languages.items() if uses(message, language, name) for tag in tags}
    affected = [pattern for pattern in patterns if pattern.language in its]
    blank = sum(pattern.recipients for pattern in affected if name in pattern.blank)
    seen_to = all(
        each is not None and each[name] for key, each in message.uses.items() if uses(message, key, name)
    )
    examples = [row async for row in audience.lacking(conn, name, its, limit=EXAMPLES)] if blank else []
    return {
        "field": name, "recipients": sum(pattern.recipients for pattern in affected), "blank": blank, "seen_to": seen_to,
        "examples": examples,
    }  # fmt: skip


# --- composed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    recipients: int
    drawn: Sequence[int]
    whole: bool

    def about(self, ids: set[int], at_least: int = 0) -> int:
        """How many of all recipients are likely so, if of those whose mails were composed these are."""
        if self.whole:
            return len(ids)
        share = sum(id in ids for id in self.drawn) / len(self.drawn) if self.drawn else 0.0
        return max(len(ids), at_least, round(share * self.recipients))


async def _composed(conn: Connection, message: Message, ids: Sequence[int], *, now: datetime) -> _Composed:
    found = _Composed()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        addresses = await audience.addresses(conn, some)
        people = await ledger.people(conn, some, message.fields, deals=message.needs_deals)
        for id in some:
            try:
                mail = message.render(Recipient(0, addresses[id], *people[id]), now=now)
            except UNCOMPOSABLE as error:
                found.failed[id] = why_not(error)
            else:
                found.sizes[id] = len(message.html_of(mail.content))
    return found


async def _rejected(
    conn: Connection, composed: _Composed, patterns: Sequence[Pattern], sample: _Sample
) -> list[dict[str, Any]]:
    """Why mails could not be composed: how many of those that were tried, likely of all, and what they all lack."""
    found = []
    for reason, _ in Counter(composed.failed.values()).most_common():
        ids = {id for id, why in composed.failed.items() if why == reason}
        alike = [each for each in patterns if {each.first_id, each.last_id} <= ids]
        examples = await audience.addresses(conn, sorted(ids)[:EXAMPLES])
        found.append(
            {
                "reason": reason, "mails": len(ids),
                "likely": sample.about(ids, sum(each.recipients for each in alike)),
                "blank": sorted(frozenset.intersection(*(each.blank for each in alike))) if alike else [],
                "examples": [{"contact_id": id, "email": examples[id]} for id in sorted(examples)],
            }
        )  # fmt: skip
    return found


async def _sizes(conn: Connection, composed: _Composed, sample: _Sample) -> dict[str, Any]:
    """The largest HTML, whose it is, and how many exceed what Gmail shows."""
    clipped = {id for id, size in composed.sizes.items() if size > GMAIL_CLIPS_BYTES}
    largest = max(composed.sizes, key=lambda id: (composed.sizes[id], -id), default=None)
    return {
        "limit_bytes": GMAIL_CLIPS_BYTES,
        "largest_bytes": composed.sizes[largest] if largest is not None else 0,
        "largest_contact_id": largest,
        "largest_email": (await audience.addresses(conn, [largest]))[largest]
        if largest is not None
        else None,
        "clipped": len(clipped),
        "clipped_likely": sample.about(clipped),
    }
