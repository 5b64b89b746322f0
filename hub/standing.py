"""What became of a mail: a pure function of its events, in whatever order they came and however often they were told.

A person's act proves that the mail arrived, whatever else was reported: a forwarded copy may bounce after the mail was
read. Then a failure counts more than a success, since reports of failures come late; and a machine that looked into the
mail on its way proves only that it left.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from hub.model import ResultKind

ACTS = frozenset(
    {
        ResultKind.OPENED,
        ResultKind.CLICKED,
        ResultKind.REPLIED,
        ResultKind.COMPLAINED,
        ResultKind.UNSUBSCRIBED,
    }
)
"""What only somebody who has the mail can do."""
_WEIGHTS = {ResultKind.BOUNCED: 3, ResultKind.DELIVERED: 2, ResultKind.DELAYED: 1}
_WORDS = (ResultKind.SENT, ResultKind.DELAYED, ResultKind.DELIVERED, ResultKind.BOUNCED, ResultKind.DELIVERED)
"""What a mail is called whose weightiest event has this weight."""
REFUSAL = "relay"
"""The source of what the relay itself answered: a failure told by it was never taken."""


class Told(NamedTuple):
    """An event. Those of one `key` are one event, told again."""

    key: str
    kind: ResultKind
    known_at: datetime
    source: str
    machine: bool = False


class Standing(NamedTuple):
    """`result` is sent, delayed, delivered or bounced; None while nothing came back. `settled_at` is when a final one
    (delivered, bounced) became known. `taken`: something shows that the relay took the mail."""

    result: ResultKind | None = None
    settled_at: datetime | None = None
    taken: bool = False


def standing(told: Iterable[Told]) -> Standing:
    """Where a mail stands. The order of `told` and repetitions in it do not matter."""
    events = list(told)
    if not events:
        return Standing()
    weights = [_weight(each) for each in events]
    weight = max(weights)
    result = _WORDS[weight]
    final = result in (ResultKind.DELIVERED, ResultKind.BOUNCED)
    return Standing(
        result,
        min(e.known_at for e, w in zip(events, weights, strict=True) if w == weight) if final else None,
        any(each.source != REFUSAL or each.kind is not ResultKind.BOUNCED for each in events),
    )


def _weight(event: Told) -> int:
    if event.kind in ACTS:
        return 0 if event.machine else 4
    return _WEIGHTS.get(event.kind, 0)
