"""Webhooks into the inbox beside COPY with dedupe and plain inserts: events per CPU second, PostgreSQL's included.

A call holds 1,000 signed events and is answered when they are committed, each once. The hub is a whole `hub serve`; the naive
application checks the same signature and inserts event by event; the limit COPYs rows that are ready and inserts what is new.
Then the same million comes again, which must change nothing. At last calls come at 200 a second while a worker is busy with
what came before, and the waits for the acknowledgement stand beside those of an application that only reads the body.
"""

# ruff: noqa: S603  # programs that the bench itself names
from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from hub import embedded
from hub.store.database import migrate
from scripts.benches.common.measured import BenchError, Spent, contend, tail, tree_cpu
from scripts.benches.common.table import Aim, Column, Said, finish, median, ratio, show
from scripts.benches.hearing import posts
from scripts.benches.sending.world import KEY

EVENTS, CONNECTIONS = 1_000, 8
STEADY_EVENTS, STEADY_RATE = 10, 200.0
BACKLOG = 200
"""Calls that the worker is busy with."""
SECONDS = 600.0
AIMS = {
    "vs_limit": Aim(0.5, 0.75), "vs_naive": Aim(2), "replay_vs_new": Aim(1, at_most=True), "ack_p99_vs_null": Aim(),
}  # fmt: skip
COLUMNS = (
    Column("per_cpu_second", "events per CPU s"), Column("cpu_us", "CPU us each", 1), Column("own_us", "its own", 1),
    Column("postgres_us", "PostgreSQL's", 1), Column("per_second", "events/s"), Column("events", "events"),
    Column("rounds", "rounds"),
)  # fmt: skip
WAITS = (
    Column("p50_ms", "median ms", 1), Column("p99_ms", "p99 ms", 1), Column("worst_ms", "worst ms", 1),
    Column("posts", "calls"), Column("rounds", "rounds"),
)  # fmt: skip
YAML = """\
connections:
  crm: {{connector: hubspot, base_url: "http://127.0.0.1:{vendor}", token: "${{TOKEN}}", webhook_secret: "${{SECRET}}",
        burst_per_10_seconds: 1000000, calls_per_day: 100000000}}
web: {{host: 127.0.0.1, port: {port}, public_url: "http://127.0.0.1:{port}"}}
"""


@dataclass
class Served:
    """A process that takes calls."""

    name: str
    url: str
    pid: int


