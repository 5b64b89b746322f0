"""A mail server that does exactly what a test tells it, and a hub's source that keeps book of every fate."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from connectors.smtp.relay import Smtp, SmtpSettings
from hub.sdk.relay import NotSent, Offer, Reply

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
LEVELS = ("off", "envelope", "full")
SENDER = "bounce+1@mailyard.example"


def run(loop: str, work: Coroutine[Any, Any, Any], seconds: float = 30.0) -> Any:
    """Run on that kind of loop."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(work, seconds))


def offers(count: int, body: bytes = b"Subject: m\r\n\r\n.x\r\n") -> list[Offer]:
    return [Offer(n, SENDER, f"p{n}@x.example", b"N: %d\r\n%b" % (n, body)) for n in range(count)]


class Book:
    """A source that gives these offers and keeps each one's fates, in words: `250`, `550 rcpt`, `unsent`, `unknown`."""

    def __init__(self, waiting: Iterable[Offer], *, held: bool = False) -> None:
        self.waiting = list(waiting)
        self.taken: list[int] = []
        self.started: list[int] = []
        self.fates: dict[int, list[str]] = {}
        self.replies: dict[int, Reply] = {}
        self.reasons: dict[int, str] = {}
        self.held = held  # more may come: `more` waits for `add` or `close`
        self.wake = asyncio.Event()
        self.raises = ""  # the method that raises once

    def _maybe(self, what: str) -> None:
        if self.raises == what:
            self.raises = ""
            raise LookupError(f"{what} failed")

    def next(self) -> Offer | None:
        self._maybe("next")
        if not self.waiting:
            return None
        self.taken.append(self.waiting[0].id)
        return self.waiting.pop(0)

    async def more(self) -> bool:
        self._maybe("more")
        while not self.waiting and self.held:
            self.wake.clear()
            await self.wake.wait()
        return bool(self.waiting)

    def add(self, more: Iterable[Offer] = (), *, last: bool = False) -> None:
        self.waiting += more
        self.held = not last
        self.wake.set()

    def begun(self, offer: Offer) -> None:
        self._maybe("begun")
        assert offer.id in self.taken and not self.fates.get(offer.id)
        self.started.append(offer.id)

    def _tell(self, offer: Offer, fate: str) -> None:
        self.fates.setdefault(offer.id, []).append(fate)

    def answered(self, offer: Offer, reply: Reply) -> None:
        self.replies[offer.id] = reply
        refused_at = "" if reply.stage == "data" and offer.id in self.started else f" {reply.stage}"
        self._tell(offer, f"{reply.code}{refused_at}")
        self._maybe("answered")

    def unsent(self, offer: Offer, reason: str) -> None:
        assert offer.id not in self.started
        self.reasons[offer.id] = reason
        self._tell(offer, "unsent")
        self._maybe("unsent")

    def unknown(self, offer: Offer, reason: str) -> None:
        assert offer.id in self.started
        self.reasons[offer.id] = reason
        self._tell(offer, "unknown")
        self._maybe("unknown")

    @property
    def told(self) -> list[str]:
        """The one fate of each offer that was taken, in their order."""
        wrong = {n: self.fates.get(n) for n in self.taken if len(self.fates.get(n, ())) != 1}
        assert not wrong, f"not told exactly once: {wrong}"
        assert set(self.fates) <= set(self.taken)
        return [self.fates[n][0] for n in self.taken]

    def agrees_with(self, server: Server) -> None:
        """Nobody was told what the server knows better."""
        for number, fate in zip(self.taken, self.told, strict=True):
            arrived = server.arrived[f"p{number}@x.example"]
            assert arrived <= 1, f"message {number} arrived {arrived} times"
            assert arrived or not fate.startswith("2"), f"message {number}, told {fate}, never arrived"
            assert not arrived or fate != "unsent", f"message {number}, told unsent, arrived"
        assert not server.strange, f"no commands: {server.strange}"


