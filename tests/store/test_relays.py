"""Places in shared windows, held by several workers; breakers and slowing as the workers share them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.clock import ManualClock
from hub.store import relays
from hub.store.database import Database
from hub.store.relays import Ask, Given, Slowed


class Books:
    """The tables as one worker after the other uses them."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db, self.clock = db, clock

    async def ask(
        self, holder: str, wanted: int = 0, *, used: int = 0, keep: int = 0, **limits: int
    ) -> Given:
        return await self.send(Ask("main", "", holder, used, keep, wanted, limits, bool(used or keep)))

    async def send(self, ask: Ask) -> Given:
        async with self.db.transaction() as conn:
            return await relays.exchange(conn, ask, now=self.clock.now())

    async def lapse(self, holder: str) -> None:
        await self.do(
            "UPDATE relay_hold SET lease_until = clock_timestamp() - interval '1 s' WHERE holder = %s", holder
        )

    async def do(self, query: str, *values: object) -> None:
        async with self.db.transaction() as conn:
            await conn.execute(query.encode(), values or None)

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        async with self.db.connection() as conn:
            return list(await (await conn.execute(query.encode())).fetchall())


@pytest.fixture
def books(database: Database, clock: ManualClock) -> Books:
    return Books(database, clock)


async def test_what_is_held_counts_until_it_is_given_back(books: Books) -> None:
    assert (await books.ask("a", 70, day=100)).granted == 70
    assert (await books.ask("b", 70, day=100)).granted == 30
    assert (await books.ask("a", used=20, keep=10, day=100)).granted == 0  # 40 of the 70 go back
    assert (await books.ask("b", 70, keep=30, day=100)).granted == 40


@pytest.mark.parametrize(
    ("span", "before_it_ends", "after"),
    [
        ("minute", timedelta(seconds=59), timedelta(seconds=62)),
        ("hour", timedelta(minutes=59), timedelta(seconds=3_616)),
        ("day", timedelta(hours=23, minutes=59), timedelta(hours=24, minutes=6)),
        ("date", timedelta(hours=14, minutes=59), timedelta(hours=15)),  # it is nine o'clock
    ],
)
async def test_a_window_has_room_again_when_it_is_over(
    books: Books, span: str, before_it_ends: timedelta, after: timedelta
) -> None:
    await books.ask("a", 10, **{span: 10})
    told = await books.ask("a", 5, used=10, **{span: 10})
    assert told.granted == 0
    books.clock.current += before_it_ends
    assert (await books.ask("a", 5, **{span: 10})).granted == 0
    books.clock.current += after - before_it_ends
    assert before_it_ends < timedelta(seconds=told.room_in_seconds) <= after
    assert (await books.ask("a", 15, **{span: 10})).granted == 10


async def test_the_narrowest_window_decides(books: Books) -> None:
    assert (await books.ask("a", 50, minute=20, hour=30, day=40)).granted == 20
    await books.ask("a", used=20)
    books.clock.advance(minutes=2)
    assert (await books.ask("a", 50, minute=20, hour=30, day=40)).granted == 10
    await books.ask("a", used=10)
    books.clock.advance(hours=2)
    assert (await books.ask("a", 50, minute=20, hour=30, day=40)).granted == 10


async def test_what_a_killed_worker_held_counts_as_used_and_is_free_when_the_window_is_over(
    books: Books,
) -> None:
    await books.ask("killed", 60, hour=100)
    await books.lapse("killed")
    told = await books.ask("b", 100, hour=100)
    assert (told.granted, told.workers) == (40, 1)
    books.clock.advance(hours=1, seconds=16)
    assert (await books.ask("b", 100, used=40, hour=100)).granted == 60


async def test_a_worker_that_was_taken_for_dead_counts_nothing_twice_and_keeps_nothing(books: Books) -> None:
    await books.ask("slow", 60, hour=100)
    await books.lapse("slow")
    assert (await books.ask("b", 10, hour=100)).granted == 10
    told = await books.ask("slow", 100, used=25, keep=35, hour=100)
    assert (told.lost, told.granted) == (True, 30)
    assert await books.rows("SELECT used FROM relay_use WHERE span = 'hour'") == [(60,)]


async def test_without_limits_all_is_granted_and_counted_for_a_limit_that_comes(books: Books) -> None:
    assert (await books.ask("a", 500)).granted == 500
    await books.send(Ask("main", "", "a", used=500, keep=0))
    assert (await books.ask("a", 200, day=600)).granted == 100


async def test_relays_and_receivers_are_counted_apart(books: Books) -> None:
    await books.ask("a", 10, day=10)
    for relay, scope in (("spare", ""), ("main", "gmail")):
        assert (await books.send(Ask(relay, scope, "a", wanted=10, limits={"day": 10}))).granted == 10


async def test_a_worker_that_leaves_is_no_longer_one_of_them(books: Books) -> None:
    assert (await books.ask("a")).workers == 1
    assert (await books.ask("b")).workers == 2
    await books.send(Ask("main", "", "b", stay=False))
    assert (await books.ask("a")).workers == 1
    await books.ask("b")
    async with books.db.transaction() as conn:
        await relays.leave(conn, "b")
    assert (await books.ask("a")).workers == 1


async def test_old_grains_are_forgotten_and_no_window_notices(books: Books) -> None:
    await books.send(Ask("main", "", "a", used=7))
    books.clock.advance(hours=5)
    async with books.db.transaction() as conn:
        assert await relays.forget(conn, now=books.clock.now()) == 2  # of the minute and of the hour
    assert (await books.ask("a", 10, minute=10)).granted == 10
    assert (await books.ask("a", 20, keep=10, day=20)).granted == 3


