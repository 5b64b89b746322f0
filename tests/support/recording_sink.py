"""An SMTP server that keeps a book of every mail it took, and fails in every way that a relay can.

`python -m tests.support.recording_sink BOOK CONTROL [--seed N] [--rate R]` prints its port. Each mail that it took is a line
(the recipient) in BOOK, written before the answer. CONTROL is a file: while it holds `full`, the disk is full.
`rate` is how many of a thousand mails meet a fault of the connection.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import cast

HELLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 10000000\r\n"
TROUBLES = ("after DATA", "mid-body", "dot, lost", "dot, taken", "hangs", "4xx burst")


class Sink:
    """What all connections share."""

    def __init__(self, book: Path, control: Path, seed: int, rate: float, hang_seconds: float) -> None:
        self.book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.control, self.dice, self.rate, self.hang_seconds = (
            control,
            random.Random(seed),
            rate / 1000,
            hang_seconds,
        )
        self.burst = 0
        self.struck: Counter[str] = Counter()

    def trouble(self) -> str:
        if self.dice.random() >= self.rate:
            return ""
        kind = self.dice.choice(TROUBLES)
        self.struck[kind] += 1
        return kind

    def take(self, recipient: str) -> None:
        os.write(self.book, f"{recipient}\n".encode())

    def full(self) -> bool:
        return self.control.exists() and self.control.read_text() == "full"


class Connection(asyncio.Protocol):
    """One client. Commands may come in any number and cut anywhere."""

    transport: asyncio.Transport

    def __init__(self, sink: Sink) -> None:
        self.sink, self.buffer = sink, bytearray()
        self.recipient, self.trouble, self.in_data, self.waiting = "", "", False, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self.transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.waiting:
            self.work()

    def work(self) -> None:
        answers = bytearray()
        while not self.transport.is_closing() and not self.waiting:
            if self.in_data:
                if self.trouble == "mid-body":
                    self.transport.abort()
                    return
                end = self.buffer.find(b"\r\n.\r\n")
                if end < 0:
                    break
                del self.buffer[: end + 5]
                self.in_data = False
                answers += self.at_end()
            else:
                end = self.buffer.find(b"\r\n")
                if end < 0:
                    break
                line = bytes(self.buffer[:end])
                del self.buffer[: end + 2]
                answers += self.command(line)
        if answers and not self.transport.is_closing():
            self.transport.write(bytes(answers))

    def command(self, line: bytes) -> bytes:
        word = line[:4].upper()
        if word == b"EHLO":
            return HELLO
        if word == b"RCPT":
            found = re.search(rb"<(.*)>", line)
            assert found is not None
            recipient = found[1].decode()
            if recipient.startswith("nobody"):
                self.recipient = ""
                return b"550 5.1.1 No such user\r\n"
            self.recipient = recipient
            return b"250 2.1.5 Ok\r\n"
        if word == b"DATA":
            if not self.recipient:
                return b"503 5.5.1 No recipient\r\n"
            self.trouble = self.sink.trouble()
            if self.trouble == "after DATA":
                self.transport.abort()
                return b""
            self.in_data = True
            return b"354 Go on\r\n"
        if word == b"QUIT":
            self.transport.write(b"221 Bye\r\n")
            self.transport.close()
            return b""
        return b"250 2.0.0 Ok\r\n"

    def at_end(self) -> bytes:
        recipient, self.recipient = self.recipient, ""
        if self.trouble == "dot, lost":
            self.transport.abort()
            return b""
        if self.trouble == "dot, taken":
            self.sink.take(recipient)
            self.transport.abort()
            return b""
        if self.trouble == "hangs":
            self.waiting = True
            asyncio.get_running_loop().call_later(self.sink.hang_seconds, self.go_on, recipient)
            return b""
        if self.trouble == "4xx burst":
            self.sink.burst = 40
        if self.sink.burst > 0:
            self.sink.burst -= 1
            return b"451 4.3.0 Try again later\r\n"
        if self.sink.full():
            return b"452 4.3.1 Insufficient system storage\r\n"
        self.sink.take(recipient)
        return b"250 2.0.0 Ok: queued\r\n"

    def go_on(self, recipient: str) -> None:
        """It was only slow: it takes the mail, although the client may have given up."""
        self.sink.take(recipient)
        self.waiting = False
        if not self.transport.is_closing():
            self.transport.write(b"250 2.0.0 Ok: queued\r\n")
            self.work()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("book", type=Path)
    parser.add_argument("control", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--hang", type=float, default=4.0)
    given = parser.parse_args()
    sink = Sink(given.book, given.control, given.seed, given.rate, given.hang)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(sink), "127.0.0.1", 0, backlog=512
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(0.5)
        given.control.with_suffix(".struck").write_text(repr(dict(sink.struck)))


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
