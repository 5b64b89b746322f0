"""A DNS server on loopback, UDP and TCP, whose zone is a dict: answers, and every way of not answering."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TRIES = 20


@dataclass
class DnsServer:
    """`zone` is name -> kind -> records as in a zone file. What is not there is NXDOMAIN, or empty below a name.

    `silent` names are never answered, `failing` ones with SERVFAIL, `long` ones over UDP with the truncation bit only.
    """

    zone: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    long: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(protocol, name, kind) of every question."""
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def txt(self, name: str, *texts: str) -> None:
        """TXT records, each cut into strings of at most 255 bytes."""
        self.zone.setdefault(name, {})["TXT"] = [
            " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text) or 1, 255)) for text in texts
        ]

    def answer(self, wire: bytes, protocol: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = (
            question.name.to_text(omit_final_dot=True).lower(),
            dns.rdatatype.to_text(question.rdtype),
        )
        self.asked.append((protocol, name, kind))
        if name in self.silent:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        if name in self.long and protocol == "udp":
            response.flags |= dns.flags.TC
            return response.to_wire()
        for _ in range(8):
            here = self.zone.get(name)
            if here is None:
                below = any(other.endswith(f".{name}") for other in self.zone)
                response.set_rcode(dns.rcode.NOERROR if below or response.answer else dns.rcode.NXDOMAIN)
                break
            found = kind if kind in here else "CNAME"
            if found in here:
                owner = dns.name.from_text(name)
                response.answer.append(dns.rrset.from_text_list(owner, 300, "IN", found, here[found]))
            if found == kind or "CNAME" not in here:
                break
            name = here["CNAME"][0].rstrip(".").lower()
        limit = 65_535 if protocol == "tcp" else (query.payload or 512)
        return response.to_wire(max_size=limit, prefer_truncation=True)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.server.answer(data, "udp")
        if answer is not None:
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def served(server: DnsServer) -> AsyncIterator[DnsServer]:
    """Serve within the running loop, both protocols on one port."""
    loop = asyncio.get_running_loop()

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = server.answer(await reader.readexactly(length), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    for number in range(TRIES):
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), local_addr=("127.0.0.1", 0))
        server.port = transport.get_extra_info("sockname")[1]
        try:
            stream = await asyncio.start_server(tcp, "127.0.0.1", server.port)
            break
        except OSError:  # somebody else has that port over TCP
            transport.close()
            if number == TRIES - 1:
                raise
    try:
        yield server
    finally:
        stream.close()
        transport.close()
