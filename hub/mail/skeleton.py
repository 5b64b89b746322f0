"""Mails as skeletons of bytes: what is the same for everybody is encoded once, only values are encoded for each recipient.

A mail with branches has one skeleton for each way through them, made when the first recipient goes that way. Each is
a Python function that joins the pieces. A value that stands at several places is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hub.mail.encoding import printed, quoted_printable, static_piece
from hub.mail.program import (
    DEEPEST,
    Branch,
    Expression,
    Item,
    NotCompilable,
    Program,
    Text,
    Token,
    Value,
    Values,
    called,
    function,
    joined,
)
from hub.signing import KINDS

MAX_VARIANTS = 256
"""Beyond it a way through is built anew each time: a template with so many is never on the hot path."""
GIVEN = ("to", "subject", "date", *KINDS)
"""What each mail gets as bytes that need no encoding, in this order: parts of its header, then its tokens."""

_NUMBERS = frozenset({int, float, bool})
_MOST_KEPT, _LONGEST_KEPT = 16_384, 200
Filled = Callable[[Values, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Given:
    """One of `GIVEN`, as it is."""

    name: str


Part = bytes | Given | Program | Callable[[Values], bytes]
"""Bytes as they are; a body as a program, quoted-printable; or a body that is made as a whole."""


class Skeleton:
    """A mail out of `parts`. Bodies and bytes begin at the start of a line."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._way = _way(parts)
        self._known: dict[int, Filled] = {}

    def filled(self, values: Values, given: Sequence[bytes]) -> bytes:
        """The mail for one recipient."""
        way = self._way(values) if self._way else 1
        made = self._known.get(way)
        if made is None:
            made = _skeleton(self._parts, way)
            if len(self._known) < MAX_VARIANTS:
                self._known[way] = made
        return made(values, given)


def bearable(program: Program, depth: int = 0) -> Program:
    """The program, as a body for a skeleton. Raises NotCompilable for branches too deep inside of each other."""
    if depth > DEEPEST:
        raise NotCompilable("branches too deep inside of each other")
    for item in program:
        if isinstance(item, Branch):
            bearable(item.then, depth + 1)
            bearable(item.otherwise, depth + 1)
    return program


def _way(parts: Sequence[Part]) -> Callable[[Values], int] | None:
    """The answers on the way through, one bit each, behind a first 1. A branch that is not reached is not asked. None: there
    is only one way."""
    names: dict[str, Any] = {}

    def asked(program: Program) -> Iterator[str]:
        for item in program:
            if not isinstance(item, Branch):
                continue
            names.update(item.test.names)
            for line, answer, side in (
                (f"if {item.test.source}:", "way * 2 + 1", item.then),
                ("else:", "way * 2", item.otherwise),
            ):
                yield line
                yield f" way = {answer}"
                for inner in asked(side):
                    yield f" {inner}"

    lines = [line for part in parts if isinstance(part, tuple) for line in asked(part)]
    return function(["way = 1", *lines, "return way"], names) if lines else None


def _skeleton(parts: Sequence[Part], way: int) -> Filled:
    answers = iter(f"{way:b}"[1:])

    def flat(program: Program) -> list[Item]:
        found: list[Item] = []
        for item in program:
            if isinstance(item, Branch):
                found += flat(item.then if next(answers) == "1" else item.otherwise)
            else:
                found.append(item)
        return found

    pieces = _Pieces()
    for part in parts:
        if isinstance(part, bytes):
            pieces.fixed(part)
        elif isinstance(part, Given):
            pieces.hole(Expression(part.name, {}))
        elif isinstance(part, tuple):
            pieces.body(joined(flat(part)))
        else:
            pieces.hole(called(part))
    return pieces.function()


class _Pieces:
    """The pieces of one skeleton, as Python."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {
            "kept": _KEPT, "rare": _rare, "qp": quoted_printable, "join": b"".join,
        }  # fmt: skip
        self._found: list[bytes | str] = []
        self._encoded: dict[str, str] = {}
        self._lines = [f"{', '.join(GIVEN)} = given"]

    def fixed(self, piece: bytes) -> None:
        if self._found and isinstance(self._found[-1], bytes):
            self._found[-1] += piece
        else:
            self._found.append(piece)

    def hole(self, made: Expression) -> None:
        self._names.update(made.names)
        self._found.append(made.source)

    def body(self, items: Program) -> None:
        after_value = False
        for place, item in enumerate(items):
            if isinstance(item, str) or after_value:
                text = item if isinstance(item, str) else ""  # between two values side by side
                self.fixed(static_piece(text, first=not place))
            after_value = not isinstance(item, str)
            if not isinstance(item, str):
                self.hole(self._filled(item))

    def _filled(self, item: Value | Text | Token | Branch) -> Expression:
        """What fills a place, as bytes."""
        if isinstance(item, Token):
            return Expression(item.kind, {})
        if isinstance(item, Text):
            made = called(item.text)
            return made._replace(source=f"qp({made.source})")
        assert isinstance(item, Value)
        source = item.value.source
        if source not in self._encoded:
            name = self._encoded[source] = f"v{len(self._encoded)}"
            self._lines += [
                f"{name} = {source}",
                f"t{name}, h{name} = kept[{name}] if {name}.__class__ is str else rare({name})",
            ]
        return Expression(("h" if item.html else "t") + self._encoded[source], item.value.names)

    def function(self) -> Filled:
        sources = []
        for piece in self._found:
            if isinstance(piece, bytes):
                name = f"s{len(self._names)}"
                self._names[name] = piece
                sources.append(name)
            else:
                sources.append(piece)
        return function([*self._lines, f"return join(({', '.join(sources)},))"], self._names, "given")


class _Kept(dict[str, tuple[bytes, bytes]]):
    """Values as a text body and as an HTML body hold them, kept: people share names, companies and cities.

    For strings only: numbers and times may be equal and yet printed differently (0.0 and -0.0, 1.0 and 1.00).
    """

    def __missing__(self, value: str) -> tuple[bytes, bytes]:
        made = _both(value)
        if len(value) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[value] = made
        return made


_KEPT = _Kept()


def _both(value: object) -> tuple[bytes, bytes]:
    text, html = printed(value, html=False), printed(value, html=True)
    made = quoted_printable(text)
    return made, made if html == text else quoted_printable(html)


def _rare(value: object) -> tuple[bytes, bytes]:
    """A value that is no text. Numbers are kept by what they print; most are met again."""
    if value is None:
        return b"", b""
    return _KEPT[str(value)] if value.__class__ in _NUMBERS else _both(value)
