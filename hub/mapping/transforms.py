"""The closed set of transforms: what may be done to a value between a vendor's field and the hub's.

Each takes a value that is not blank and returns the new one, or raises ValueError with what is wrong. None
means blank. What is done to a text is done to each text of a list. A step of a mapping is a word (`trim`) or a
word with what it needs (`{cut: 40}`); `made` turns it into a function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from hub.model import FieldType

Transform = Callable[[Any], Any]

_COUNTRIES = {
    "germany": "DE", "deutschland": "DE", "austria": "AT", "österreich": "AT", "switzerland": "CH", "schweiz": "CH",
    "france": "FR", "italy": "IT", "spain": "ES", "portugal": "PT", "netherlands": "NL", "belgium": "BE", "luxembourg": "LU",
    "united kingdom": "GB", "uk": "GB", "great britain": "GB", "ireland": "IE", "denmark": "DK", "sweden": "SE", "norway": "NO",
    "finland": "FI", "iceland": "IS", "poland": "PL", "czech republic": "CZ", "czechia": "CZ", "slovakia": "SK", "hungary": "HU",
    "slovenia": "SI", "croatia": "HR", "romania": "RO", "bulgaria": "BG", "greece": "GR", "turkey": "TR", "türkiye": "TR",
    "ukraine": "UA", "estonia": "EE", "latvia": "LV", "lithuania": "LT", "united states": "US", "usa": "US",
    "united states of america": "US", "canada": "CA", "mexico": "MX", "brazil": "BR", "argentina": "AR", "chile": "CL",
    "japan": "JP", "china": "CN", "india": "IN", "south korea": "KR", "singapore": "SG", "australia": "AU", "new zealand": "NZ",
    "south africa": "ZA", "israel": "IL", "united arab emirates": "AE",
}  # fmt: skip


def country_code(value: Any) -> str:
    """ISO 3166-1 alpha-2 for a code or an English or German name that the table knows; else the text as it is."""
    text = str(value).strip()
    return text.upper() if re.fullmatch(r"[A-Za-z]{2}", text) else _COUNTRIES.get(text.lower(), text)


def language_tag(value: Any) -> str:
    """BCP 47 spelling: `de_AT`, `de-at` -> `de-AT`."""
    parts = re.split(r"[-_]", str(value).strip())
    return "-".join([parts[0].lower(), *(p.upper() if len(p) == 2 else p for p in parts[1:])])


def number(value: Any) -> float | int:
    if isinstance(value, bool):
        raise ValueError("is true or false, not a number")
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("is no number") from None
    if not found.is_finite() or not math.isfinite(float(found)):
        raise ValueError("is no finite number")
    return int(found) if found == found.to_integral_value() and abs(found) < 2**53 else float(found)


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "y", "on"):
        return True
    if text in ("false", "0", "no", "n", "off"):
        return False
    raise ValueError("is neither true nor false")


def time(value: Any) -> datetime:
    """A point in time in UTC out of ISO 8601 or milliseconds since 1970."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    text = str(value).strip()
    try:
        if text[-1:] == "Z":  # as nearly all come
            return datetime.fromisoformat(text)
        if text.removeprefix("-").isdigit() and 9 <= len(text.removeprefix("-")) <= 16:
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError("is no point in time (ISO 8601 or milliseconds)") from None


def day(value: Any) -> str:
    """A date as YYYY-MM-DD; never shifted by a time zone."""
    text = str(value).strip()
    if re.fullmatch(r"-?\d{9,16}", text):
        return time(text).date().isoformat()
    try:
        return date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        raise ValueError("is no date (YYYY-MM-DD)") from None


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    found = str(value)
    if "\x00" in found:
        raise ValueError("holds a NUL character")
    return found


def several(value: Any) -> list[str]:
    """Several texts out of a list or of `a;b`."""
    parts = value if isinstance(value, list) else str(value).split(";")
    return [text(part) for part in parts if part is not None and str(part)]


def phone(value: Any) -> str | None:
    """Digits with the leading plus of an international number: `00` becomes it, all else between digits goes."""
    found = re.sub(r"[^\d+]", "", re.sub(r"\(0\)", "", str(value)))
    found = "+" + found[2:] if found.startswith("00") else found
    return found[:1] + found[1:].replace("+", "") or None


def domain(value: Any) -> str | None:
    """The host of an e-mail address or a URL, in lower case, without `www.`."""
    found = re.sub(r"^[a-z][a-z0-9+.-]*://", "", str(value).strip().lower())
    return re.split(r"[/?#:]", found)[0].rpartition("@")[2].removeprefix("www.") or None


