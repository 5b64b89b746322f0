"""Who sends, and how: each contender's program, started for a number of messages and held to what the sink took."""

# ruff: noqa: S603, S607  # programs that the bench itself names
from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benches.common.measured import BenchError, Spent, contend, tail, whole
from scripts.benches.common.table import median
from scripts.benches.sending import install, message, world
from scripts.benches.sending.sinks import OwnSink, Sink

SIZE_BYTES = 10_240
FEWEST = 200  # messages in a round: fewer would tell of opening sessions more than of sending
PATIENCE = 4  # a round may take so many times the CPU time that it is to have
TIMEOUT_SECONDS = 300.0
OURS = (sys.executable, "-m", "scripts.benches.sending.ours")
AIOSMTP = (sys.executable, "-m", "scripts.benches.peers.aiosmtp")
PEERS = Path(__file__).parents[1] / "peers"


@dataclass
class Contender:
    """One row: `run` sends so many messages and tells what it took. `guess` is how many it may send in a CPU second,
    or in a second where `waits` says that it waits for the relay most of the time."""

    name: str
    guess: float
    run: Callable[[int], Spent]
    waits: bool = False
    spent: list[tuple[int, Spent]] = field(default_factory=list)

    def count(self, seconds: float, most: int | None) -> int:
        """How many messages make a round of about so long, also on a busy machine."""
        rate = self.guess
        if self.spent:
            count, last = self.spent[-1]
            within = count / last.wall_seconds
            rate = within if self.waits else min(count / last.cpu_seconds, within * PATIENCE)
        return min(max(FEWEST, int(rate * seconds)), most or sys.maxsize)

    def row(self) -> dict[str, Any]:
        """The medians of all rounds."""
        found: dict[str, Any] = {
            "name": self.name,
            "messages": sum(n for n, _ in self.spent),
            "rounds": len(self.spent),
        }
        found["per_cpu_second"] = round(median(n / s.cpu_seconds for n, s in self.spent), 1)
        found["cpu_us"] = round(1e6 / found["per_cpu_second"], 1)
        found["per_second"] = round(median(n / s.wall_seconds for n, s in self.spent), 1)
        if "size_bytes" in self.spent[-1][1].told:
            found["size_bytes"] = self.spent[-1][1].told["size_bytes"]
        if "postgres_cpu" in self.spent[0][1].told:
            found["postgres_us"] = round(median(1e6 * s.told["postgres_cpu"] / n for n, s in self.spent), 1)
            found["with_postgres"] = round(
                median(n / (s.cpu_seconds + s.told["postgres_cpu"]) for n, s in self.spent), 1
            )
        return found


