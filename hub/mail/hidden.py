"""Jinja's tags hidden from tools that read HTML, which would else take `<`, quotes and loops around table rows amiss."""

from __future__ import annotations

import re
from collections.abc import Callable

_STRING = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
JINJA = re.compile(
    rf"\{{\{{(?:{_STRING}|[^\"'])*?\}}\}}|\{{%(?:{_STRING}|[^\"'])*?%\}}|\{{#.*?#\}}", re.DOTALL
)
_MARK = r"jinja7x\d+x7ajnij"
_ATTRIBUTE = r"(?:[^>\"']|\"[^\"]*\"|'[^']*')*"
_BETWEEN_CELLS = re.compile(
    rf"(<(?:table|tbody|thead|tfoot|tr)\b{_ATTRIBUTE}>|</(?:td|th|tr|tbody|thead|tfoot|caption)\s*>)((?:\s|{_MARK})*{_MARK})",
    re.IGNORECASE,
)
_TABLE_TAG = re.compile(rf"<(/?)(table|tbody|thead|tfoot|tr|td|th)\b{_ATTRIBUTE}>", re.IGNORECASE)
_AS_BLOCKS = {"tr": "div", "table": "div", "td": "span", "th": "span"}


def hide(source: str) -> tuple[str, Callable[[str], str]]:
    """The source with each Jinja tag as one word, and the function that puts the tags back."""
    tags: list[str] = []

    def word(found: re.Match[str]) -> str:
        tags.append(found[0])
        return f"jinja7x{len(tags) - 1}x7ajnij"

    def back(text: str) -> str:
        return re.sub(r"jinja7x(\d+)x7ajnij", lambda found: _tag(found, tags), text)

    return JINJA.sub(word, source), back


def _tag(found: re.Match[str], tags: list[str]) -> str:
    """The tag behind a word; a template may hold such a word itself."""
    number = int(found[1])
    return tags[number] if number < len(tags) else found[0]


def as_comments(hidden: str) -> str:
    """Words between the cells of a table made comments: a parser of HTML5 moves text out of there (13.2.6.1)."""

    def commented(found: re.Match[str]) -> str:
        words = re.sub(_MARK, r"<!--\g<0>-->", found[2])
        rows = found[1][:6].lower() == "<table" and hidden[found.end() :].lstrip()[:3].lower() == "<tr"
        return found[1] + ("<tbody>" if rows else "") + words

    return _BETWEEN_CELLS.sub(commented, hidden)


def as_words(parsed: str) -> str:
    """Undoes `as_comments`, and takes away the empty values that a parser gave to words among attributes."""
    return re.sub(rf"({_MARK})=\"\"", r"\1", re.sub(rf"<!--({_MARK})-->", r"\1", parsed))


def without_tables(hidden: str) -> str:
    """Rows as blocks where a table has Jinja between its cells, so that loops and conditions stay around them."""
    if not _BETWEEN_CELLS.search(hidden):
        return hidden

    def block(found: re.Match[str]) -> str:
        name = _AS_BLOCKS.get(found[2].lower())
        space = " " if found[1] and name == "span" else ""
        return f"<{found[1]}{name}>{space}" if name else ""

    return _TABLE_TAG.sub(block, hidden)


def without_lone_lines(hidden: str, is_statement: Callable[[str], bool]) -> str:
    """Lines of plain text that hold nothing but statements take no line of their own."""
    return re.sub(
        rf"^[ \t]*((?:{_MARK}[ \t]*)+)\n",
        lambda found: found[1].rstrip() if is_statement(found[1]) else found[0],
        hidden,
        flags=re.MULTILINE,
    )
