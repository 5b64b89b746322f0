"""Holds a contract of ours (contracts/<vendor>/openapi.yaml) against the vendor's own description, and answers
against the contract.

What a contract says beside OpenAPI 3.1:

- `x-source: {spec: contacts.json, page: "Contacts"}` on a path or an operation: the vendor's file (below the
  vendor's folder) and the title of the page that says the same. An operation without a source is a mismatch.
- `x-vendor-path: /crm/v3/objects/0-3` on a path: the vendor's file knows it under this name.
- `x-unspecified: true` on a path, operation, parameter or schema: the vendor's files are silent; the page in
  `x-source` (or the text in `x-deviates`) is all there is.
- `x-deviates: "why, and who says so"` on a schema: we know that the vendor's file says otherwise.

Direction matters. What we send must be something that the vendor takes; what we read may be looser than what the
vendor promises, but a field that we require must be one that it always sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from ruamel.yaml import YAML

Json = dict[str, Any]
METHODS = ("get", "put", "post", "patch", "delete")
SENT, READ = "sent", "read"


@dataclass(frozen=True, order=True)
class Mismatch:
    """One place where the contract and the vendor's description differ."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@cache
def load(path: Path) -> Json:
    """A YAML or JSON document (JSON is read by the YAML parser's faster sibling)."""
    if path.suffix == ".json":
        import json

        document: Json = json.loads(path.read_text())
        return document
    loaded: Json = YAML(typ="safe").load(path.read_text())
    return loaded


def same_path(path: str) -> str:
    """A path without the names of its parameters and without a slash at its end."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def check_contract(contract: Json, specs: Path) -> list[Mismatch]:
    """Every mismatch of a contract with the vendor's files in the folder `specs`, in order of place."""
    found: list[Mismatch] = []
    for path, item in contract["paths"].items():
        for method in METHODS:
            if method in item:
                found += _Operation(contract, specs, path, item, method).check()
    return sorted(set(found))


def deviations(contract: Json) -> list[str]:
    """The reasons of all `x-deviates` in a contract, for a reader who wants to know where it stands alone."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if "x-deviates" in node:
                yield str(node["x-deviates"])
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    return sorted(set(walk(contract)))


def resolve(document: Json, node: Any) -> Json:
    """Follow `$ref` within a document; what stands beside the reference is kept."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
    result: Json = node
    return result


@dataclass
class _Operation:
    contract: Json
    specs: Path
    path: str
    item: Json
    method: str

    def check(self) -> list[Mismatch]:
        ours = self.item[self.method]
        self.where = f"{self.method.upper()} {self.path}"
        source = ours.get("x-source") or self.item.get("x-source")
        if not source or not source.get("page"):
            return [Mismatch(self.where, "no x-source with the title of a vendor page")]
        if ours.get("x-unspecified") or self.item.get("x-unspecified"):
            return []
        file = self.specs / str(source.get("spec"))
        if not file.is_file():
            return [Mismatch(self.where, f"the vendor has no file {source.get('spec')}")]
        self.vendor = load(file)
        theirs = self._vendor_operation()
        if theirs is None:
            return [Mismatch(self.where, f"no such operation in {source['spec']}")]
        return [*self._parameters(ours, theirs), *self._request(ours, theirs), *self._responses(ours, theirs)]

    def _vendor_operation(self) -> Json | None:
        wanted = same_path(self.item.get("x-vendor-path", self.path))
        for path, item in self.vendor["paths"].items():
            if same_path(path) == wanted and self.method in item:
                return {
                    **item[self.method],
                    "parameters": [*item.get("parameters", []), *item[self.method].get("parameters", [])],
                }
        return None

    def _parameters(self, ours: Json, theirs: Json) -> Iterator[Mismatch]:
        known = {(p["name"], p["in"]): p for p in (resolve(self.vendor, p) for p in theirs["parameters"])}
        given = [
            resolve(self.contract, p) for p in [*self.item.get("parameters", []), *ours.get("parameters", [])]
        ]
        for parameter in given:
            if parameter["in"] == "path" or parameter.get("x-unspecified"):
                continue  # path parameters are compared by place: the vendor's names differ from page to page
            where = f"{self.where} ?{parameter['name']}"
            if (parameter["name"], parameter["in"]) not in known:
                yield Mismatch(where, "the vendor has no such parameter")
                continue
            schema = known[parameter["name"], parameter["in"]]["schema"]
            yield from compare(self.contract, parameter["schema"], self.vendor, schema, where, SENT)
        sent = {(p["name"], p["in"]) for p in given}
        for name, place in known:
            if place == "query" and known[name, place].get("required") and (name, place) not in sent:
                yield Mismatch(f"{self.where} ?{name}", "the vendor requires this parameter")

    def _request(self, ours: Json, theirs: Json) -> Iterator[Mismatch]:
        if "requestBody" not in ours:
            return
        known = resolve(self.vendor, theirs.get("requestBody", {})).get("content", {})
        for kind, media in resolve(self.contract, ours["requestBody"])["content"].items():
            if kind not in known:
                yield Mismatch(f"{self.where} request", f"the vendor takes {sorted(known)}, not {kind}")
                continue
            where = f"{self.where} request"
            yield from compare(
                self.contract, media["schema"], self.vendor, known[kind]["schema"], where, SENT
            )

    def _responses(self, ours: Json, theirs: Json) -> Iterator[Mismatch]:
        for status, response in ours["responses"].items():
            mine, where = resolve(self.contract, response), f"{self.where} {status}"
            if mine.get("x-unspecified"):
                continue
            known = theirs["responses"].get(str(status))
            if known is None and str(status) >= "400":
                known = theirs["responses"].get("default")
            if known is None:
                yield Mismatch(where, f"the vendor answers {sorted(theirs['responses'])} only")
                continue
            content = resolve(self.vendor, known).get("content", {})
            for kind, media in mine.get("content", {}).items():
                described = content.get(kind) or content.get("*/*")
                if described is None:
                    yield Mismatch(where, f"the vendor describes no {kind} body")
                else:
                    yield from compare(
                        self.contract, media["schema"], self.vendor, described["schema"], where, READ
                    )


