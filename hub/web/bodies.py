"""Bodies of calls from outside: read up to a limit, unpacked up to the same limit."""

from __future__ import annotations

import zlib

from starlette.requests import Request

MAX_BODY_BYTES = 4_000_000
"""Of a body as it is worked with. Vendors' largest calls are about a fifth of it (SendGrid's 768 KB)."""
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Refused(Exception):
    """The body is not taken: with which status, and why."""

    def __init__(self, status: int, why: str) -> None:
        self.status, self.why = status, why
        super().__init__(why)


async def read(request: Request) -> bytes:
    """The body with its `Content-Encoding` undone. Raises `Refused` when it is too large, packed in a way that we do not
    know, or broken; a bomb is given up at the limit, and never stands unpacked in memory."""
    packed = bytearray()
    async for chunk in request.stream():
        packed.extend(chunk)
        if len(packed) > MAX_BODY_BYTES:
            raise Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return bytes(packed)
    if coding not in _WINDOW:
        raise Refused(415, "the body is packed in a way that is not known here: send it plain or as gzip")
    return _unpacked(bytes(packed), _WINDOW[coding])


def _unpacked(packed: bytes, window: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        body = unpacker.decompress(packed, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Refused(400, "the body is not packed as its Content-Encoding says") from None
    if len(body) > MAX_BODY_BYTES:
        raise Refused(413, f"the unpacked body is larger than {MAX_BODY_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(400, "the packed body is cut off, or something follows it")
    return body
