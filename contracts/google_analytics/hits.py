"""What the Measurement Protocol makes of a request body: which events count, and what is wrong with the rest.

Sources: "Measurement Protocol reference", "Event naming rules", "Event collection limits", "Validate events".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_EVENTS = MAX_PARAMS = MAX_USER_PROPERTIES = 25
MAX_NAME, MAX_VALUE, MAX_USER_NAME, MAX_USER_VALUE = 40, 100, 24, 36
MAX_BODY_BYTES = 130_000
MAX_AGE = timedelta(hours=72)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
RESERVED_EVENTS = frozenset({
    "ad_impression", "app_remove", "app_store_refund", "app_store_subscription_cancel",
    "app_store_subscription_convert", "app_store_subscription_renew", "click", "error", "file_download",
    "first_open", "first_visit", "form_start", "form_submit", "in_app_purchase", "page_view", "scroll",
    "session_start", "user_engagement", "view_complete", "video_progress", "video_start",
    "view_search_results",
})  # fmt: skip
RESERVED_USER_PROPERTIES = frozenset(
    ["first_open_time", "first_visit_time", "last_deep_link_referrer", "user_id", "session_id"]
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong, in the words of the debug endpoint. `loses`: request, event or value; `strict`: told on request only."""

    code: str
    field_path: str
    description: str
    loses: str = "event"
    strict: bool = False

    def as_message(self) -> dict[str, str]:
        return {
            "fieldPath": self.field_path,
            "description": self.description,
            "validationCode": self.code,
        }


@dataclass(frozen=True)
class Event:
    """One event that counts."""

    name: str
    client_id: str
    at: datetime
    received_at: datetime
    params: dict[str, Any]
    user_properties: dict[str, str]

    @property
    def reported(self) -> bool:
        """Processed reports leave out what belongs to no session and shows no engagement; Realtime has it."""
        return "session_id" in self.params or "engagement_time_msec" in self.params

    @property
    def active(self) -> bool:
        return str(self.params.get("engagement_time_msec", "0")) not in ("0", "")


@dataclass
class Hit:
    """A request, read. `strict` when it asked for ENFORCE_RECOMMENDATIONS."""

    events: list[Event] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    strict: bool = False

    def messages(self) -> list[dict[str, str]]:
        """What the debug endpoint says."""
        return [p.as_message() for p in self.problems if self.strict or not p.strict]


def read(body: bytes, now: datetime) -> Hit:
    """Never raises: whatever was sent, the answer is what counts and what does not."""
    if len(body) >= MAX_BODY_BYTES:
        return Hit(
            problems=[Problem("VALUE_OUT_OF_BOUNDS", "", f"The body has {len(body)} bytes.", "request")]
        )
    try:
        payload = json.loads(body)
    except ValueError:
        return Hit(problems=[Problem("VALUE_INVALID", "", "The body is no JSON.", "request")])
    if not isinstance(payload, dict):
        return Hit(problems=[Problem("VALUE_INVALID", "", "The body is no JSON object.", "request")])
    hit = Hit(strict=payload.get("validation_behavior") == "ENFORCE_RECOMMENDATIONS")
    hit.problems += _about_request(payload)
    if hit.problems:
        return hit
    user_properties = _user_properties(payload, hit.problems)
    for index, event in enumerate(payload["events"]):
        found = list(_about_event(index, event, payload, now))
        hit.problems += found
        if not any(p.loses == "event" for p in found):
            at = _instant(event.get("timestamp_micros", payload.get("timestamp_micros"))) or now
            params = _kept(event.get("params") or {}, index, hit.problems)
            hit.events.append(Event(event["name"], payload["client_id"], at, now, params, user_properties))
    return hit


def _about_request(payload: dict[str, Any]) -> Iterator[Problem]:
    client_id, events = payload.get("client_id"), payload.get("events")
    if not isinstance(client_id, str) or not client_id:
        yield Problem("VALUE_REQUIRED", "client_id", "A web stream needs a client_id.", "request")
    if not isinstance(events, list) or not events:
        yield Problem("VALUE_REQUIRED", "events", "There are no events.", "request")


