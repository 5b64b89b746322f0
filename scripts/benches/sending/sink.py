"""A small SMTP sink: takes every message, tells how many, and can answer late.

    python -m scripts.benches.sending.sink [--delay-ms 20]

It prints `port N`, then answers each line of standard input: `counts` with a JSON object of `messages`, `bytes`,
`recipients` (different ones) and `wrong` (messages that are not whole), `last` with the last message as a JSON string,
`reset` with `{}`. It ends when standard input does. With a delay, the answers to each batch of
input go out so much later and in order, whatever the batch holds: what a relay at some distance is like.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import cast

try:
    from uvloop import run
except ImportError:  # slower, but the same
    from asyncio import run

EHLO = b"250-sink\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n"


class Counts:
    """What all sessions took."""

    def __init__(self) -> None:
        self.messages = self.bytes = self.wrong = 0
        self.recipients: set[bytes] = set()
        self.last = b""

    def took(self, content: bytes, recipient: bytes) -> None:
        self.messages += 1
        self.bytes += len(content)
        self.recipients.add(recipient)
        if b"\r\n\r\n" not in content or b"\nMessage-ID:" not in content:
            self.wrong += 1
        self.last = content

    def told(self, question: str) -> object:
        if question == "last":
            return self.last.decode("latin-1")
        if question == "reset":
            self.__init__()  # type: ignore[misc]
            return {}
        return {
            "messages": self.messages, "bytes": self.bytes, "recipients": len(self.recipients), "wrong": self.wrong,
        }  # fmt: skip


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counts, delay_seconds: float) -> None:
        self.counts, self.delay_seconds = counts, delay_seconds
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.in_body = False
        self.searched = 0
        self.recipient = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answers = bytearray()
        over = False
        while not over:
            if self.in_body:
                if not self._body_ended(answers):
                    break
                continue
            end = self.buffer.find(b"\r\n")
            if end < 0:
                break
            line = bytes(self.buffer[:end])
            del self.buffer[: end + 2]
            over = self._command(line, answers)
        if answers:
            if self.delay_seconds:
                self.loop.call_later(self.delay_seconds, self._answer, bytes(answers), over)
            else:
                self._answer(bytes(answers), over)

    def _answer(self, answers: bytes, over: bool) -> None:
        assert self.transport
        if not self.transport.is_closing():
            self.transport.write(answers)
            if over:
                self.transport.close()

    def _body_ended(self, answers: bytearray) -> bool:
        if self.buffer.startswith(b".\r\n"):
            size = 0
        else:
            size = self.buffer.find(b"\r\n.\r\n", max(0, self.searched - 4))
            if size < 0:
                self.searched = len(self.buffer)
                return False
            size += 2
        self.counts.took(bytes(self.buffer[:size]), self.recipient)
        del self.buffer[: size + 3]
        self.in_body = False
        self.searched = 0
        answers += b"250 2.0.0 Ok\r\n"
        return True

    def _command(self, line: bytes, answers: bytearray) -> bool:
        """Answer one command. Whether it was the last one."""
        verb = line[:4].upper()
        if verb == b"RCPT":
            self.recipient = line[8:].partition(b">")[0].strip(b"< ")
            answers += b"250 2.1.5 Ok\r\n"
        elif verb == b"DATA":
            self.in_body = True
            answers += b"354 End data with <CR><LF>.<CR><LF>\r\n"
        elif verb == b"EHLO":
            answers += EHLO
        elif verb == b"QUIT":
            answers += b"221 2.0.0 Bye\r\n"
            return True
        elif verb in (b"MAIL", b"RSET", b"NOOP", b"HELO"):
            answers += b"250 2.1.0 Ok\r\n"
        else:
            answers += b"500 5.5.2 Error: unknown command\r\n"
        return False


async def serve(delay_seconds: float) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    counts = Counts()
    server = await loop.create_server(lambda: Session(counts, delay_seconds), "127.0.0.1", 0, backlog=128)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    while question := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(counts.told(question.strip())), flush=True)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    run(serve(parser.parse_args().delay_ms / 1000))


if __name__ == "__main__":
    main()