@dataclass
class Programs:
    """What the contenders run. `postfix` and `node_modules` are None where they are not installed."""

    world: world.World
    postfix: install.Postfix | None = None
    node_modules: Path | None = None

    @property
    def log(self) -> Path:
        return self.world.folder / "contenders.log"

    def ours(
        self, sink: Sink, *, dkim: bool = False, more: Sequence[str | Path] = ()
    ) -> Callable[[int], Spent]:
        config = self.world.configure(sink.port, dkim=dkim)

        def run(count: int) -> Spent:
            return self.send_ours(sink, config, count, more)

        return run

    def send_ours(
        self, sink: Sink, config: Path, count: int, more: Sequence[str | Path] = (), *,
        watch: Callable[[int], None] | None = None, seconds: float = TIMEOUT_SECONDS,
    ) -> Spent:  # fmt: skip
        """Queue, let a worker send, and hold the ledger against the sink."""
        self.world.queue(count)
        if isinstance(sink, OwnSink):
            sink.ask("reset")
        taken = sink.taken()
        postgres: list[float] = []

        def at_begin(pid: int) -> None:
            postgres.append(self.world.postgres_cpu())
            if watch:
                watch(pid)

        spent = contend(
            [*OURS, config, *more], self.log, seconds=seconds, environ=self.world.environ, at_begin=at_begin,
            at_end=lambda: postgres.append(self.world.postgres_cpu()),
        )  # fmt: skip
        try:
            self.world.agree(count, sink.taken() - taken)
        except BenchError as error:
            raise BenchError(f"{error}\n{tail(self.log)}") from None
        self.look(sink, spent, count, everybody=True)
        spent.told["postgres_cpu"] = postgres[1] - postgres[0]
        return spent

    def checked(self, sink: Sink, work: Callable[[int], Spent]) -> Callable[[int], Spent]:
        """A peer's run; the sink must have taken all that it says to have sent."""

        def run(count: int) -> Spent:
            if isinstance(sink, OwnSink):
                sink.ask("reset")
            taken = sink.taken()
            spent = work(count)
            if (now := sink.taken() - taken - spent.told.get("warmed", 0)) != count:
                raise BenchError(f"{count} messages were to be sent, the sink took {now}")
            self.look(sink, spent, count)
            return spent

        return run

    def look(self, sink: Sink, spent: Spent, count: int, *, everybody: bool = False) -> None:
        """Where the sink keeps what it took: note the size of a mail, and hold the last one to what was to be sent."""
        if not isinstance(sink, OwnSink):
            return
        counts = sink.ask("counts")
        if everybody and counts["recipients"] != count:
            raise BenchError(f"{count} people were to be written to, {counts['recipients']} were")
        spent.told["size_bytes"] = round(counts["bytes"] / counts["messages"])
        if lacking := message.lacks(sink.ask("last").encode("latin-1")):
            raise BenchError(f"the mail lacks {', '.join(lacking)}")

    def smtp_source(self, sink: Sink) -> Callable[[int], Spent]:
        assert self.postfix
        postfix = self.postfix
        command = [postfix.source, "-d", "-s", str(world.CONNECTIONS), "-l", str(SIZE_BYTES)]
        command += ["-f", "bounce@mailyard.example", "-t", "person@people.example"]

        def work(count: int) -> Spent:
            return whole(
                [*command, "-m", str(count), f"127.0.0.1:{sink.port}"], self.log, environ=postfix.environ
            )

        return self.checked(sink, work)

    def nodemailer(self, sink: Sink, warm: int, *, dkim: bool = False) -> Callable[[int], Spent]:
        assert self.node_modules
        command = [
            "node",
            PEERS / "nodemailer.js",
            self.node_modules,
            self.world.people_file(),
            "127.0.0.1",
            sink.port,
        ]
        key = [self.world.folder / "dkim.pem"] * dkim

        def work(count: int) -> Spent:
            parts = [str(part) for part in [*command, count, warm, world.CONNECTIONS, *key]]
            return contend(parts, self.log, seconds=TIMEOUT_SECONDS)

        return self.checked(sink, work)

    def aiosmtplib(self, sink: Sink, *, prebuilt: bool = False) -> Callable[[int], Spent]:
        command = [*AIOSMTP, str(self.world.people_file()), "127.0.0.1", str(sink.port)]

        def work(count: int) -> Spent:
            parts = [*command, str(count), str(world.CONNECTIONS), *(["--prebuilt"] * prebuilt)]
            return contend(parts, self.log, seconds=TIMEOUT_SECONDS)

        return self.checked(sink, work)


def openssl_signatures(seconds: int) -> float | None:
    """`sign/s` of `openssl speed`, which counts CPU time; its table has other columns in each version."""
    done = subprocess.run(
        ["openssl", "speed", "-seconds", str(seconds), "rsa2048"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    header = re.search(r"^ +(sign .*)$", done.stdout, re.MULTILINE)
    values = re.search(r"^rsa +2048 bits +(.*)$", done.stdout, re.MULTILINE)
    if not header or not values:
        return None
    return float(dict(zip(header[1].split(), values[1].split(), strict=False))["sign/s"])
