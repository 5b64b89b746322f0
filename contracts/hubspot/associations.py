"""Links between records, kept in both directions, and the v4 endpoints that read and write them.

Source: HubSpot developer docs "Associations v4", "Associate records".
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute

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
from contracts.hubspot.kinds import ASSOCIATIONS, KINDS

if TYPE_CHECKING:
    from contracts.hubspot.account import Account
    from contracts.hubspot.calls import Call, Gate
    from contracts.hubspot.records import Journal, ObjectStore, Record

MAX_READ, MAX_WRITE, PAGE = 1000, 2000, 500
Targets = dict[int, set[int]]


PRIMARY = frozenset({1, 2, 5, 6})
FIRST_OWN_TYPE = 51
"""An account's own labels are numbered by HubSpot."""


class Links:
    """Who is associated with whom: (type, id, other type) -> other id -> association type ids."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.of: defaultdict[tuple[str, int, str], Targets] = defaultdict(dict)
        self.own: dict[tuple[str, str], tuple[int, ...]] = {}
        self.words: dict[int, str] = dict.fromkeys(PRIMARY, "Primary")

    def define(self, source: str, target: str, label: str) -> int:
        """A label of the account's own, the same in both directions. Returns its type id from `source` to `target`."""
        for ends in ((source, target), (target, source)):
            number = FIRST_OWN_TYPE + len(self.words) - len(PRIMARY)
            self.words[number] = label
            self.own[ends] = (*self.own.get(ends, ()), number)
        return self.own[source, target][-1]

    def types(self, source: str, target: str) -> tuple[int, ...]:
        """All association types from one object type to another, the plain one first; in the same order both ways."""
        return (*ASSOCIATIONS[source, target], *self.own.get((source, target), ()))

    def inverse(self, source: str, target: str, type_id: int) -> int:
        """The type id that the other record shows for the same link."""
        return self.types(target, source)[self.types(source, target).index(type_id)]

    def add(self, source: str, number: int, target: str, other: int, type_ids: list[int]) -> bool:
        """Link two records in both directions; the plain type comes along. True when something was new."""
        if (source, target) not in ASSOCIATIONS:
            raise bad_request(f"{source} and {target} cannot be associated")
        allowed = self.types(source, target)
        for type_id in type_ids:
            if type_id not in allowed:
                raise bad_request(
                    f"association type {type_id} is not valid from {source} to {target}: {list(allowed)}"
                )
        wanted = {allowed[0], *type_ids}
        held = self.of[source, number, target].setdefault(other, set())
        if wanted <= held:
            return False
        before = set(held)
        if wanted & PRIMARY - before:
            self._only_primary(source, number, target, other)
        held |= wanted
        back = self.of[target, other, source].setdefault(number, set())
        back |= {self.inverse(source, target, t) for t in wanted}
        self.journal.note(lambda: self._restore(source, number, target, other, before))
        return True

    def _only_primary(self, source: str, number: int, target: str, other: int) -> None:
        """A contact or deal has one primary company: another one is plain from now on."""
        if source == "companies":
            source, number, target, other = target, other, source, number
        for company in [
            c for c, types in self.of[source, number, target].items() if c != other and types & PRIMARY
        ]:
            self.of[source, number, target][company] -= PRIMARY
            self.of[target, company, source][number] -= PRIMARY

    def _restore(self, source: str, number: int, target: str, other: int, types: set[int]) -> None:
        self.remove(source, number, target, other)
        if types:
            self.add(source, number, target, other, list(types))

    def remove(self, source: str, number: int, target: str, other: int) -> bool:
        found = self.of[source, number, target].pop(other, None)
        self.of[target, other, source].pop(number, None)
        return found is not None

    def targets(self, source: str, number: int, target: str) -> list[tuple[int, list[int]]]:
        """The linked records in id order, each with its association type ids."""
        return [
            (other, sorted(types))
            for other, types in sorted(self.of.get((source, number, target), {}).items())
        ]

    def hand_over(self, kind: str, number: int, successor: int | None) -> None:
        """Move every link of a record to another, or drop them when there is none."""
        for target in KINDS:
            for other, types in self.targets(kind, number, target):
                self.remove(kind, number, target, other)
                if successor is not None and not (target == kind and other == successor):
                    self.add(kind, successor, target, other, types)


