"""Segments, which the API calls lists: MANUAL, DYNAMIC and SNAPSHOT, and who is in them.

Source: HubSpot developer docs "Lists".
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute

from contracts.hubspot.account import Account
from contracts.hubspot.answers import Answer, Json, Refusal, bad_request, field_of, iso, not_found
from contracts.hubspot.calls import Call, Gate
from contracts.hubspot.filters import matches, require_known
from contracts.hubspot.kinds import Kind
from contracts.hubspot.records import ObjectStore

MAX_PAGE, MAX_SEARCH, MAX_CHANGE = 250, 500, 100_000
TYPES = ("MANUAL", "DYNAMIC", "SNAPSHOT")


@dataclass(slots=True)
class Segment:
    """One list. `members` maps record ids to when they joined, in ms."""

    number: int
    name: str
    type: str
    store: ObjectStore
    branch: Json | None
    created_ms: int
    updated_ms: int
    members: dict[int, int] = field(default_factory=dict)
    version: int = 1
    deleted_ms: int = 0
    seen: tuple[int, int] = (-1, 0)  # of the records: (version, when) at the last evaluation

    def as_json(self, with_filters: bool = False) -> Json:
        body: Json = {
            "listId": str(self.number),
            "listVersion": self.version,
            "name": self.name,
            "objectTypeId": self.store.kind.type_id,
            "processingType": self.type,
            "processingStatus": "COMPLETE",
            "createdAt": iso(self.created_ms),
            "updatedAt": iso(self.updated_ms),
            "size": len(self.members),
        }
        if self.deleted_ms:
            body["deletedAt"] = iso(self.deleted_ms)
        return body | {"filterBranch": self.branch} if with_filters and self.branch else body


class Segments:
    """All lists of an account. `dynamic_lag_seconds` is how long a dynamic list rests between evaluations."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.all: dict[int, Segment] = {}
        self.dynamic_lag_seconds = 0.0
        account.on_removed.append(self._record_gone)

    def create(
        self, name: str, type_: str, object_type: str = "contacts", branch: Json | None = None
    ) -> Segment:
        """A new list; DYNAMIC and SNAPSHOT ones are filled from their filter at once."""
        store, now = self.account.store(object_type), self.account.now_ms()
        if type_ not in TYPES:
            raise bad_request(f"processingType must be one of {list(TYPES)}, not {type_}")
        if any(s.name == name and not s.deleted_ms for s in self.all.values()):
            raise bad_request(f"A list named {name} already exists", subCategory="ILS.DUPLICATE_LIST_NAMES")
        if branch is not None:
            require_known(branch, store)
        elif type_ == "DYNAMIC":
            raise bad_request("filterBranch is required for a DYNAMIC list")
        number = max(self.all, default=0) + 1
        self.all[number] = segment = Segment(number, name, type_, store, branch, now, now)
        if branch is not None:
            self._evaluate(segment)
        return segment

    def fresh(self, segment: Segment) -> Segment:
        """The list with its members as the vendor would show them now."""
        version, at_ms = segment.seen
        due = self.account.now_ms() - at_ms >= self.dynamic_lag_seconds * 1000
        if segment.type == "DYNAMIC" and version != segment.store.version and due:
            self._evaluate(segment)
        return segment

    def _evaluate(self, segment: Segment) -> None:
        now, branch = self.account.now_ms(), segment.branch or {}
        chosen = [n for n in segment.store.order if matches(branch, segment.store.live[n])]
        segment.members = {n: segment.members.get(n, now) for n in chosen}
        segment.seen = (segment.store.version, now)

    def change(self, segment: Segment, add: list[str], remove: list[str]) -> Json:
        """Members in and out of a list that people fill. Returns the three lists of HubSpot's answer."""
        if segment.type == "DYNAMIC":
            raise bad_request(
                "Memberships of a DYNAMIC list cannot be changed", subCategory="ILS.INVALID_LIST_TYPE"
            )
        if len(add) + len(remove) > MAX_CHANGE:
            raise bad_request(f"At most {MAX_CHANGE} records can be changed at once")
        now, added, removed, missing = self.account.now_ms(), [], [], []
        for identifier in add:
            record = segment.store.find(identifier)
            if record is None:
                missing.append(identifier)
            elif record.number not in segment.members:
                segment.members[record.number] = now
                added.append(identifier)
        for identifier in remove:
            if segment.store.find(identifier) is None:
                missing.append(identifier)
            elif segment.members.pop(int(identifier), None) is not None:
                removed.append(identifier)
        segment.updated_ms = now
        return {"recordsIdsAdded": added, "recordIdsRemoved": removed, "recordIdsMissing": missing}

    def _record_gone(self, kind: Kind, number: int, successor: int | None) -> None:
        for segment in self.all.values():
            if segment.store.kind is kind and number in segment.members:
                joined = segment.members.pop(number)
                if successor is not None:
                    segment.members.setdefault(successor, joined)


