"""The pulling path beside dlt, hubspot-api-client and a bare COPY-and-upsert: contacts per CPU second, PostgreSQL's included.

All contenders read the same pages of 100 contacts from one server on this machine, in turns, and the median of the rounds is
shown. Ours is a worker's whole pull: connector and quota, mapping, identity, lineage and cursor; then the same again, where
nothing has changed, and once more, where everybody has. The limit COPYs pages into a temporary table and INSERTs them from
there ... ON CONFLICT into one table of 11 typed columns and a JSONB, 10,000 rows a transaction, and does nothing else: no
mapping, no identity, no lineage. A figure is about the CPU time of the contender's process with its children and of
PostgreSQL's backends, from the moment it is set up: who lets the database work pays for that, too. The vendor's time is
nobody's, nor is that of PostgreSQL's own processes; autovacuum is off, as it would strike whoever runs then. The rows must be
there afterwards or the bench fails. What is missing is installed into a cache folder (HUB_BENCH_CACHE, or
~/.cache/mailyard-bench).
"""

# ruff: noqa: S603  # programs that the bench itself names
from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from hub import embedded
from hub.store.database import migrate
from scripts.benches.common.measured import BenchError, Spent, contend, tree_cpu
from scripts.benches.common.table import Aim, Column, Said, finish, median, ratio, show
from scripts.benches.sending import install
from scripts.benches.sending.world import KEY

DLT = "1.31.0"
SECONDS = 300.0
PEERS = Path(__file__).parent / "peers"
AIMS = {"vs_dlt": Aim(5, 8), "vs_limit": Aim(0.45, 0.65), "vs_sdk": Aim(10)}
COLUMNS = (
    Column("per_cpu_second", "contacts per CPU s"), Column("cpu_us", "CPU us each", 1), Column("own_us", "its own", 1),
    Column("postgres_us", "PostgreSQL's", 1), Column("per_second", "contacts/s"), Column("contacts", "contacts"),
    Column("rounds", "rounds"),
)  # fmt: skip
OURS_ROWS = """
    SELECT count(*) FROM contact c
    JOIN contact_identity i ON i.contact_id = c.id AND i.external_id = split_part(c.last_name, '-', 2)
    JOIN contact_change h ON h.contact_id = c.id
    WHERE c.country = 'AT' AND c.language = 'de-AT' AND c.created_at IS NOT NULL AND c.company LIKE 'Company % Ltd.'
"""
CHANGED_ROWS = """
    SELECT count(*) FROM contact c JOIN contact_change h ON h.contact_id = c.id AND h.kind = 'changed'
    WHERE c.job_title LIKE 'Chief 2 of %' AND h.diff ->> 'job_title' IS NOT NULL
"""
BACKGROUND = ("checkpointer", "writer", "launcher", "io worker")
"""Processes of PostgreSQL that are no contender's."""
YAML = """\
connections:
  crm: {{connector: hubspot, base_url: "http://127.0.0.1:{port}", token: "${{TOKEN}}", burst_per_10_seconds: 1000000,
        calls_per_day: 100000000}}
sync:
  crm: {{every: 1h, pull: [contacts]}}
"""


@dataclass
class Contender:
    """One row: `run` pulls everything once, `count` tells how many rows stand afterwards."""

    name: str
    run: Callable[[], Spent]
    count: str
    edition: int = 1
    spent: list[Spent] = field(default_factory=list)


