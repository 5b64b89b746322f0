"""The vendor of the bench: pages of 100 contacts as HubSpot's list endpoint gives them, made once, served from memory.

    python -m scripts.benches.pulling.server CONTACTS

Prints its port. It answers GET .../contacts by `after`, an empty search, an empty archive, and the properties; GET /edition/2
makes it serve contacts that have changed since. It is a process of its own and does as little as it can, so that its time is
nobody's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

PAGE = 100
FIELDS = {
    "email": "person{n}@people.example", "firstname": "Ann {n}", "lastname": "Lee-{n}", "company": "Company {m} Ltd.",
    "jobtitle": "Head of {m}", "phone": "+43 660 {n:07d}", "country": "Austria", "city": "Wien", "hs_language": "de_at",
    "hs_timezone": "Europe/Vienna", "lifecyclestage": "lead", "hubspot_owner_id": "{m}",
    "createdate": "2026-0{d}-11T09:30:00.{m:03d}Z", "hs_email_optout": "false", "hs_merged_object_ids": None,
    "lastmodifieddate": "2026-0{d}-12T09:30:00.{m:03d}Z", "hs_object_id": "{n}",
}  # fmt: skip


def contact(n: int, edition: int = 1) -> dict[str, object]:
    """The contact of a number, from 1. From edition to edition everybody has another job, and nothing else is new."""
    told = {"n": n, "m": n % 500, "d": n % 9 + 1}
    values = {name: text and text.format(**told) for name, text in FIELDS.items()}
    if edition > 1:
        values["jobtitle"] = f"Chief {edition} of {n % 500}"
    return {
        "id": str(n), "properties": values, "createdAt": values["createdate"], "updatedAt": values["lastmodifieddate"],
        "archived": False,
    }  # fmt: skip


class Server:
    """Whole answers by what is asked for."""

    def __init__(self, contacts: int) -> None:
        self.contacts = contacts
        self.editions: dict[int, dict[int, bytes]] = {1: {}, 2: {}}
        self.edition = 1
        self.empty = _answer({"results": [], "total": 0})
        self.properties = _answer(
            {
                "results": [
                    {"name": name, "type": "string", "label": name, "hubspotDefined": True} for name in FIELDS
                ]
            }
        )

    def make(self, port: int) -> None:
        for edition, pages in self.editions.items():
            for first in range(1, self.contacts + 1, PAGE):
                last = min(first + PAGE - 1, self.contacts)
                body: dict[str, object] = {"results": [contact(n, edition) for n in range(first, last + 1)]}
                if last < self.contacts:
                    link = f"http://127.0.0.1:{port}/crm/v3/objects/contacts?limit={PAGE}&after={last + 1}"
                    body["paging"] = {"next": {"after": str(last + 1), "link": link}}
                pages[first] = _answer(body)

    def answer(self, target: str) -> bytes:
        path, query = urlsplit(target).path, urlsplit(target).query
        if path.startswith("/edition/"):
            self.edition = int(path.removeprefix("/edition/"))
            return self.empty
        if "properties/" in path:
            return self.properties
        if path.endswith("/search") or "archived=true" in query.lower():
            return self.empty
        return self.editions[self.edition][int(parse_qs(query).get("after", ["1"])[0])]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                               if line.startswith(b"content-length:")), 0)  # fmt: skip
                if length:
                    await reader.readexactly(length)
                writer.write(self.answer(head.split(b" ", 2)[1].decode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _answer(body: dict[str, object]) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(text),
        text,
    )


async def main(contacts: int) -> None:
    made = Server(contacts)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made.make(port)
    print(port, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