def labelled(links: Links, types: list[int]) -> list[Json]:
    own = {number for numbers in links.own.values() for number in numbers}
    return [
        {
            "category": "USER_DEFINED" if t in own else "HUBSPOT_DEFINED",
            "typeId": t,
            "label": links.words.get(t),
        }
        for t in types
    ]


def attach(account: Account, store: ObjectStore, record: Record, wanted: list[Any], author: Any) -> None:
    """The `associations` of a create request: `[{to: {id}, types: [{associationCategory, associationTypeId}]}]`."""
    for link in wanted:
        to = field_of(link, "to", dict)
        types = [int(field_of(t, "associationTypeId", int)) for t in field_of(link, "types", list)]
        target = _target_of(account.links, store.kind.name, types)
        other = account.objects[target].resolve(str(field_of(to, "id", (str, int))))  # type: ignore[arg-type]
        if other is None:
            raise not_found(f"{target} {to['id']} does not exist", context={"toObjectId": [str(to["id"])]})
        link_records(account, store.kind.name, record.number, target, other.number, types, author)


def _target_of(links: Links, source: str, types: list[int]) -> str:
    for start, target in ASSOCIATIONS:
        if start == source and types and all(t in links.types(start, target) for t in types):
            return target
    raise bad_request(f"No association type of {source} matches {types}")


def link_records(
    account: Account, source: str, number: int, target: str, other: int, types: list[int], author: Any
) -> None:
    """Link, and tell both sides as HubSpot's webhooks do."""
    if account.links.add(source, number, target, other, types):
        _tell(account, source, number, target, other, author, removed=False)


def _tell(
    account: Account, source: str, number: int, target: str, other: int, author: Any, *, removed: bool
) -> None:
    for a, a_id, b, b_id in ((source, number, target, other), (target, other, source, number)):
        one, two = KINDS[a].singular, KINDS[b].singular
        fields = {
            "associationType": f"{one}_TO_{two}".upper(),
            "fromObjectId": a_id,
            "toObjectId": b_id,
            "associationRemoved": removed,
            "isPrimaryAssociation": False,
        }
        account.publish(f"{one}.associationChange", a_id, fields, author)