def _about_event(index: int, event: object, payload: dict[str, Any], now: datetime) -> Iterator[Problem]:
    where = f"Event at index: [{index}]"
    if index >= MAX_EVENTS:
        yield Problem("EXCEEDED_MAX_ENTITIES", "events", f"{where} is beyond the {MAX_EVENTS} allowed.")
        return
    if not isinstance(event, dict) or not isinstance(event.get("name"), str):
        yield Problem("VALUE_REQUIRED", "events", f"{where} has no name.")
        return
    name = event["name"]
    if not NAME.fullmatch(name):
        why = "Names must start with an alphabetic character and go on with letters, digits and underscores."
        yield Problem("NAME_INVALID", "events", f"{where} has invalid name [{name}]. {why}")
    elif len(name) > MAX_NAME:
        yield Problem(
            "NAME_INVALID", "events", f"{where} has a name of {len(name)} characters, {MAX_NAME} are allowed."
        )
    elif name in RESERVED_EVENTS or name.startswith(RESERVED_PREFIXES):
        yield Problem("NAME_RESERVED", "events", f"{where} has name [{name}] which is reserved.")
    if not isinstance(event.get("params", {}), dict):
        yield Problem("VALUE_INVALID", "events.params", f"{where} has params that are no object.")
    yield from _about_time(where, event.get("timestamp_micros", payload.get("timestamp_micros")), now)


def _about_time(where: str, given: object, now: datetime) -> Iterator[Problem]:
    if given is None:
        return
    at = _instant(given)
    if at is None:
        yield Problem("VALUE_INVALID", "timestamp_micros", f"{where} has no valid timestamp_micros.")
    elif at > now:
        yield Problem("VALUE_OUT_OF_BOUNDS", "timestamp_micros", f"{where} lies in the future.", strict=True)
    elif now - at > MAX_AGE:
        yield Problem(
            "VALUE_OUT_OF_BOUNDS", "timestamp_micros", f"{where} is older than 72 hours.", strict=True
        )


def _instant(given: object) -> datetime | None:
    if isinstance(given, bool) or not isinstance(given, int | str) or not str(given).isdigit():
        return None
    try:
        return datetime.fromtimestamp(int(given) / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _kept(params: dict[str, Any], index: int, problems: list[Problem]) -> dict[str, Any]:
    """The parameters that are logged; each of the others leaves a problem, which debug tells in strict mode only."""
    kept: dict[str, Any] = {}
    for name, value in params.items():
        if problem := _about_param(index, name, value, len(kept)):
            problems.append(problem)
        else:
            kept[name] = value
    return kept


def _about_param(index: int, name: str, value: object, before: int) -> Problem | None:
    where, path = f"Event at index: [{index}]", "events.params"
    if before >= MAX_PARAMS:
        text = f"{where} has more than {MAX_PARAMS} parameters."
        return Problem("EXCEEDED_MAX_ENTITIES", path, text, "value", strict=True)
    if name.startswith(RESERVED_PREFIXES):
        text = f"{where} has a parameter [{name}] with a reserved prefix."
        return Problem("NAME_RESERVED", path, text, "value", strict=True)
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        text = f"{where} has a parameter with invalid name [{name}]."
        return Problem("NAME_INVALID", path, text, "value", strict=True)
    if isinstance(value, str) and len(value) > MAX_VALUE:
        text = f"{where} has a parameter [{name}] of {len(value)} characters."
        return Problem("VALUE_OUT_OF_BOUNDS", path, text, "value", strict=True)
    if not isinstance(value, str | int | float) and not (name == "items" and isinstance(value, list)):
        text = f"{where} has a parameter [{name}] that is neither text nor number."
        return Problem("VALUE_INVALID", path, text, "value", strict=True)
    return None


def _user_properties(payload: dict[str, Any], problems: list[Problem]) -> dict[str, str]:
    given = payload.get("user_properties")
    kept: dict[str, str] = {}
    for name, holder in given.items() if isinstance(given, dict) else ():
        value = holder.get("value") if isinstance(holder, dict) else None
        reserved = name in RESERVED_USER_PROPERTIES or name.startswith(RESERVED_PREFIXES)
        if len(kept) >= MAX_USER_PROPERTIES:
            code, text = (
                "EXCEEDED_MAX_ENTITIES",
                f"There are more than {MAX_USER_PROPERTIES} user properties.",
            )
        elif reserved:
            code, text = "NAME_RESERVED", f"User property [{name}] is reserved."
        elif not NAME.fullmatch(name) or len(name) > MAX_USER_NAME:
            code, text = "NAME_INVALID", f"User property has invalid name [{name}]."
        elif not isinstance(value, str | int | float) or len(str(value)) > MAX_USER_VALUE:
            code, text = "VALUE_INVALID", f"User property [{name}] has no valid value."
        else:
            kept[name] = str(value)
            continue
        problems.append(Problem(code, "user_properties", text, "value"))
    return kept
