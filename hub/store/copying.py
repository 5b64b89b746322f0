"""Rows on their way into PostgreSQL: COPY's text format, and arrays as literals, which cost a fraction of what adapting each
value does.

No value holds a NUL (no text of PostgreSQL may), so values are joined by it and escaped together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import AsyncConnection

NOTHING = "\x01"
"""What stands for no value; no vendor sends it."""
FORMAT = f"(NULL '{NOTHING}')"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\t"})


def line(values: Iterable[str]) -> str:
    """A row, without its end."""
    joined = "\0".join(values)
    if "\\" in joined or "\n" in joined or "\t" in joined or "\r" in joined:
        return joined.translate(_ESCAPES)
    return joined.replace("\0", "\t")


async def into(conn: AsyncConnection[Any], statement: bytes, lines: Sequence[str]) -> None:
    """COPY lines, each without its end. `statement` says FROM STDIN and `FORMAT`."""
    if lines:
        async with conn.cursor() as cursor, cursor.copy(statement) as copy:
            await copy.write(("\n".join(lines) + "\n").encode())


_encode = msgspec.json.Encoder().encode


def instant(at: datetime | None) -> str:
    """A point in time for a COPY; Python's own isoformat takes five times as long."""
    return NOTHING if at is None else _encode(at)[1:-1].decode()


def array(texts: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it."""
    if not texts:
        return "{}"
    joined = "\0".join(texts)
    if "\\" in joined or '"' in joined:
        joined = joined.replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + joined.replace("\0", '","') + '"}'


def binaries(values: Sequence[bytes]) -> str:
    """A bytea[] as PostgreSQL writes it."""
    return '{"' + '","'.join(["\\\\x" + value.hex() for value in values]) + '"}' if values else "{}"
