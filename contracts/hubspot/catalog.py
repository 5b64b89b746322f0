"""What describes an account: property definitions, pipelines, owners, the account itself.

Sources: HubSpot developer docs "Properties", "Pipelines", "Owners", "Account information".
"""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import BaseRoute

from contracts.hubspot.account import Account
from contracts.hubspot.answers import Answer, Json, Refusal, bad_request, batch_answer, field_of, iso
from contracts.hubspot.calls import Call, Gate, Scopes
from contracts.hubspot.properties import Property
from contracts.hubspot.records import ObjectStore

NAME = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
TYPES = ("bool", "date", "datetime", "enumeration", "number", "phone_number", "string")
FIELD_TYPES = (
    "booleancheckbox",
    "calculation_equation",
    "checkbox",
    "date",
    "file",
    "html",
    "number",
    "phonenumber",
    "radio",
    "select",
    "text",
    "textarea",
)
MAX_UNIQUE = 10


class PropertyApi:
    """/crm/v3/properties."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self, gate: Gate) -> list[BaseRoute]:
        base = "/crm/v3/properties/{object_type}"
        read, write = self._scopes, lambda call: (self._scopes(call)[0].replace(".read", ".write"),)
        one = base + "/{name}"
        return [
            gate.route("POST", f"{base}/batch/create", self.batch_create, write),
            gate.route("POST", f"{base}/batch/read", self.batch_read, read),
            gate.route("GET", f"{base}/groups", self.list_groups, read),
            gate.route("POST", f"{base}/groups", self.create_group, write),
            gate.route("GET", base + "/groups/{name}", self.get_group, read),
            gate.route("GET", base, self.all, read),
            gate.route("POST", base, self.create, write),
            gate.route("GET", one, self.get, read),
            gate.route("PATCH", one, self.update, write),
            gate.route("DELETE", one, self.archive, write),
        ]

    def _store(self, call: Call) -> ObjectStore:
        return self.account.store(call.path["object_type"])

    def _scopes(self, call: Call) -> Scopes:
        return (self._store(call).kind.read_scope.replace("crm.objects", "crm.schemas"),)

    def all(self, call: Call) -> Answer:
        archived = call.flag("archived")
        return Answer(
            {
                "results": [
                    p.as_json() for p in self._store(call).properties.values() if p.archived == archived
                ]
            }
        )

    def get(self, call: Call) -> Answer:
        return Answer(self._known(self._store(call), call.path["name"]).as_json())

    def _known(self, store: ObjectStore, name: str) -> Property:
        prop = store.properties.get(name)
        if prop is None or prop.archived:
            raise Refusal(
                404,
                "OBJECT_NOT_FOUND",
                f"Property {name} does not exist",
                subCategory="Properties.PROPERTY_NOT_FOUND",
            )
        return prop

    def create(self, call: Call) -> Answer:
        return Answer(self._create(self._store(call), call.body).as_json(), 201)

    def _create(self, store: ObjectStore, body: Any) -> Property:
        name, type_ = field_of(body, "name", str), field_of(body, "type", str)
        field_type, group = field_of(body, "fieldType", str), field_of(body, "groupName", str)
        self._check(store, name, type_, field_type, group)
        unique = bool(field_of(body, "hasUniqueValue", bool, False))
        if unique and sum(not store.properties[n].hubspot_defined for n in store.unique) >= MAX_UNIQUE:
            raise bad_request(f"An object type has at most {MAX_UNIQUE} properties with unique values")
        now = self.account.now_ms()
        prop = Property(
            name, field_of(body, "label", str), type_, field_type, group, unique=unique, hubspot_defined=False
        )
        prop.created_ms = prop.updated_ms = now
        _describe(prop, body)
        store.properties[name] = prop
        if unique:
            store.unique.setdefault(name, {})
        return prop

    def _check(self, store: ObjectStore, name: str, type_: str, field_type: str, group: str) -> None:
        if not NAME.match(name):
            raise bad_request(f"{name} is no property name: lower-case letters, digits and underscores")
        if type_ not in TYPES or field_type not in FIELD_TYPES:
            raise bad_request(f"type {type_} with fieldType {field_type} is not known")
        if group not in store.groups:
            raise bad_request(
                f"Property group {group} does not exist", subCategory="Properties.GROUP_NOT_FOUND"
            )
        if name in store.properties and not store.properties[name].archived:
            raise Refusal(409, "OBJECT_ALREADY_EXISTS", f"A property named '{name}' already exists.")

    def update(self, call: Call) -> Answer:
        prop = self._known(self._store(call), call.path["name"])
        if prop.hubspot_defined:
            raise bad_request(f"{prop.name} is defined by HubSpot and cannot be changed")
        _describe(prop, call.body)
        prop.label = field_of(call.body, "label", str, prop.label)
        prop.updated_ms = self.account.now_ms()
        return Answer(prop.as_json())

    def archive(self, call: Call) -> Answer:
        prop = self._known(self._store(call), call.path["name"])
        if prop.hubspot_defined:
            raise bad_request(f"{prop.name} is defined by HubSpot and cannot be archived")
        prop.archived = True
        return Answer(None, 204)

    def batch_create(self, call: Call) -> Answer:
        store, results, errors = self._store(call), [], []
        for item in field_of(call.body, "inputs", list):
            try:
                results.append(self._create(store, item).as_json())
            except Refusal as refusal:
                errors.append(refusal.as_batch_error(None))
        return batch_answer(results, errors, iso(self.account.now_ms()), 201)

    def batch_read(self, call: Call) -> Answer:
        store, results, errors = self._store(call), [], []
        for item in field_of(call.body, "inputs", list):
            try:
                results.append(self._known(store, field_of(item, "name", str)).as_json())
            except Refusal as refusal:
                errors.append(refusal.as_batch_error(None))
        return batch_answer(results, errors, iso(self.account.now_ms()))

    def list_groups(self, call: Call) -> Answer:
        return Answer({"results": list(self._store(call).groups.values())})

    def get_group(self, call: Call) -> Answer:
        group = self._store(call).groups.get(call.path["name"])
        if group is None:
            raise Refusal(404, "OBJECT_NOT_FOUND", f"Property group {call.path['name']} does not exist")
        return Answer(group)

    def create_group(self, call: Call) -> Answer:
        store, name = self._store(call), field_of(call.body, "name", str)
        if name in store.groups:
            raise Refusal(409, "OBJECT_ALREADY_EXISTS", f"A property group named '{name}' already exists.")
        order = field_of(call.body, "displayOrder", int, -1)
        group = {
            "name": name,
            "label": field_of(call.body, "label", str),
            "displayOrder": order,
            "archived": False,
        }
        store.groups[name] = group
        return Answer(group, 201)


def _describe(prop: Property, body: Any) -> None:
    """Take over what may change later; options replace the whole list."""
    prop.description = field_of(body, "description", str, prop.description) or ""
    prop.hidden = bool(field_of(body, "hidden", bool, prop.hidden))
    prop.form_field = bool(field_of(body, "formField", bool, prop.form_field))
    prop.display_order = field_of(body, "displayOrder", int, prop.display_order)
    options = field_of(body, "options", list, None)
    if options is not None:
        prop.options = [
            {
                "label": field_of(o, "label", str),
                "value": field_of(o, "value", str),
                "displayOrder": o.get("displayOrder", order),
                "hidden": bool(o.get("hidden", False)),
            }
            for order, o in enumerate(options)
        ]


class DirectoryApi:
    """/crm/v3/pipelines, /crm/v3/owners and /account-info/v3/details."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self, gate: Gate) -> list[BaseRoute]:
        owners, deals = ("crm.objects.owners.read",), ("crm.objects.deals.read",)
        pipelines = "/crm/v3/pipelines/{object_type}"
        return [
            gate.route("GET", pipelines, self.list_pipelines, deals),
            gate.route("GET", pipelines + "/{pipeline_id}", self.get_pipeline, deals),
            gate.route("GET", pipelines + "/{pipeline_id}/stages", self.list_stages, deals),
            gate.route("GET", "/crm/v3/owners", self.list_owners, owners),
            gate.route("GET", "/crm/v3/owners/", self.list_owners, owners),
            gate.route("GET", "/crm/v3/owners/{owner_id}", self.get_owner, owners),
            gate.route("GET", "/account-info/v3/details", self.details),
        ]

    def _pipelines(self, call: Call) -> dict[str, Json]:
        return (
            self.account.pipelines
            if self.account.store(call.path["object_type"]).kind.name == "deals"
            else {}
        )

    def list_pipelines(self, call: Call) -> Answer:
        return Answer({"results": list(self._pipelines(call).values())})

    def get_pipeline(self, call: Call) -> Answer:
        found = self._pipelines(call).get(call.path["pipeline_id"])
        if found is None:
            raise Refusal(404, "OBJECT_NOT_FOUND", f"Pipeline {call.path['pipeline_id']} does not exist")
        return Answer(found)

    def list_stages(self, call: Call) -> Answer:
        self.get_pipeline(call)
        return Answer({"results": self._pipelines(call)[call.path["pipeline_id"]]["stages"]})

    def list_owners(self, call: Call) -> Answer:
        limit, after, email = call.limit(100, 500), call.query.get("after", "0"), call.query.get("email")
        if not after.isdecimal():
            raise bad_request(f"after is not a valid cursor: {after}")
        every = [o for o in self.account.owners.values() if email in (None, o["email"])]
        body: Json = {"results": every[int(after) : int(after) + limit]}
        if int(after) + limit < len(every):
            body["paging"] = {"next": {"after": str(int(after) + limit)}}
        return Answer(body)

    def get_owner(self, call: Call) -> Answer:
        owner = self.account.owners.get(call.path["owner_id"])
        if owner is None:
            raise Refusal(404, "OBJECT_NOT_FOUND", "resource not found")
        return Answer(owner)

    def details(self, call: Call) -> Answer:
        return Answer(
            {
                "portalId": self.account.portal_id,
                "accountType": "DEVELOPER_TEST",
                "timeZone": "Europe/Berlin",
                "companyCurrency": "EUR",
                "additionalCurrencies": [],
                "utcOffset": "+01:00",
                "utcOffsetMilliseconds": 3_600_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )
