"""One HubSpot account in memory: what may be written to which record, and what follows from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from contracts.hubspot.answers import Json, Refusal, bad_request, invalid_values, iso, not_found, to_ms
from contracts.hubspot.associations import Links
from contracts.hubspot.derived import addresses_of, default_pipeline, merged_addresses
from contracts.hubspot.kinds import ALIASES, KINDS, LIFECYCLE, Kind
from contracts.hubspot.preferences import Preferences
from contracts.hubspot.properties import ValueProblem, appended, normalise
from contracts.hubspot.records import PERSON, SYSTEM, Author, Journal, ObjectStore, Record
from hub.clock import Clock

FIRST_NUMBER = (
    1001  # every type counts from here, so that ids of different types collide as they may at HubSpot
)


@dataclass(slots=True)
class Account:
    """The state behind the API. Methods take HubSpot's own words and raise `Refusal` as HubSpot refuses.

    `listener(event_type, object_number, fields, author)` is called for each thing that a webhook could tell.
    """

    clock: Clock
    portal_id: int = 44_100_200
    lock: threading.RLock = field(default_factory=threading.RLock)
    objects: dict[str, ObjectStore] = field(default_factory=dict)
    pipelines: dict[str, Json] = field(default_factory=dict)
    owners: dict[str, Json] = field(default_factory=dict)
    blocked_addresses: set[str] = field(default_factory=set)
    journal: Journal = field(default_factory=Journal)
    preferences: Preferences = field(default_factory=Preferences)
    listener: Callable[[str, int, Json, Author], None] = lambda *_: None
    links: Links = field(init=False)
    untold: list[tuple[str, int, Json, Author]] = field(default_factory=list)
    on_removed: list[Callable[[Kind, int, int | None], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.links = Links(self.journal)
        self.objects = {name: ObjectStore(kind, FIRST_NUMBER, self.journal) for name, kind in KINDS.items()}
        now = iso(self.now_ms())
        for store in self.objects.values():
            name = f"{store.kind.singular}information"
            store.groups[name] = {"name": name, "label": name, "displayOrder": 0, "archived": False}
        self.pipelines["default"] = default_pipeline(now)

    def now_ms(self) -> int:
        return to_ms(self.clock.now())

    def store(self, object_type: str) -> ObjectStore:
        """The records of a type, asked by name, singular or type id (`deals`, `deal`, `0-3`)."""
        kind = ALIASES.get(object_type)
        if kind is None:
            raise bad_request(f"Unable to infer object type from: {object_type}")
        return self.objects[kind.name]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Creations, updates and links inside are undone, and no webhook tells of them, when a `Refusal` leaves it."""
        if self.journal.undo is not None:
            yield
            return
        self.journal.undo = []
        try:
            yield
        except Refusal:
            self.journal.roll_back()
            self.untold.clear()
            raise
        self.journal.undo = None
        told, self.untold = self.untold, []
        for event in told:
            self.listener(*event)

    def publish(self, event_type: str, number: int, fields: Json, author: Author) -> None:
        if self.journal.undo is None:
            self.listener(event_type, number, fields, author)
        else:
            self.untold.append((event_type, number, fields, author))

    # -- what may be written ------------------------------------------------------------------------------

    def checked(self, store: ObjectStore, values: dict[str, Any], current: Record | None) -> dict[str, str]:
        """Values in stored form. Raises `Refusal` naming every property that does not hold."""
        problems, accepted = [], {}
        for name, value in values.items():
            prop = store.properties.get(name)
            try:
                if prop is None or prop.archived:
                    raise ValueProblem("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
                if prop.read_only:
                    raise ValueProblem(
                        "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set'
                    )
                text = normalise(prop, value)
                if text and prop.external:
                    self._check_external(name, text, values, current)
                accepted[name] = appended(prop, current.properties.get(name, "") if current else "", text)
            except ValueProblem as e:
                problems.append({"isValid": False, "message": e.message, "error": e.code, "name": name})
        if problems:
            raise invalid_values(problems)
        self._derive(store, accepted, current)
        return accepted

    def _check_external(self, name: str, text: str, values: dict[str, Any], current: Record | None) -> None:
        if name == "hubspot_owner_id" and text not in self.owners:
            raise ValueProblem("INVALID_OWNER_ID", f"Owner {text} does not exist")
        if name == "pipeline" and text not in self.pipelines:
            raise ValueProblem(
                "INVALID_OPTION", f"{text} was not one of the allowed options: {list(self.pipelines)}"
            )
        if name == "dealstage":
            held = current.properties.get("pipeline") if current else None
            pipeline = str(values.get("pipeline") or held or "default")
            stages = [s["id"] for s in self.pipelines.get(pipeline, {}).get("stages", [])]
            if text not in stages:
                raise ValueProblem("INVALID_OPTION", f"{text} was not one of the allowed options: {stages}")

    def _derive(self, store: ObjectStore, accepted: dict[str, str], current: Record | None) -> None:
        if store.kind.name == "deals" and accepted.get("dealstage") and not current:
            accepted.setdefault("pipeline", "default")
        if accepted.get("lifecyclestage") and current:
            order = [value for value, _ in LIFECYCLE]
            held = current.properties.get("lifecyclestage", "")
            if held and order.index(accepted["lifecyclestage"]) < order.index(held):
                del accepted["lifecyclestage"]  # HubSpot says success and keeps the later stage
        if accepted.get("hs_additional_emails"):
            accepted["hs_additional_emails"] = accepted["hs_additional_emails"].lower()
        if accepted.get("hs_email_headers"):
            accepted |= addresses_of(accepted["hs_email_headers"])

    def _refuse_taken(self, store: ObjectStore, values: dict[str, str], own: int | None) -> None:
        for name, value in store.claims(values):
            holder = store.holder(name, value)
            if holder is None or holder == own:
                continue
            if own is None:
                label = store.kind.singular.capitalize()
                raise Refusal(409, "CONFLICT", f"{label} already exists. Existing ID: {holder}")
            at = f"portalId={self.portal_id}, objectTypeId={store.kind.type_id}, propertyName={name}, value={value}"
            raise bad_request(
                f"Cannot set PropertyValueCoordinates{{{at}}} on {own}. {holder} already has that value."
            )

    # -- writing ------------------------------------------------------------------------------------------

    def create(
        self, object_type: str, values: dict[str, Any], author: Author = PERSON, at_ms: int = 0
    ) -> Record:
        """A new record. `at_ms` back-dates it (for seeds). 409 when a unique value is taken."""
        store = self.store(object_type)
        accepted = self.checked(store, values, None)
        missing = [n for n in store.kind.required if not accepted.get(n)]
        if missing:
            errors = [
                {"message": f"{n} is required", "code": "REQUIRED_FIELD", "context": {"propertyName": [n]}}
                for n in missing
            ]
            what = store.kind.singular.upper()
            raise bad_request(f"Error creating {what}. Some required properties were not set.", errors=errors)
        if accepted.get("email") in self.blocked_addresses and store.kind.name == "contacts":
            raise bad_request("This email address is on the account's blocklist after a privacy deletion")
        self._refuse_taken(store, accepted, None)
        return self._insert(store, accepted, author, at_ms or self.now_ms())

    def _insert(self, store: ObjectStore, accepted: dict[str, str], author: Author, at_ms: int) -> Record:
        number, instant = store.take_number(), iso(at_ms)
        held = {n: v for n, v in accepted.items() if v}
        held |= {store.kind.created: instant, store.kind.modified: instant, "hs_object_id": str(number)}
        if "email" in held and store.kind.name == "contacts":
            held |= self.preferences.shown_on_contact(held["email"])
        record = Record(number, held, at_ms, at_ms, author)
        store.add(record)
        self.publish(f"{store.kind.singular}.creation", number, {"changeFlag": "CREATED"}, author)
        self._tell_changes(store, number, {n: v for n, v in accepted.items() if v}, author)
        return record

    def update(
        self, object_type: str, record: Record, values: dict[str, Any], author: Author = PERSON
    ) -> Record:
        """Change a live record's values; every write moves its modified instant, even one that changes nothing."""
        store = self.store(object_type)
        accepted = self.checked(store, values, record)
        self._refuse_taken(store, accepted, record.number)
        if (
            "email" in accepted
            and store.kind.name == "contacts"
            and accepted["email"] != record.properties.get("email")
        ):
            accepted |= {"hs_email_optout": "", **self.preferences.shown_on_contact(accepted["email"])}
        changed = store.write(record, accepted, self.now_ms(), author)
        self._tell_changes(store, record.number, changed, author)
        return record

    def _tell_changes(self, store: ObjectStore, number: int, changed: dict[str, str], author: Author) -> None:
        for name, value in changed.items():
            fields = {"propertyName": name, "propertyValue": value}
            self.publish(f"{store.kind.singular}.propertyChange", number, fields, author)

    def show_preferences(self, address: str) -> None:
        """Bring the read-only opt-out properties of the contact with this address up to date."""
        store = self.objects["contacts"]
        record = store.find(address, "email")
        if record is not None:
            shown = {n: "" for n in record.properties if n.startswith("hs_email_optout")}
            changes = shown | self.preferences.shown_on_contact(address)
            if any(record.properties.get(n, "") != v for n, v in changes.items()):
                changed = store.write(record, changes, self.now_ms(), SYSTEM)
                self._tell_changes(store, record.number, changed, SYSTEM)

    # -- going away ---------------------------------------------------------------------------------------

    def archive(self, object_type: str, record: Record, author: Author = PERSON) -> None:
        """Into the recycle bin; the modified instant stays as it is. Engagements are gone for good."""
        store = self.store(object_type)
        store.remove(record)
        if store.kind.archivable:
            record.archived_ms = self.now_ms()
            store.archived[record.number] = record
        self._forget(store.kind, record.number, None)
        self.publish(f"{store.kind.singular}.deletion", record.number, {"changeFlag": "DELETED"}, author)

    def restore(self, object_type: str, number: int, author: Author = PERSON) -> Record:
        """Out of the recycle bin, by a person (there is no API for it). 409 when its address was taken meanwhile."""
        store = self.store(object_type)
        if number not in store.archived:
            raise not_found("Object not found.  objectId are usually numeric.")
        self._refuse_taken(store, store.archived[number].properties, None)
        record = store.archived.pop(number)
        record.archived_ms = 0
        store.add(record)
        self.publish(f"{store.kind.singular}.restore", number, {"changeFlag": "RESTORED"}, author)
        return record

    def gdpr_delete(self, record: Record, author: Author = PERSON) -> None:
        """Erase a contact: no recycle bin, no trace in any list of archived records."""
        store = self.objects["contacts"]
        store.remove(record)
        self._forget(store.kind, record.number, None)
        self.publish("contact.privacyDeletion", record.number, {"changeFlag": "DELETED"}, author)
        self.publish("contact.deletion", record.number, {"changeFlag": "DELETED"}, author)

    def merge(self, object_type: str, primary: Record, other: Record, author: Author = PERSON) -> Record:
        """Two records become a third with a new id; both old ids then answer with it."""
        store, now = self.store(object_type), self.now_ms()
        if primary is other:
            raise bad_request("Cannot merge an object with itself")
        held = {**other.properties, **primary.properties}
        moved = sum(1 for n in held if n not in primary.properties)
        merged_ids = [
            i for r in (primary, other) for i in r.properties.get("hs_merged_object_ids", "").split(";") if i
        ]
        held["hs_merged_object_ids"] = ";".join([*merged_ids, primary.id, other.id])
        if store.kind.name == "contacts":
            held |= merged_addresses(primary, other)
            held["hs_calculated_merged_vids"] = f"{primary.id}:{now};{other.id}:{now}"
        for old in (primary, other):
            store.remove(old)
        number, created = store.take_number(), min(primary.created_ms, other.created_ms)
        held |= {store.kind.created: iso(created), store.kind.modified: iso(now), "hs_object_id": str(number)}
        record = Record(number, held, created, now, author)
        store.add(record)
        for old in (primary, other):
            store.survivors[old.number] = number
            self._forget(store.kind, old.number, number)
        fields = {
            "primaryObjectId": primary.number,
            "mergedObjectIds": [other.number],
            "newObjectId": number,
            "numberOfPropertiesMoved": moved,
        }
        self.publish(f"{store.kind.singular}.merge", number, fields, author)
        self.publish(f"{store.kind.singular}.deletion", other.number, {"changeFlag": "DELETED"}, author)
        return record

    def _forget(self, kind: Kind, number: int, successor: int | None) -> None:
        self.links.hand_over(kind.name, number, successor)
        for tell in self.on_removed:
            tell(kind, number, successor)
