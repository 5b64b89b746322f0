"""/crm/v3/objects: reading, writing and merging records, singly and in batches.

Sources: HubSpot developer docs "Using object APIs", "Contacts", "Error handling".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.routing import BaseRoute

from contracts.hubspot.account import Account
from contracts.hubspot.answers import (
    Answer,
    Json,
    Refusal,
    bad_request,
    batch_answer,
    field_of,
    iso,
    not_found,
)
from contracts.hubspot.associations import attach
from contracts.hubspot.calls import Call, Gate, Scopes
from contracts.hubspot.kinds import KINDS
from contracts.hubspot.records import ObjectStore, Record
from contracts.hubspot.search import search

MAX_PAGE, MAX_PAGE_HISTORY, MAX_BATCH = 100, 50, 100


@dataclass(slots=True)
class Quirks:
    """Habits of HubSpot that a rehearsal may want otherwise."""

    shuffle_results: bool = True  # batch writes answer in another order than they were asked
    empty_as_null: bool = False  # named properties without a value: absent, or null
    search_lag_seconds: float = 0.0  # how long a write stays invisible to search


class ObjectApi:
    """One set of routes serves all object types."""

    def __init__(self, account: Account, quirks: Quirks) -> None:
        self.account, self.quirks = account, quirks

    def routes(self, gate: Gate) -> list[BaseRoute]:
        base = "/crm/v3/objects/{object_type}"
        read, write = self._scopes("read"), self._scopes("write")
        return [
            gate.route("POST", f"{base}/search", self.search, read, search=True),
            gate.route("POST", f"{base}/batch/read", self.batch_read, read),
            gate.route("POST", f"{base}/batch/create", self.batch_create, write),
            gate.route("POST", f"{base}/batch/update", self.batch_update, write),
            gate.route("POST", f"{base}/batch/upsert", self.batch_upsert, write),
            gate.route("POST", f"{base}/batch/archive", self.batch_archive, write),
            gate.route("POST", f"{base}/merge", self.merge, write),
            gate.route("POST", f"{base}/gdpr-delete", self.gdpr_delete, write),
            gate.route("GET", base, self.page, read),
            gate.route("POST", base, self.create, write),
            gate.route("GET", base + "/{id}", self.get, read),
            gate.route("PATCH", base + "/{id}", self.update, write),
            gate.route("DELETE", base + "/{id}", self.archive, write),
        ]

    def _scopes(self, right: str) -> Callable[[Call], Scopes]:
        def needed(call: Call) -> Scopes:
            kind = self._store(call).kind
            return (kind.read_scope if right == "read" else kind.write_scope,)

        return needed

    def _store(self, call: Call) -> ObjectStore:
        return self.account.store(call.path["object_type"])

    def _now(self) -> str:
        return iso(self.account.now_ms())

    def _view(
        self, store: ObjectStore, record: Record, names: list[str], history: list[str] | None = None
    ) -> Json:
        return store.view(record, names, history or [], self.quirks.empty_as_null)

    # -- single records -----------------------------------------------------------------------------------

    def page(self, call: Call) -> Answer:
        store, history = self._store(call), call.names("propertiesWithHistory")
        limit = call.limit(10, MAX_PAGE_HISTORY if history else MAX_PAGE)
        after = call.query.get("after", "") or "0"
        if not after.isdecimal():
            raise bad_request(
                f'Cannot deserialize value of type `long` from String "{after}": not a valid `after`'
            )
        archived = call.flag("archived")
        records, more = store.page(int(after), limit, archived)
        names, linked = call.names("properties"), call.names("associations")
        results = [self._with_links(store, r, self._view(store, r, names, history), linked) for r in records]
        body: Json = {"results": results}
        if more is not None:
            link = f"https://api.hubapi.com/crm/v3/objects/{store.kind.name}?limit={limit}&after={more}"
            body["paging"] = {"next": {"after": str(more), "link": link}}
        return Answer(body)

    def _with_links(self, store: ObjectStore, record: Record, body: Json, linked: list[str]) -> Json:
        shown: Json = {}
        for name in linked:
            target = self.account.store(name).kind
            links = self.account.links.targets(store.kind.name, record.number, target.name)
            if links:
                word = f"{store.kind.singular}_to_{target.singular}"
                shown[target.name] = {"results": [{"id": str(other), "type": word} for other, _ in links]}
        return body | {"associations": shown} if shown else body

    def get(self, call: Call) -> Answer:
        store = self._store(call)
        record = store.resolve(call.path["id"], call.query.get("idProperty"))
        if call.flag("archived"):
            record = store.archived.get(int(call.path["id"])) if call.path["id"].isdecimal() else None
        if record is None:
            raise not_found(
                "Object not found.  objectId are usually numeric.", context={"id": [call.path["id"]]}
            )
        body = self._view(store, record, call.names("properties"), call.names("propertiesWithHistory"))
        return Answer(self._with_links(store, record, body, call.names("associations")))

    def create(self, call: Call) -> Answer:
        store = self._store(call)
        return Answer(self._create(store, call.body, call), 201)

    def _create(self, store: ObjectStore, item: Any, call: Call) -> Json:
        wanted = field_of(item, "associations", list, []) or []
        values = field_of(item, "properties", dict)
        with self.account.transaction():
            record = self.account.create(store.kind.name, values, call.author)
            attach(self.account, store, record, wanted, call.author)
        return self._view(store, record, list(values))

    def update(self, call: Call) -> Answer:
        store, values = self._store(call), field_of(call.body, "properties", dict)
        record = store.resolve(call.path["id"], call.query.get("idProperty"))
        if record is None:
            raise not_found("resource not found")
        self.account.update(store.kind.name, record, values, call.author)
        return Answer(self._view(store, record, list(values)))

    def archive(self, call: Call) -> Answer:
        store = self._store(call)
        record = store.find(call.path["id"])
        if record is not None:
            self.account.archive(store.kind.name, record, call.author)
        return Answer(None, 204)

    # -- search -------------------------------------------------------------------------------------------

    def search(self, call: Call) -> Answer:
        store, lag = self._store(call), self.quirks.search_lag_seconds
        visible = self.account.now_ms() - round(lag * 1000) if lag else None
        found = search(store, call.body, len(msgspec.json.encode(call.body).decode()), visible)
        names = [str(n) for n in field_of(call.body, "properties", list, []) or []]
        return Answer(found | {"results": [self._view(store, r, names) for r in found["results"]]})

    # -- batches ------------------------------------------------------------------------------------------

    def batch_read(self, call: Call) -> Answer:
        store, inputs = self._store(call), _inputs(call)
        id_property = field_of(call.body, "idProperty", str, None)
        _known_unique(store, id_property)
        names = [str(n) for n in field_of(call.body, "properties", list, []) or []]
        history = [str(n) for n in field_of(call.body, "propertiesWithHistory", list, []) or []]
        archived = call.flag("archived")
        results, missing = [], []
        for item in inputs:
            identifier = str(field_of(item, "id", str))
            record = store.find(identifier, id_property)
            if archived:
                record = store.archived.get(int(identifier)) if identifier.isdecimal() else None
            if record is None:
                missing.append(identifier)
            else:
                results.append(self._view(store, record, names, history))
        return batch_answer(self._shuffled(results), _missing(store, missing), self._now())

    def batch_create(self, call: Call) -> Answer:
        store = self._store(call)
        return self._batch(_inputs(call), lambda item: self._create(store, item, call), [], 201)

    def batch_update(self, call: Call) -> Answer:
        store, inputs = self._store(call), _inputs(call)
        _refuse_twice(inputs)
        known: list[Json] = []
        missing: list[Json] = []
        for item in inputs:
            id_property = item.get("idProperty")
            _known_unique(store, id_property)
            identifier = str(field_of(item, "id", str))
            (known if store.find(identifier, id_property) else missing).append(item)
        errors = _missing(store, [str(i["id"]) for i in missing])
        return self._batch(known, lambda item: self._update(store, item, call), errors)

    def _update(self, store: ObjectStore, item: Any, call: Call) -> Json:
        record = store.find(str(item["id"]), item.get("idProperty"))
        if record is None:
            raise not_found("resource not found", context={"ids": [str(item["id"])]})
        values = field_of(item, "properties", dict)
        self.account.update(store.kind.name, record, values, call.author)
        return self._view(store, record, list(values))

    def batch_upsert(self, call: Call) -> Answer:
        store, inputs = self._store(call), _inputs(call)
        _refuse_twice(inputs)
        for item in inputs:
            _known_unique(store, field_of(item, "idProperty", str, None))
        return self._batch(inputs, lambda item: self._upsert(store, item, call), [])

    def _upsert(self, store: ObjectStore, item: Any, call: Call) -> Json:
        identifier, id_property = str(field_of(item, "id", str)), item.get("idProperty")
        record, values = store.find(identifier, id_property), field_of(item, "properties", dict)
        if record is not None:
            return self._update(store, item, call) | {"new": False}
        if not id_property or id_property == "hs_object_id":
            raise not_found("resource not found", context={"ids": [identifier]})
        record = self.account.create(store.kind.name, {id_property: identifier} | values, call.author)
        return self._view(store, record, [id_property, *values]) | {"new": True}

    def batch_archive(self, call: Call) -> Answer:
        store = self._store(call)
        for item in _inputs(call):
            record = store.find(str(field_of(item, "id", str)))
            if record is not None:
                self.account.archive(store.kind.name, record, call.author)
        return Answer(None, 204)

    def _batch(
        self, inputs: list[Any], write: Callable[[Any], Json], errors: list[Json], success: int = 200
    ) -> Answer:
        """All or nothing, unless every input bears its own trace id: then the good ones are written."""
        traces = [i.get("objectWriteTraceId") if isinstance(i, dict) else None for i in inputs]
        results: list[Json] = []
        if None in traces or len(set(traces)) < len(traces):
            with self.account.transaction():
                results = [_traced(write(item), trace) for item, trace in zip(inputs, traces, strict=True)]
            return batch_answer(self._shuffled(results), errors, self._now(), success)
        for item, trace in zip(inputs, traces, strict=True):
            try:
                with self.account.transaction():
                    results.append(_traced(write(item), trace))
            except Refusal as refusal:
                errors.append(refusal.as_batch_error(trace))
        return batch_answer(self._shuffled(results), errors, self._now(), success)

    def _shuffled(self, results: list[Json]) -> list[Json]:
        return results[::-1] if self.quirks.shuffle_results else results

    # -- merging and erasing ------------------------------------------------------------------------------

    def merge(self, call: Call) -> Answer:
        store = self._store(call)
        ids = [str(field_of(call.body, n, str)) for n in ("primaryObjectId", "objectIdToMerge")]
        primary, other = (store.resolve(i) for i in ids)
        if primary is None or other is None:
            raise not_found("resource not found", context={"ids": ids})
        return Answer(self._view(store, self.account.merge(store.kind.name, primary, other, call.author), []))

    def gdpr_delete(self, call: Call) -> Answer:
        store = self._store(call)
        if store.kind is not KINDS["contacts"]:
            raise bad_request("Privacy deletion is for contacts")
        identifier, id_property = (
            str(field_of(call.body, "objectId", str)),
            field_of(call.body, "idProperty", str, None),
        )
        record = store.resolve(identifier, id_property)
        if record is not None:
            self.account.gdpr_delete(record, call.author)
        elif id_property == "email":
            self.account.blocked_addresses.add(identifier.strip().lower())
        return Answer(None, 204)


def _inputs(call: Call) -> list[Any]:
    inputs: list[Any] = field_of(call.body, "inputs", list)
    if len(inputs) > MAX_BATCH:
        raise bad_request(f"Too many inputs in the batch: {len(inputs)}, at most {MAX_BATCH}")
    return inputs


def _traced(result: Json, trace: str | None) -> Json:
    return result if trace is None else result | {"objectWriteTraceId": trace}


def _known_unique(store: ObjectStore, id_property: object) -> None:
    if id_property not in (None, "", "hs_object_id") and id_property not in store.unique:
        raise bad_request(f"idProperty {id_property} is not a unique property of {store.kind.singular}")


def _refuse_twice(inputs: list[Any]) -> None:
    ids = [str(field_of(i, "id", str)).lower() for i in inputs]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise bad_request("Duplicate IDs found in batch input", context={"ids": twice})


def _missing(store: ObjectStore, ids: list[str]) -> list[Json]:
    if not ids:
        return []
    label = store.kind.singular.upper()
    text = f"Could not get some {label} objects, they may be deleted or not exist. Check that ids are valid."
    return [not_found(text, context={"ids": ids}).as_batch_error(None)]