@dataclass
class Server:
    """What the server says and when it hangs up. `script` has raw bytes for the n-th (from 0) answer of a kind: `mail`,
    `rcpt`, `data`, `end`, `rset`; empty to leave out one answer, None for silence from then on."""

    ehlo: tuple[str, ...] = ("PIPELINING", "SIZE 100000", "8BITMIME", "SMTPUTF8")
    script: dict[tuple[str, int], bytes | None] = field(default_factory=dict)
    cut_out: int | None = None  # close after so many bytes of answers to mail
    cut_in: int | None = None  # hang up after so many bytes of mail
    pieces: list[int] | None = None  # sizes in which answers go out, over and over
    late_seconds: float = 0.0
    greeting: bytes = b"220 here\r\n"
    tls: ssl.SSLContext | None = None
    behind_starttls: bytes = b""  # plain text behind the answer to STARTTLS
    login: dict[str, str] = field(default_factory=dict)  # mechanism -> "user:secret"
    login_reply: bytes = b""  # instead of the usual refusal

    silent: bool = False
    arrived: Counter[str] = field(default_factory=Counter)
    contents: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    strange: list[bytes] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    connections: int = 0
    out_bytes: int = 0
    peers: list[Peer] = field(default_factory=list)
    port: int = 0

    def answer(self, kind: str, usual: bytes) -> bytes:
        number = self.asked[kind]
        self.asked[kind] += 1
        words = self.script.get((kind, number), usual)
        self.silent |= words is None
        return words or b""


