"""Bodies as skeletons of bytes: what is the same for everybody is encoded once, only values are encoded for each recipient.

A program with branches has one skeleton for each way through them, made when the first recipient goes that way.
"""

from __future__ import annotations

from collections.abc import Callable

from hub.mail.encoding import KEPT, html_piece, printed, quoted_printable, static_piece, text_piece
from hub.mail.program import Branch, Function, Item, Program, Text, Token, Value, Values, joined

MAX_VARIANTS = 256
"""Beyond it a way through is built anew each time: a template with so many is never on the hot path."""

_NUMBERS = frozenset({int, float, bool})
Fill = Callable[[Values], bytes]
Skeleton = tuple[list[bytes], list[tuple[int, Fill]]]
"""The pieces, and for those that are empty the place and what fills it."""


class Body:
    """One body part, quoted-printable."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._crossings = _crossings(program)
        self._skeletons: dict[tuple[bool, ...], Skeleton] = {}

    def pieces(self, values: Values) -> list[bytes]:
        """The body for one recipient, to be joined."""
        way = _way(self._crossings, values) if self._crossings else ()
        skeleton = self._skeletons.get(way)
        if skeleton is None:
            skeleton = _skeleton(self._program, way)
            if len(self._skeletons) < MAX_VARIANTS:
                self._skeletons[way] = skeleton
        pieces, holes = skeleton
        pieces = pieces.copy()
        for place, fill in holes:
            pieces[place] = fill(values)
        return pieces


Crossing = tuple[Function, "Crossings", "Crossings"]
Crossings = list[Crossing]
"""The branches of a program in order, each with those inside of its two sides."""


def _crossings(program: Program) -> Crossings:
    return [
        (item.test, _crossings(item.then), _crossings(item.otherwise))
        for item in program
        if isinstance(item, Branch)
    ]


def _way(crossings: Crossings, values: Values) -> tuple[bool, ...]:
    """The answers on the way through. A branch that is not reached is not asked."""
    way: list[bool] = []

    def walk(crossings: Crossings) -> None:
        for test, then, otherwise in crossings:
            answer = bool(test(values))
            way.append(answer)
            walk(then if answer else otherwise)

    walk(crossings)
    return tuple(way)


def _skeleton(program: Program, way: tuple[bool, ...]) -> Skeleton:
    answers = iter(way)

    def flat(program: Program) -> list[Item]:
        found: list[Item] = []
        for item in program:
            if isinstance(item, Branch):
                found += flat(item.then if next(answers) else item.otherwise)
            else:
                found.append(item)
        return found

    pieces: list[bytes] = []
    holes: list[tuple[int, Fill]] = []
    for item in joined(flat(program)):
        if isinstance(item, str):
            pieces.append(static_piece(item, first=not pieces))
            continue
        if holes and holes[-1][0] == len(pieces) - 1:
            pieces.append(static_piece("", first=False))  # two values side by side
        holes.append((len(pieces), _fill(item)))
        pieces.append(b"")
    return pieces, holes


def _fill(item: Item) -> Fill:
    if isinstance(item, Token):
        return item.make
    if isinstance(item, Text):
        text = item.text
        return lambda values: quoted_printable(text(values))
    assert isinstance(item, Value)
    value, piece, html = item.value, html_piece if item.html else text_piece, item.html

    def fill(values: Values) -> bytes:
        found = value(values)
        kind = found.__class__
        if kind is not str:
            if kind not in _NUMBERS:
                return quoted_printable(printed(found, html=html))
            found = str(found)
        return piece(found) if len(found) <= KEPT else quoted_printable(printed(found, html=html))

    return fill
