"""HubSpot's webhooks: signature v3 and the events inside. Sources: "Validating requests", "Webhooks API"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hub.errors import SignatureError
from hub.sdk.connector import WebhookEvent, WebhookRequest
from hub.sdk.signatures import check_base64_hmac, check_fresh

_DECODED = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")", "%2A": "*",
    "%2C": ",", "%3B": ";",
}  # fmt: skip
_ENCODED = re.compile("|".join(_DECODED), re.IGNORECASE)
_ACTIONS = {
    "creation": "changed", "propertyChange": "changed", "associationChange": "changed", "deletion": "deleted",
    "privacyDeletion": "deleted", "merge": "merged", "restore": "restored",
}  # fmt: skip
_OBJECTS = {
    "contact": "contact", "company": "company", "deal": "deal", "0-1": "contact", "0-2": "company", "0-3": "deal",
}  # fmt: skip


def verify(request: WebhookRequest, secrets: Sequence[str]) -> None:
    """Signature v3: base64 HMAC-SHA-256 over method, URL, raw body and timestamp, at most five minutes old."""
    if not secrets:
        raise SignatureError("the connection has no webhook_secret", "set it to the app's client secret")
    given, stamp = (
        request.headers.get("x-hubspot-signature-v3", ""),
        request.headers.get("x-hubspot-request-timestamp", ""),
    )
    if not given or not stamp.isdigit() or len(stamp) > 15:
        raise SignatureError(
            "the call has no signature v3", "use the app's own webhooks, which sign their calls"
        )
    check_fresh(datetime.fromtimestamp(int(stamp) / 1000, UTC), request.received_at)
    url = _ENCODED.sub(lambda found: _DECODED[found[0].upper()], request.url)
    check_base64_hmac(given, secrets, (request.method.encode(), url.encode(), request.body, stamp.encode()))


def events(request: WebhookRequest) -> list[WebhookEvent]:
    """The events of a call. Raises ValueError for a body that is no array of events."""
    try:
        found = msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("the body is no array of events")
    return [_event(each) for each in found]


def _event(each: dict[str, Any]) -> WebhookEvent:
    kind, _, what = str(each.get("subscriptionType") or each.get("eventType") or "").partition(".")
    kind = str(each.get("objectTypeId") or kind) if kind == "object" else kind
    merged = tuple(str(i) for i in each.get("mergedObjectIds") or ())
    primary = each.get("primaryObjectId")
    new = each.get("newObjectId")
    id = str(
        new if what == "merge" and new else each.get("objectId") or primary or each.get("fromObjectId") or ""
    )
    if primary is not None and str(primary) not in (id, *merged):
        merged = (*merged, str(primary))
    occurred = each.get("occurredAt")
    # eventId alone is not unique; attemptNumber differs between repetitions, so it must stay out.
    parts = (
        each.get("portalId"),
        each.get("subscriptionId"),
        each.get("eventId"),
        each.get("objectId") or id,
        occurred,
    )
    return WebhookEvent(
        key=":".join(str(part) for part in parts),
        object=_OBJECTS.get(kind, kind),
        id=id,
        action=_ACTIONS.get(what, "none"),
        occurred_at=datetime.fromtimestamp(occurred / 1000, UTC)
        if isinstance(occurred, (int, float))
        else None,
        merged_ids=merged,
        payload={
            "type": f"{kind}.{what}",
            "source": str(each.get("changeSource") or ""),
            "property": str(each.get("propertyName") or ""),
        },
    )
