"""Where a mail stands follows from its events alone: not from their order, and not from how often each was told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model import ResultKind as K
from hub.standing import ACTS, Standing, Told, standing

START = datetime(2026, 11, 25, 9, tzinfo=UTC)


def told(kind: K, minutes: int = 0, source: str = "dsn", *, machine: bool = False) -> Told:
    return Told(
        f"{kind}:{minutes}:{source}:{machine}", kind, START + timedelta(minutes=minutes), source, machine
    )


EVENTS = st.builds(
    told, st.sampled_from(K), st.integers(0, 5), st.sampled_from(["relay", "dsn", "web", "relay main"]), machine=st.booleans()
)  # fmt: skip


@given(st.lists(EVENTS, max_size=8).flatmap(lambda e: st.tuples(st.just(e), st.permutations(e + e))))
def test_order_and_repetition_do_not_matter(case: tuple[list[Told], list[Told]]) -> None:
    once, shuffled = case
    assert standing(shuffled) == standing(once)


@given(st.lists(EVENTS, max_size=8), EVENTS)
def test_another_event_never_takes_back_that_the_relay_took_it(events: list[Told], more: Told) -> None:
    assert standing([*events, more]).taken >= standing(events).taken


@given(st.lists(EVENTS, min_size=1, max_size=8))
def test_a_persons_act_proves_the_arrival(events: list[Told]) -> None:
    acted = any(each.kind in ACTS and not each.machine for each in events)
    failed = any(each.kind is K.BOUNCED for each in events)
    found = standing(events)
    if acted:
        assert found.result is K.DELIVERED
    else:
        assert (found.result is K.BOUNCED) is failed
    assert (found.settled_at is not None) is (found.result in (K.DELIVERED, K.BOUNCED))


@pytest.mark.parametrize(
    ("events", "result", "settled_after", "taken"),
    [
        ([], None, None, False),
        ([told(K.SENT, source="relay")], K.SENT, None, True),
        ([told(K.SENT), told(K.DELAYED, 5)], K.DELAYED, None, True),
        ([told(K.DELAYED, 5), told(K.DELIVERED, 9)], K.DELIVERED, 9, True),
        ([told(K.DELIVERED, 1), told(K.BOUNCED, 60)], K.BOUNCED, 60, True),  # a report that came late
        ([told(K.BOUNCED, 1, "relay")], K.BOUNCED, 1, False),  # refused: never taken
        ([told(K.BOUNCED, 1), told(K.OPENED, 9, "web")], K.DELIVERED, 9, True),  # a forwarded copy bounced
        ([told(K.BOUNCED, 3), told(K.CLICKED, 1, "web", machine=True)], K.BOUNCED, 3, True),
        ([told(K.OPENED, 1, "web", machine=True)], K.SENT, None, True),
        ([told(K.REPLIED, 7), told(K.DELIVERED, 3)], K.DELIVERED, 7, True),
    ],
)
def test_what_stands(events: list[Told], result: K | None, settled_after: int | None, taken: bool) -> None:
    settled = None if settled_after is None else START + timedelta(minutes=settled_after)
    assert standing(events) == Standing(result, settled, taken)
