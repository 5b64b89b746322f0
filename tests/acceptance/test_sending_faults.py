"""A hundred thousand mails through a relay that fails in every way, by workers that are killed: every one accounted for.

The relay keeps its own book. After all, each mail must stand in the ledger as accepted and in the book once, as
refused and not in the book, or as uncertain; nothing may be lost, and nothing may be in the book twice.
"""

from __future__ import annotations

import ast
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from hub import embedded
from hub.store.database import migrate
from tests.support.rig import KEY

MAILS = int(os.environ.get("HUB_TEST_MAILS", "100000"))
NOBODY_EVERY = 997
SESSIONS = 8

YAML = """\
connections: {{}}
purposes: {{news: {{title: News}}}}
messages:
  hello:
    subject: "Hello {{{{ contact.first_name }}}}"
    template: hello.html
    from: "Ann <ann@mailyard.example>"
    purpose: news
relays:
  main: {{host: 127.0.0.1, port: {port}, tls: none, timeout_seconds: 2, limits: {{connections: {sessions}}}}}
sender: {{postal_address: "Mailyard, Vienna", list_domain: mailyard.example}}
"""

pytestmark = pytest.mark.timeout(600)


@dataclass
class Scene:
    """A hub with mails to send, and a relay with a book."""

    folder: Path
    servers: embedded.EmbeddedServers
    book: Path
    control: Path
    mails: int
    environ: dict[str, str]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    killed: int = 0

    def start_worker(self) -> None:
        log = (self.folder / f"worker-{len(self.workers)}.log").open("wb")
        self.workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.sending_worker", str(self.folder / "hub.yaml")],
                env={**os.environ, **self.environ}, stderr=log, stdout=log,
            )
        )  # fmt: skip

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.servers.urls.database) as conn:
            return conn.execute(query.encode()).fetchall()

    def taken(self) -> int:
        return self.book.read_bytes().count(b"\n") if self.book.exists() else 0

    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self.workers if worker.poll() is None]