class AssociationApi:
    """/crm/v4/associations and the per-record form under /crm/v4/objects."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self, gate: Gate) -> list[BaseRoute]:
        pair = "/crm/v4/associations/{from_type}/{to_type}/batch"
        one = "/crm/v4/objects/{from_type}/{from_id}/associations"
        read, write = ("crm.objects.contacts.read",), ("crm.objects.contacts.write",)
        return [
            gate.route("POST", f"{pair}/read", self.batch_read, read),
            gate.route("POST", f"{pair}/create", self.batch_create, write),
            gate.route("POST", f"{pair}/archive", self.batch_archive, write),
            gate.route("PUT", one + "/default/{to_type}/{to_id}", self.put_default, write),
            gate.route("GET", one + "/{to_type}", self.list_one, read),
            gate.route("PUT", one + "/{to_type}/{to_id}", self.put, write),
            gate.route("DELETE", one + "/{to_type}/{to_id}", self.delete, write),
        ]

    def _pair(self, call: Call) -> tuple[ObjectStore, ObjectStore]:
        return self.account.store(call.path["from_type"]), self.account.store(call.path["to_type"])

    def _page(
        self, source: ObjectStore, target: ObjectStore, number: int, after: str | None, limit: int
    ) -> tuple[list[Json], Json]:
        every = self.account.links.targets(source.kind.name, number, target.kind.name)
        rest = [(other, types) for other, types in every if after is None or other > int(after)]
        shown = [
            {"toObjectId": str(other), "associationTypes": labelled(self.account.links, types)}
            for other, types in rest[:limit]
        ]
        paging = {"paging": {"next": {"after": str(rest[limit - 1][0])}}} if len(rest) > limit else {}
        return shown, paging

    def batch_read(self, call: Call) -> Answer:
        source, target = self._pair(call)
        inputs = field_of(call.body, "inputs", list)
        if len(inputs) > MAX_READ:
            raise bad_request(f"The maximum number of inputs is {MAX_READ}")
        results, errors = [], []
        for item in inputs:
            identifier = str(field_of(item, "id", str))
            record = source.resolve(identifier)
            shown, paging = (
                self._page(source, target, record.number, item.get("after"), PAGE) if record else ([], {})
            )
            if shown:
                results.append({"from": {"id": identifier}, "to": shown, **paging})
            else:
                errors.append(_none_found(source, target, identifier))
        return batch_answer(results, errors, iso(self.account.now_ms()))

    def batch_create(self, call: Call) -> Answer:
        source, target = self._pair(call)
        inputs = field_of(call.body, "inputs", list)
        if len(inputs) > MAX_WRITE:
            raise bad_request(f"The maximum number of inputs is {MAX_WRITE}")
        results, errors = [], []
        for item in inputs:
            try:
                types = [int(t["associationTypeId"]) for t in field_of(item, "types", list)]
                results.append(self._link(call, source, item["from"]["id"], target, item["to"]["id"], types))
            except Refusal as e:
                errors.append(e.as_batch_error(None))
        return batch_answer(results, errors, iso(self.account.now_ms()), 201)

    def _link(
        self, call: Call, source: ObjectStore, a: str, target: ObjectStore, b: str, types: list[int]
    ) -> Json:
        one, two = source.resolve(str(a)), target.resolve(str(b))
        if one is None or two is None:
            missing = a if one is None else b
            raise not_found(f"Object {missing} does not exist", context={"ids": [str(missing)]})
        link_records(
            self.account, source.kind.name, one.number, target.kind.name, two.number, types, call.author
        )
        return {
            "fromObjectTypeId": source.kind.type_id,
            "fromObjectId": one.id,
            "toObjectTypeId": target.kind.type_id,
            "toObjectId": two.id,
            "labels": [self.account.links.words[t] for t in types if t in self.account.links.words],
        }

    def batch_archive(self, call: Call) -> Answer:
        source, target = self._pair(call)
        for item in field_of(call.body, "inputs", list):
            for to in field_of(item, "to", list):
                self._unlink(call, source, item["from"]["id"], target, to["id"])
        return Answer(None, 204)

    def _unlink(self, call: Call, source: ObjectStore, a: str, target: ObjectStore, b: str) -> None:
        one, two = source.resolve(str(a)), target.resolve(str(b))
        if (
            one
            and two
            and self.account.links.remove(source.kind.name, one.number, target.kind.name, two.number)
        ):
            _tell(
                self.account,
                source.kind.name,
                one.number,
                target.kind.name,
                two.number,
                call.author,
                removed=True,
            )

    def list_one(self, call: Call) -> Answer:
        source, target = self._pair(call)
        record = source.resolve(call.path["from_id"])
        if record is None:
            raise not_found("resource not found")
        shown, paging = self._page(
            source, target, record.number, call.query.get("after"), call.limit(PAGE, PAGE)
        )
        return Answer({"results": shown, **paging})

    def put(self, call: Call) -> Answer:
        source, target = self._pair(call)
        if not isinstance(call.body, list):
            raise bad_request("Invalid input JSON: the body must be an array of association types")
        types = [int(field_of(t, "associationTypeId", int)) for t in call.body]
        return Answer(self._link(call, source, call.path["from_id"], target, call.path["to_id"], types), 201)

    def put_default(self, call: Call) -> Answer:
        source, target = self._pair(call)
        ends = (call.path["from_id"], call.path["to_id"])
        self._link(call, source, ends[0], target, ends[1], [])
        results = []
        for a, b, start, end in ((ends[0], ends[1], source, target), (ends[1], ends[0], target, source)):
            plain = ASSOCIATIONS[start.kind.name, end.kind.name][0]
            spec = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": plain}
            results.append({"from": {"id": a}, "to": {"id": b}, "associationSpec": spec})
        return batch_answer(results, [], iso(self.account.now_ms()))

    def delete(self, call: Call) -> Answer:
        source, target = self._pair(call)
        self._unlink(call, source, call.path["from_id"], target, call.path["to_id"])
        return Answer(None, 204)


def _none_found(source: ObjectStore, target: ObjectStore, identifier: str) -> Json:
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {target.kind.singular} is associated with {source.kind.singular} {identifier}.",
        "context": {
            "fromObjectId": [identifier],
            "fromObjectType": [source.kind.singular],
            "toObjectType": [target.kind.singular],
        },
        "errors": [],
        "links": {},
    }
