"""The sending path beside smtp-source, nodemailer and aiosmtplib: messages per CPU second, with DKIM, at 20 ms, memory.

All contenders send the same 10 KB mail over 10 connections to one sink on this machine, in turns, and the median of
the rounds is shown. Ours is a worker's whole path: claimed in the ledger, composed, sent, recorded; the ledger and the
sink must agree on every message or the bench fails. A figure is about the CPU time of the contender's process with its
children, from the moment it is set up and warm (templates compiled, V8 too); PostgreSQL's share stands beside ours. What
is missing is installed into a cache folder (HUB_BENCH_CACHE, or ~/.cache/mailyard-bench).
"""

# programs that the bench itself names
from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.benches.common.measured import BenchError, contend
from scripts.benches.common.table import Aim, Column, Said, finish, ratio, show
from scripts.benches.sending import install, message, world
from scripts.benches.sending.contenders import (
    FEWEST,
    TIMEOUT_SECONDS,
    Contender,
    Programs,
    openssl_signatures,
)
from scripts.benches.sending.memory import Samples
from scripts.benches.sending.sinks import OwnSink, PostfixSink, Sink

DELAY_MS = 20.0

AIMS = {
    "vs_nodemailer": Aim(8, 14),
    "vs_smtp_source": Aim(0.45, 0.75),
    "dkim_vs_nodemailer": Aim(5),
    "dkim_vs_rsa": Aim(aim=0.65),
    "latency_vs_aiosmtplib": Aim(1.8, 3.5),
    "peak_mb": Aim(300, at_most=True),
}
CPU_COLUMNS = (
    Column("per_cpu_second", "messages per CPU s"), Column("cpu_us", "CPU us each"),
    Column("postgres_us", "PostgreSQL us each"), Column("with_postgres", "per CPU s with it"),
    Column("per_second", "messages/s"), Column("messages", "messages"), Column("rounds", "rounds"),
)  # fmt: skip
DKIM_COLUMNS = (Column("per_cpu_second", "per CPU s"), *CPU_COLUMNS[1:])
LATENCY_COLUMNS = (
    Column("per_second", "messages/s"), Column("cpu_us", "CPU us each"), Column("size_bytes", "bytes each"),
    Column("messages", "messages"), Column("rounds", "rounds"),
)  # fmt: skip
MEMORY_COLUMNS = (
    Column("messages", "recipients"), Column("peak_mb", "peak MB", 1), Column("start_mb", "at start", 1),
    Column("second_quarter_mb", "2nd quarter", 1), Column("last_quarter_mb", "last quarter", 1),
    Column("growth_percent", "growth %", 1), Column("flat", "flat"), Column("per_second", "messages/s"),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    rounds: int
    seconds: float  # of each contender in each round, about
    warm: int  # messages before nodemailer's time counts; with too few V8 is cold, and we would look better than we are
    warm_dkim: int
    dkim_rounds: int
    latency_rounds: int
    rsa_seconds: int
    recipients: int  # of the memory part
    memory_seconds: float  # at most about so long; fewer recipients when sending is slower


FULL = Plan(5, 3.0, 4_000, 2_500, 5, 3, 3, 200_000, 90.0)
QUICK = Plan(2, 0.8, 3_000, 1_500, 1, 1, 1, 50_000, 5.0)
MEMORY = Plan(0, 0, 0, 0, 0, 0, 0, 1_000_000, float("inf"))


@dataclass
class Bench:
    """What the parts of the bench share."""

    given: argparse.Namespace
    plan: Plan
    said: Said
    world: world.World
    stack: ExitStack
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.programs = Programs(self.world)

    @property
    def log(self) -> Path:
        return self.programs.log

    def wanted(self, name: str) -> bool:
        return not self.given.only or name in self.given.only

    def skip(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            if self.wanted(name):
                self.skipped[name] = reason
                self.notes.append(f"{name} is left out: {reason}")

    # --- the parts --------------------------------------------------------------------------------------

    def sink(self, made: Sink) -> Sink:
        self.stack.callback(made.stop)
        return made

    def rounds(self, title: str, contenders: Sequence[Contender], rounds: int) -> list[dict[str, Any]]:
        """Let all have their turn in every round; rows of medians."""
        for number in range(1, rounds + 1):
            for each in contenders:
                count = each.count(self.plan.seconds, self.given.messages)
                self.said.step(f"{title}, round {number} of {rounds}: {each.name}, {count:,} messages")
                each.spent.append((count, each.run(count)))
        return [each.row() for each in contenders]

    def personalised(self, sink: Sink) -> list[dict[str, Any]]:
        contenders = []
        if self.wanted("ours"):
            contenders.append(Contender("ours", 3_000, self.programs.ours(sink)))
        if self.wanted("smtp-source") and self.programs.postfix:
            contenders.append(Contender("smtp-source", 12_000, self.programs.smtp_source(sink)))
        if self.wanted("nodemailer") and self.programs.node_modules:
            contenders.append(Contender("nodemailer", 500, self.programs.nodemailer(sink, self.plan.warm)))
        if self.wanted("aiosmtplib"):
            contenders.append(Contender("aiosmtplib", 250, self.programs.aiosmtplib(sink)))
        return self.rounds("personalised", contenders, self.plan.rounds)

    def dkim(self, sink: Sink) -> list[dict[str, Any]]:
        contenders = []
        if self.wanted("ours-dkim"):
            if self.signs():
                contenders.append(Contender("ours-dkim", 700, self.programs.ours(sink, dkim=True)))
            else:
                self.skip(["ours-dkim"], "this hub does not sign")
        if self.wanted("nodemailer-dkim") and self.programs.node_modules:
            contenders.append(
                Contender(
                    "nodemailer-dkim", 250, self.programs.nodemailer(sink, self.plan.warm_dkim, dkim=True)
                )
            )
        rows = self.rounds("with DKIM", contenders, self.plan.dkim_rounds)
        if self.wanted("rsa"):
            rows += self.rsa()
        return rows

    def signs(self) -> bool:
        """Whether our mails carry a signature."""
        if not world.signs():
            return False
        with ExitStack() as stack:
            sink = OwnSink(self.log)
            stack.callback(sink.stop)
            self.said.step("a signed mail")
            self.programs.ours(sink, dkim=True)(10)
            return not message.lacks(sink.ask("last").encode("latin-1"), dkim=True)

    def rsa(self) -> list[dict[str, Any]]:
        """Raw signatures a CPU second, by OpenSSL's own bench and by the library that the hub signs with."""
        seconds = self.plan.rsa_seconds
        rows = []
        self.said.step(f"RSA-2048, {seconds} s: openssl, cryptography")
        if shutil.which("openssl"):
            if rate := openssl_signatures(seconds):
                rows.append(
                    {
                        "name": "rsa-openssl",
                        "per_cpu_second": rate,
                        "cpu_us": round(1e6 / rate, 1),
                        "rounds": 1,
                    }
                )
        else:
            self.skip(["rsa-openssl"], "openssl is not here")
        spent = contend(
            [sys.executable, "-m", "scripts.benches.peers.rsa", str(seconds)],
            self.log,
            seconds=TIMEOUT_SECONDS,
        )
        rate = round(spent.told["count"] / spent.cpu_seconds, 1)
        rows.append(
            {"name": "rsa-cryptography", "per_cpu_second": rate, "cpu_us": round(1e6 / rate, 1), "rounds": 1}
        )
        return rows

    def latency(self) -> list[dict[str, Any]]:
        sink = self.sink(OwnSink(self.log, delay_ms=DELAY_MS))
        contenders = []
        if self.wanted("ours-20ms"):
            contenders.append(Contender("ours-20ms", 300, self.programs.ours(sink), waits=True))
        if self.wanted("nodemailer-20ms") and self.programs.node_modules:
            contenders.append(
                Contender("nodemailer-20ms", 200, self.programs.nodemailer(sink, FEWEST), waits=True)
            )
        if self.wanted("aiosmtplib-20ms"):
            contenders.append(
                Contender("aiosmtplib-20ms", 120, self.programs.aiosmtplib(sink, prebuilt=True), waits=True)
            )
        return self.rounds(f"at {DELAY_MS:g} ms", contenders, self.plan.latency_rounds)

    def memory(self, rate: float | None) -> list[dict[str, Any]]:
        if not self.wanted("memory"):
            return []
        count = self.plan.recipients
        if rate and count > rate * self.plan.memory_seconds:
            count = max(1_000, int(rate * self.plan.memory_seconds) // 1_000 * 1_000)
        count = min(count, self.given.messages or count)
        sink = self.sink(OwnSink(self.log))
        self.said.step(f"memory: {count:,} recipients, queueing")
        config = self.world.configure(sink.port, dkim=False)
        before = sink.taken()
        samples = Samples(self.said, count, lambda: sink.taken() - before)
        with samples:
            spent = self.programs.send_ours(
                sink, config, count, watch=samples.start, seconds=max(600.0, count / 50)
            )
        return [
            {
                "name": "memory",
                "messages": count,
                "per_second": round(count / spent.wall_seconds, 1),
                **samples.row(),
            }
        ]


def _installed(bench: Bench) -> None:
    """Have the programs of others, or note why not."""
    given = bench.given
    source, node = ["smtp-source"], ["nodemailer", "nodemailer-dkim", "nodemailer-20ms"]
    for names, have in ((source, install.postfix), (node, install.nodemailer)):
        if not any(bench.wanted(name) for name in names):
            continue
        try:
            if given.no_install:
                raise install.Missing("--no-install was given")
            found = have(bench.said.step)
            if isinstance(found, install.Postfix):
                bench.programs.postfix = found
            else:
                bench.programs.node_modules = found
        except install.Missing as error:
            bench.skip(names, str(error))


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    by_name = {row["name"]: row for row in rows}

    def of(name: str, key: str = "per_cpu_second") -> float | None:
        return by_name.get(name, {}).get(key)

    return {
        "vs_nodemailer": ratio(of("ours"), of("nodemailer")),
        "vs_smtp_source": ratio(of("ours"), of("smtp-source")),
        "dkim_vs_nodemailer": ratio(of("ours-dkim"), of("nodemailer-dkim")),
        "dkim_vs_rsa": ratio(of("ours-dkim"), of("rsa-openssl")),
        "latency_vs_aiosmtplib": ratio(of("ours-20ms", "per_second"), of("aiosmtplib-20ms", "per_second")),
        "peak_mb": of("memory", "peak_mb"),
    }


def _measure(bench: Bench) -> None:
    """All parts, each with its table as soon as it is done."""
    _installed(bench)
    given, rows = bench.given, []

    def part(title: str, columns: Sequence[Column], found: list[dict[str, Any]]) -> None:
        show(title, columns, found)
        rows.extend(found)

    if not given.memory:
        sink = bench.sink(
            PostfixSink(bench.programs.postfix) if bench.programs.postfix else OwnSink(bench.log)
        )
        bench.notes.append(f"all but the 20 ms and memory parts send to {sink.title}")
        part("Personalised 10 KB multipart over 10 connections", CPU_COLUMNS, bench.personalised(sink))
        part("The same with DKIM (RSA-2048)", DKIM_COLUMNS, bench.dkim(sink))
        part(f"A relay that answers after {DELAY_MS:g} ms, 10 connections", LATENCY_COLUMNS, bench.latency())
        if given.profile:
            count = min(5_000, given.messages or 5_000)
            bench.said.step(f"a profile of {count:,} messages")
            bench.programs.ours(sink, more=["--profile", given.profile.resolve()])(count)
            bench.notes.append(
                f"where a message's time goes: {given.profile} (by cProfile, which makes calls dearer)"
            )
    ours = next((row["per_second"] for row in rows if row["name"] == "ours"), None)
    part("Memory of the worker", MEMORY_COLUMNS, bench.memory(ours))
    finish("send", rows, _ratios(rows), AIMS, notes=bench.notes, as_json=given.json, skipped=bench.skipped)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench send", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="under a minute, rougher")
    parser.add_argument(
        "--memory", action="store_true", help="only the memory part, with 1,000,000 recipients"
    )
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of our worker, too")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="only these rows, by their names in the table"
    )
    parser.add_argument("--messages", type=int, metavar="N", help="at most so many in a contender's round")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    parser.add_argument(
        "--no-install", action="store_true", help="leave out contenders that are programs of others"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this folder and keep it, with all logs"
    )
    given = parser.parse_args()
    plan = MEMORY if given.memory else QUICK if given.quick else FULL
    if given.rounds:
        plan = replace(plan, **dict.fromkeys(("rounds", "dkim_rounds", "latency_rounds"), given.rounds))
    # Whoever ends the bench ends its servers, sinks and contenders, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            if any(given.keep.iterdir()):
                parser.error(f"{given.keep} is not empty")
        folder = (
            given.keep.resolve()
            if given.keep
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        )
        said = Said()
        said.step("starting PostgreSQL")
        built = stack.enter_context(world.built(folder))
        try:
            _measure(Bench(given, plan, said, built, stack))
        except BenchError as error:
            print(f"The bench failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