@contextmanager
def scene(folder: Path, mails: int, *, rate: float = 0.0, hang: float = 4.0) -> Iterator[Scene]:
    with ExitStack() as stack:
        servers = stack.enter_context(embedded.EmbeddedServers(folder / "servers"))
        migrate(servers.urls.database)
        book, control = folder / "book", folder / "control"
        sink = subprocess.Popen(
            [sys.executable, "-m", "tests.support.recording_sink", str(book), str(control), "--rate", str(rate),
             "--hang", str(hang)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(sink.wait)
        stack.callback(sink.kill)
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
        (folder / "hub.yaml").write_text(YAML.format(port=port, sessions=SESSIONS))
        (folder / "hello.html").write_text(
            "<p>Hello {{ contact.first_name }}</p>" + "<p>Words.</p>" * 60 + "{{ unsubscribe_url }}"
        )
        environ = {
            "HUB_DATABASE_URL": servers.urls.database, "HUB_REDIS_URL": servers.urls.redis, "HUB_SECRET_KEY": KEY,
            "HUB_JOURNAL": str(folder / "journal"),
        }  # fmt: skip
        with psycopg.connect(servers.urls.database) as conn:
            conn.execute(
                f"""INSERT INTO contact (email, first_name, changed_at)
                    SELECT CASE WHEN n % {NOBODY_EVERY} = 0 THEN 'nobody' ELSE 'p' END || n || '@example.com', 'P' || n, now()
                    FROM generate_series(1, {mails}) n""".encode()
            )
            conn.execute(
                b"""INSERT INTO delivery (message, contact_id, occurrence, purpose, queued_at)
                    SELECT 'hello', id, 'test', 'news', now() FROM contact"""
            )
        built = Scene(folder, servers, book, control, mails, environ)
        stack.callback(lambda: [worker.kill() for worker in built.alive()])
        yield built


def play(built: Scene, trouble: Callable[[Scene], None], *, workers: int = 1, seconds: float = 400.0) -> None:
    """Let workers work, started again when they die, until nothing is left."""
    deadline = time.monotonic() + seconds
    while True:
        alive = built.alive()
        if not alive and any(worker.returncode == 0 for worker in built.workers):
            return
        assert time.monotonic() < deadline, f"{built.taken()} of {built.mails} after {seconds} s"
        if not any(worker.returncode == 0 for worker in built.workers):
            for _ in range(workers - len(alive)):
                built.start_worker()
        trouble(built)
        time.sleep(0.1)


def account(built: Scene, what: str, *, uncertain: int) -> dict[str, int]:
    """Hold the ledger against the relay's book; print the sums. `uncertain` is how many mails may stand so."""
    book = Counter(built.book.read_text().split())
    ledger = dict(built.ask("SELECT email, state FROM delivery"))
    states = Counter(ledger.values())
    struck = ast.literal_eval(built.control.with_suffix(".struck").read_text())
    sums = {
        "mails": len(ledger),
        **states,
        "in the book": len(book),
        "lost": sum(state == "accepted" and book[email] == 0 for email, state in ledger.items()),
        "doubled": sum(count > 1 for count in book.values()),
        "refused but taken": sum(state == "rejected" and book[email] > 0 for email, state in ledger.items()),
        "killed": built.killed,
    }
    print(f"\n{what}: {sums}; the relay's faults: {struck}")
    assert len(ledger) == built.mails
    assert set(states) <= {"accepted", "rejected", "uncertain"}
    assert (sums["lost"], sums["doubled"], sums["refused but taken"]) == (0, 0, 0)
    nobody = Counter(state for email, state in ledger.items() if email.startswith("nobody"))
    assert set(nobody) <= {"rejected", "uncertain"}  # uncertain: on the wire when the worker was killed
    assert nobody.total() == built.mails // NOBODY_EVERY
    assert nobody["rejected"] == states["rejected"]
    assert states["uncertain"] <= uncertain
    return sums


def test_everything_at_once(tmp_path: Path) -> None:
    """Two workers race, one of them killed at 20 random moments; the relay's connections fail in six ways; its disk is
    full for a while; Redis is flushed; PostgreSQL is restarted."""
    dice = random.Random(20261125)
    with scene(tmp_path, MAILS, rate=1.0) as built:
        moments = sorted(dice.uniform(0.02, 0.9) for _ in range(20))
        done: dict[str, int] = {}

        def trouble(built: Scene) -> None:
            share = built.taken() / built.mails
            if built.killed < len(moments) and share >= moments[built.killed] and (alive := built.alive()):
                dice.choice(alive).send_signal(signal.SIGKILL)
                built.killed += 1
            for name, at, deed in (
                ("flushed", 0.2, lambda: redis.Redis.from_url(built.servers.urls.redis).flushall()),
                ("restarted", 0.35, built.servers.restart_postgres),
                ("full", 0.5, lambda: built.control.write_text("full")),
            ):
                if share >= at and name not in done:
                    deed()
                    done[name] = 0
            if "full" in done and done["full"] < 15:
                done["full"] += 1
                if done["full"] == 15:
                    built.control.write_text("")

        play(built, trouble, workers=2)
        assert built.killed == 20
        assert set(done) == {"flushed", "restarted", "full"}
        struck = ast.literal_eval(built.control.with_suffix(".struck").read_text())
        cut = sum(struck.get(kind, 0) for kind in ("dot, lost", "dot, taken", "hangs"))
        # Per kill: what stands on the wire of each session (in full pipelining one mail each).
        account(built, "everything at once", uncertain=cut + built.killed * SESSIONS * 2 + SESSIONS * 2)


def test_a_kill_leaves_uncertain_only_what_was_on_the_wire(tmp_path: Path) -> None:
    dice = random.Random(7)
    with scene(tmp_path, 6_000) as built:
        moments = sorted(dice.uniform(0.05, 0.9) for _ in range(5))

        def trouble(built: Scene) -> None:
            if built.killed < len(moments) and built.taken() / built.mails >= moments[built.killed]:
                for worker in built.alive():
                    worker.send_signal(signal.SIGKILL)
                built.killed += 1

        play(built, trouble)
        account(built, "killed", uncertain=built.killed * SESSIONS)