class Peer(asyncio.Protocol):
    """One connection to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer, self.out = b"", bytearray()
        self.mailing = self.in_data = self.secure = False
        self.received = 0
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.logging_in: Callable[[bytes], bytes] | None = None
        self.pumping: asyncio.Task[None] | None = None
        self.ended = False
        self.early: bytes | None = None  # what comes while TLS is being agreed upon

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if not self.secure:
            self.server.connections += 1
            self.server.peers.append(self)
            self.secure = transport.get_extra_info("sslcontext") is not None
            transport.write(self.server.greeting)

    def data_received(self, data: bytes) -> None:
        server = self.server
        if self.early is not None:
            self.early += data
            return
        if self.ended or server.silent:
            return
        hang_up = False
        if self.mailing or data[:4] == b"MAIL":
            self.mailing = True
            server.packets += 1
            if server.cut_in is not None and self.received + len(data) >= server.cut_in:
                data, hang_up = data[: server.cut_in - self.received], True
            self.received += len(data)
        self.buffer += data
        while not server.silent and self._one():
            pass
        if hang_up:
            self.ended = True
            self.transport.abort()
        elif self.out:
            self._flush()

    def _one(self) -> bool:
        """Serve one line, or one message. Returns whether there was one."""
        if self.in_data:
            end = (b"\r\n" + self.buffer).find(b"\r\n.\r\n")
            if end < 0:
                return False
            content, self.buffer = self.buffer[:end], self.buffer[end + 3 :]
            self._message(content)
            return True
        line, found, rest = self.buffer.partition(b"\r\n")
        if not found:
            return False
        self.buffer = rest
        self.out += self._command(line)
        return True

    def _message(self, content: bytes) -> None:
        self.in_data = False
        reply = self.server.answer("end", b"250 2.0.0 queued\r\n")
        if reply[:1] not in (b"4", b"5"):
            for each in self.recipients:
                self.server.arrived[each] += 1
            self.server.contents.append((b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:])
        self.sender, self.recipients = None, []
        self.out += reply

    def _command(self, line: bytes) -> bytes:
        server, upper = self.server, line.upper()
        if self.logging_in is not None:
            step, self.logging_in = self.logging_in, None
            return step(line)
        server.commands.append(line.decode())
        if upper.startswith(b"EHLO"):
            offered = [*server.ehlo]
            if server.tls and not self.secure:
                offered.append("STARTTLS")
            if server.login:
                offered.append("AUTH " + " ".join(server.login))
            lines = ["here", *offered]
            return b"".join(
                b"250%b%b\r\n" % (b"-" if n < len(lines) - 1 else b" ", each.encode())
                for n, each in enumerate(lines)
            )
        if upper == b"STARTTLS" and server.tls:
            self.transport.pause_reading()  # what comes next is TLS
            self.transport.write(b"220 go\r\n" + server.behind_starttls)
            asyncio.get_running_loop().create_task(self._secured())
            return b""
        if upper.startswith(b"AUTH "):
            return self._auth(*line.decode().split()[1:])
        if upper.startswith(b"MAIL FROM:<"):
            if self.sender is not None:
                return server.answer("mail", b"503 5.5.1 nested MAIL\r\n")
            reply = server.answer("mail", b"250 2.1.0 ok\r\n")
            if reply[:1] == b"2":
                self.sender = line.decode()
            return reply
        if upper.startswith(b"RCPT TO:<"):
            if self.sender is None:
                return server.answer("rcpt", b"503 5.5.1 no MAIL\r\n")
            reply = server.answer("rcpt", b"250 2.1.5 ok\r\n")
            if reply[:1] == b"2":
                self.recipients.append(line.decode()[9:].partition(">")[0])
            return reply
        if upper == b"DATA":
            reply = server.answer(
                "data", b"354 go on\r\n" if self.recipients else b"554 5.5.1 no recipients\r\n"
            )
            self.in_data = reply[-200:].lstrip()[:3] == b"354" or b"\r\n354" in reply
            return reply
        if upper == b"RSET":
            self.sender, self.recipients = None, []
            return server.answer("rset", b"250 2.0.0 ok\r\n")
        if upper == b"QUIT":
            asyncio.get_running_loop().call_soon(self._close)
            return b"221 bye\r\n"
        server.strange.append(line)
        return b"500 what\r\n"

    def _auth(self, mechanism: str, first: str = "") -> bytes:
        wanted = self.server.login.get(mechanism)
        if wanted is None:
            return b"504 5.5.4 not this way\r\n"
        user, _, secret = wanted.partition(":")
        no, yes = self.server.login_reply or b"535 5.7.8 no\r\n", b"235 2.7.0 yes\r\n"

        def equal(given: bytes, right: bytes) -> bytes:
            return yes if given == right else no

        if mechanism == "PLAIN":
            return equal(base64.b64decode(first), f"\0{user}\0{secret}".encode())
        if mechanism == "LOGIN":
            right = base64.b64decode(first) == user.encode()
            self.logging_in = lambda line: equal(base64.b64decode(line), secret.encode()) if right else no
            return b"334 UGFzc3dvcmQ6\r\n"
        if mechanism == "CRAM-MD5":
            challenge = b"<1.2@here>"
            digest = hmac.new(secret.encode(), challenge, "md5").hexdigest()
            self.logging_in = lambda line: equal(base64.b64decode(line), f"{user} {digest}".encode())
            return b"334 " + base64.b64encode(challenge) + b"\r\n"
        if base64.b64decode(first) == f"user={user}\1auth=Bearer {secret}\1\1".encode():
            return yes
        self.logging_in = lambda line: no
        return b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n"

    async def _secured(self) -> None:
        loop = asyncio.get_running_loop()
        self.secure, self.buffer, self.early = True, b"", b""
        assert self.server.tls is not None
        try:
            self.transport = await loop.start_tls(self.transport, self, self.server.tls, server_side=True)
        except (OSError, ssl.SSLError):
            self.ended = True
            return
        early, self.early = self.early, None
        if early:
            self.data_received(early)

    def _flush(self) -> None:
        server, out = self.server, bytes(self.out)
        self.out.clear()
        if not self.mailing:
            self.transport.write(out)
        elif server.pieces or server.late_seconds:
            self.pumping = asyncio.get_running_loop().create_task(self._pump(out, self.pumping))
        else:
            self._say(out)

    async def _pump(self, out: bytes, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        await asyncio.sleep(self.server.late_seconds)
        sizes, at, turn = self.server.pieces or [len(out)], 0, 0
        while at < len(out):
            size = sizes[turn % len(sizes)]
            self._say(out[at : at + size])
            at, turn = at + size, turn + 1
            for _ in range(3):
                await asyncio.sleep(0)  # so that each piece is read by itself

    def _say(self, out: bytes) -> None:
        server = self.server
        if self.ended:
            return
        if server.cut_out is not None and server.out_bytes + len(out) >= server.cut_out:
            out = out[: server.cut_out - server.out_bytes]
            self.ended = True
        server.out_bytes += len(out)
        self.transport.write(out)
        if self.ended:
            self.transport.close()

    def _close(self) -> None:
        if self.pumping is None or self.pumping.done():
            self.transport.close()
        else:
            self.pumping.add_done_callback(lambda _: self.transport.close())


@asynccontextmanager
async def serving(server: Server, *, implicit: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve it on loopback, in the loop of the test."""
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Peer(server), "127.0.0.1", 0, ssl=implicit)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for peer in server.peers:
            peer.ended = True
            peer.transport.abort()


def relay(server: Server, **settings: Any) -> Smtp:
    about = {"host": "127.0.0.1", "port": server.port, "tls": "none", "helo": "me", "timeout_seconds": 5.0}
    return Smtp("main", SmtpSettings.model_validate({**about, **settings}))


async def sent(smtp: Smtp, book: Book) -> NotSent | None:
    """Run one session over the book. Returns how it ended, None for well."""
    try:
        async with smtp.session() as session:
            await session.run(book)
    except NotSent as error:
        return error
    return None
