"""HubSpot's refusals in the hub's terms. Sources: "Error handling", "Usage guidelines", "Validating requests"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hub.errors import Drop, FixNeeded, QuotaExhausted, Retry, Unclear, VendorError
from hub.sdk.http import retry_after

DAY_SECONDS = 3600.0
"""The daily quota comes back at the account's midnight, which the answer does not tell: ask again in an hour."""


def classify(status: int, headers: Mapping[str, str], body: bytes) -> VendorError | None:
    """The typed error of an answer that is not 2xx, or None to leave it to the general reading."""
    said = document(body)
    message = str(said.get("message") or f"HTTP {status}")[:500]
    code = str(said.get("category") or said.get("errorType") or "")
    pause = retry_after(headers)
    if status == 429:
        if str(said.get("policyName", "")).upper() == "DAILY":
            return QuotaExhausted(message, code="DAILY", status=429, fix="the run goes on when the day's quota is new",
                                  retry_after_seconds=pause or DAY_SECONDS)  # fmt: skip
        return Retry(message, code=code or "RATE_LIMIT", status=429, retry_after_seconds=pause or 1.0)
    if status == 423:
        return Retry(message, code="LOCKED", status=423, retry_after_seconds=max(pause, 2.0))
    if status == 477:  # the account moves to another data centre; Retry-After says for how long
        return Retry(message, code="MIGRATION", status=477, retry_after_seconds=pause or 60.0)
    if status == 401:
        return FixNeeded(
            message, code=code or "UNAUTHORIZED", status=401, fix="renew the token of this connection"
        )
    if status == 403:
        return FixNeeded(
            message, code=code or "FORBIDDEN", status=403, fix=f"give the app the scopes {_scopes(said)}"
        )
    if status == 404:
        return Drop(message, code=code or "OBJECT_NOT_FOUND", status=404,
                    fix="it is gone or was merged in HubSpot; the next pull will tell")  # fmt: skip
    if status >= 500:
        return Retry(message, code=code or "SERVER", status=status, retry_after_seconds=pause)
    return FixNeeded(message, code=code or str(status), status=status, fix=advice(code, message))


def of_sdk(error: Exception) -> VendorError | None:
    """The typed error of an exception of hubspot-api-client or of the urllib3 beneath it."""
    status, body = getattr(error, "status", None), getattr(error, "body", None)
    if isinstance(status, int) and status:
        headers = {str(k).lower(): str(v) for k, v in dict(getattr(error, "headers", None) or {}).items()}
        raw = body.encode() if isinstance(body, str) else body or b""
        if 200 <= status < 300:
            return Unclear("the answer cannot be read", code="BAD_BODY", status=status)
        return classify(status, headers, raw)
    if type(error).__module__.startswith("urllib3") or isinstance(error, (OSError, ValueError)):
        return Unclear(f"the answer was lost: {type(error).__name__}", code="LOST_ANSWER")
    return None


def document(body: bytes) -> dict[str, Any]:
    """An error body's fields; every one of them is optional, and a proxy may send no JSON at all."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def advice(code: str, message: str) -> str:
    """What an admin can do about a refusal."""
    if "mailyard_" in message:  # a property of ours
        return "run `hub connections prepare`"
    if "PROPERTY_DOESNT_EXIST" in message or "does not exist" in message:
        return "run `hub connections prepare`, or mend the mapping"
    if code == "CONFLICT":
        return "another record has this unique value; merge them in HubSpot"
    if "read only" in message or "READ_ONLY" in message:
        return "set direction: pull for this field in the mapping"
    return "correct the value in the mapping or in HubSpot, then replay"


def _scopes(said: Mapping[str, Any]) -> str:
    context = (
        said.get("context")
        or next((e.get("context") for e in said.get("errors") or [] if isinstance(e, dict)), None)
        or {}
    )
    names = context.get("requiredGranularScopes") or context.get("requiredScopes") or []
    return ", ".join(str(name) for name in names) or "that its documentation names"