LIMITS = {"minute": 40, "hour": 300, "day": 900, "date": 800}
LENGTHS = {"minute": 60, "hour": 3_600, "day": 86_400}


async def test_workers_that_race_never_overstep_any_window(database_url: str, clock: ManualClock) -> None:
    """Four workers in two pools ask at the same moments, use some, give back some, and one dies now and then."""
    dice = random.Random(7)
    sent: list[datetime] = []
    async with Database(database_url, size=3) as one, Database(database_url, size=3) as two:
        held = dict.fromkeys(range(4), 0)
        lives = dict.fromkeys(range(4), 0)

        async def turn(worker: int, asks: int) -> None:
            books = Books(two if worker % 2 else one, clock)
            name = f"{worker}:{lives[worker]}"
            used = dice.randint(0, held[worker])
            sent.extend([clock.now()] * used)
            if asks % 13 == 0:  # it dies before it can tell, and another one takes its place
                await books.lapse(name)
                held[worker], lives[worker] = 0, lives[worker] + 1
                return
            keep = dice.randint(0, held[worker] - used)
            given = await books.send(Ask("main", "", name, used, keep, asks, LIMITS, held[worker] > 0))
            assert not given.lost
            held[worker] = keep + given.granted

        for _ in range(100):
            await asyncio.gather(*(turn(worker, dice.randint(0, 60)) for worker in held))
            clock.advance(seconds=dice.choice([0, 0, 1, 7, 30, 61, 600, 3_000]))
    _never_above(sent, LIMITS)
    assert len(sent) > 500


def _never_above(sent: list[datetime], limits: Mapping[str, int]) -> None:
    for span, seconds in LENGTHS.items():
        first = 0
        for last, at in enumerate(sent):
            while (at - sent[first]).total_seconds() >= seconds:
                first += 1
            assert last - first + 1 <= limits[span], (span, at)
    for day in {at.date() for at in sent}:
        assert sum(at.date() == day for at in sent) <= limits["date"]


async def test_one_worker_probes_at_a_time(books: Books) -> None:
    async with books.db.transaction() as conn:
        await relays.opened(conn, "main", "a", "no answer", pause_seconds=15, now=books.clock.now())
        assert not await relays.take_probe(conn, "main", "a")
    state = (await states(books, "a"))["main"]
    assert (state.state, state.reason, state.trips, state.probing) == ("open", "no answer", 1, False)
    assert 14 < state.probe_in_seconds <= 15
    await books.do("UPDATE relay_state SET next_probe_at = clock_timestamp()")
    taken = await asyncio.gather(*(probe(books, name) for name in "abcd"))
    assert sum(taken) == 1
    (prober,) = [name for name, mine in zip("abcd", taken, strict=True) if mine]
    assert [(await states(books, name))["main"].probing for name in "abcd"] == [
        name == prober for name in "abcd"
    ]
    other = "b" if prober == "a" else "a"
    async with books.db.transaction() as conn:  # who does not probe has nothing new to say
        await relays.opened(conn, "main", other, "old news", pause_seconds=1, now=books.clock.now())
    assert (await states(books, "a"))["main"].reason == "no answer"
    async with books.db.transaction() as conn:
        await relays.opened(conn, "main", prober, "still none", pause_seconds=30, now=books.clock.now())
    assert (await states(books, "a"))["main"].trips == 2
    async with books.db.transaction() as conn:
        await relays.closed(conn, "main", now=books.clock.now())
    assert replace((await states(books, "a"))["main"]) == relays.State("main")


async def test_a_prober_that_is_gone_is_followed_by_another(books: Books) -> None:
    async with books.db.transaction() as conn:
        await relays.opened(conn, "main", "a", "no answer", pause_seconds=0, now=books.clock.now())
    assert await probe(books, "a")
    assert not await probe(books, "b")
    await books.do("UPDATE relay_state SET probe_until = clock_timestamp() - interval '1 s'")
    assert await probe(books, "b")
    async with books.db.transaction() as conn:
        await relays.leave(conn, "b")
    assert await probe(books, "a")


async def probe(books: Books, name: str) -> bool:
    async with books.db.transaction() as conn:
        return await relays.take_probe(conn, "main", name)


async def states(books: Books, name: str) -> dict[str, relays.State]:
    async with books.db.connection() as conn:
        return await relays.states(conn, name)


async def test_slowing_is_remembered_for_a_while(books: Books) -> None:
    rows = [Slowed("main", "gmail", 5.0, 50.0, "421 4.7.28"), Slowed("main", "", 10.0, 90.0, "451")]
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    async with books.db.transaction() as conn:
        await relays.keep_slowed(conn, rows, [], now=books.clock.now())
        assert await relays.slowed(conn, changed_after=long_ago) == sorted(rows)
        assert await relays.slowed(conn, changed_after=books.clock.now()) == []
        await relays.keep_slowed(
            conn, [rows[0]._replace(per_second=2.5)], [("main", "")], now=books.clock.now()
        )
        assert await relays.slowed(conn, changed_after=long_ago) == [rows[0]._replace(per_second=2.5)]


async def test_the_overview_shows_use_with_what_is_held(books: Books) -> None:
    await books.ask("a", 30, day=100)
    await books.ask("a", used=10, keep=20)
    async with books.db.connection() as conn:
        found = await relays.overview(conn, "main", now=books.clock.now())
    assert found["used"][""] == {"minute": 30, "hour": 30, "day": 30, "date": 30}
    assert (found["state"], found["slowed"], found["pipelining"]) == ("closed", [], None)
