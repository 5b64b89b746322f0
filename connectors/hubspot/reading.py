"""Reading HubSpot: first by the list endpoint, which has no cap, then by searches for what changed.

A search gives at most 10,000 rows in all. So each one is bound to a window of time, sorted by id, and goes on
after the last id: no offset ever grows, and any number of rows may share one timestamp. Sources: "Search",
"Using object APIs", "Associations v4", "Lists", "Merge records".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from hub.clock import Clock
from hub.errors import Drop
from hub.model import Link, Record, RecordState
from hub.sdk.connector import Cursor, Page
from hub.sdk.http import Http

LIST_PAGE, SEARCH_PAGE, READ_BATCH, LINK_BATCH, MEMBER_PAGE, SEGMENT_PAGE = 100, 200, 100, 1_000, 250, 500
OVERLAP = timedelta(minutes=2)
"""Search lags behind writes by seconds, and our clock may be off: a window reaches back into the last one."""
ARCHIVED_EVERY = timedelta(hours=1)
MODIFIED = {"contacts": "lastmodifieddate", "deals": "hs_lastmodifieddate"}


class _Object(msgspec.Struct, gc=False):
    id: str
    properties: dict[str, str | None] = {}
    updatedAt: datetime | None = None
    archived: bool = False
    associations: dict[str, Any] = {}


class _Next(msgspec.Struct):
    after: str


class _Paging(msgspec.Struct):
    next: _Next | None = None


class _Objects(msgspec.Struct):
    results: list[_Object]
    paging: _Paging | None = None

    @property
    def after(self) -> str:
        return self.paging.next.after if self.paging and self.paging.next else ""


async def objects(
    http: Http, clock: Clock, kind: str, wanted: Sequence[str], cursor: Cursor
) -> AsyncIterator[Page]:
    """Pages of contacts or deals. A cursor is where a part (`list`, `search`, `archived`) goes on, and since when."""
    labels = await _stage_labels(http) if kind == "deals" else {}
    cursor = dict(cursor) or {"part": "list", "started": _ms(clock.now())}
    if cursor["part"] == "list":
        async for page in _listed(http, kind, wanted, cursor, labels, archived=False):
            cursor = page.cursor
            yield page
        cursor = {"part": "search", "since": cursor["started"] - _span(OVERLAP), "archived_at": 0}
    if cursor["part"] == "search":
        cursor = {**cursor, "until": cursor.get("until") or _ms(clock.now())}
        async for page in _changed(http, kind, wanted, cursor, labels):
            cursor = page.cursor
            yield page
    if cursor["part"] == "archived" or _ms(clock.now()) - cursor["archived_at"] >= _span(ARCHIVED_EVERY):
        cursor = (
            cursor
            if cursor["part"] == "archived"
            else {**cursor, "part": "archived", "archived_now": _ms(clock.now())}
        )
        async for page in _listed(http, kind, wanted, cursor, labels, archived=True):
            cursor = page.cursor
            yield page


async def _listed(
    http: Http,
    kind: str,
    wanted: Sequence[str],
    cursor: Cursor,
    labels: Mapping[str, dict[str, str]],
    *,
    archived: bool,
) -> AsyncIterator[Page]:
    after = cursor.get("after", "")
    while True:
        params: dict[str, str | int] = {"limit": LIST_PAGE, "properties": ",".join(wanted)}
        params |= {"after": after} if after else {}
        params |= {"archived": "true"} if archived else {}
        params |= {"associations": "contacts"} if kind == "deals" and not archived else {}
        answer = await http.request("GET", f"/crm/v3/objects/{kind}", params=params, shape=_Objects)
        found = answer.decode(_Objects)
        links = {o.id: _links_within(o) for o in found.results} if kind == "deals" else {}
        after = found.after
        records = [_record(kind, o, links, labels) for o in found.results]
        if after:
            yield Page(records=records, cursor={**cursor, "after": after})
        elif archived:
            rest = {k: v for k, v in cursor.items() if k not in ("after", "archived_now")}
            yield Page(
                records=records,
                cursor={**rest, "part": "search", "archived_at": cursor["archived_now"]},
                done=True,
            )
        else:
            since = cursor["started"] - _span(OVERLAP)
            page = Page(
                records=records,
                cursor={"part": "search", "since": since, "archived_at": 0, "started": cursor["started"]},
            )
            yield page
        if not after:
            return


async def _changed(
    http: Http, kind: str, wanted: Sequence[str], cursor: Cursor, labels: Mapping[str, dict[str, str]]
) -> AsyncIterator[Page]:
    last = cursor.get("after", "0")
    while True:
        filters = [
            {
                "propertyName": MODIFIED[kind],
                "operator": "BETWEEN",
                "value": str(cursor["since"]),
                "highValue": str(cursor["until"]),
            },
            {"propertyName": "hs_object_id", "operator": "GT", "value": last},
        ]
        body = {
            "filterGroups": [{"filters": filters}],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "properties": [*wanted, MODIFIED[kind]],
            "limit": SEARCH_PAGE,
        }
        answer = await http.request(
            "POST",
            f"/crm/v3/objects/{kind}/search",
            json=body,
            scope="search",
            repeatable=True,
            shape=_Objects,
        )
        found = answer.decode(_Objects)
        ids = [o.id for o in found.results]
        links = await _links(http, ids) if kind == "deals" else {}
        records = [_record(kind, o, links, labels) for o in found.results]
        if len(ids) == SEARCH_PAGE:
            last = max(ids, key=int)
            yield Page(records=records, cursor={**cursor, "after": last})
            continue
        rest = {k: v for k, v in cursor.items() if k not in ("after", "until", "started")}
        yield Page(records=records, cursor={**rest, "since": cursor["until"] - _span(OVERLAP)}, done=True)
        return


async def by_id(http: Http, object: str, wanted: Sequence[str], ids: Sequence[str]) -> list[Record]:
    """The named records as they are now. An id that HubSpot no longer knows comes back as deleted.

    batch/read answers a merged id with the record that absorbed it, so what was asked is compared with what came.
    """
    kind = f"{object}s"
    labels = await _stage_labels(http) if kind == "deals" else {}
    found: dict[str, Record] = {}
    for start in range(0, len(ids), READ_BATCH):
        chunk = list(ids[start : start + READ_BATCH])
        body = {
            "inputs": [{"id": i} for i in chunk],
            "properties": [*wanted, MODIFIED[kind]],
            "propertiesWithHistory": [],
        }
        answer = await http.request("POST", f"/crm/v3/objects/{kind}/batch/read", json=body, repeatable=True)
        come = answer.decode(_Objects).results
        links = await _links(http, [o.id for o in come]) if kind == "deals" else {}
        found.update((o.id, _record(kind, o, links, labels)) for o in come)
    absorbed = {old for record in found.values() for old in record.merged_ids}
    for missing in [i for i in ids if i not in found and i not in absorbed]:
        record = await _alone(http, kind, wanted, missing, labels)
        found.setdefault(record.id, record)
    return list(found.values())


async def _alone(
    http: Http, kind: str, wanted: Sequence[str], id: str, labels: Mapping[str, dict[str, str]]
) -> Record:
    """One record by GET, which also knows merged ids; gone records are looked for among the archived ones."""
    for archived in ("false", "true"):
        params = {"properties": ",".join(wanted), "archived": archived}
        try:
            answer = await http.request("GET", f"/crm/v3/objects/{kind}/{id}", params=params)
        except Drop:
            continue
        found = msgspec.structs.replace(answer.decode(_Object), archived=archived == "true")
        record = _record(kind, found, {}, labels)
        if record.id != id and id not in record.merged_ids:
            record = msgspec.structs.replace(record, merged_ids=(*record.merged_ids, id))
        return record
    return Record(object=kind.removesuffix("s"), id=id, state=RecordState.DELETED)


async def segments(http: Http, cursor: Cursor) -> AsyncIterator[Page]:
    """Every list of contacts with all its members, one a page; lists that are gone since come back as deleted."""
    known, seen, offset = set(cursor.get("known", [])), [], 0
    while True:
        body = {
            "query": "",
            "count": SEGMENT_PAGE,
            "offset": offset,
            "objectTypeId": "0-1",
            "additionalProperties": [],
        }
        answer = (
            await http.request("POST", "/crm/v3/lists/search", json=body, scope="search", repeatable=True)
        ).json()
        for found in answer["lists"]:
            if found.get("objectTypeId", "0-1") != "0-1":
                continue
            seen.append(found["listId"])
            members = await _members(http, found["listId"])
            record = Record(
                object="segment", id=found["listId"], links=members,
                fields={"name": found["name"], "kind": found.get("processingType", "").lower()},
            )  # fmt: skip
            yield Page(records=[record], cursor={"known": sorted(known | set(seen))})
        if not answer.get("hasMore"):
            break
        offset = answer["offset"]
    gone = [Record(object="segment", id=i, state=RecordState.DELETED) for i in sorted(known - set(seen))]
    yield Page(records=gone, cursor={"known": sorted(seen)}, done=True)


async def _members(http: Http, list_id: str) -> tuple[Link, ...]:
    found: list[Link] = []
    after = ""
    while True:
        params: dict[str, str | int] = {"limit": MEMBER_PAGE, **({"after": after} if after else {})}
        answer = (await http.request("GET", f"/crm/v3/lists/{list_id}/memberships", params=params)).json()
        found += [Link("contact", str(row["recordId"])) for row in answer["results"]]
        after = ((answer.get("paging") or {}).get("next") or {}).get("after", "")
        if not after:
            return tuple(found)


async def _links(http: Http, deal_ids: Sequence[str]) -> dict[str, tuple[Link, ...]]:
    """deal id -> its contacts, by the batch call of Associations v4 (a deal without any is missing in the answer)."""
    found: dict[str, tuple[Link, ...]] = {}
    for start in range(0, len(deal_ids), LINK_BATCH):
        body = {"inputs": [{"id": i} for i in deal_ids[start : start + LINK_BATCH]]}
        if not body["inputs"]:
            continue
        answer = (
            await http.request(
                "POST", "/crm/v4/associations/deals/contacts/batch/read", json=body, repeatable=True
            )
        ).json()
        for row in answer["results"]:
            found[str(row["from"]["id"])] = tuple(
                Link("contact", str(to["toObjectId"]), _role(to)) for to in row["to"]
            )
    return found


def _role(to: Mapping[str, Any]) -> str:
    return next((str(t["label"]) for t in to.get("associationTypes", []) if t.get("label")), "")


def _links_within(found: _Object) -> tuple[Link, ...]:
    rows = (found.associations.get("contacts") or {}).get("results", [])
    return tuple(dict.fromkeys(Link("contact", str(row["id"])) for row in rows))


async def _stage_labels(http: Http) -> dict[str, dict[str, str]]:
    """pipeline id and stage id -> the words that people see."""
    answer = (await http.request("GET", "/crm/v3/pipelines/deals")).json()
    return {
        "pipelines": {p["id"]: p["label"] for p in answer["results"]},
        "stages": {s["id"]: s["label"] for p in answer["results"] for s in p["stages"]},
    }


def _record(
    kind: str, found: _Object, links: Mapping[str, tuple[Link, ...]], labels: Mapping[str, dict[str, str]]
) -> Record:
    properties: dict[str, Any] = found.properties  # read once, and ours
    if labels:
        stage, pipeline = str(properties.get("dealstage") or ""), str(properties.get("pipeline") or "")
        properties["stage_label"] = labels["stages"].get(stage, stage)
        properties["pipeline_label"] = labels["pipelines"].get(pipeline, pipeline)
    absorbed = properties.pop("hs_merged_object_ids", None)
    merged = tuple(i for i in re.split(r"[;,]", absorbed) if i and i != found.id) if absorbed else ()
    return Record(
        object=kind.removesuffix("s"),
        id=found.id,
        fields=properties,
        changed_at=found.updatedAt,
        state=RecordState.ARCHIVED if found.archived else RecordState.LIVE,
        merged_ids=merged,
        links=links.get(found.id, ()),
    )


def _ms(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() * 1000)


def _span(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
