"""hub.yaml into typed settings, every mistake at once and each with its place."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from hub.config import secrets
from hub.config.settings import Send, SetFields, Settings, Step, Wait, When
from hub.document import At, Document, Problem, Problems
from hub.document import load as load_document

STEPS: dict[str, type[BaseModel]] = {"send": Send, "wait": Wait, "when": When, "set": SetFields}


@dataclass(frozen=True)
class Config:
    """A loaded hub.yaml. `settings` still holds references; `own` resolves a section's own keys for its connector."""

    settings: Settings
    document: Document
    base_dir: Path
    environ: Mapping[str, str]

    def own(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """A section's own keys with references resolved and files made relative to hub.yaml."""
        found = secrets.resolve(dict(keys), self.environ, self.base_dir)
        for key, value in found.items():
            if key.endswith("_file") and isinstance(value, str):
                found[key] = str(self.base_dir / value)
        return dict(found)


def load(path: Path, environ: Mapping[str, str], *, with_secrets: bool = True) -> Config:
    """Raises `Problems` with everything that is wrong in the file's shape, and with secrets that are missing.

    `with_secrets`: false where none is needed, and none may be there."""
    document = load_document(path)
    config, problems = read(document, environ, with_secrets=with_secrets)
    if problems or config is None:
        raise Problems(problems)
    return config


def read(
    document: Document, environ: Mapping[str, str], *, with_secrets: bool = True
) -> tuple[Config | None, list[Problem]]:
    """(the configuration, every mistake in its shape). With mistakes it is what can be understood, or None."""
    data = document.data if document.data is not None else {}
    base_dir = document.file.resolve().parent
    if not isinstance(data, dict):
        return None, [document.problem((), "hub.yaml holds sections", "see `hub init` for an example")]
    problems = secrets.problems(document, environ, base_dir) if with_secrets else []
    # References outside the connectors' own keys (a public URL, a host) are resolved at once.
    plain = {
        key: value if key in ("connections", "relays") else secrets.resolve(value, environ, base_dir)
        for key, value in data.items()
    }
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        problems = problems + shape_problems(document, error, Settings, ())
        part = _sound_part(document, plain, error)
        return (Config(part, document, base_dir, environ) if part else None), problems
    return Config(settings, document, base_dir, environ), problems


def _sound_part(document: Document, data: dict[str, Any], error: ValidationError) -> Settings | None:
    """The settings without their unknown keys and without the entries that are wrong, so that the rest can be checked."""
    kept = copy.deepcopy(data)
    for each in error.errors(include_url=False):
        where, _, _ = _place(document, each["loc"], Settings, 0)
        path = where if each["type"] == "extra_forbidden" else where[:2]
        node: Any = kept
        for step in path[:-1]:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, dict) and path:
            node.pop(path[-1], None)
    try:
        return Settings.model_validate(kept)
    except ValidationError:
        return None


def shape_problems(
    document: Document, error: ValidationError, model: type[BaseModel], at: At
) -> list[Problem]:
    """pydantic's findings as sentences with places. `at` is where the model stands in the file."""
    found: list[Problem] = []
    seen: set[At] = set()
    for each in error.errors(include_url=False):
        where, owner, kind = _place(document, (*at, *each["loc"]), model, len(at))
        if kind == "step":
            if where not in seen:
                seen.add(where)
                found += _step_problems(document, where)
            continue
        found.append(_sentence(document, where, owner, each))
    return list(dict.fromkeys(found))


def _place(
    document: Document, path: At, model: type[BaseModel], start: int
) -> tuple[At, type[BaseModel] | None, str]:
    """(where in the file, the model whose key it is, `step` for anything inside a funnel's steps)."""
    data: Any = document.data
    clean: list[str | int] = []
    owner: type[BaseModel] | None = model
    for number, step in enumerate(path):
        if number >= start and clean and clean[-1] in ("steps", "then", "else") and isinstance(step, int):
            return (*clean, step), None, "step"
        steps: Any = dict(enumerate(data)) if isinstance(data, list) else data
        if isinstance(steps, dict) and step in steps:
            data = steps[step]
        elif number < len(path) - 1:  # pydantic's own words for a union's arm
            continue
        clean.append(step)
        if number >= start and number < len(path) - 1:
            owner = _inner(owner, step)
    return tuple(clean), owner, ""


