"""What HubSpot works out by itself: addresses after a merge, an engagement's receivers, a first pipeline."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from contracts.hubspot.answers import Json, bad_request
from contracts.hubspot.records import Record


def merged_addresses(primary: Record, other: Record) -> dict[str, str]:
    """E-mail properties of the record that two become: the primary's address leads, no address is lost."""
    main = primary.properties.get("email") or other.properties.get("email", "")
    every: Iterable[str] = (
        address
        for r in (primary, other)
        for address in [
            r.properties.get("email", ""),
            *r.properties.get("hs_additional_emails", "").split(";"),
        ]
    )
    others = list(dict.fromkeys(a for a in every if a and a != main))
    return ({"email": main} if main else {}) | ({"hs_additional_emails": ";".join(others)} if others else {})


def addresses_of(headers: str) -> dict[str, str]:
    """The read-only sender and receivers that HubSpot fills from `hs_email_headers`. 400 when it is no such JSON."""
    try:
        parts = msgspec.json.decode(headers)
        found = {"hs_email_from_email": parts.get("from", {}).get("email", "")}
        found["hs_email_to_email"] = ";".join(p.get("email", "") for p in parts.get("to", []))
    except (msgspec.DecodeError, AttributeError, TypeError):
        raise bad_request("hs_email_headers must be JSON text with from, to, cc and bcc") from None
    return found


def default_pipeline(now: str) -> Json:
    """The one pipeline of a new account, its first stage labelled Trial. `now` is an ISO instant."""
    stages = (
        ("appointmentscheduled", "Trial", "0.2"),
        ("qualifiedtobuy", "Qualified to buy", "0.4"),
        ("contractsent", "Contract sent", "0.8"),
        ("closedwon", "Won", "1.0"),
        ("closedlost", "Lost", "0.0"),
    )
    return {
        "id": "default",
        "label": "Sales pipeline",
        "displayOrder": 0,
        "archived": False,
        "createdAt": now,
        "updatedAt": now,
        "stages": [
            {
                "id": stage,
                "label": label,
                "displayOrder": order,
                "metadata": {"isClosed": str(chance in ("1.0", "0.0")).lower(), "probability": chance},
                "archived": False,
                "createdAt": now,
                "updatedAt": now,
            }
            for order, (stage, label, chance) in enumerate(stages)
        ],
    }