@dataclass
class Bench:
    given: argparse.Namespace
    said: Said
    folder: Path
    servers: embedded.EmbeddedServers
    vendor: int
    spent: dict[str, list[Spent]] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return self.servers.urls.database

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ, "HUB_DATABASE_URL": self.database, "HUB_REDIS_URL": self.servers.urls.redis, "HUB_SECRET_KEY": KEY,
            "TOKEN": "bench", "SECRET": posts.SECRET,
        }  # fmt: skip

    @contextmanager
    def hub(self) -> Iterator[Served]:
        """`hub serve`."""
        port = _free_port()
        config = self.folder / "hub.yaml"
        config.write_text(YAML.format(vendor=self.vendor, port=port))
        with self.running("ours", port, ["-m", "hub", "--config", str(config), "serve"]) as served:
            yield served

    @contextmanager
    def app(self, kind: str) -> Iterator[Served]:
        """One of the applications beside it."""
        port = _free_port()
        with self.running(
            kind, port, ["-m", "scripts.benches.peers.webhook_apps", kind, str(port), self.database]
        ) as served:
            yield served

    @contextmanager
    def running(self, name: str, port: int, command: Sequence[str]) -> Iterator[Served]:
        with self.process([sys.executable, *command], name) as pid:
            url = f"http://127.0.0.1:{port}"
            _wait_for(f"{url}/healthz", self.folder / f"{name}.log")
            yield Served(name, url, pid)

    @contextmanager
    def process(self, command: Sequence[str], name: str) -> Iterator[int]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def call(
        self, served: Served, *, first: int, count: int, events: int = EVENTS, rate: float = 0.0
    ) -> Spent:
        """Have the vendor call; every call must be answered with 200. The figure is the server's CPU time and PostgreSQL's."""
        asked = {
            "url": served.url, "first": first, "posts": count, "events": events, "rate": rate, "connections": CONNECTIONS,
        }  # fmt: skip
        command = [sys.executable, "-m", "scripts.benches.hearing.caller", json.dumps(asked)]
        spent = self.measured(command, lambda: tree_cpu(served.pid))
        if spent.told["statuses"] != {"200": count}:
            raise BenchError(
                f"{served.name} answered {spent.told['statuses']}: {tail(self.folder / f'{served.name}.log')}"
            )
        return spent

    def limit(self, *, first: int, count: int) -> Spent:
        numbers = (str(n) for n in (first, count, EVENTS))
        return self.measured(
            [sys.executable, "-m", "scripts.benches.peers.copy_events", self.database, *numbers], None
        )

    def measured(self, command: Sequence[str], own: Callable[[], float] | None) -> Spent:
        """`own` tells the CPU seconds of the contender where the program that is run only drives it."""
        postgres = self.servers.pids()["postgres"]
        marks: list[tuple[float, float]] = []

        def mark(*_: Any) -> None:
            marks.append((tree_cpu(postgres), own() if own else 0.0))

        spent = contend(
            command,
            self.folder / "contenders.log",
            seconds=SECONDS,
            environ=self.environ,
            at_begin=mark,
            at_end=mark,
        )
        used = marks[1][0] - marks[0][0]
        mine = marks[1][1] - marks[0][1] if own else spent.cpu_seconds
        return Spent(mine + used, spent.wall_seconds, {**spent.told, "postgres": used})

    def empty(self) -> None:
        with psycopg.connect(self.database, autocommit=True) as conn:
            conn.execute("TRUNCATE inbox")
            conn.execute("CHECKPOINT")

    def expect(self, events: int, who: str) -> None:
        with psycopg.connect(self.database) as conn:
            row = conn.execute("SELECT count(*) FROM inbox").fetchone()
        if row is None or row[0] != events:
            raise BenchError(f"{who}: {events} events came, {row and row[0]} are there")

    def rounds(self, rounds: int, count: int) -> list[dict[str, Any]]:
        """New events and the same again, in turns with the limit and the naive application."""
        with self.hub() as hub, self.app("naive") as naive:
            for served in (hub, naive):  # warm
                self.call(served, first=10**6, count=CONNECTIONS)
            for number in range(1, rounds + 1):
                for name, work in (
                    ("ours", lambda: self.call(hub, first=0, count=count)),
                    ("ours, again", lambda: self.call(hub, first=0, count=count)),
                    ("limit", lambda: self.limit(first=0, count=count)),
                    ("naive", lambda: self.call(naive, first=0, count=count // 4)),
                ):
                    self.said.step(f"round {number} of {rounds}: {name}")
                    if "again" not in name:
                        self.empty()
                    self.spent.setdefault(name, []).append(work())
                    self.expect((count // 4 if name == "naive" else count) * EVENTS, name)
        return [self.row(name, (count // 4 if name == "naive" else count) * EVENTS) for name in self.spent]

    def row(self, name: str, events: int) -> dict[str, Any]:
        spent = self.spent[name]
        total, postgres = median(s.cpu_seconds for s in spent), median(s.told["postgres"] for s in spent)
        return {
            "name": name, "events": events, "rounds": len(spent), "per_cpu_second": round(events / total, 1),
            "cpu_us": round(1e6 * total / events, 2), "postgres_us": round(1e6 * postgres / events, 2),
            "own_us": round(1e6 * (total - postgres) / events, 2),
            "per_second": round(events / median(s.wall_seconds for s in spent), 1),
        }  # fmt: skip

    def steady(self, rounds: int, count: int) -> list[dict[str, Any]]:
        """Calls at a steady rate while a worker works what came before."""
        waits: dict[str, list[Mapping[str, Any]]] = {"ours": [], "null": []}
        config = str(self.folder / "hub.yaml")
        with self.hub() as hub, self.app("null") as null:
            self.empty()
            self.call(hub, first=0, count=BACKLOG if count > 500 else BACKLOG // 10)
            with self.process([sys.executable, "-m", "hub", "--config", config, "worker"], "worker"):
                for number in range(1, rounds + 1):
                    for served in (null, hub):
                        self.said.step(
                            f"round {number} of {rounds}: {served.name}, {STEADY_RATE:.0f} calls/s, a busy worker"
                        )
                        first = 10**7 + number * count
                        spent = self.call(
                            served, first=first, count=count, events=STEADY_EVENTS, rate=STEADY_RATE
                        )
                        waits[served.name].append(spent.told)
        return [
            {
                "name": name, "posts": count, "rounds": len(told),
                **{key: round(median(one[key] for one in told), 2) for key in ("p50_ms", "p99_ms", "worst_ms")},
            }
            for name, told in waits.items()
        ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  # on this machine
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise BenchError(f"nobody answers at {url}: {tail(log)}")


def _vendor(stack: ExitStack) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benches.hearing.vendor"], stdout=subprocess.PIPE
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout
    return int(process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench events", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="under a minute, rougher")
    parser.add_argument("--posts", type=int, metavar="N", help="so many calls of 1,000 events in each round")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    count = given.posts or (40 if given.quick else 333)
    rounds = given.rounds or (1 if given.quick else 3)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        said = Said()
        said.step("starting PostgreSQL")
        servers = stack.enter_context(embedded.EmbeddedServers(folder / "servers"))
        migrate(servers.urls.database)
        bench = Bench(given, said, folder, servers, _vendor(stack))
        try:
            rows = bench.rounds(rounds, count)
            waits = bench.steady(rounds, 400 if given.quick else 2_000)
        except BenchError as error:
            print(f"The bench failed: {error}", file=sys.stderr)
            return 1
    show("Calls of 1,000 signed events, stored once and acknowledged", COLUMNS, rows)
    show(
        f"{STEADY_RATE:.0f} calls a second while a worker is busy: the wait for the acknowledgement",
        WAITS,
        waits,
    )
    rate = {row["name"]: row["per_cpu_second"] for row in rows}
    p99 = {row["name"]: row["p99_ms"] for row in waits}
    ratios = {
        "vs_limit": ratio(rate["ours"], rate["limit"]),
        "vs_naive": ratio(rate["ours"], rate["naive"]),
        "replay_vs_new": ratio(rate["ours"], rate["ours, again"]),
        "ack_p99_vs_null": ratio(p99["ours"], p99["null"]),
    }
    finish("events", rows, ratios, AIMS, as_json=given.json, waits=waits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