def _inner(model: type[BaseModel] | None, step: str | int) -> type[BaseModel] | None:
    """The model behind a key of a model (through dict, list and Optional)."""
    if model is None or not isinstance(step, str):
        return model
    for name, field in model.model_fields.items():
        if step in (name, field.alias):
            return _model_in(field.annotation)
    return model  # a name that the admin chose, inside a dict


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for part in get_args(annotation) if (m := _model_in(part)) is not None), None)


def _sentence(document: Document, where: At, owner: type[BaseModel] | None, each: Any) -> Problem:
    kind, name = each["type"], str(where[-1]) if where else "hub.yaml"
    if kind == "extra_forbidden":
        known = [field.alias or key for key, field in owner.model_fields.items()] if owner else []
        return document.problem(where, f"unknown key {name!r}", nearest(name, known), key=True)
    if kind == "missing":
        parent = where[:-1]
        return document.problem(
            parent, f"{name} is missing{_of(parent)}", f"add `{name}: ...`", key=bool(parent)
        )
    if kind == "value_error":
        what, _, fix = str(each["ctx"]["error"]).partition("; ")
        return document.problem(where, what, fix)
    given = each.get("input")
    words = {
        "string_type": "must be a text", "int_type": "must be a whole number", "int_parsing": "must be a whole number",
        "float_type": "must be a number", "float_parsing": "must be a number", "bool_parsing": "must be true or false",
        "bool_type": "must be true or false", "dict_type": "must be a table of keys and values",
        "model_type": "must be a table of keys and values", "model_attributes_type": "must be a table of keys and values",
        "list_type": "must be a list", "date_from_datetime_parsing": "must be a date such as 2026-11-25",
        "date_type": "must be a date such as 2026-11-25", "too_short": "must not be empty",
    }  # fmt: skip
    if kind == "literal_error":
        options = [o.strip("'") for o in str(each["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        what = next((str(step) for step in reversed(where) if isinstance(step, str)), name)
        return document.problem(where, f"{what}: {given!r} is unknown", nearest(str(given), options))
    what = words.get(kind, each["msg"][0].lower() + each["msg"][1:])
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) and not _secret(where) else ""
    return document.problem(where, f"{name} {what}{shown}", "correct it" if kind not in words else "")


def _step_problems(document: Document, at: At) -> list[Problem]:
    """What is wrong with one step: decided by the key that says which kind it is."""
    data: Any = document.data
    for part in at:
        data = data[part]
    if not isinstance(data, dict):
        return [
            document.problem(
                at, "a step is one of send, wait, when, set", "write for example `- send: welcome`"
            )
        ]
    kinds = [key for key in STEPS if key in data]
    if len(kinds) != 1:
        if kinds:
            return [
                document.problem(
                    at, f"a step does one thing, this has {' and '.join(kinds)}", "make them two steps"
                )
            ]
        unknown = next(iter(data), "")
        return [
            document.problem(
                (*at, unknown), f"unknown step {unknown!r}", nearest(str(unknown), list(STEPS)), key=True
            )
        ]
    model = STEPS[kinds[0]]
    plain = {k: v for k, v in data.items() if k not in ("then", "else")}
    found: list[Problem] = []
    try:
        model.model_validate(plain)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            found.append(
                _sentence(document, (*at, *(p for p in each["loc"] if p in data)) or at, model, each)
            )
    for arm in ("then", "else"):
        if model is When and arm in data:
            inner = data[arm]
            if not isinstance(inner, list):
                found.append(
                    document.problem((*at, arm), f"{arm} must be a list of steps", "write `- send: ...`")
                )
                continue
            for number in range(len(inner)):
                found += _inner_step(document, (*at, arm, number))
    return found


def _inner_step(document: Document, at: At) -> list[Problem]:
    data: Any = document.data
    for part in at:
        data = data[part]
    try:
        TypeAdapter(Step).validate_python(data)
    except ValidationError:
        return _step_problems(document, at)
    return []


def nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none is known"


def _of(parent: At) -> str:
    return f" in {'.'.join(str(p) for p in parent)}" if parent else ""


def _secret(where: At) -> bool:
    return any(isinstance(step, str) and secrets.SECRET_KEYS.search(step) for step in where)