PLAIN: dict[str, Transform] = {
    "trim": lambda value: str(value).strip() or None,
    "squeeze": lambda value: " ".join(str(value).split()) or None,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "title": lambda value: str(value).title(),
    "digits": lambda value: re.sub(r"\D", "", str(value)) or None,
    "phone": phone,
    "domain": domain,
    "country_code": country_code,
    "language_tag": language_tag,
}
"""Transforms that a mapping names by a word."""


def _blank_if(given: Any) -> Transform:
    words = {str(each).strip().lower() for each in (given if isinstance(given, list) else [given])}
    return lambda value: None if str(value).strip().lower() in words else value


def _replace(given: Any) -> Transform:
    if not isinstance(given, dict) or not given or "" in given:
        raise ValueError("needs a table of `what is there: what shall be there`")
    table = {str(old): str(new) for old, new in given.items()}
    # The longest first, all in one pass: nothing that was put in is replaced again.
    pattern = re.compile("|".join(re.escape(old) for old in sorted(table, key=len, reverse=True)))
    return lambda value: pattern.sub(lambda found: table[found[0]], str(value)) or None


def _before(given: Any) -> Transform:
    mark = _mark(given)
    return lambda value: str(value).partition(mark)[0] or None


def _after(given: Any) -> Transform:
    mark = _mark(given)
    return lambda value: str(value).partition(mark)[2] or None


def _cut(given: Any) -> Transform:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ValueError("needs a number of characters, 1 or more")
    return lambda value: str(value)[:given]


def _split(given: Any) -> Transform:
    mark = _mark(given)
    return lambda value: [part.strip() for part in str(value).split(mark) if part.strip()] or None


def _join(given: Any) -> Transform:
    if not isinstance(given, str):
        raise ValueError("needs the text that goes between")
    return lambda value: given.join(str(part) for part in value) if isinstance(value, list) else value


def _times(given: Any) -> Transform:
    factor = Decimal(str(number(given)))
    return lambda value: number(Decimal(str(number(value))) * factor)


def _date_from(given: Any) -> Transform:
    if not isinstance(given, str) or "%" not in given:
        raise ValueError("needs the pattern of the date, e.g. '%d.%m.%Y'")
    try:
        datetime.strptime(datetime(2001, 2, 3, tzinfo=UTC).strftime(given), given)
    except ValueError:
        raise ValueError(f"cannot read dates by the pattern {given!r}") from None

    def read(value: Any) -> str:
        try:
            return datetime.strptime(str(value).strip(), given).date().isoformat()
        except ValueError:
            raise ValueError(f"is no date as {given}") from None

    return read


def _mark(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ValueError("needs the text to look for")
    return given


TAKING: dict[str, Callable[[Any], Transform]] = {
    "blank_if": _blank_if,
    "replace": _replace,
    "before": _before,
    "after": _after,
    "cut": _cut,
    "split": _split,
    "join": _join,
    "times": _times,
    "date_from": _date_from,
}
"""Transforms that need something; each raises ValueError with what it needs."""

WHOLE = frozenset({"split", "join"})
"""Transforms that take a list as a whole."""

Step = tuple[str, Any]
"""A step of a mapping: its word, and what it was given (None for a plain one)."""


def step(given: Any) -> Step:
    """A step as it is written in a mapping. Raises ValueError for what is none."""
    if isinstance(given, str) and given in PLAIN:
        return given, None
    if isinstance(given, dict) and len(given) == 1:
        ((name, argument),) = given.items()
        if name in TAKING:
            try:
                TAKING[name](argument)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            return name, argument
    if isinstance(given, str) and given in TAKING:
        raise ValueError(f"{given} needs something: write {{{given}: ...}}")
    raise LookupError(given)


def made(step: Step) -> Transform:
    """The function of a step; what is done to a text is done to each text of a list."""
    name, argument = step
    work = PLAIN[name] if name in PLAIN else TAKING[name](argument)
    if name in WHOLE:
        return work

    def each(value: Any) -> Any:
        if not isinstance(value, list):
            return work(value)
        return [done for part in value if (done := work(part)) not in (None, "")] or None

    return each


BY_TYPE: dict[FieldType, Transform] = {
    FieldType.TEXT: text,
    FieldType.ENUM: text,
    FieldType.NUMBER: number,
    FieldType.BOOLEAN: boolean,
    FieldType.TIME: time,
    FieldType.DATE: day,
    FieldType.LIST: several,
}
"""The last step of every pull: the value as the hub field's type."""


def pushed(value: Any) -> str:
    """A hub value as the text that vendors take; a blank is the empty text, which clears the field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list):
        return ";".join(str(part) for part in value)
    return str(value)
