"""The text of a rule: parsed, with the place of every mistake in it and the nearest of what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hub.errors import RuleError

if TYPE_CHECKING:
    from sqlglot import exp

MAX_LENGTH = 10_000


def tree(text: str) -> exp.Expr:
    """The parsed condition. Raises RuleError with the place where it is not understood."""
    import logging

    import sqlglot
    from sqlglot.errors import ParseError, TokenError

    if not text.strip():
        raise RuleError("the rule is empty", "write for example country = 'DE'")
    if len(text) > MAX_LENGTH:
        raise RuleError(f"the rule is longer than {MAX_LENGTH} characters", "split it into several lists")
    if odd := re.search("[\x00\ud800-\udfff]", text):
        raise RuleError(
            "the rule holds a character that no text may hold", "take it out", *place_of(text, odd.start())
        )
    logging.getLogger("sqlglot").setLevel(
        logging.ERROR
    )  # its warnings are about statements, which are refused anyway
    try:
        statements = sqlglot.parse(text, dialect="postgres")
    except ParseError as error:
        told = error.errors[0] if error.errors else {}
        what = re.sub(
            r" missing for <class.*", " is missing", str(told.get("description") or "cannot be parsed")
        )
        what = what.replace("Required keyword: 'expression' is missing", "something is missing after this")
        raise RuleError(
            f"not understood: {what[0].lower() + what[1:]}",
            "mend the rule here",
            *_parse_error_place(text, told),
        ) from None
    except TokenError:
        quote, offset = _unclosed(text)
        raise RuleError(
            f"not understood: {quote} is not closed", "close it", *place_of(text, offset)
        ) from None
    except RecursionError:
        raise RuleError("the rule is nested too deeply", "split it into several lists") from None
    if len(statements) != 1 or statements[0] is None:
        raise RuleError(
            "a rule is one condition", "remove the semicolon", *place_of(text, max(text.find(";"), 0))
        )
    return statements[0]


def _parse_error_place(text: str, told: Mapping[str, Any]) -> tuple[int, int]:
    """Where the parser stopped: it tells the text around, at most 100 characters to each side."""
    before, here = str(told.get("start_context") or ""), str(told.get("highlight") or "")
    at = text.find(before + here + str(told.get("end_context") or ""))
    if at >= 0 and here:
        return place_of(text, at + len(before))
    return int(told.get("line") or 1), max(1, int(told.get("col") or 1) - len(here) + 1)


def _unclosed(text: str) -> tuple[str, int]:
    """(the mark that opens something and is never closed, its offset)."""
    whole = r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1"
    for found in re.finditer(rf"{whole}|(?P<open>'|\"|/\*|\$\w*\$)", text, re.DOTALL):
        if found["open"]:
            return f"the {found['open']}", found.start()
    return "a quote", 0


def nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return (
        f"known are {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
        if names
        else "none is defined"
    )


def place_of(text: str, offset: int) -> tuple[int, int]:
    """(line, column) from 1 of an offset."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def place_in(text: str, node: exp.Expr) -> tuple[int, int]:
    """(line, column) of a part of a rule."""
    at: exp.Expr | None = node
    while at is not None:  # what has no place of its own, e.g. NULL, stands where the thing around it begins
        starts = [each.meta["start"] for each in at.walk() if "start" in each.meta]
        if starts:
            return place_of(text, _name_before(text, node, min(starts)))
        at = at.parent
    return 1, 1


def _name_before(text: str, node: exp.Expr, offset: int) -> int:
    """Where `name =>` begins before a named argument's value: the parser tells the value's place only."""
    name = node.this.name if node.key in ("kwarg", "propertyeq") else ""
    found = re.search(rf"\b{re.escape(name)}\s*[=:][>=]\s*$", text[:offset]) if name else None
    return found.start() if found else offset


def words_of(text: str, node: exp.Expr) -> str:
    """The rule's own text of a part, as near as the parser tells."""
    spans = [(each.meta["start"], each.meta["end"]) for each in node.walk() if "start" in each.meta]
    if not spans:
        return str(node.sql(dialect="postgres"))
    start, end = min(s for s, _ in spans), max(e for _, e in spans) + 1
    closing = re.match(r"\s*\)", text[end:])
    words = text[start:end]
    if closing and words.count("(") > words.count(")"):
        words += closing[0]
    return " ".join(words.split())
