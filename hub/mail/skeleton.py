"""Bodies as skeletons of bytes: what is the same for everybody is encoded once, only values are encoded for each recipient.

A program with branches has one skeleton for each way through them, made when the first recipient goes that way. Each is
a Python function that gives a list of pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hub.mail.encoding import KEPT, html_piece, printed, quoted_printable, static_piece, text_piece
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

MAX_VARIANTS = 256
"""Beyond it a way through is built anew each time: a template with so many is never on the hot path."""

_NUMBERS = frozenset({int, float, bool})
Pieces = Callable[[Values], list[bytes]]


class Body:
    """One body part, quoted-printable. Raises NotCompilable for branches too deep inside of each other."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._way = _way(program)
        self._skeletons: dict[int, Pieces] = {}

    def pieces(self, values: Values) -> list[bytes]:
        """The body for one recipient, to be joined."""
        way = self._way(values)
        skeleton = self._skeletons.get(way)
        if skeleton is None:
            skeleton = _skeleton(self._program, way)
            if len(self._skeletons) < MAX_VARIANTS:
                self._skeletons[way] = skeleton
        return skeleton(values)


def _way(program: Program) -> Callable[[Values], int]:
    """The answers on the way through, one bit each, behind a first 1. A branch that is not reached is not asked."""
    names: dict[str, Any] = {}

    def asked(program: Program, depth: int) -> Iterator[str]:
        if depth > DEEPEST:
            raise NotCompilable("branches too deep inside of each other")
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
                for inner in asked(side, depth + 1):
                    yield f" {inner}"

    return function(["way = 1", *asked(program, 0), "return way"], names)


def _skeleton(program: Program, way: int) -> Pieces:
    answers = iter(f"{way:b}"[1:])

    def flat(program: Program) -> list[Item]:
        found: list[Item] = []
        for item in program:
            if isinstance(item, Branch):
                found += flat(item.then if next(answers) == "1" else item.otherwise)
            else:
                found.append(item)
        return found

    names: dict[str, Any] = {"html": html_piece, "text": text_piece, "rare": _rare, "qp": quoted_printable}
    sources: list[str] = []
    after_value = False
    for item in joined(flat(program)):
        if isinstance(item, str) or after_value:
            text = item if isinstance(item, str) else ""  # between two values side by side
            name = f"s{len(names)}"
            names[name] = static_piece(text, first=not sources)
            sources.append(name)
        after_value = not isinstance(item, str)
        if not isinstance(item, str):
            hole = _hole(item)
            names.update(hole.names)
            sources.append(hole.source)
    return function([f"return [{', '.join(sources)}]"], names)


def _hole(item: Value | Text | Token | Branch) -> Expression:
    """What fills a place, as bytes."""
    if isinstance(item, Token):
        return Expression(f"values[{item.name!r}].encode()", {})
    if isinstance(item, Text):
        made = called(item.text)
        return made._replace(source=f"qp({made.source})")
    assert isinstance(item, Value)
    piece = "html" if item.html else "text"
    return item.value._replace(
        source=f"({piece}(v) if (v := {item.value.source}).__class__ is str and len(v) <= {KEPT} else rare(v, {item.html}))"
    )


def _rare(value: object, html: bool) -> bytes:
    """A value that is no short text. Numbers are kept by what they print; most are met again."""
    if value.__class__ in _NUMBERS:
        return html_piece(str(value)) if html else text_piece(str(value))
    return quoted_printable(printed(value, html=html))
