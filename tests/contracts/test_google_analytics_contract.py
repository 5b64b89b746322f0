"""Our Google Analytics contract against Google's discovery document, and the check against contracts that are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.conftest import contract_of
from tests.contracts.spec_check import load, resolve, same_path

Json = dict[str, Any]
CONTRACT = contract_of("google_analytics")
REPORT, REALTIME = (f"/v1beta/properties/{{property}}:{name}" for name in ("runReport", "runRealtimeReport"))


def check(contract: Json, discovery: Json) -> list[str]:
    """Every place where the contract names what the discovery document does not have."""
    methods = discovery["resources"]["properties"]["methods"].values()
    theirs = {(same_path("/" + m["flatPath"]), m["httpMethod"].lower()): m for m in methods}
    found: list[str] = []
    for path, item in contract["paths"].items():
        if not item.get("x-source", {}).get("page"):
            found.append(f"{path}: no page is named")
        if item.get("x-unspecified"):
            continue
        for method in (m for m in ("get", "post") if m in item):
            known = theirs.get((same_path(path), method))
            if known is None:
                found.append(f"{method} {path}: no such operation")
                continue
            request = item[method]["requestBody"]["content"]["application/json"]["schema"]
            answer = item[method]["responses"]["200"]["content"]["application/json"]["schema"]
            found += differ(contract, discovery, request, known["request"], f"{path} request")
            found += differ(contract, discovery, answer, known["response"], f"{path} response")
    return found


def differ(
    contract: Json, discovery: Json, ours: Json, theirs: Json, where: str, open_: frozenset[str] = frozenset()
) -> Iterator[str]:
    mine = resolve(contract, ours)
    if "$ref" in theirs:
        name = theirs["$ref"]
        if mine.get("x-schema") != name:
            yield f"{where}: we say {mine.get('x-schema')}, Google {name}"
            return
        if name in open_:
            return
        open_, theirs = open_ | {name}, discovery["schemas"][name]
    if mine.get("type") != theirs.get("type"):
        yield f"{where}: we say {mine.get('type')}, Google {theirs.get('type')}"
    if mine.get("format") != theirs.get("format"):
        yield f"{where}: we say format {mine.get('format')}, Google {theirs.get('format')}"
    for value in set(mine.get("enum", [])) - set(theirs.get("enum", mine.get("enum", []))):
        yield f"{where}: Google has no value {value}"
    for name, schema in mine.get("properties", {}).items():
        known = theirs.get("properties", {}).get(name)
        if known is None:
            yield f"{where}.{name}: Google has no such field"
        else:
            yield from differ(contract, discovery, schema, known, f"{where}.{name}", open_)
    if "items" in mine:
        yield from differ(contract, discovery, mine["items"], theirs["items"], f"{where}[]", open_)


@pytest.fixture
def discovery(vendor_specs: Path) -> Json:
    return load(vendor_specs / "google_analytics" / "analyticsdata.v1beta.json")


def test_every_operation_and_field_is_googles(discovery: Json) -> None:
    assert check(CONTRACT, discovery) == []


def schema(contract: Json, name: str) -> Json:
    found: Json = contract["components"]["schemas"][name]
    return found


def rename_operation(contract: Json) -> None:
    contract["paths"]["/v1beta/properties/{property}:runReports"] = contract["paths"].pop(REPORT)


def invent_field(contract: Json) -> None:
    schema(contract, "ReportRequest")["properties"]["pageSize"] = {"type": "string"}


def wrong_type(contract: Json) -> None:
    schema(contract, "Row")["properties"]["metricValues"]["items"]["properties"]["value"]["type"] = "number"


def limit_as_number(contract: Json) -> None:
    schema(contract, "RealtimeRequest")["properties"]["limit"] = {"type": "integer", "format": "int64"}


def offset_in_realtime(contract: Json) -> None:
    schema(contract, "RealtimeRequest")["properties"]["offset"] = {"type": "string", "format": "int64"}


def unknown_value(contract: Json) -> None:
    text = schema(contract, "Filter")["properties"]["stringFilter"]["properties"]
    text["matchType"]["enum"].append("LIKE")


def no_page(contract: Json) -> None:
    del contract["paths"]["/mp/collect"]["x-source"]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (rename_operation, "no such operation"),
        (invent_field, "pageSize: Google has no such field"),
        (wrong_type, "we say number, Google string"),
        (limit_as_number, "we say integer, Google string"),
        (offset_in_realtime, "offset: Google has no such field"),
        (unknown_value, "Google has no value LIKE"),
        (no_page, "/mp/collect: no page is named"),
    ],
)
def test_a_wrong_contract_is_found(discovery: Json, spoil: Callable[[Json], None], expected: str) -> None:
    contract = copy.deepcopy(CONTRACT)
    spoil(contract)
    assert any(expected in mismatch for mismatch in check(contract, discovery))
