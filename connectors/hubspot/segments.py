"""Static lists of contacts that the hub keeps: found by their name, made, and filled. Source: "Lists"."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from hub.errors import Drop, FixNeeded
from hub.sdk.http import Http

CONTACTS = "0-1"


async def static(http: Http, connection: str, name: str) -> str:
    """The id of the list of this name, empty where there is none. A list that fills itself raises FixNeeded."""
    path = f"/crm/v3/lists/object-type-id/{CONTACTS}/name/{quote(name, safe='')}"
    try:
        found = (await http.request("GET", path)).json()["list"]
    except Drop:
        return ""
    if found["processingType"] == "DYNAMIC":
        raise FixNeeded(
            f"the list {name!r} fills itself by a filter", where=connection,
            fix="give the mirror another name, or rename that list",
        )  # fmt: skip
    return str(found["listId"])


async def make(http: Http, name: str) -> str:
    body = {"name": name, "objectTypeId": CONTACTS, "processingType": "MANUAL"}
    return str((await http.request("POST", "/crm/v3/lists", json=body)).json()["list"]["listId"])


async def change(http: Http, segment: str, add: Sequence[str], remove: Sequence[str]) -> set[str]:
    """Change who is in a list. Returns the ids that HubSpot does not know."""
    body = {"recordIdsToAdd": list(add), "recordIdsToRemove": list(remove)}
    path = f"/crm/v3/lists/{segment}/memberships/add-and-remove"
    answer = (await http.request("PUT", path, json=body, repeatable=True)).json()
    return {str(id) for id in answer["recordIdsMissing"]}
