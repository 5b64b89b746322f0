"""The connection ends at every byte of a conversation: each message has one fate, and the server never knows better."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.connectors.smtp.case import LEVELS, LOOPS, Book, Server, offers, relay, run, sent, serving

REFUSING = {("rcpt", 1): b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"}


async def _talk(level: str, server: Server, count: int = 3) -> Book:
    book = Book(offers(count))
    async with serving(server):
        error = await sent(relay(server, pipelining=level), book)
    done = len(book.taken) == count and not {"unsent", "unknown"} & set(book.told)
    assert error is not None or done
    book.agrees_with(server)
    return book


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_answers_end_at_every_byte(loop: str, level: str) -> None:
    async def all_cuts() -> set[str]:
        whole = Server(script=dict(REFUSING))
        assert (await _talk(level, whole)).told == ["250", "550 rcpt", "250"]
        seen: set[str] = set()
        for cut in range(1, whole.out_bytes):
            book = await _talk(level, Server(script=dict(REFUSING), cut_out=cut))
            seen.update(book.told)
            told = book.told
            if "unknown" in told:  # a session ends at the first one
                assert told.count("unknown") == 1
        return seen

    assert run(loop, all_cuts()) == {"250", "550 rcpt", "unsent", "unknown"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_mail_ends_at_every_byte(loop: str, level: str) -> None:
    async def all_cuts() -> None:
        whole = Server(script=dict(REFUSING))
        await _talk(level, whole)
        length = whole.peers[0].received
        step = 1 if loop == "uvloop" else 7
        for cut in range(1, length - len("QUIT\r\n"), step):
            server = Server(script=dict(REFUSING), cut_in=cut)
            book = await _talk(level, server)
            assert {"unsent", "unknown"} & set(book.told)

    run(loop, all_cuts())


@settings(max_examples=60, deadline=None)
@given(
    level=st.sampled_from(LEVELS),
    loop=st.sampled_from(sorted(LOOPS)),
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    refused=st.dictionaries(
        st.tuples(st.sampled_from(["mail", "rcpt", "data", "end"]), st.integers(0, 3)),
        st.sampled_from([b"450 4.2.1 later\r\n", b"550-5.1.1 never\r\n550-5.1.1 ever\r\n550 5.1.1 more\r\n"]),
        max_size=3,
    ),
)
def test_however_the_answers_are_split_the_fates_are_the_same(
    level: str, loop: str, pieces: list[int], refused: dict[tuple[str, int], bytes | None]
) -> None:
    async def both() -> None:
        whole, split = Server(script=dict(refused)), Server(script=dict(refused), pieces=pieces)
        first, second = await _talk(level, whole, 5), await _talk(level, split, 5)
        assert first.told == second.told
        assert first.replies == second.replies
        assert whole.arrived == split.arrived

    run(loop, both())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loop", LOOPS)
def test_byte_by_byte_and_late(loop: str, level: str) -> None:
    async def both() -> None:
        slow = await _talk(level, Server(script=dict(REFUSING), pieces=[1]), 5)
        late = await _talk(level, Server(script=dict(REFUSING), late_seconds=0.005), 5)
        assert slow.told == late.told == ["250", "550 rcpt", "250", "250", "250"]

    run(loop, both())
