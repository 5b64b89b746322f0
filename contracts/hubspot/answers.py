"""How HubSpot answers: JSON bodies, and the shapes and words of its refusals.

Sources: HubSpot developer docs "Error handling", "Usage guidelines"; recorded answers of public connectors.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

Json = dict[str, Any]


class Answer(Response):
    """A JSON answer. `body` None gives an empty answer, as for 204."""

    media_type = "application/json;charset=utf-8"

    def render(self, content: object) -> bytes:
        return b"" if content is None else msgspec.json.encode(content)


class Refusal(Exception):
    """A request that HubSpot turns down: `status` is HTTP's, `body` the vendor's error object."""

    def __init__(self, status: int, category: str, message: str, **more: object) -> None:
        self.status, self.category, self.message = status, category, message
        self.more = {key: value for key, value in more.items() if value is not None}
        super().__init__(f"{status} {category}: {message}")

    def body(self) -> Json:
        """The answer to a whole request."""
        head: Json = {"status": "error", "message": self.message, "correlationId": str(uuid.uuid4())}
        return {**head, **self.more, "category": self.category}

    def as_batch_error(self, trace_id: str | None) -> Json:
        """The entry for one input in the `errors` of a 207."""
        context: dict[str, list[str]] = dict(self.more.get("context", {}))  # type: ignore[call-overload]
        if trace_id is not None:
            context["objectWriteTraceId"] = [trace_id]
        return {
            "status": "error",
            "category": self.category,
            "message": self.message,
            "context": context,
            "errors": self.more.get("errors", []),
            "links": {},
        }


def bad_request(message: str, **more: object) -> Refusal:
    return Refusal(400, "VALIDATION_ERROR", message, **more)


def not_found(what: str, **more: object) -> Refusal:
    return Refusal(404, "OBJECT_NOT_FOUND", what, **more)


def invalid_values(problems: list[Json]) -> Refusal:
    """Refused property values: HubSpot repeats the problems as JSON text inside the message."""
    text = msgspec.json.encode(problems).decode()
    errors = [
        {"message": p["message"], "code": p["error"], "context": {"propertyName": [p["name"]]}}
        for p in problems
    ]
    return bad_request(f"Property values were not valid: {text}", errors=errors)


def iso(ms: int) -> str:
    """Milliseconds since 1970 as HubSpot writes instants: `2026-11-24T09:00:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def field_of(body: object, name: str, kind: type, default: Any = ...) -> Any:
    """`body[name]`, refused as HubSpot refuses JSON of the wrong form when missing or of another type."""
    if not isinstance(body, dict):
        raise bad_request("Invalid input JSON: the body must be an object")
    value = body.get(name, default)
    if value is ... or (value is None and default is ...):
        raise bad_request(
            f'Invalid input JSON on line 1, column 1: Some required fields were not set: ["{name}"]',
            errors=[
                {
                    "message": f"{name} is required",
                    "code": "REQUIRED_FIELD",
                    "context": {"propertyName": [name]},
                }
            ],
        )
    if value is not default and not isinstance(value, kind):
        raise bad_request(
            f"Invalid input JSON: Cannot deserialize value of type `{kind.__name__}` for field {name}"
        )
    return value


def batch_answer(results: list[Json], errors: list[Json], now: str, success: int = 200) -> Answer:
    """A batch's answer: `success`, or 207 with the errors beside the results."""
    body: Json = {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
    if not errors:
        return Answer(body, success)
    return Answer({**body, "numErrors": len(errors), "errors": errors}, 207)
