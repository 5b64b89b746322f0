"""The wire for pages: answers as servers send them, whole or not, however they are cut."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hub.errors import FixNeeded, Unclear
from hub.sdk.http import Http

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


class Server:
    """Says what it is told, in pieces, on each connection in turn; counts connections."""

    def __init__(self) -> None:
        self.says: list[list[bytes]] = []
        self.asked: list[bytes] = []
        self.connections = 0
        self.hangs_up = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.says:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                for piece in self.says.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
                if self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()


@asynccontextmanager
async def listening(seconds: float = 5.0) -> AsyncIterator[tuple[Server, Http]]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    http = Http(server.url, timeout_seconds=seconds)
    try:
        yield server, http
    finally:
        await http.close()
        listener.close()


async def get(http: Http) -> object:
    return (await http.request("GET", "/x", attempts=1, shape=dict)).decode(dict)


async def test_an_answer_cut_anywhere_is_the_same() -> None:
    async with listening() as (server, http):
        for cut in range(1, len(OK), 7):
            server.says = [[OK[:cut], OK[cut:]], [OK]]
            assert await get(http) == {"ok": True}


async def test_a_connection_is_kept_for_the_next_call() -> None:
    async with listening() as (server, http):
        server.says = [[OK]] * 5
        for _ in range(5):
            assert await get(http) == {"ok": True}
        assert server.connections == 1


async def test_what_a_server_closes_is_opened_anew() -> None:
    async with listening() as (server, http):
        server.says, server.hangs_up = [[OK]] * 3, True
        for _ in range(3):
            assert await get(http) == {"ok": True}
            await asyncio.sleep(0.02)
        assert server.connections == 3


async def test_bodies_in_chunks_packed_and_to_the_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    packed = gzip.compress(b'{"ok":true}')
    async with listening() as (server, http):
        server.says = [
            [head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b'{"ok"\r\n6\r\n:true}\r\n', b"0\r\n\r\n"],
            [head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed), packed[:9], packed[9:]],
            [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", OK],
        ]  # fmt: skip
        for _ in range(3):
            assert await get(http) == {"ok": True}
        server.says, server.hangs_up = [[head + b'Connection: close\r\n\r\n{"ok"', b":true}"]], True
        await http.close()
        assert await get(http) == {"ok": True}


async def test_a_head_has_no_body() -> None:
    async with listening() as (server, http):
        server.says = [[b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]]
        assert (await http.request("HEAD", "/x", attempts=1, expect_json=False, shape=dict)).status == 200


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_half_an_answer_is_none(said: bytes) -> None:
    async with listening() as (server, http):
        server.says, server.hangs_up = [[said]], True
        with pytest.raises(Unclear):
            await http.request("POST", "/x", json={}, attempts=1, shape=dict)


async def test_a_server_that_says_nothing_more_is_not_waited_for() -> None:
    async with listening(seconds=0.2) as (server, http):
        server.says = [[b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"], [OK]]
        with pytest.raises(Unclear, match="no answer in time"):
            await http.request("POST", "/x", json={}, attempts=1, shape=dict)


async def test_no_header_smuggles_a_line() -> None:
    async with listening() as (server, http):
        with pytest.raises(FixNeeded, match="line break"):
            await http.request("GET", "/x", headers={"X-Note": "a\r\nX-Evil: 1"}, shape=dict)
        assert server.asked == []


async def test_a_call_that_is_given_up_takes_its_connection_along() -> None:
    async with listening() as (server, http):
        server.says = [[b""], [OK]]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await http.request("GET", "/x", shape=dict)
        server.says = [[OK]]
        assert await get(http) == {"ok": True}
        assert server.connections == 2
