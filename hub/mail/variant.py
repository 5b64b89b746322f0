"""One way a message is written: in one language, tracked or not, compiled into skeletons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from hub.mail import footer, program, template
from hub.mail.encoding import one_line, printed, quoted_printable
from hub.mail.links import Links
from hub.mail.parts import Frame
from hub.mail.program import NotCompilable, Program, Values, asks_for_more
from hub.mail.skeleton import Given, Part, Skeleton, bearable


@dataclass(frozen=True)
class Wording:
    """A message's templates in one language. `html` has its styles inlined and its footer; `text` may be made from it."""

    language: str
    subject: str
    preheader: str
    html: str
    text: str

    def in_whole(self, *, opens: bool) -> str:
        """The HTML with the preheader and the pixel."""
        return footer.within_body(
            self.html, footer.PREHEADER if self.preheader else "", footer.PIXEL if opens else ""
        )

    @property
    def sources(self) -> tuple[str, str, str, str]:
        return self.subject, self.preheader, self.text, self.in_whole(opens=False)


class Variant:
    """A compiled wording: `subject` and `preheader` are functions, `mail` is the skeleton of the whole mail, whose bodies
    stand in `frame` behind `header`. `asks_for_more`: they take more values than `contact` and `preheader`."""

    def __init__(
        self,
        wording: Wording,
        links: Links,
        *,
        opens: bool,
        header: Sequence[bytes | Given],
        frame: Frame,
        contact_fields: Collection[str],
        constants: Mapping[str, str],
    ) -> None:
        self.links, self.opens = links, opens
        self.has_preheader = bool(wording.preheader)
        self._fields, self._constants = contact_fields, constants
        self.asks_for_more = False
        self.subject = self._line(wording.subject)
        self.preheader = self._line(wording.preheader)
        text = self._part(_ended(wording.text), html=False)
        html = self._part(_ended(wording.in_whole(opens=opens)), html=True)
        self.mail = Skeleton([*header, frame.before, text, frame.between, html, frame.after])

    def _line(self, source: str) -> Callable[[Values], str]:
        """A header's template as a function."""
        try:
            return program.as_text(
                self._noted(program.compiled(source, template.TEXT, self._fields)), one_line
            )
        except NotCompilable:
            self.asks_for_more = True
            render = template.compiled(source, html=False)
            return lambda values: one_line(render(dict(values)))

    def _noted(self, made: Program) -> Program:
        self.asks_for_more = self.asks_for_more or asks_for_more(made)
        return made

    def _part(self, source: str, *, html: bool) -> Part:
        """A body: as a program, or made by Jinja for each recipient where its template has none."""
        constants = {
            name: (printed(value, html=html),) if value else () for name, value in self._constants.items()
        }
        environment, special = (
            (template.HTML if html else template.TEXT),
            constants | self.links.own(html=html),
        )
        try:
            return self._noted(
                bearable(self.links.compiled(source, environment, self._fields, special, html=html))
            )
        except NotCompilable:
            self.asks_for_more = True
            render = template.compiled(source, html=html)
            return lambda values: quoted_printable(
                self.links.rendered(render(dict(values)), values, html=html)
            )


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
