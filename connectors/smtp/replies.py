"""Replies out of a stream of bytes, wherever it was cut (RFC 5321, 4.2)."""

from __future__ import annotations

CODES = {b"%d" % code: code for code in range(200, 600)}
LINE_BYTES = 8_192  # RFC 5321 says 512; some relays explain themselves at length
REPLY_LINES = 64


class Replies:
    """`broken` says, once it is not empty, why what came is no reply; the replies before that are sound. `begun`: a part of a
    reply is there, the rest of which is yet to come."""

    def __init__(self) -> None:
        self.broken, self.begun = "", False
        self._tail = b""
        self._lines: list[bytes] = []  # of a reply that goes on

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The replies that are whole now: their codes and words. A line may end with LF only, as some relays have it."""
        if self._tail:
            data = self._tail + data
        lines = data.split(b"\n")
        self._tail = lines.pop()
        found = []
        for line in lines:
            code, mark = CODES.get(line[:3]), line[3:4]
            if code is None or mark not in b" -\r" or len(line) > LINE_BYTES:
                self.broken = "an answer that is none"
                break
            if mark == b"-" or self._lines:
                self._lines.append(line)
                if len(self._lines) > REPLY_LINES or line[:3] != self._lines[0][:3]:
                    self.broken = "an answer without an end"
                    break
                if mark != b"-":
                    found.append((code, b" ".join([each[4:] for each in self._lines])))
                    self._lines = []
            else:
                found.append((code, line[4:]))
        if len(self._tail) > LINE_BYTES:
            self.broken = "an answer without an end"
        self.begun = bool(self._tail or self._lines)
        return found
