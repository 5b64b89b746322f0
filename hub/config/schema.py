"""The JSON Schema of hub.yaml (draft 2020-12), with each connector's own keys, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from hub.config.secrets import SECRET_KEYS
from hub.config.settings import Settings


def json_schema(
    connectors: Mapping[str, Any], relays: Mapping[str, Any], events: Mapping[str, Any]
) -> dict[str, Any]:
    """`connectors`, `relays` and `events` are name -> class with a `Settings` model."""
    schema = Settings.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "hub.yaml", **schema}
    definitions = schema["$defs"]
    definitions["ConnectionSection"] = _with_own(
        definitions["ConnectionSection"], connectors, definitions, default=None
    )
    definitions["RelaySection"] = _with_own(definitions["RelaySection"], relays, definitions, default="smtp")
    definitions["EventsSection"] = _with_own(
        definitions["EventsSection"], events, definitions, default=None, by="from"
    )
    return schema


def _with_own(
    section: dict[str, Any],
    kinds: Mapping[str, Any],
    definitions: dict[str, Any],
    default: str | None,
    by: str = "connector",
) -> dict[str, Any]:
    """The section with, for each connector (which the key `by` names), the keys that it adds; secrets may also come as
    `<key>_file`."""
    shared = section["properties"]
    cases = []
    for name, kind in sorted(kinds.items()):
        model: type[BaseModel] = kind.Settings
        own = model.model_json_schema(by_alias=True, ref_template=f"#/$defs/{name}_{{model}}")
        for inner, body in own.pop("$defs", {}).items():
            keys = body.get("properties", {})
            files = {f"{key}_file": {"type": "string"} for key in keys if SECRET_KEYS.search(key)}
            definitions[f"{name}_{inner}"] = {**body, "properties": {**keys, **files}} if files else body
        properties = {**shared, **own.get("properties", {})}
        properties |= {
            f"{key}_file": {"type": "string"}
            for key in own.get("properties", {})
            if not key.endswith("_file")
        }
        condition: dict[str, Any] = {"properties": {by: {"const": name}}}
        if name != default:
            condition["required"] = [by]
        cases.append({"if": condition, "then": {"properties": properties, "additionalProperties": False}})
    return {
        **section,
        "properties": {**shared, by: {**shared[by], "enum": sorted(kinds)}},
        "allOf": cases,
    }