class SegmentApi:
    """/crm/v3/lists."""

    def __init__(self, segments: Segments) -> None:
        self.segments, self.account = segments, segments.account

    def routes(self, gate: Gate) -> list[BaseRoute]:
        base, read = "/crm/v3/lists", ("crm.lists.read",)
        one, both = base + "/{id:int}", ("crm.lists.read", "crm.lists.write")
        members = one + "/memberships"
        plain = [(base, self.by_ids, self.create), (base + "/", self.by_ids, self.create)]
        return [
            *[gate.route("GET", path, get, read) for path, get, _ in plain],
            *[gate.route("POST", path, post, both) for path, _, post in plain],
            gate.route("POST", base + "/search", self.search, read),
            gate.route("GET", base + "/object-type-id/{type_id}/name/{name}", self.by_name, read),
            gate.route("GET", base + "/records/{type_id}/{record_id}/memberships", self.of_record, read),
            gate.route("GET", one, self.get, read),
            gate.route("DELETE", one, self.delete, both),
            gate.route("PUT", one + "/restore", self.restore, both),
            gate.route("GET", members, self.memberships, read),
            gate.route("GET", members + "/join-order", self.join_order, read),
            gate.route("PUT", members + "/add", self.add, both),
            gate.route("PUT", members + "/remove", self.remove, both),
            gate.route("PUT", members + "/add-and-remove", self.add_and_remove, both),
        ]

    def _segment(self, call: Call, *, deleted: bool = False) -> Segment:
        found = self.segments.all.get(int(call.path["id"]))
        if found is None or (found.deleted_ms and not deleted):
            raise _no_list(call.path["id"])
        return self.segments.fresh(found)

    def create(self, call: Call) -> Answer:
        name, type_ = field_of(call.body, "name", str), field_of(call.body, "processingType", str)
        branch = field_of(call.body, "filterBranch", dict, None)
        segment = self.segments.create(name, type_, field_of(call.body, "objectTypeId", str), branch)
        return Answer({"list": segment.as_json(with_filters=True)})

    def get(self, call: Call) -> Answer:
        return Answer({"list": self._segment(call).as_json(call.flag("includeFilters"))})

    def by_name(self, call: Call) -> Answer:
        kind = self.account.store(call.path["type_id"]).kind
        for segment in self.segments.all.values():
            if segment.name == call.path["name"] and segment.store.kind is kind and not segment.deleted_ms:
                shown = self.segments.fresh(segment).as_json(call.flag("includeFilters"))
                return Answer({"list": shown})
        raise _no_list(call.path["name"])

    def by_ids(self, call: Call) -> Answer:
        wanted = [self.segments.all.get(int(i)) for i in call.names("listIds") if i.isdecimal()]
        filters = call.flag("includeFilters")
        return Answer(
            {"lists": [self.segments.fresh(s).as_json(filters) for s in wanted if s and not s.deleted_ms]}
        )

    def search(self, call: Call) -> Answer:
        body = call.body
        offset, count = field_of(body, "offset", int, 0) or 0, field_of(body, "count", int, 20) or 20
        if count > MAX_SEARCH:
            raise bad_request(f"count must be at most {MAX_SEARCH}")
        types, ids = (
            field_of(body, "processingTypes", list, []) or [],
            field_of(body, "listIds", list, []) or [],
        )
        query, type_id = (
            (field_of(body, "query", str, "") or "").lower(),
            field_of(body, "objectTypeId", str, ""),
        )
        found = [
            s
            for s in self.segments.all.values()
            if not s.deleted_ms
            and (not types or s.type in types)
            and (not ids or str(s.number) in ids)
            and (not type_id or s.store.kind.type_id == type_id)
            and query in s.name.lower()
        ]
        page = [self._searched(self.segments.fresh(s)) for s in found[offset : offset + count]]
        end = offset + len(page)
        return Answer({"lists": page, "offset": end, "hasMore": end < len(found), "total": len(found)})

    def _searched(self, segment: Segment) -> Json:
        body = segment.as_json()
        more = {"hs_list_size": str(body.pop("size")), "hs_list_reference_count": "0"}
        return body | {"additionalProperties": more}

    def of_record(self, call: Call) -> Answer:
        store, number = self.account.store(call.path["type_id"]), call.path["record_id"]
        results = []
        for s in self.segments.all.values():
            joined = self.segments.fresh(s).members.get(int(number)) if number.isdecimal() else None
            if joined is not None and s.store is store and not s.deleted_ms:
                times = {"firstAddedTimestamp": iso(joined), "lastAddedTimestamp": iso(joined)}
                results.append(
                    {"listId": str(s.number), "listVersion": s.version, "isPublicList": False, **times}
                )
        return Answer({"results": results, "total": len(results)})

    def delete(self, call: Call) -> Answer:
        self._segment(call).deleted_ms = self.account.now_ms()
        return Answer(None, 204)

    def restore(self, call: Call) -> Answer:
        self._segment(call, deleted=True).deleted_ms = 0
        return Answer(None, 204)

    # -- memberships --------------------------------------------------------------------------------------

    def memberships(self, call: Call) -> Answer:
        return self._page(call, sorted((n, n, at) for n, at in self._segment(call).members.items()))

    def join_order(self, call: Call) -> Answer:
        return self._page(call, sorted((at, n, at) for n, at in self._segment(call).members.items()))

    def _page(self, call: Call, rows: list[tuple[int, int, int]]) -> Answer:
        """Rows are (sort key, record id, joined ms); the cursor is opaque and outlives members that leave."""
        limit, start = call.limit(100, MAX_PAGE), 0
        if "after" in call.query:
            start = bisect_right(rows, _position(call.query["after"]), key=lambda row: row[:2])
        page = rows[start : start + limit]
        shown = [{"recordId": str(n), "membershipTimestamp": iso(at)} for _, n, at in page]
        body: Json = {"results": shown, "total": len(rows)}
        if start + limit < len(rows):
            cursor = urlsafe_b64encode(f"{page[-1][0]}:{page[-1][1]}".encode()).decode()
            body["paging"] = {"next": {"after": cursor}}
        return Answer(body)

    def add(self, call: Call) -> Answer:
        return Answer(self.segments.change(self._segment(call), _ids(call.body), []))

    def remove(self, call: Call) -> Answer:
        return Answer(self.segments.change(self._segment(call), [], _ids(call.body)))

    def add_and_remove(self, call: Call) -> Answer:
        add, remove = (_ids(field_of(call.body, n, list)) for n in ("recordIdsToAdd", "recordIdsToRemove"))
        return Answer(self.segments.change(self._segment(call), add, remove))


def _position(cursor: str) -> tuple[int, int]:
    try:
        key, number = urlsafe_b64decode(cursor).decode().split(":")
        return int(key), int(number)
    except ValueError:
        raise bad_request(f"after is not a valid cursor: {cursor}") from None


def _ids(body: Any) -> list[str]:
    if not isinstance(body, list) or not all(isinstance(i, (str, int)) and str(i).isdecimal() for i in body):
        raise bad_request("Invalid input JSON: the body must be an array of record ids")
    return [str(i) for i in body]


def _no_list(which: object) -> Refusal:
    return not_found(f"List does not exist with ID {which}.", subCategory="ILS.LIST_NOT_FOUND")
