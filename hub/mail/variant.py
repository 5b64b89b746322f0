"""One way a message is written: in one language, tracked or not, compiled into skeletons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hub.mail import footer, program, template
from hub.mail.encoding import one_line, printed, quoted_printable
from hub.mail.links import Links
from hub.mail.program import NotCompilable, Values
from hub.mail.skeleton import Body


@dataclass(frozen=True)
class Wording:
    """A message's templates in one language. `html` has its styles inlined and its footer; `text` may be made from it."""

    language: str
    subject: str
    preheader: str
    html: str
    text: str

    def in_whole(self, *, opens: bool, trap: bool = False) -> str:
        """The HTML with the preheader, the trap and the pixel."""
        last = (footer.TRAP if trap else "") + (footer.PIXEL if opens else "")
        return footer.within_body(self.html, footer.PREHEADER if self.preheader else "", last)

    @property
    def sources(self) -> tuple[str, str, str, str]:
        return self.subject, self.preheader, self.text, self.in_whole(opens=False)


class Part(Protocol):
    def pieces(self, values: Values) -> list[bytes]:
        """The encoded body for one recipient, to be joined."""
        ...


class Variant:
    """A compiled wording. `subject` and `preheader` are functions, `text` and `html` body parts; `before` holds the
    headers that are the same for everybody up to the text part."""

    def __init__(
        self,
        wording: Wording,
        links: Links,
        *,
        opens: bool,
        trap: bool = False,
        before: bytes,
        contact_fields: Collection[str],
        constants: Mapping[str, str],
    ) -> None:
        self.links, self.opens, self.trap, self.before = links, opens, trap, before
        self.has_preheader = bool(wording.preheader)
        self._fields, self._constants = contact_fields, constants
        self.subject = self._line(wording.subject)
        self.preheader = self._line(wording.preheader)
        self.text: Part = self._part(_ended(wording.text), html=False)
        self.html: Part = self._part(_ended(wording.in_whole(opens=opens, trap=trap)), html=True)

    def _line(self, source: str) -> Callable[[Values], str]:
        """A header's template as a function."""
        try:
            line = program.as_text(program.compiled(source, template.TEXT, self._fields))
        except NotCompilable:
            render = template.compiled(source, html=False)
            return lambda values: one_line(render(dict(values)))
        return lambda values: one_line(line(values))

    def _part(self, source: str, *, html: bool) -> Part:
        constants = {
            name: (printed(value, html=html),) if value else () for name, value in self._constants.items()
        }
        environment = template.HTML if html else template.TEXT
        try:
            return Body(self.links.compiled(source, environment, self._fields, constants, html=html))
        except NotCompilable:
            return _Rendered(template.compiled(source, html=html), self.links, html=html)


class _Rendered:
    """A body part that Jinja fills in for each recipient, since its template has no program."""

    def __init__(self, render: Callable[[dict[str, Any]], str], links: Links, *, html: bool) -> None:
        self._render, self._links, self._html = render, links, html

    def pieces(self, values: Values) -> list[bytes]:
        return [quoted_printable(self._links.rendered(self._render(dict(values)), values, html=self._html))]


def _ended(source: str) -> str:
    """With a line end that stays: Jinja takes one away."""
    return source.rstrip("\n") + "\n\n"


def looked_up(wished: str, known: Collection[str]) -> str:
    """The language to take for a wish, by lookup (RFC 4647, 3.4): pt-BR, then pt; empty when there is none. `known` in
    lower case."""
    tag = wished.strip().replace("_", "-").lower()
    while tag:
        if tag in known:
            return tag
        tag = tag.rpartition("-")[0]
        while tag[-2:-1] == "-":  # what a single letter introduces goes with it
            tag = tag[:-2]
    return ""
