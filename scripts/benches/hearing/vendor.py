"""The CRM that the worker asks what an event was about: it answers batch reads from memory.

    python -m scripts.benches.hearing.vendor

Prints its port.
"""

from __future__ import annotations

import asyncio
import json

from scripts.benches.pulling.server import FIELDS, contact

PROPERTIES = [{"name": name, "type": "string", "label": name, "hubspotDefined": True} for name in FIELDS]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            asked = json.loads(await reader.readexactly(length)) if length else {}
            results = [contact(int(each["id"])) for each in asked.get("inputs", ())]
            body = json.dumps(
                {"results": results if b"batch/read" in head else PROPERTIES, "total": 0}
            ).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
