"""A mapping as one function a stream: written out once as Python, without a loop or a call for what is plain.

What most values need (trim, lower, a text without NUL) stands in the function itself; what costs more is remembered for values
that come again, such as countries and stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map
from typing import Any

from hub.mapping import transforms
from hub.mapping.language import BadValue, Consent, Entry, Mapped
from hub.model import FieldType

INLINE = {
    "trim": "v.strip()",
    "lower": "v.lower()",
    "upper": "v.upper()",
    "title": "v.title()",
}
"""Transforms of a text as Python."""
REMEMBERED = 1_024
"""How many different values of a field are remembered; more only come from fields whose values hardly ever recur."""


def puller(
    entries: Sequence[Entry], consents: Sequence[Consent], standard: Map[str, Any]
) -> Callable[[Map[str, Any]], Mapped]:
    """A function from a vendor's fields to the hub's. `standard` names the hub's fields that have a column."""
    names: dict[str, Any] = {"Mapped": Mapped, "bad": _bad, "refused": _refused, "nul": "\0"}
    lines = [
        "def pull(fields):",
        " get = fields.get",
        " columns, custom, fill, consent, errors, untold = {}, {}, {}, {}, [], ()",
    ]
    for number, entry in enumerate(entries):
        if entry.pulls:
            lines += _entry(number, entry, entry.name in standard, names)
    for number, each in enumerate(consents):
        names[f"p{number}"], names[f"o{number}"] = each.purpose, each.field
        names["boolean"] = transforms.boolean
        lines += [
            f" v = get(o{number})",
            " if v is not None and v != '' and v != 'false':",
            "  try:",
            "   if boolean(v):",
            f"    consent[p{number}] = 'out'",
            "  except ValueError as error:",
            f"   errors.append(refused(o{number}, v, error))",
        ]
    lines.append(" return Mapped(columns, custom, fill, consent, errors, untold)")
    exec(compile("\n".join(lines), "<mapping>", "exec"), names)  # noqa: S102  # written above from checked entries; holds no text of theirs
    made: Callable[[Map[str, Any]], Mapped] = names["pull"]
    return made


def _entry(number: int, entry: Entry, has_column: bool, names: dict[str, Any]) -> list[str]:
    """The lines that take one field. Names and values of the entry come in by `names`, never as text."""
    n = number
    names |= {
        f"n{n}": entry.name,
        f"f{n}": entry.field,
        f"d{n}": entry.default,
        f"r{n}": entry.reader(),
        f"c{n}": {},
    }
    if has_column:
        keep, blank = [f"columns[n{n}] = v"], [f"columns[n{n}] = d{n}"]
        lost = [f"columns[n{n}] = None", f"untold += (n{n},)"]
    else:
        target = "fill" if entry.on_blank == "fill" else "custom"
        keep, lost = [f"{target}[n{n}] = v"], []
        blank = (
            [f"{target}[n{n}] = d{n}"] if entry.default is not None or entry.on_blank == "clear" else ["pass"]
        )
    own = not has_column and entry.on_blank != "clear"
    refused = [f"errors.append(bad(n{n}, f{n}, get(f{n}), error))", *lost]
    read = [
        "try:",
        f" v = r{n}(v)",
        "except ValueError as error:",
        *_in(refused),
        "else:",
        *_in(_unless_none(keep, own)),
    ]
    plain = all(name in INLINE for name, _ in entry.transforms)
    if plain and not entry.options and entry.type in (FieldType.TEXT, FieldType.ENUM):
        taken = [
            *[f"v = {INLINE[name]}" for name, _ in entry.transforms],
            "if not v:", *_in(blank),
            "elif nul in v:", *_in(read),
            "else:", *_in(keep),
        ]  # fmt: skip
    elif entry.type is FieldType.TIME and not entry.transforms:
        taken = ["if not v:", *_in(blank), "else:", *_in(read)]
    else:
        remembered = ["try:", f" c{n}[v] = w = r{n}(v)", "except ValueError as error:", *_in(refused), "else:", " v = w",
                      *_in(_unless_none(keep, own)), f" if len(c{n}) > {REMEMBERED}:", f"  c{n}.clear()"]  # fmt: skip
        taken = [
            f"if v in c{n}:", f" v = c{n}[v]", *_in(_unless_none(keep, own)),
            "elif not v:", *_in(blank),
            "else:", *_in(remembered),
        ]  # fmt: skip
    lines = [
        f"v = get(f{n})",
        "if v.__class__ is str:", *_in(taken),
        "elif v is None:", *_in(blank),
        "else:", *_in(read),
    ]  # fmt: skip
    return _in(lines)


def _unless_none(keep: list[str], own: bool) -> list[str]:
    """A field of one's own without a value is left out, unless a blank clears it."""
    return ["if v is not None:", *_in(keep)] if own else keep


def _in(lines: list[str]) -> list[str]:
    return [" " + line for line in lines]


def _bad(name: str, source: str, value: Any, error: ValueError) -> BadValue:
    return BadValue(
        name, _shown(value), f"{source} {error}", f"correct it there, or change the mapping of {name}"
    )


def _refused(source: str, value: Any, error: ValueError) -> BadValue:
    fix = "correct it there, or name a field that holds true or false"
    return BadValue("consent", _shown(value), f"{source} {error}", fix)


def _shown(value: Any) -> str:
    """A bad value as it is kept with the run: PostgreSQL keeps no NUL."""
    return str(value)[:200].replace("\x00", "\ufffd")
