"""The sums of a rehearsal: what the hub believes beside what the relay saw and what the vendors answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from hub.demo import script
from hub.demo.stage import Stage, get_json

RESULTS = ("delivered", "bounced", "opened", "clicked", "unsubscribed")
EVENTS = (
    "email_sent",
    "email_delivered",
    "email_bounce",
    "email_open",
    "email_click",
    "email_reply",
    "email_unsubscribe",
)


@dataclass
class Sums:
    """Counts in people, mails and written results. `disagreements` is empty when all of them agree."""

    contacts: int
    deals: int
    lists: dict[str, int]
    deliveries: dict[str, int]
    results: dict[str, int]
    pushed: dict[str, int]
    read_back: dict[str, int]
    duplicates: int
    seconds: float
    disagreements: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def taken(stage: Stage, numbers: dict[str, Any], *, pushed: dict[str, int], seconds: float) -> Sums:
    """Ask everybody and compare. `numbers` are the hub's; the rest is asked of the relay and, by API, of the vendors."""
    relay = stage.relay_status()
    deliveries = numbers["deliveries"]
    sums = Sums(
        contacts=numbers["contacts"],
        deals=numbers["deals"],
        lists=numbers["lists"],
        deliveries={state: deliveries.get(state, 0) for state in ("accepted", "rejected", "uncertain")},
        results={kind: numbers["results"].get(kind, 0) for kind in RESULTS},
        pushed=pushed,
        read_back={"crm": read_hubspot(stage), "analytics": read_analytics(stage)},
        duplicates=relay["duplicates"],
        seconds=round(seconds, 1),
    )
    vendor_contacts, vendor_deals = (_total(stage, kind) for kind in ("contacts", "deals"))
    # A send that was cut in its middle is reported as uncertain; what the relay did of it shows on its side only.
    slack = sums.deliveries["uncertain"]
    sums.disagreements = [
        f"{what}: {one} says {a}, {other} says {b}"
        for what, one, a, other, b in (
            ("contacts", "the hub", sums.contacts, "HubSpot", vendor_contacts),
            ("deals", "the hub", sums.deals, "HubSpot", vendor_deals),
            ("refused", "the hub", sums.deliveries["rejected"], "the relay", relay["refused"]),
            (
                "bounced",
                "the hub",
                sums.results["bounced"],
                "the relay",
                relay["bounced_dsn"] + relay["refused"],
            ),
            ("opened", "the hub", sums.results["opened"], "the readers", relay["opened"]),
            ("clicked", "the hub", sums.results["clicked"], "the readers", relay["clicked"]),
            ("unsubscribed", "the hub", sums.results["unsubscribed"], "the readers", relay["unsubscribed"]),
            ("duplicates", "a sound hub", 0, "the relay", sums.duplicates),
        )
        if not a <= b <= a + slack
    ]
    low, high = sums.deliveries["accepted"], sums.deliveries["accepted"] + sums.deliveries["uncertain"]
    if not low <= relay["distinct"] <= high:
        sums.disagreements.append(
            f"mails: the ledger says {low} to {high} were taken, the relay says {relay['distinct']}"
        )
    for connection, found in sums.read_back.items():
        low, unknown = (
            sums.pushed.get(connection, 0),
            numbers["outbox"].get(connection, {}).get("uncertain", 0),
        )
        if not low <= found <= low + unknown:
            sums.disagreements.append(
                f"results in {connection}: the outbox wrote {low} (and {unknown} uncertain), the vendor has {found}"
            )
        for state in ("queued", "attempting", "dead", "dropped"):
            if left := numbers["outbox"].get(connection, {}).get(state, 0):
                sums.disagreements.append(f"writes to {connection}: {left} rest as {state}")
    unfinished = {s: n for s, n in deliveries.items() if s in ("queued", "claimed") and n}
    if unfinished:
        sums.disagreements.append(f"mails left over: {unfinished}")
    return sums


def _total(stage: Stage, objects: str) -> int:
    body = {"filterGroups": [], "limit": 1, "properties": []}
    return int(
        get_json(f"{stage.hubspot_url}/crm/v3/objects/{objects}/search", token=script.TOKEN, body=body)[
            "total"
        ]
    )


def read_hubspot(stage: Stage) -> int:
    """Results on the timelines of HubSpot's contacts, read page by page through its API."""
    count, after = 0, ""
    while True:
        url = f"{stage.hubspot_url}/crm/v3/objects/emails?limit=100&properties=mailyard_results" + (
            f"&after={after}" if after else ""
        )
        page = get_json(url, token=script.TOKEN)
        for entry in page["results"]:
            count += len([r for r in (entry["properties"].get("mailyard_results") or "").split(";") if r])
        after = page.get("paging", {}).get("next", {}).get("after", "")
        if not after:
            return count


def read_analytics(stage: Stage) -> int:
    """Our events in Google Analytics, by its Data API."""
    today = stage.clock.now().date()
    report = get_json(
        f"{stage.analytics_url}/v1beta/properties/{script.PROPERTY_ID}:runReport",
        token=script.ANALYTICS_TOKEN,
        body={
            "dateRanges": [{"startDate": str(today - timedelta(days=30)), "endDate": str(today)}],
            "dimensions": [{"name": "eventName"}],
            "metrics": [{"name": "eventCount"}],
        },
    )
    return sum(
        int(row["metricValues"][0]["value"])
        for row in report.get("rows", [])
        if row["dimensionValues"][0]["value"] in EVENTS
    )
