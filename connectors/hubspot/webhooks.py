"""HubSpot's webhooks: signature v3 and the events inside. Sources: "Validating requests", "Webhooks API"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hub.errors import SignatureError
from hub.sdk.connector import Unreadable, WebhookEvent, WebhookRequest, each_event
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
_OBJECTS = {"contact": "contact", "deal": "deal", "0-1": "contact", "0-3": "deal"}


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


class _Told(msgspec.Struct):
    """An event as HubSpot writes it; what else stands there is not read. The field table of its documentation says `eventType`
    where its examples say `subscriptionType`."""

    portalId: Any = None
    subscriptionId: Any = None
    eventId: Any = None
    objectId: Any = None
    occurredAt: int | None = None
    subscriptionType: str = ""
    eventType: str = ""
    objectTypeId: Any = None
    mergedObjectIds: tuple[Any, ...] | None = None
    primaryObjectId: Any = None
    newObjectId: Any = None
    fromObjectId: Any = None
    changeSource: Any = None
    propertyName: Any = None


_APART = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(_Told)
_ALL = msgspec.json.Decoder(list[_Told])


def events(request: WebhookRequest) -> list[WebhookEvent | Unreadable]:
    """The events of a call. Raises ValueError for a body that is no array of events."""
    try:
        try:
            return each_event(_ALL.decode(request.body), _event)
        except msgspec.ValidationError:  # one of them is not as it should be: so one by one
            return each_event(_APART.decode(request.body), lambda raw: _event(_ONE.decode(raw)))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the body is no array of events: {type(error).__name__}") from None


def _event(told: _Told) -> WebhookEvent:
    kind, _, what = (told.subscriptionType or told.eventType).partition(".")
    if kind == "object":
        kind = str(told.objectTypeId or kind)
    id = told.objectId or told.primaryObjectId or told.fromObjectId or ""
    merged: tuple[str, ...] = ()
    if what == "merge":
        id, merged = _merge(told, id)
    occurred = told.occurredAt
    # eventId alone is not unique; attemptNumber differs between repetitions, so it must stay out.
    return WebhookEvent(
        key=f"{told.portalId}:{told.subscriptionId}:{told.eventId}:{told.objectId or id}:{occurred}",
        object=_OBJECTS.get(kind, kind),
        id=str(id),
        action=_ACTIONS.get(what, "none"),
        occurred_at=None if occurred is None else datetime.fromtimestamp(occurred / 1000, UTC),
        merged_ids=merged,
        payload={
            "type": f"{kind}.{what}",
            "source": str(told.changeSource or ""),
            "property": str(told.propertyName or ""),
        },
    )


def _merge(told: _Told, id: Any) -> tuple[str, tuple[str, ...]]:
    """Which record is there now, and which it absorbed."""
    now = str(told.newObjectId or id)
    merged = tuple(str(each) for each in told.mergedObjectIds or ())
    primary = told.primaryObjectId
    return now, (*merged, str(primary)) if primary is not None and str(primary) not in (
        now,
        *merged,
    ) else merged