# -- comparing schemas --------------------------------------------------------------------------------------


def compare(
    contract: Json, ours: Any, vendor: Json, theirs: Any, where: str, direction: str
) -> list[Mismatch]:
    """What our schema names that the vendor's does not allow, down to the leaves."""
    return list(_Schemas(contract, vendor, direction).differ(ours, theirs, where))


@dataclass
class _Schemas:
    contract: Json
    vendor: Json
    direction: str
    open: set[tuple[int, str]] = field(default_factory=set)

    def differ(self, ours: Any, theirs: Any, where: str) -> Iterator[Mismatch]:
        mark = (id(ours), str(theirs.get("$ref", id(theirs))))
        if mark in self.open:
            return
        self.open.add(mark)
        mine, known = resolve(self.contract, ours), self._flat(theirs)
        if not (mine.get("x-deviates") or mine.get("x-unspecified")):
            for part in mine.get("allOf", []):
                yield from self.differ(part, theirs, where)
            choices = mine.get("oneOf", []) + mine.get("anyOf", [])
            for choice in choices:
                yield from self.differ(choice, theirs, where)
            if not choices:
                yield from self._types(mine, known, where)
                yield from self._values(mine, known, where)
                yield from self._object(mine, known, where)
                yield from self._array(mine, known, where)
        self.open.discard(mark)

    def _flat(self, node: Any) -> Json:
        """The vendor's schema with its references followed and its alternatives laid together."""
        known = resolve(self.vendor, node)
        parts = [self._flat(p) for key in ("allOf", "oneOf", "anyOf") for p in known.get(key, [])]
        if not parts:
            return known
        together: Json = {**known, "properties": dict(known.get("properties", {}))}
        for part in parts:
            together["properties"] |= part.get("properties", {})
            together.setdefault("type", part.get("type"))
        required = [set(p.get("required", [])) for p in parts]
        every = set.union(*required) if "allOf" in known else set.intersection(*required)
        together["required"] = sorted(every | set(known.get("required", [])))
        return together

    def _types(self, mine: Json, known: Json, where: str) -> Iterator[Mismatch]:
        wanted, given = _types(mine), _types(known)
        if not wanted or not given:
            return
        if self.direction == READ:
            wanted -= {"null"}
        for kind in sorted(wanted - given):
            if (self.direction, kind) == (SENT, "integer") and "number" in given:
                continue
            if (self.direction, kind) == (READ, "number") and "integer" in given:
                continue
            yield Mismatch(where, f"we say {kind}, the vendor {' or '.join(sorted(given))}")

    def _values(self, mine: Json, known: Json, where: str) -> Iterator[Mismatch]:
        listed = mine.get("enum", [mine["const"]] if "const" in mine else [])
        for value in listed:
            if "enum" in known and value is not None and value not in known["enum"]:
                yield Mismatch(where, f"the vendor does not know the value {value!r}")
        ours, theirs = mine.get("format"), known.get("format")
        if ours and ours != theirs and not (theirs or "").startswith("int"):
            yield Mismatch(where, f"we say format {ours}, the vendor {theirs or 'none'}")

    def _object(self, mine: Json, known: Json, where: str) -> Iterator[Mismatch]:
        properties, rest = known.get("properties", {}), known.get("additionalProperties")
        for name, schema in mine.get("properties", {}).items():
            inside = f"{where}.{name}"
            if name in properties:
                yield from self.differ(schema, properties[name], inside)
            elif isinstance(rest, dict) and rest:
                yield from self.differ(schema, rest, inside)
            elif not resolve(self.contract, schema).get("x-unspecified"):
                yield Mismatch(inside, "the vendor has no such field")
        if isinstance(mine.get("additionalProperties"), dict) and isinstance(rest, dict):
            yield from self.differ(mine["additionalProperties"], rest, f"{where}.*")
        yield from self._required(mine, known, where)

    def _required(self, mine: Json, known: Json, where: str) -> Iterator[Mismatch]:
        ours, theirs = set(mine.get("required", [])), set(known.get("required", []))
        if self.direction == READ and "properties" in known:
            for name in sorted(ours - theirs):
                if not resolve(self.contract, mine["properties"].get(name, {})).get("x-deviates"):
                    yield Mismatch(f"{where}.{name}", "we require it, the vendor does not promise it")
        if self.direction == SENT and "properties" in mine:
            for name in sorted(theirs - set(mine["properties"])):
                yield Mismatch(f"{where}.{name}", "the vendor requires it, we never name it")

    def _array(self, mine: Json, known: Json, where: str) -> Iterator[Mismatch]:
        if "items" in mine and "items" in known:
            yield from self.differ(mine["items"], known["items"], f"{where}[]")


