"""The whole journey on real servers, with the worst that can happen to a machine in the middle of it.

Each test plays the same small rehearsal; whatever is killed, wiped or restarted, the sums must be those of the
undisturbed run, and nothing may reach anybody twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.demo import journey, stage, sums
from hub.jobs import runtime as runtimes
from hub.store import outbox

CONTACTS = 240
Trouble = Callable[[stage.Stage, dict[str, Any]], None]

pytestmark = pytest.mark.timeout(300)


def play(folder: Path, trouble: Trouble | None = None) -> sums.Sums:
    """Play a rehearsal through; `trouble` is called with the hub's numbers a few times a second."""
    started = time.monotonic()
    with stage.built(folder, contacts=CONTACTS) as built:

        async def go() -> sums.Sums:
            async with runtimes.opened(built.config, built.environment, clock=built.clock) as runtime:
                watch = (lambda numbers: trouble(built, numbers)) if trouble else (lambda numbers: None)
                numbers = await journey.Journey(built, runtime, watch).play()
                async with runtime.db.connection() as conn:
                    pushed = await outbox.confirmed_results(conn)
            return await asyncio.to_thread(
                sums.taken, built, numbers, pushed=pushed, seconds=time.monotonic() - started
            )

        return asyncio.run(go())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> sums.Sums:
    found = play(tmp_path_factory.mktemp("calm") / "stage")
    assert found.disagreements == []
    assert found.deliveries["uncertain"] == 0
    return found


def same(found: sums.Sums, calm: sums.Sums) -> None:
    """The sums of the undisturbed run; a send that was cut in its middle may stand as uncertain, and only that."""
    assert found.disagreements == []
    assert found.duplicates == 0
    assert (found.contacts, found.deals, found.lists) == (calm.contacts, calm.deals, calm.lists)
    uncertain = found.deliveries["uncertain"]
    assert found.deliveries["rejected"] == calm.deliveries["rejected"]
    for now, then in (
        (found.deliveries["accepted"], calm.deliveries["accepted"]),
        *(
            (found.results[kind], calm.results[kind])
            for kind in ("delivered", "bounced", "opened", "clicked", "unsubscribed")
        ),
    ):
        assert then - uncertain <= now <= then + uncertain


def test_undisturbed(undisturbed: sums.Sums) -> None:
    assert undisturbed.contacts == CONTACTS
    assert undisturbed.deals == CONTACTS * 3 // 10
    assert set(undisturbed.lists) == {"trial", "readers"}
    assert min(undisturbed.lists.values()) > 0
    assert all(count > 0 for count in undisturbed.results.values())
    assert undisturbed.pushed == undisturbed.read_back
    assert undisturbed.pushed["crm"] == undisturbed.deliveries["accepted"] + sum(undisturbed.results.values())


def test_redis_is_flushed_again_and_again(tmp_path: Path, undisturbed: sums.Sums) -> None:
    import redis

    flushed = []

    def flush(built: stage.Stage, numbers: dict[str, Any]) -> None:
        if len(flushed) < 20:
            client = redis.Redis.from_url(built.servers.urls.redis)
            client.flushall()
            client.close()
            flushed.append(numbers["results"].get("sent", 0))

    same(play(tmp_path / "stage", flush), undisturbed)
    assert len(flushed) == 20


def test_the_worker_is_killed_at_five_random_points(tmp_path: Path, undisturbed: sums.Sums) -> None:
    # Five points of the journey, by how much has been handled: pulling, sending and writing back among them. Not its very
    # end: that may come between two looks.
    random_points = random.Random(11)
    points = sorted(random_points.uniform(0.02, 0.7) for _ in range(5))
    whole = undisturbed.contacts + undisturbed.deliveries["accepted"] + sum(undisturbed.pushed.values())
    killed: list[float] = []

    def kill(built: stage.Stage, numbers: dict[str, Any]) -> None:
        handled = numbers["contacts"] + numbers["deliveries"].get("accepted", 0)
        handled += sum(states.get("done", 0) for states in numbers["outbox"].values())
        if len(killed) < 5 and handled / whole >= points[len(killed)] and built.worker.alive:
            assert built.worker.process is not None
            built.worker.process.kill()
            killed.append(handled / whole)

    same(play(tmp_path / "stage", kill), undisturbed)
    assert len(killed) == 5


def test_postgresql_is_restarted_in_the_middle(tmp_path: Path, undisturbed: sums.Sums) -> None:
    restarted: list[int] = []

    def restart(built: stage.Stage, numbers: dict[str, Any]) -> None:
        sent = numbers["deliveries"].get("accepted", 0)
        if len(restarted) < 2 and sent > 20 + 60 * len(restarted):
            restarted.append(sent)
            built.servers.restart_postgres()

    same(play(tmp_path / "stage", restart), undisturbed)
    assert len(restarted) == 2


def test_everything_is_killed_and_comes_back(tmp_path: Path, undisturbed: sums.Sums) -> None:
    import os
    import signal

    done: list[int] = []

    def kill_all(built: stage.Stage, numbers: dict[str, Any]) -> None:
        if not done and numbers["deliveries"].get("accepted", 0) > 30:
            done.append(1)
            for child in (built.web, built.worker):
                assert child.process is not None
                child.process.kill()
            for pid in built.servers.pids().values():
                os.kill(pid, signal.SIGKILL)
            built.servers.start()

    same(play(tmp_path / "stage", kill_all), undisturbed)
    assert done