@dataclass
class Bench:
    given: argparse.Namespace
    said: Said
    folder: Path
    servers: embedded.EmbeddedServers
    port: int
    contacts: int
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.servers.urls.database

    def contenders(self) -> list[Contender]:
        config = self.folder / "hub.yaml"
        config.write_text(YAML.format(port=self.port))
        environ = {
            "HUB_DATABASE_URL": self.url, "HUB_REDIS_URL": self.servers.urls.redis, "HUB_SECRET_KEY": KEY, "TOKEN": "bench",
        }  # fmt: skip
        ours = [sys.executable, "-m", "scripts.benches.pulling.ours", config]
        again = list(ours)
        if self.given.profile:
            ours += ["--profile", self.given.profile.resolve()]
        plain = (self.url, self.port)
        found = [
            Contender("ours", lambda: self.measure(ours, environ, fresh=True), OURS_ROWS),
            Contender("ours-again", lambda: self.measure(again, environ, fresh=False), OURS_ROWS),
            Contender("ours-changed", lambda: self.measure(again, environ, fresh=False), CHANGED_ROWS, edition=2),
            Contender("limit", lambda: self.measure(
                [sys.executable, "-m", "scripts.benches.peers.copy_upsert", *plain]), "SELECT count(*) FROM bench_limit"),
            Contender("sdk", lambda: self.measure(
                [sys.executable, "-m", "scripts.benches.peers.sdk_insert", *plain]), "SELECT count(*) FROM bench_sdk"),
        ]  # fmt: skip
        if self.wanted("dlt"):
            try:
                python = self.dlt()
                # dlt wants a host and a password to be named; libpq takes the socket's folder all the same.
                named = self.url.replace("postgres@/", "postgres:none@localhost/")
                script = [python, PEERS / "dlt_merge.py", named, self.port]
                found.append(
                    Contender(
                        "dlt",
                        lambda: self.measure([*script, self.fresh_folder()]),
                        "SELECT count(*) FROM bench_dlt.contacts",
                    )
                )
            except install.Missing as error:
                self.skipped["dlt"] = str(error)
                self.notes.append(f"dlt is left out: {error}")
        return [each for each in found if self.wanted(each.name)]

    def wanted(self, name: str) -> bool:
        return not self.given.only or name in self.given.only

    def dlt(self) -> Path:
        """A Python that has dlt. Raises Missing."""
        folder = install.cache_folder() / f"dlt-{DLT}"
        python = folder / "bin/python"
        if (folder / "complete").exists():
            return python
        if self.given.no_install:
            raise install.Missing("--no-install was given")
        self.said.step("dlt is missing: installing it into the cache with pip")
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", folder],
                check=True,
                capture_output=True,
                timeout=120,
            )
            subprocess.run([python, "-m", "pip", "install", "-q", f"dlt[postgres]=={DLT}"], check=True, capture_output=True,
                           timeout=300)  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise install.Missing(f"dlt could not be installed: {type(error).__name__}") from None
        (folder / "complete").touch()
        return python

    def fresh_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def measure(
        self, command: Sequence[Any], environ: dict[str, str] | None = None, *, fresh: bool = True
    ) -> Spent:
        """Run a contender on tables of its own; its CPU time includes PostgreSQL's."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            if fresh:
                conn.execute("TRUNCATE contact, run, cursor CASCADE")
                conn.execute("DROP SCHEMA IF EXISTS bench_dlt CASCADE")
                conn.execute("DROP SCHEMA IF EXISTS bench_dlt_staging CASCADE")
            conn.execute("UPDATE cursor SET position = '{}'")
            conn.execute("CHECKPOINT")
        postgres: list[float] = []
        pid = self.servers.pids()["postgres"]
        spent = contend(
            [str(part) for part in command], self.folder / "contenders.log", seconds=SECONDS, environ=environ,
            at_begin=lambda _: postgres.append(_backends_cpu(pid)), at_end=lambda: postgres.append(_backends_cpu(pid)),
        )  # fmt: skip
        used = postgres[1] - postgres[0]
        return Spent(spent.cpu_seconds + used, spent.wall_seconds, {"postgres": used})

    def rounds(self, contenders: Sequence[Contender], rounds: int) -> list[dict[str, Any]]:
        for number in range(1, rounds + 1):
            for each in contenders:
                self.said.step(f"round {number} of {rounds}: {each.name}, {self.contacts:,} contacts")
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/edition/{each.edition}").close()
                each.spent.append(each.run())
                with psycopg.connect(self.url) as conn:
                    row = conn.execute(each.count.encode()).fetchone()
                if row is None or row[0] != self.contacts:
                    raise BenchError(
                        f"{each.name}: {self.contacts} contacts were served, {row and row[0]} are there"
                    )
        return [self.row(each) for each in contenders]

    def row(self, each: Contender) -> dict[str, Any]:
        n = self.contacts
        total, postgres = (
            median(s.cpu_seconds for s in each.spent),
            median(s.told["postgres"] for s in each.spent),
        )
        return {
            "name": each.name, "contacts": n, "rounds": len(each.spent), "per_cpu_second": round(n / total, 1),
            "cpu_us": round(1e6 * total / n, 1), "postgres_us": round(1e6 * postgres / n, 1),
            "own_us": round(1e6 * (total - postgres) / n, 1),
            "per_second": round(n / median(s.wall_seconds for s in each.spent), 1),
        }  # fmt: skip


def _backends_cpu(pid: int) -> float:
    """CPU seconds of PostgreSQL's backends, also of those that have ended."""
    own = 0.0
    for child in psutil.Process(pid).children():
        try:
            if any(word in " ".join(child.cmdline()) for word in BACKGROUND):
                own += tree_cpu(child.pid)
        except psutil.NoSuchProcess:
            continue  # a backend that has just ended
    return tree_cpu(pid) - own


def _serve(contacts: int, stack: ExitStack) -> int:
    """Start the vendor; its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benches.pulling.server", str(contacts)], stdout=subprocess.PIPE
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout
    return int(process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench pull", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="under a minute, rougher")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of our pull, too")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="only these rows, by their names in the table"
    )
    parser.add_argument("--contacts", type=int, metavar="N", help="so many contacts")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    parser.add_argument(
        "--no-install", action="store_true", help="leave out contenders that must be installed"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    contacts = given.contacts or (5_000 if given.quick else 20_000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        said = Said()
        said.step("starting PostgreSQL")
        servers = stack.enter_context(embedded.EmbeddedServers(folder / "servers"))
        migrate(servers.urls.database)
        with psycopg.connect(servers.urls.database, autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET autovacuum = off")
            conn.execute("SELECT pg_reload_conf()")
        try:
            bench = Bench(given, said, folder, servers, _serve(contacts, stack), contacts)
            rows = bench.rounds(bench.contenders(), given.rounds or (1 if given.quick else 5))
        except BenchError as error:
            print(f"The bench failed: {error}", file=sys.stderr)
            return 1
        show(f"{contacts:,} contacts in pages of 100 into an empty database", COLUMNS, rows)
        rate = {row["name"]: row["per_cpu_second"] for row in rows}
        ratios = {f"vs_{name}": ratio(rate.get("ours"), rate.get(name)) for name in ("dlt", "limit", "sdk")}
        finish("pull", rows, ratios, AIMS, notes=bench.notes, as_json=given.json, skipped=bench.skipped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