def _types(schema: Json) -> set[str]:
    given = schema.get("type")
    types = set(given) if isinstance(given, list) else {given} if given else set()
    return types | {"null"} if schema.get("nullable") else types


# -- holding answers against the contract -------------------------------------------------------------------

FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def _is_instant(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@dataclass
class Conformance:
    """Validates requests and answers against a contract, and remembers which operations it has seen."""

    contract: Json
    seen: set[tuple[str, str, str]] = field(default_factory=set)  # (method, path template, status)

    def __post_init__(self) -> None:
        every = [
            (re.compile("^" + re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(name.rstrip("/"))) + "/?$"), path)
            for path, item in self.contract["paths"].items()
            for name in {path, item.get("x-vendor-path", path)}
        ]
        self.templates: list[tuple[re.Pattern[str], str]] = sorted(every, key=lambda pair: pair[1].count("{"))

    def template(self, method: str, path: str) -> str | None:
        """The path of the contract that a request falls under; fixed parts win over parameters."""
        for pattern, template in self.templates:
            if pattern.match(path) and method.lower() in self.contract["paths"][template]:
                return template
        return None

    def answer_errors(self, method: str, path: str, status: int, body: object) -> list[str]:
        """What is wrong with an answer; `body` None stands for an empty one."""
        template, label = self.template(method, path), f"{method} {path} {status}"
        if template is None:
            return [f"{label}: the contract has no such operation"]
        self.seen.add((method.lower(), template, str(status)))
        responses = self.contract["paths"][template][method.lower()]["responses"]
        response = responses.get(str(status)) or responses.get("default")
        if response is None:
            return [f"{label}: the contract knows {sorted(responses)} only"]
        content = resolve(self.contract, response).get("content", {})
        if not content:
            return [] if body is None else [f"{label}: the contract has no body here"]
        return [f"{label}: {e}" for e in self._errors(next(iter(content.values()))["schema"], body)]

    def request_errors(self, method: str, path: str, body: object) -> list[str]:
        """What is wrong with a JSON request that we send."""
        template, label = self.template(method, path), f"{method} {path}"
        if template is None:
            return [f"{label}: the contract has no such operation"]
        request = resolve(
            self.contract, self.contract["paths"][template][method.lower()].get("requestBody", {})
        )
        schema = request.get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            return [] if body is None else [f"{label}: the contract has no JSON request here"]
        return [f"{label}: {e}" for e in self._errors(schema, body)]

    def never_answered(self) -> list[str]:
        """Operations of the contract whose good answer was not seen yet."""
        good = {(m, p) for m, p, status in self.seen if status < "400"}
        return sorted(
            f"{method.upper()} {path}"
            for path, item in self.contract["paths"].items()
            for method in METHODS
            if method in item and (method, path) not in good
        )

    def _errors(self, schema: Json, body: object) -> list[str]:
        rooted = {"allOf": [schema], "components": self.contract.get("components", {})}
        problems = Draft202012Validator(rooted, format_checker=FORMATS).iter_errors(body)
        return [f"{'.'.join(map(str, p.absolute_path)) or 'body'}: {p.message[:300]}" for p in problems]
