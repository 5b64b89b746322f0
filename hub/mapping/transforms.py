"""The closed set of transforms: what may be done to a value between a vendor's field and the hub's.

Each takes a value that is not blank and returns the new one, or raises ValueError with what is wrong. None
means blank. Transforms are for pulling: a value is pushed as it is.
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
        if re.fullmatch(r"-?\d{9,16}", text):
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


PLAIN: dict[str, Transform] = {
    "trim": lambda value: str(value).strip() or None,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "title": lambda value: str(value).title(),
    "country_code": country_code,
    "language_tag": language_tag,
}
"""Transforms that a mapping names by a word."""

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
