"""A YAML file whose every value knows its place, so that a mistake can be shown as file:line:column.

YAML 1.2 by ruamel: `NO` and `on` stay texts, a key given twice is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.errors import ConfigError

At = tuple[str | int, ...]
"""The way to a value: keys and list indexes from the top, e.g. ('funnels', 'onboarding', 'steps', 0)."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"{file}:{self.line}:{self.column}"


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: where, what is wrong, what to do."""

    position: Position
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.position}: {self.what}; {self.fix}" if self.fix else f"{self.position}: {self.what}"

    def as_dict(self) -> dict[str, str | int]:
        at = self.position
        return {
            "file": str(at.file), "line": at.line, "column": at.column, "what": self.what, "fix": self.fix,
        }  # fmt: skip


class Problems(ConfigError):
    """Everything that is wrong with a file, at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(p) for p in self.problems))


class Document:
    """A loaded file: `data` in plain dicts and lists, and `position` for any value or key in it."""

    def __init__(self, file: Path, data: Any, marked: Any, text: str) -> None:
        self.file, self.data = file, data
        self._marked, self._lines = marked, text.splitlines()

    def position(self, at: Sequence[str | int] = (), *, key: bool = False) -> Position:
        """Where a value (or, with `key`, its key) stands; for what is not there, the nearest thing above it."""
        node, place = self._marked, (0, 0)
        for step in at:
            found = _place_of(node, step, key=key and step is at[-1])
            if found is None:
                break
            place, node = found, _child(node, step)
        return Position(self.file, place[0] + 1, place[1] + 1)

    def inside(self, at: Sequence[str | int], line: int, column: int) -> Position:
        """Where line and column (from 1) of a text value stand in the file.

        Exact for a plain or quoted text of one line and for a literal block (`|`); else the text's beginning.
        """
        start = self.position(at)
        source = self._lines[start.line - 1] if start.line <= len(self._lines) else ""
        head = source[start.column - 1 :]
        if head[:1] == "|":
            body = start.line + line  # the block begins on the next line
            indent = (
                len(self._lines[start.line]) - len(self._lines[start.line].lstrip())
                if start.line < len(self._lines)
                else 0
            )
            return Position(self.file, body, indent + column)
        if head[:1] == ">" or line > 1:
            return start
        return Position(self.file, start.line, start.column + column - 1 + (head[:1] in ('"', "'")))

    def problem(self, at: Sequence[str | int], what: str, fix: str = "", *, key: bool = False) -> Problem:
        return Problem(self.position(at, key=key), what, fix)


def load(file: Path, text: str | None = None) -> Document:
    """Read a file (or `text` in its name). Raises `Problems` for what is no YAML, has a key twice, or cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if text is None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise Problems(
                [Problem(Position(file, 1, 1), f"cannot be read: {error.strerror}", "check the path")]
            ) from None
        except UnicodeDecodeError as error:
            raise Problems(
                [Problem(Position(file, 1, 1), f"is not UTF-8 at byte {error.start}", "save it as UTF-8")]
            ) from None
    try:
        marked = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
        raise Problems([Problem(place, _words(error), "mend the YAML here")]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Problems([Problem(Position(file, 1, 1), f"is no YAML: {what}", "mend the YAML")]) from None
    try:
        data = _plain(marked)
    except RecursionError:
        raise Problems(
            [Problem(Position(file, 1, 1), "an alias contains itself", "write the values out")]
        ) from None
    return Document(file, data, marked, text)


def _words(error: Any) -> str:
    problem = str(error.problem or error.context or "no YAML").splitlines()[0]
    if problem.startswith("found duplicate key"):
        return problem.split(" with value")[0] + ": it is given twice"
    return problem


def _place_of(node: Any, step: str | int, *, key: bool) -> tuple[int, int] | None:
    marks = getattr(node, "lc", None)
    if marks is None or marks.data is None or step not in marks.data:
        return None
    found = marks.data[step]
    return (found[0], found[1]) if key or len(found) < 4 else (found[2], found[3])


def _child(node: Any, step: str | int) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        return None


def _plain(node: Any) -> Any:
    """ruamel's marked types as plain ones."""
    if isinstance(node, dict):
        return {_plain(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
