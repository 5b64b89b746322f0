"""Secrets by reference: `${NAME}` out of the environment, or `<key>_file: path`; never written out in hub.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hub.document import At, Document, Problem

REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
KEEPERS = ("connections", "relays", "dkim")
SECRET_KEYS = re.compile(r"(^|_)(token|password|secret|api_key|private_key|signing_key)$")


def resolve(data: Any, environ: Mapping[str, str], base_dir: Path) -> Any:
    """A copy with references replaced and `<secret>_file` read into `<secret>`. What is missing becomes an empty text;
    `problems` tells of it."""
    if isinstance(data, dict):
        found = {key: resolve(value, environ, base_dir) for key, value in data.items()}
        for key in [k for k in found if isinstance(k, str) and _names_a_file(k)]:
            path = base_dir / str(found.pop(key))
            found[key.removesuffix("_file")] = path.read_text().strip() if path.is_file() else ""
        return found
    if isinstance(data, list):
        return [resolve(value, environ, base_dir) for value in data]
    if isinstance(data, str):
        return REFERENCE.sub(lambda m: "${" if m[0] == "$${" else environ.get(m[1], ""), data)
    return data


def problems(document: Document, environ: Mapping[str, str], base_dir: Path, at: At = ()) -> list[Problem]:
    """References that lead nowhere, and secrets that are written out."""
    found: list[Problem] = []

    def look(path: At, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                look((*path, key), inner)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                look((*path, number), inner)
        elif isinstance(value, str):
            found.extend(_of_text(document, path, value, environ, base_dir))

    look(at, _descend(document.data, at))
    return found


def _descend(data: Any, at: At) -> Any:
    for step in at:
        data = data[step]
    return data


def _of_text(
    document: Document, path: At, value: str, environ: Mapping[str, str], base_dir: Path
) -> list[Problem]:
    names = [m[1] for m in REFERENCE.finditer(value) if m[1]]
    found = [
        document.problem(
            path, f"the environment variable {name} is not set", f"set {name} before starting the hub"
        )
        for name in names
        if not environ.get(name)
    ]
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if _names_a_file(key) and not (base_dir / value).is_file():
        found.append(
            document.problem(
                path, f"the file {value} does not exist", "check the path; it is relative to hub.yaml"
            )
        )
    if path and path[0] in KEEPERS and SECRET_KEYS.search(key) and value and not names:
        found.append(
            document.problem(
                path, f"the secret {key} is written out", f'write "${{NAME}}" and set NAME, or use {key}_file'
            )
        )
    return found


def _names_a_file(key: str) -> bool:
    return key.endswith("_file") and SECRET_KEYS.search(key.removesuffix("_file")) is not None
