"""Our HubSpot contract against HubSpot's own description; and the checker against contracts that are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from tests.contracts.conftest import contract_of
from tests.contracts.spec_check import METHODS, Conformance, check_contract, deviations, same_path

CONTRACT = contract_of("hubspot")
Json = dict[str, Any]
CONTACTS, CREATE = "/crm/v3/objects/contacts", "/crm/v3/objects/contacts/batch/create"


def schema(contract: Json, name: str) -> Json:
    found: Json = contract["components"]["schemas"][name]
    return found


def test_every_operation_and_field_is_the_vendors(vendor_specs: Path) -> None:
    mismatches = check_contract(CONTRACT, vendor_specs / "hubspot")
    assert [str(m) for m in mismatches] == []


def test_where_we_deviate_is_few_and_said() -> None:
    reasons = deviations(CONTRACT)
    assert len(reasons) <= 6
    assert all(len(reason) > 20 for reason in reasons)


def move(contract: Json) -> None:
    contract["paths"]["/crm/v3/objects/persons"] = contract["paths"].pop(CONTACTS)


def rename_alias(contract: Json) -> None:
    del contract["paths"]["/crm/v3/objects/deals"]["x-vendor-path"]


def drop_source(contract: Json) -> None:
    del contract["paths"][CONTACTS]["x-source"]


def lose_file(contract: Json) -> None:
    contract["paths"][CONTACTS]["x-source"] = {"spec": "people.json", "page": "Contacts"}


def wrong_method(contract: Json) -> None:
    contract["paths"][CREATE]["put"] = contract["paths"][CREATE].pop("post")


def made_up_parameter(contract: Json) -> None:
    contract["paths"][CONTACTS]["get"]["parameters"].append(
        {"name": "since", "in": "query", "schema": {"type": "string"}}
    )


def text_for_number(contract: Json) -> None:
    schema(contract, "SearchPage")["properties"]["total"] = {"type": "string"}


def text_for_integer_sent(contract: Json) -> None:
    schema(contract, "Search")["properties"]["limit"] = {"type": "string"}


def made_up_field_read(contract: Json) -> None:
    schema(contract, "Record")["properties"]["ownerName"] = {"type": "string"}


def made_up_field_sent(contract: Json) -> None:
    schema(contract, "BatchUpsert")["properties"]["inputs"]["items"]["properties"]["email"] = {
        "type": "string"
    }


def made_up_value(contract: Json) -> None:
    schema(contract, "Filter")["properties"]["operator"]["enum"].append("LIKE")


def promise_too_much(contract: Json) -> None:
    schema(contract, "Memberships")["required"].append("total")


def forget_required(contract: Json) -> None:
    del schema(contract, "NewProperty")["properties"]["groupName"]


def null_sent(contract: Json) -> None:
    schema(contract, "Merge")["properties"]["primaryObjectId"]["type"] = ["string", "null"]


def other_format(contract: Json) -> None:
    schema(contract, "Owner")["properties"]["createdAt"]["format"] = "date"


def other_status(contract: Json) -> None:
    responses = contract["paths"][CONTACTS]["post"]["responses"]
    responses["202"] = responses.pop("201")


def other_media(contract: Json) -> None:
    body = contract["paths"]["/oauth/v1/token"]["post"]["requestBody"]["content"]
    body["application/json"] = body.pop("application/x-www-form-urlencoded")


def forget_channel(contract: Json) -> None:
    contract["paths"]["/communication-preferences/v4/statuses/{subscriberIdString}"]["get"]["parameters"] = []


MISTAKES: list[tuple[Callable[[Json], None], str]] = [
    (move, "GET /crm/v3/objects/persons: no such operation in contacts.json"),
    (rename_alias, "GET /crm/v3/objects/deals: no such operation in deals.json"),
    (drop_source, "GET /crm/v3/objects/contacts: no x-source"),
    (lose_file, "the vendor has no file people.json"),
    (wrong_method, "PUT /crm/v3/objects/contacts/batch/create: no such operation"),
    (made_up_parameter, "?since: the vendor has no such parameter"),
    (text_for_number, "200.total: we say string, the vendor integer"),
    (text_for_integer_sent, "request.limit: we say string, the vendor integer"),
    (made_up_field_read, ".ownerName: the vendor has no such field"),
    (made_up_field_sent, "request.inputs[].email: the vendor has no such field"),
    (made_up_value, "operator: the vendor does not know the value 'LIKE'"),
    (promise_too_much, "200.total: we require it, the vendor does not promise it"),
    (forget_required, "request.groupName: the vendor requires it, we never name it"),
    (null_sent, "request.primaryObjectId: we say null, the vendor string"),
    (other_format, "createdAt: we say format date, the vendor date-time"),
    (other_status, "POST /crm/v3/objects/contacts 202: the vendor answers ['201'"),
    (other_media, "request: the vendor takes ['application/x-www-form-urlencoded'], not application/json"),
    (forget_channel, "?channel: the vendor requires this parameter"),
]


@pytest.mark.parametrize(("spoil", "told"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_checker_tells_each_mistake(spoil: Callable[[Json], None], told: str, vendor_specs: Path) -> None:
    contract = copy.deepcopy(CONTRACT)
    spoil(contract)
    mismatches = [str(m) for m in check_contract(contract, vendor_specs / "hubspot")]
    assert any(told in m for m in mismatches), mismatches


def test_the_sandbox_offers_nothing_beside_the_contract() -> None:
    known = {
        (method, same_path(path))
        for path, item in CONTRACT["paths"].items()
        for method in METHODS
        if method in item
    }
    by_type = {(method, path.replace("/objects/contacts", "/objects/{}")) for method, path in known}
    offered = {
        (method.lower(), same_path(route.path))  # type: ignore[attr-defined]
        for route in HubSpotSandbox().routes()
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert offered - by_type - known == set()


def test_the_validator_sees_what_is_wrong_with_an_answer() -> None:
    held = Conformance(CONTRACT)
    record = {
        "id": "7",
        "properties": {},
        "createdAt": "2026-11-24T09:00:00.000Z",
        "updatedAt": "2026-11-24T09:00:00Z",
        "archived": False,
    }
    path = f"{CONTACTS}/7"
    assert held.answer_errors("GET", path, 200, record) == []
    for spoiled, told in (
        ({**record, "id": 7}, "is not of type 'string'"),
        ({**record, "createdAt": "yesterday"}, "is not a 'date-time'"),
        ({**record, "surprise": 1}, "Additional properties are not allowed"),
        ({k: v for k, v in record.items() if k != "archived"}, "'archived' is a required property"),
    ):
        errors = held.answer_errors("GET", path, 200, spoiled)
        assert any(told in e for e in errors), errors
    assert held.answer_errors("GET", "/crm/v3/objects/tickets", 200, {}) != []
    assert held.request_errors("POST", f"{CONTACTS}/merge", {"primaryObjectId": "1"}) != []


def test_no_key_of_the_contract_lost_its_value() -> None:
    """An unquoted comma inside `{description: ...}` makes a key of the rest of the sentence."""

    def empty(node: object, place: str) -> list[str]:
        if isinstance(node, dict):
            return [
                p
                for k, v in node.items()
                for p in ([f"{place}/{k}"] if v is None else empty(v, f"{place}/{k}"))
            ]
        return (
            [p for n, v in enumerate(node) for p in empty(v, f"{place}/{n}")]
            if isinstance(node, list)
            else []
        )

    assert empty(CONTRACT, "") == []
    assert empty({"a": [{"b": None}]}, "") == ["/a/0/b"]
