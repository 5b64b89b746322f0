"""The journal: what a dead worker's file says, and when it is not believed."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from hub.clock import ManualClock
from hub.mail import journal
from hub.mail.recovery import recover
from hub.model import ResultKind
from hub.store import events, ledger
from hub.store.database import Database


def _die(where: Path, ready: Connection) -> None:
    """A worker that notes three mails, hears of one, settles one, and is gone without a word."""
    own = journal.Journal(where, "dead").__enter__()
    own.offered(1, 101, "main")
    own.offered(2, 102, "other")
    own.offered(3, 103, "main")
    own.answered(2, 250, "2.0.0 Ok: queued as AB12")
    own.answered(3, 250, "settled")
    own.forget([3])
    ready.send("noted")
    ready.recv()
    os._exit(9)


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A folder with the journal of a worker that died."""
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_die, args=(tmp_path, there))
    worker.start()
    assert here.recv() == "noted"
    assert journal.read(tmp_path, "dead") is None  # it lives: the kernel holds its lock
    here.send("die")
    worker.join()
    return tmp_path


def test_a_dead_workers_journal_tells_what_was_offered_and_answered(dead: Path) -> None:
    left = journal.read(dead, "dead")
    assert left is not None
    assert left.offered == {(1, 101), (2, 102)}
    assert left.answers == {(2, 102): ("other", 250, "2.0.0 Ok: queued as AB12")}
    assert journal.read(dead, "another") is None


def test_it_is_not_believed_after_the_machine_was_started_anew(
    dead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "boot_id", lambda: b"another boot")
    assert journal.read(dead, "dead") is None


def test_one_that_ran_out_of_room_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SLOTS", 2)
    own = journal.Journal(tmp_path, "small").__enter__()
    for number in range(3):
        own.offered(number, number, "main")
    own.__exit__(RuntimeError)
    assert own.path.exists()
    assert journal.read(tmp_path, "small") is None


def test_an_end_in_order_leaves_no_file_and_an_unsettled_one_does(tmp_path: Path) -> None:
    with journal.Journal(tmp_path, "one") as own:
        own.offered(1, 1, "main")
        own.forget([1])
    assert not own.path.exists()
    with journal.Journal(tmp_path, "two") as own:
        own.offered(1, 1, "main")
    assert own.path.exists()


async def test_recovery_settles_by_it(dead: Path, database: Database, clock: ManualClock) -> None:
    """1 was on the wire, 2 was answered, 4 and 5 were claimed and never offered."""
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, 5) n"
        )
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, relay, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'dead', 100 + id, 1, NULL, now() + interval '1 minute'
               FROM contact ORDER BY id"""
        )
        ids = {
            claim - 100: id
            for id, claim in await (await conn.execute("SELECT id, claim FROM delivery")).fetchall()
        }
        assert ids == {n: n for n in range(1, 6)}
        await conn.execute("DELETE FROM delivery WHERE id = 3")
    counts = await recover(database, clock, dead)
    assert counts == {"queued": 2, "accepted": 1, "rejected": 0, "uncertain": 1}
    async with database.connection() as conn:
        rows = await (
            await conn.execute("SELECT id, state, attempts, relay, reply_text FROM delivery ORDER BY id")
        ).fetchall()
        events = await (await conn.execute("SELECT delivery_id, kind FROM event")).fetchall()
    assert rows == [
        (1, "uncertain", 1, None, None),
        (2, "accepted", 1, "other", "2.0.0 Ok: queued as AB12"),
        (4, "queued", 0, None, ""),
        (5, "queued", 0, None, ""),
    ]
    assert events == [(2, "sent")]
    assert list(dead.iterdir()) == []
    assert await recover(database, clock, dead) == {"queued": 0, "accepted": 0, "rejected": 0, "uncertain": 0}


async def test_a_worker_that_lives_is_spared_and_may_still_say_what_became_of_its_mails(
    tmp_path: Path, database: Database, clock: ManualClock
) -> None:
    """PostgreSQL was restarted: the worker's lock is gone, the worker is not."""
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO contact (email, changed_at) VALUES ('p@example.com', now())")
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, relay, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'living', 7, 1, NULL, now() + interval '1 minute'
               FROM contact"""
        )
    nothing = {"queued": 0, "accepted": 0, "rejected": 0, "uncertain": 0}
    with journal.Journal(tmp_path, "living") as own:
        assert await recover(database, clock, tmp_path) == nothing
        assert own.path.exists()
    # Without a journal nobody can know that it lives; its own word, under the claim that it holds, is better then.
    assert await recover(database, clock, tmp_path) == {**nothing, "uncertain": 1}
    for claim, state in ((6, "uncertain"), (7, "queued")):
        async with database.transaction() as conn:
            fate = ledger.Sent(1, claim, "queued", reason="never offered", offered=False)
            await ledger.settle(conn, [fate], now=clock.now())
            row = await (await conn.execute("SELECT state, attempts FROM delivery")).fetchone()
        assert row == (state, 1 if state == "uncertain" else 0)


async def test_one_that_went_while_others_were_taken_back_waits_for_the_next_time(
    tmp_path: Path, database: Database, clock: ManualClock
) -> None:
    """Nobody has read its journal: were its mails taken back too, all of them would be uncertain."""
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, 2) n"
        )
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, relay, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'gone ' || id, id, 1, NULL, now() + interval '1 minute'
               FROM contact"""
        )
        assert sorted(await ledger.workers_gone(conn)) == ["gone 1", "gone 2"]
        lost = await ledger.lost(conn, ["gone 1"])
        assert [(worker, mail.id) for worker, mail in lost] == [("gone 1", 1)]
        assert await ledger.doubt(conn, [mail for _, mail in lost]) == 1
        rows = await (await conn.execute("SELECT id, state FROM delivery ORDER BY id")).fetchall()
    assert rows == [(1, "uncertain"), (2, "claimed")]
    assert await recover(database, clock, tmp_path) == {
        "queued": 0,
        "accepted": 0,
        "rejected": 0,
        "uncertain": 1,
    }


