"""Traffic on a real database: limits that several workers keep together, warm-up, slowing, breakers, for simulated days.

Each test's time is its own: one clock for the hub's time and the same seconds as the monotonic one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.clock import ManualClock
from hub.config.settings import RelaySection
from hub.errors import HubError
from hub.mail.breaker import FAILURES
from hub.mail.traffic import Traffic, forget, overview
from hub.mail.way import Way
from hub.sdk.relay import Reply
from hub.store.database import Database

OK = Reply(250, "2.0.0 Ok", "data", "2.0.0")
SLOWER = Reply(421, "4.7.28 unusual rate of mail", "rcpt", "4.7.28")


class World:
    """A clock and workers, each with a pool of its own."""

    def __init__(self, url: str, clock: ManualClock, stack: AsyncExitStack) -> None:
        self.url, self.clock, self.stack = url, clock, stack
        self.sections: dict[str, RelaySection] = {}
        self.dice = random.Random(11)
        self.sent: list[tuple[float, str]] = []

    def relays(self, **relays: dict[str, Any]) -> None:
        self.sections = {name: RelaySection.model_validate(section) for name, section in relays.items()}

    def seconds(self) -> float:
        return self.clock.now().timestamp()

    async def idle(self, name: str = "w") -> Traffic:
        """A worker between two rounds of sending."""
        db = await self.stack.enter_async_context(Database(self.url, size=2))
        return Traffic(
            db, self.clock, self.sections, worker=name, monotonic=self.seconds, dice=self.dice.random
        )

    async def worker(self, name: str = "w") -> Traffic:
        """A worker in a round of sending."""
        return await self.stack.enter_async_context(await self.idle(name))

    def offer(self, way: Way, domain: str = "example.com", reply: Reply | None = OK) -> bool:
        if way.wait_seconds(domain):
            return False
        self.sent.append((self.seconds(), domain))
        if reply:
            way.told(domain, reply)
        return True

    def most(self, seconds: float, *domains: str) -> int:
        """The most mails to these domains within any window of this length."""
        times = [at for at, domain in self.sent if not domains or domain in domains]
        first = found = 0
        for last, at in enumerate(times):
            while at - times[first] >= seconds:
                first += 1
            found = max(found, last - first + 1)
        return found

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with Database(self.url, size=1) as db, db.transaction() as conn:
            cursor = await conn.execute(query.encode())
            return list(await cursor.fetchall()) if cursor.description else []


@pytest.fixture
async def world(database_url: str, clock: ManualClock) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(database_url, clock, stack)


# --- limits ---------------------------------------------------------------------------------------------------


async def test_without_limits_nothing_waits_and_all_is_counted(world: World) -> None:
    world.relays(main={})
    traffic = await world.worker()
    assert await traffic.reserve("main", 1_000) == 1_000
    assert all(world.offer(traffic.way("main"), f"d{n}.example") for n in range(1_000))
    await traffic.flush()
    found = await overview(traffic.db, world.clock, world.sections)
    assert found[0]["windows"]["day"] == {"used": 1_000, "limit": None}


async def test_two_workers_never_overstep_a_window_and_everything_goes(world: World) -> None:
    world.relays(main={"limits": {"per_minute": 60, "per_hour": 250}})
    workers = [await world.worker("a"), await world.worker("b")]
    queue, places = 300, [0, 0]
    while queue or sum(places):
        got = await asyncio.gather(*(worker.reserve("main", world.dice.randint(1, 50)) for worker in workers))
        for n, worker in enumerate(workers):
            taken = min(got[n], queue)
            worker.give_back("main", got[n] - taken)
            queue -= taken
            places[n] += taken
        for _ in range(10):
            for n, worker in enumerate(workers):
                while places[n] and world.dice.random() < 0.8:
                    places[n] -= 1
                    if world.dice.random() < 0.1:  # it cannot be composed
                        worker.give_back("main", 1)
                    else:
                        assert world.offer(worker.way("main"))
            world.clock.advance(seconds=world.dice.choice([0.1, 1, 1, 2]))
        if world.most(3_600) >= 230 or world.dice.random() < 0.3:
            await asyncio.gather(*(worker.flush() for worker in workers))
            world.clock.advance(seconds=world.dice.choice([0, 10, 45]))
        assert world.sent[-1][0] - world.sent[0][0] < 2 * 3_600
    assert len(world.sent) > 250
    assert world.most(60) <= 60
    assert world.most(3_600) <= 250


async def test_a_window_is_used_to_its_last_place_by_any_one_worker(world: World) -> None:
    world.relays(main={"limits": {"per_day": 100}})
    a, b = await world.worker("a"), await world.worker("b")
    assert await a.reserve("main", 30) == 30
    assert await b.reserve("main", 100) == 70
    assert await a.reserve("main", 1) == 0
    assert a.room_in_seconds("main") > 0
    b.give_back("main", 70)
    for _ in range(5):
        await b.flush()
    assert await a.reserve("main", 100) == 70
    for _ in range(100):
        assert world.offer(a.way("main"))
    assert not world.offer(a.way("main"))


async def test_what_was_not_offered_after_all_may_be_offered_again(world: World) -> None:
    world.relays(main={"limits": {"per_day": 5}, "domains": {"gmail": {"per_day": 5}}})
    traffic = await world.worker()
    way = traffic.way("main")
    assert await traffic.reserve("main", 10) == 5
    assert way.wait_seconds("gmail.com") > 0  # its places are on their way
    await traffic.flush()
    for _ in range(20):
        assert world.offer(way, "gmail.com", reply=None)
        way.unsent("gmail.com")
    await traffic.flush()
    assert sum(world.offer(way, "gmail.com") for _ in range(20)) == 5


async def test_places_of_a_killed_worker_are_used_up_and_those_of_a_stopped_one_are_free(
    world: World,
) -> None:
    world.relays(main={"limits": {"per_hour": 100}})
    db = await world.stack.enter_async_context(Database(world.url, size=2))
    killed = Traffic(db, world.clock, world.sections, worker="k", monotonic=world.seconds)
    assert await killed.reserve("main", 40) == 40
    async with Traffic(db, world.clock, world.sections, worker="s", monotonic=world.seconds) as stopped:
        assert await stopped.reserve("main", 50) == 50
        assert world.offer(stopped.way("main"))
    other = await world.worker()
    assert await other.reserve("main", 100) == 59
    await world.rows("UPDATE relay_hold SET lease_until = now() - interval '1 s' WHERE holder LIKE 'k:%'")
    assert await other.reserve("main", 100) == 0
    world.clock.advance(hours=1, minutes=1)
    await other.flush()
    other.give_back("main", 59)
    assert await other.reserve("main", 100) == 100
    assert (
        killed.way("main").wait_seconds("example.com") > 0
    )  # should it wake up, its places are no longer its own


async def test_a_worker_that_slept_too_long_offers_nothing_until_it_has_asked(world: World) -> None:
    world.relays(main={"limits": {"per_hour": 100}})
    traffic = await world.worker()
    assert await traffic.reserve("main", 10) == 10
    world.clock.advance(seconds=59)
    assert not world.offer(traffic.way("main"))
    await traffic.flush()
    assert all(world.offer(traffic.way("main")) for _ in range(10))


async def test_receivers_have_limits_of_their_own_in_every_window(world: World) -> None:
    world.relays(
        main={"domains": {"gmail": {"per_minute": 30, "per_second": 6}, "example.org": {"per_hour": 20}}}
    )
    workers = [await world.worker("a"), await world.worker("b")]
    for worker in [*workers, *workers]:  # so that each knows of the other
        assert world.offer(worker.way("main"), "first.example")
        await worker.flush()
    waiting = Counter({"gmail.com": 60, "googlemail.com": 40, "example.org": 50, "other.example": 100})
    began = world.seconds()
    while waiting.total() and world.seconds() - began < 4 * 3_600:
        for _ in range(10):
            for worker in workers:
                for domain in list(waiting):
                    while waiting[domain] and world.offer(worker.way("main"), domain):
                        waiting[domain] -= 1
            world.clock.advance(seconds=0.2)
        await asyncio.gather(*(worker.flush() for worker in workers))
        if not waiting["gmail.com"] + waiting["googlemail.com"]:
            world.clock.advance(seconds=50)
    assert waiting.total() == 0
    assert world.most(60, "gmail.com", "googlemail.com") <= 30
    assert world.most(1, "gmail.com", "googlemail.com") <= 6
    assert world.most(3_600, "example.org") <= 20
    assert world.most(0.5, "other.example") == 100


async def test_mails_under_way_to_a_receiver_are_limited(world: World) -> None:
    world.relays(main={"domains": {"yahoo": {"connections": 3}}})
    way = (await world.worker()).way("main")
    assert [world.offer(way, "aol.com", reply=None) for _ in range(5)] == [True] * 3 + [False] * 2
    assert world.offer(way, "example.com")
    way.told("yahoo.com", Reply(550, "no such user", "rcpt"))
    way.unknown("aol.com")
    assert [world.offer(way, "yahoo.com", reply=None) for _ in range(3)] == [True, True, False]


async def test_the_second_is_shared_by_the_workers_that_use_the_relay(world: World) -> None:
    world.relays(main={"limits": {"per_second": 20}})
    a, b = await world.worker("a"), await world.worker("b")

    async def tick(*workers: Traffic) -> None:
        for _ in range(100):
            for worker in workers:
                world.offer(worker.way("main"))
            world.clock.advance(seconds=0.01)
        for worker in workers:
            await worker.reserve("main", 100)
            await worker.flush()

    await tick(a, b)
    await tick(a, b)  # by now each knows of the other
    world.sent.clear()
    for _ in range(5):
        await tick(a, b)
    assert world.most(1) <= 20
    assert 90 <= len(world.sent) <= 100
    world.sent.clear()
    for _ in range(16):
        await tick(a)
        await b.flush()
    assert world.most(1) <= 20
    assert len(world.sent) > 200


# --- warm-up --------------------------------------------------------------------------------------------------


async def test_a_warm_up_plan_is_followed_day_by_day(world: World) -> None:
    plan = [50, 100, 500]
    world.relays(main={"warm_up": {"start": "2026-11-25", "plan": plan}, "limits": {"per_hour": 400}})
    workers = [await world.worker("a"), await world.worker("b")]
    by_day: Counter[str] = Counter()
    for _ in range(5 * 12):  # from the 24th at nine o'clock
        for worker in workers:
            got = await worker.reserve("main", 130)
            taken = world.dice.randint(got // 3, got)
            for _ in range(taken):
                assert world.offer(worker.way("main"))
                by_day[world.clock.now().date().isoformat()] += 1
            worker.give_back("main", got - taken)
        world.clock.advance(hours=2)
        for worker in workers:
            worker.way("main").purse.idle = 9  # as if nothing had been asked for a while
            await worker.flush()
    assert by_day["2026-11-24"] == 0
    assert [by_day[f"2026-11-{day}"] for day in (25, 26, 27)] == plan
    assert by_day["2026-11-28"] > 1_000
    assert world.most(3_600) <= 400
    found = await overview(workers[0].db, ManualClock(datetime(2026, 11, 26, 1, tzinfo=UTC)), world.sections)
    assert found[0]["warm_up"] == {"day": 2, "allowance": 100}


# --- slowing --------------------------------------------------------------------------------------------------


async def test_a_receiver_that_asks_for_less_gets_less_and_others_do_not(world: World) -> None:
    world.relays(main={})
    traffic = await world.worker()
    way = traffic.way("main")
    budget, refused, taken = 20.0, 0, 0
    for step in range(20 * 400):
        world.clock.advance(seconds=0.05)
        budget = min(20.0, budget + 1.0)  # the receiver takes 20 a second
        for domain in ("gmail.com", "googlemail.com") * 3:
            if way.wait_seconds(domain) == 0.0:
                took = budget >= 1
                budget -= took
                way.told(domain, OK if took else SLOWER)
                if step > 20 * 100:
                    taken, refused = taken + took, refused + (not took)
        assert world.offer(way, "other.example")
        if step % 20 == 0:
            way.turn_page()
    assert 0.6 * 20 * 300 <= taken <= 20 * 300 + 20
    assert refused < 0.05 * taken


async def test_slowing_outlives_a_restart_and_ends(world: World) -> None:
    world.relays(main={})
    first = await world.worker("first")
    for _ in range(400):
        world.offer(first.way("main"), "hotmail.com")
        world.clock.advance(seconds=0.05)
    first.way("main").told("outlook.com", SLOWER)
    await first.flush()
    (row,) = (await overview(first.db, world.clock, world.sections))[0]["slowed"]
    assert row["receiver"] == "microsoft"
    assert row["per_second"] == pytest.approx(10, rel=0.2)
    assert row["reason"].startswith("421 4.7.28")
    second = await world.worker("second")
    way = second.way("main")
    went = 0
    for _ in range(100):
        went += world.offer(way, "live.com")
        world.clock.advance(seconds=0.01)
    assert 8 <= went <= 14
    assert world.offer(way, "gmail.com")
    for _ in range(100 * 100):
        world.offer(way, "msn.com")
        world.clock.advance(seconds=0.01)
    await second.flush()
    assert all(world.offer(way, "msn.com") for _ in range(50))
    assert (await overview(second.db, world.clock, world.sections))[0]["slowed"] == []


async def test_a_refusal_before_the_recipient_slows_the_relay(world: World) -> None:
    world.relays(main={})
    way = (await world.worker()).way("main")
    for _ in range(200):
        world.offer(way, f"d{world.dice.randint(1, 9)}.example")
        world.clock.advance(seconds=0.01)
    way.told("d1.example", Reply(451, "4.3.2 Not now", "mail", "4.3.2"))
    went = 0
    for n in range(100):
        went += world.offer(way, f"e{n}.example")
        world.clock.advance(seconds=0.01)
    assert 30 <= went <= 55


# --- breakers -------------------------------------------------------------------------------------------------


async def test_the_life_of_a_breaker_over_two_workers(world: World) -> None:
    world.relays(main={}, spare={})
    a, b = await world.worker("a"), await world.worker("b")
    for _ in range(FAILURES):
        a.way("main").session_failed("relay main cannot be reached: ConnectionRefusedError")
    assert a.routes("news", "a.example", "DE", 1) == ("spare", "main")
    assert b.routes("news", "a.example", "DE", 1) == ("main", "spare")
    await a.flush()
    await b.flush()
    assert b.routes("news", "a.example", "DE", 1) == ("spare", "main")
    assert not b.way("main").usable()
    (row, other) = await overview(a.db, world.clock, world.sections)
    assert (row["state"], row["reason"][:33]) == ("left alone", "relay main cannot be reached: Con")
    assert 10 < row["probe_in_seconds"] < 20
    assert other["state"] == "used"

    await world.rows("UPDATE relay_state SET next_probe_at = now()")
    await a.flush()
    await b.flush()
    probing = [w for w in (a, b) if w.way("main").usable()]
    assert len(probing) == 1
    (prober,) = probing
    assert prober.way("main").sessions() == 1
    ways = Counter(prober.routes("news", "a.example", "DE", n)[0] for n in range(100))
    assert 1 <= ways["main"] <= 5
    prober.way("main").session_failed("still refused")
    await prober.flush()
    (trips,) = await world.rows(
        "SELECT trips, reason, next_probe_at > now() + interval '20 s' FROM relay_state"
    )
    assert trips == (2, "still refused", True)

    await world.rows("UPDATE relay_state SET next_probe_at = now()")
    for worker in (a, b):
        worker.routes("news", "a.example", "DE", 1)
        await worker.flush()
    (prober,) = [w for w in (a, b) if w.way("main").usable()]
    prober.way("main").session_worked()
    await prober.flush()
    for worker in (a, b):
        await worker.flush()
        assert worker.way("main").sessions() == 4
        assert worker.routes("news", "a.example", "DE", 1) == ("main", "spare")


async def test_a_relay_that_nobody_would_use_is_not_probed(world: World) -> None:
    world.relays(main={}, spare={})
    traffic = await world.worker()
    traffic.way("spare").session_failed("relay spare refuses the login (535)", login=True)
    await traffic.flush()
    await world.rows("UPDATE relay_state SET next_probe_at = now()")
    assert traffic.routes("news", "a.example", "DE", 1) == ("main", "spare")
    await traffic.flush()
    assert not traffic.way("spare").usable()
    traffic.way("main").session_failed("gone", login=True)
    assert traffic.routes("news", "a.example", "DE", 1) == ("main", "spare")
    await traffic.flush()
    assert traffic.way("spare").usable()


async def test_a_restart_finds_breakers_and_pipelining_as_they_were(world: World) -> None:
    world.relays(main={}, spare={})
    first = await world.worker("first")
    first.way("main").pipelining = "full"
    first.way("spare").session_failed("refused", login=True)
    await first.flush()
    second = await world.worker("second")
    assert second.way("main").pipelining == "full"
    assert not second.way("spare").usable()
    second.way("main").pipelining = "off"
    await second.flush()
    assert (await overview(first.db, world.clock, world.sections))[0]["pipelining"] == "off"


# --- from round to round --------------------------------------------------------------------------------------


async def test_failures_are_counted_over_rounds(world: World) -> None:
    world.relays(main={}, spare={})
    traffic = await world.idle()
    for n in range(FAILURES):
        async with traffic:
            assert traffic.routes("news", "a.example", "DE", n)[0] == "main"
            traffic.way("main").session_failed("relay main cannot be reached")
        world.clock.advance(seconds=2)
    async with traffic:
        assert not traffic.way("main").usable()
    (row, _) = await overview(traffic.db, world.clock, world.sections)
    assert row["state"] == "left alone"


async def test_an_answer_between_them_begins_the_count_anew(world: World) -> None:
    world.relays(main={})
    traffic = await world.idle()
    for n in range(3 * FAILURES):
        async with traffic:
            traffic.way("main").session_failed("relay main cannot be reached")
            if n % FAILURES == 1:
                traffic.way("main").session_worked()
            assert traffic.way("main").usable()


async def test_slowing_goes_on_over_rounds_as_within_one(world: World) -> None:
    world.relays(main={})
    within, over = await world.worker("within"), await world.idle("over")
    rates: list[list[float]] = [[], []]
    for n in range(60):
        async with over:
            for traffic, rate in zip((within, over), rates, strict=True):
                way = traffic.way("main")
                for _ in range(20):
                    world.offer(way, "gmail.com")
                if n % 20 == 10:
                    way.told("gmail.com", SLOWER)
                rate += [row.per_second for row in way.slowed().values()]
                way.turn_page()
        world.clock.advance(seconds=1)
    assert len(rates[0]) > 40
    assert rates[1] == pytest.approx(rates[0])


async def test_what_was_measured_lasts_over_a_short_pause_and_not_over_a_long_one(world: World) -> None:
    world.relays(main={})
    traffic = await world.idle()
    way = traffic.way("main")
    for pause, least, most in ((2, 10, 21), (600, 0, 0)):
        for _ in range(3):
            async with traffic:
                for _ in range(100):
                    world.offer(way)
                    world.clock.advance(seconds=0.05)
        world.clock.advance(seconds=pause)
        async with traffic:
            assert least <= way.measured() <= most


async def test_who_was_freed_by_somebody_else_is_free(world: World) -> None:
    world.relays(main={}, spare={})
    traffic = await world.idle()
    for reply in (SLOWER, Reply(451, "4.3.2 Not now", "mail", "4.3.2")):
        async with traffic:
            for name in ("main", "spare"):
                traffic.way(name).told("gmail.com", reply)
    async with traffic:
        assert set(traffic.way("main").slowed()) == {"", "gmail"}
    await world.rows("DELETE FROM relay_slow WHERE relay = 'main'")
    async with traffic:
        assert traffic.way("main").slowed() == {}
        assert all(world.offer(traffic.way("main"), "gmail.com") for _ in range(50))
        assert set(traffic.way("spare").slowed()) == {"", "gmail"}


async def test_nothing_is_held_between_rounds(world: World) -> None:
    world.relays(main={"limits": {"per_hour": 100}, "domains": {"gmail": {"per_hour": 50}}})
    traffic = await world.idle()
    for n in range(1, 4):
        async with traffic:
            assert await traffic.reserve("main", 30) == 30
            traffic.way("main").wait_seconds("gmail.com")
            assert await world.rows("SELECT count(*) > 0 FROM relay_hold") == [(True,)]
            for _ in range(10):
                world.offer(traffic.way("main"))
            await traffic.flush()
        assert await world.rows("SELECT count(*) FROM relay_hold") == [(0,)]
        (row,) = await overview(traffic.db, world.clock, world.sections)
        assert row["windows"]["hour"]["used"] == 10 * n


# --- learned anew ---------------------------------------------------------------------------------------------


async def test_which_pipelining_works_is_forgotten_after_a_day(world: World) -> None:
    world.relays(main={})
    traffic = await world.idle()
    async with traffic:
        traffic.way("main").pipelining = "off"
    for hours, known in ((23.9, "off"), (0.2, None)):
        world.clock.advance(hours=hours)
        for each in (traffic, await world.idle("another")):
            async with each:
                assert each.way("main").pipelining == known
    async with traffic:
        traffic.way("main").pipelining = "off"  # found again
    world.clock.advance(hours=20)
    async with traffic:
        assert traffic.way("main").pipelining == "off"


async def test_it_is_forgotten_at_once_when_the_relays_keys_are_others(world: World) -> None:
    keys = {"host": "smtp.example.com", "pipelining": "auto"}
    world.relays(main={**keys, "weight": 1}, spare=keys)
    async with await world.idle() as traffic:
        for name in ("main", "spare"):
            traffic.way(name).pipelining = "off"
    for other in ({"pipelining": "full"}, {"host": "smtp.example.net"}):
        world.relays(main={**keys, "weight": 2}, spare={**keys, **other})
        async with await world.idle() as traffic:
            assert traffic.way("main").pipelining == "off"
            assert traffic.way("spare").pipelining is None


async def test_a_relay_is_learned_anew_on_an_admins_word(world: World) -> None:
    world.relays(main={}, spare={})
    a, b, idle = await world.worker("a"), await world.worker("b"), await world.idle("idle")
    unlearned: list[str] = []
    for traffic, who in ((a, "a"), (b, "b")):
        traffic.way("main").unlearn = lambda who=who: unlearned.append(who)  # type: ignore[misc]
    for name in ("main", "spare"):
        a.way(name).pipelining = "off"
        a.way(name).told("gmail.com", SLOWER)
        a.way(name).session_failed("refused", login=True)
        for _ in range(FAILURES - 1):
            b.way(name).session_failed("cannot be reached")
    await a.flush()
    async with idle:
        assert not idle.way("main").usable()
    told = await forget(a.db, world.clock, world.sections, "main")
    assert told == {"relay": "main", "pipelining": "off", "left_alone": "refused", "slowed": ["gmail"]}
    for worker in (a, b):
        await worker.flush()
    assert unlearned == ["a", "b"]
    async with idle:
        for traffic in (a, b, idle):
            way, spare = traffic.way("main"), traffic.way("spare")
            assert (way.usable(), way.pipelining, way.slowed()) == (True, None, {})
            way.session_failed("cannot be reached")
            assert way.usable()
            assert (spare.usable(), spare.pipelining) == (False, "off")
    assert set(idle.way("spare").slowed()) == {"gmail"}
    row, other = await overview(a.db, world.clock, world.sections)
    assert (row["state"], row["pipelining"], row["slowed"]) == ("used", None, [])
    assert (other["state"], other["pipelining"]) == ("left alone", "off")


async def test_what_is_told_while_a_relay_is_forgotten_does_not_come_back(world: World) -> None:
    world.relays(main={})
    traffic = await world.worker()
    way = traffic.way("main")
    way.told("gmail.com", SLOWER)
    way.session_failed("refused", login=True)
    await forget(traffic.db, world.clock, world.sections, "main")
    way.pipelining = "off"
    for _ in range(2):
        await traffic.flush()
    assert (way.usable(), way.pipelining, way.slowed()) == (True, None, {})
    (row,) = await overview(traffic.db, world.clock, world.sections)
    assert (row["state"], row["slowed"]) == ("used", [])


async def test_a_relay_that_is_not_there_is_not_forgotten(world: World) -> None:
    world.relays(main={})
    traffic = await world.idle()
    with pytest.raises(HubError, match=r"there is no relay 'mian'; hub.yaml has main"):
        await forget(traffic.db, world.clock, world.sections, "mian")