async def test_what_people_prove_before_the_relay_answers_is_not_doubted_after_a_crash(
    tmp_path: Path, database: Database, clock: ManualClock
) -> None:
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO contact (email, changed_at) VALUES ('p@example.com', now())")
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'gone', 7, 1, now() + interval '1 minute' FROM contact"""
        )
        opened = events.Evidence(1, ResultKind.OPENED, clock.now(), "web", "opened:1", {})
        assert await events.record(conn, opened, now=clock.now())
    assert sum((await recover(database, clock, tmp_path)).values()) == 0
    late = ledger.Sent(1, 7, "accepted", "main", 250, "2.0.0 Ok", subject="Hello")
    async with database.transaction() as conn:
        assert await ledger.workers_gone(conn) == []
        assert await ledger.settle(conn, [late], now=clock.now()) == 1
        row = await (await conn.execute("SELECT state, relay, subject, lease_until FROM delivery")).fetchone()
    assert row == ("accepted", "main", "Hello", None)


async def test_a_mail_that_recovery_finds_accepted_keeps_its_subject(
    tmp_path: Path, database: Database, clock: ManualClock
) -> None:
    """It stands on the CRM's timeline. A long one is cut, and never within a character."""
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, 2) n"
        )
        await conn.execute(
            """INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at, email, state, claimed_by, claim,
                                     attempts, lease_until)
               SELECT 'm', id, 'o', 'p', now(), email, 'claimed', 'gone', id, 1, now() + interval '1 minute' FROM contact"""
        )
    own = journal.Journal(tmp_path, "gone").__enter__()
    own.offered(9, 9, "main", "of a mail that had the place before")
    own.forget([9])
    for number, subject in ((1, "Grüße, Jörg"), (2, "x" + "ü" * 150)):
        own.offered(number, number, "main", subject)
        own.answered(number, 250, "2.0.0 Ok")
    own.__exit__(RuntimeError)
    assert (await recover(database, clock, tmp_path))["accepted"] == 2
    async with database.connection() as conn:
        rows = await (await conn.execute("SELECT subject FROM delivery ORDER BY id")).fetchall()
    assert rows == [("Grüße, Jörg",), ("x" + "ü" * 99,)]


@pytest.mark.parametrize(
    ("known", "boot"),
    [
        ({"kern.bootsessionuuid": "2F9A0C5E", "kern.boottime": "{ sec = 1 }"}, b"2F9A0C5E"),
        ({"kern.boottime": "{ sec = 1764096000, usec = 0 } Tue Nov 25"}, b"{ sec = 1764096000, usec = 0 } Tue Nov 25"),
        ({}, b""),
    ],
)  # fmt: skip
def test_where_there_is_no_proc_the_kernel_is_asked_by_sysctl(
    known: dict[str, str], boot: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = "\n".join(f"  {name}) echo '{value}' ;;" for name, value in known.items())
    sysctl = tmp_path / "sysctl"
    sysctl.write_text(f'#!/bin/sh\n[ "$1" = -n ] || exit 2\ncase $2 in\n{answers}\n  *) exit 1 ;;\nesac\n')
    sysctl.chmod(0o755)
    monkeypatch.setattr(journal, "BOOT_ID", tmp_path / "missing")
    monkeypatch.setattr(journal, "SYSCTL", str(sysctl))
    assert journal.boot_id() == boot
    where = tmp_path / "journals"
    with journal.Journal(where, "one") as own:
        own.offered(1, 1, "main")
        own.answered(1, 250, "2.0.0 Ok")
    left = journal.read(where, "one")  # believed only where the start of the machine is known
    assert left is None if not boot else left is not None and left.offered == {(1, 1)}


def test_without_any_word_of_the_machines_start_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BOOT_ID", tmp_path / "missing")
    monkeypatch.setattr(journal, "SYSCTL", str(tmp_path / "missing"))
    assert journal.boot_id() == b""
    with journal.Journal(tmp_path / "journals", "one") as own:
        own.offered(1, 1, "main")
    assert not (tmp_path / "journals").exists()
