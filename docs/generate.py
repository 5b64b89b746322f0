"""Fill in the generated parts of the documents, and draw docs/demo.svg: what `scripts/docs` runs.

A page holds `<!-- generated: NAME ARGUMENTS -->` ... `<!-- end -->`; what stands between is made here from the
code: settings models, manifests, shipped mappings, contracts, rule functions, transforms, the command line.
Everything outside of such parts is written by hand.
"""

from __future__ import annotations

import ast
import html
import inspect
import io
import re
import shlex
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined
from rich.cells import cell_len
from ruamel.yaml import YAML

from hub import mapping as mappings
from hub.bounces import known_replies
from hub.cli import main as command_line
from hub.config import settings as sections
from hub.document import load as load_document
from hub.errors import HubError
from hub.mapping import transforms
from hub.mapping.language import STANDARD, Entry
from hub.model import RESULTS, FieldType
from hub.rules.functions import FUNCTIONS, SCALARS
from hub.sdk import registry

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- generated: ([^\n]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PICTURE = ROOT / "docs" / "demo.svg"


def pages() -> list[Path]:
    """Every document of the repository that is written in Markdown."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        name, *arguments = shlex.split(found[2])
        return f"{found[1]}{MAKERS[name](*arguments).strip()}\n{found[4]}"

    return PART.sub(part, text)


def stale() -> list[Path]:
    """Pages whose generated parts are not what the code says now."""
    return [page for page in pages() if filled(page.read_text()) != page.read_text()]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in line)} |"
        for line in lines
    )


# --- keys of hub.yaml ----------------------------------------------------------------------------------------


def keys(name: str) -> str:
    """The keys of a section of hub.yaml, by the name of its model."""
    return model_table(getattr(sections, name))


def model_table(model: type[BaseModel]) -> str:
    rows = []
    for key, field in model.model_fields.items():
        required = field.default is PydanticUndefined and field.default_factory is None
        default = "required" if required else shown(field.get_default(call_default_factory=True))
        rows.append([f"`{field.alias or key}`", kind(field.annotation), default, field.description or ""])
    return table(["key", "value", "default", "meaning"], rows)


def kind(annotation: Any) -> str:
    """A key's type in an admin's words."""
    plain = {
        str: "text", int: "whole number", float: "number", bool: "true or false", SecretStr: "secret", timedelta: "duration",
        Any: "any value", date: "day", datetime: "date and time", Decimal: "number",
    }  # fmt: skip
    if annotation == sections.Speed:
        return "speed"
    if annotation in plain:
        return plain[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is list:
        return "steps" if "Send" in str(inner) else f"list of {kind(inner[0])}"
    if origin is dict:
        return f"name: {kind(inner[1])}"
    if origin is Union or type(annotation).__name__ == "UnionType":
        return " or ".join(kind(each) for each in inner if each is not type(None))
    if hasattr(annotation, "__metadata__"):
        return kind(annotation.__origin__)
    return "table" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else str(annotation)


def shown(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, timedelta):
        hours, minutes = value.total_seconds() / 3600, value.total_seconds() / 60
        seconds = f"`{value.total_seconds():.0f}s`"
        return f"`{hours:.0f}h`" if hours >= 1 else f"`{minutes:.0f}m`" if minutes >= 1 else seconds
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if isinstance(value, BaseModel) else f"`{value}`"


# --- connectors ----------------------------------------------------------------------------------------------


def connector(name: str) -> str:
    """What a connector's manifest says."""
    manifest = registry.connectors()[name].manifest
    facts = {
        "pulls": ", ".join(manifest.streams), "pushes": ", ".join(manifest.pushes),
        "webhooks": ", ".join(f"`{each}`" for each in manifest.webhooks), "signs in with": ", ".join(manifest.auth),
        "scopes": ", ".join(f"`{each}`" for each in manifest.scopes),
        "limits kept": ", ".join(f"{each.name}: {each.calls:,} in {each.seconds:,g} s" for each in manifest.limits),
        "results go to": "people whom it knows" if manifest.needs_contact else "everybody, under an opaque key",
        "a write whose answer was lost": "is repeated: a second one has no second effect"
        if manifest.repeatable
        else "is `uncertain`, and repeated only by `hub replay --uncertain`",
        "writes at once": str(manifest.batch),
    }  # fmt: skip
    return table(["", ""], [[f"**{what}**", fact or "nothing"] for what, fact in facts.items()])


def settings(name: str) -> str:
    """A connector's own keys, or those of a section among them: `smtp.oauth`."""
    kinds: dict[str, Any] = {**registry.events(), **registry.connectors(), **registry.relays()}
    name, _, section = name.partition(".")
    model = kinds[name].Settings
    return model_table(inner_model(model.model_fields[section].annotation) if section else model)


def inner_model(annotation: Any) -> type[BaseModel]:
    return next(each for each in get_args(annotation) if issubclass(each, BaseModel))


def shipped(name: str) -> str:
    """The mapping that comes with a connector."""
    document = mappings.shipped(name, registry.module(name))
    assert document is not None
    mapping = mappings.build([document])
    found = []
    for object, entries in mapping.entries.items():
        rows = [mapped(entry) for entry in entries.values()]
        found.append(f"**{object}**\n\n" + table(["hub field", "its field", "", "on the way in"], rows))
    rows = [[f"`{consent.purpose}`", f"`{consent.field}`"] for consent in mapping.consents]
    return "\n\n".join([*found, "**consent**\n\n" + table(["purpose", "true means opted out"], rows)])


def mapped(entry: Entry) -> list[str]:
    way = {"pull": "pulled", "push": "pushed", "both": "pulled and pushed"}[entry.direction]
    return [
        f"`{entry.name}`",
        f"`{entry.field}`",
        way,
        ", ".join(f"`{name}`" for name, _ in entry.transforms),
    ]


def sources(name: str) -> str:
    """The vendor's pages that the contract names for its operations."""
    contract = YAML(typ="safe").load(ROOT / "contracts" / name / "openapi.yaml")
    found = {
        page
        for operations in (contract.get("paths") or contract["webhooks"]).values()
        for node in (operations, *operations.values())
        if isinstance(node, dict) and isinstance(node.get("x-source"), dict)
        for page in node["x-source"]["page"].split("; ")
    }
    return "\n".join(f"- {page}" for page in sorted(found))


# --- languages -----------------------------------------------------------------------------------------------


def fields(object: str) -> str:
    rows = [[f"`{field.name}`", field.type.value, field.description] for field in STANDARD[object].values()]
    return table(["field", "type", "meaning"], rows)


def functions() -> str:
    rows = []
    for name, function in FUNCTIONS.items():
        arguments = [
            f"`{key}`{'' if argument.kind == 'text' else f' ({argument.kind})'}{', required' if argument.required else ''}"
            for key, argument in function.arguments.items()
        ]
        rows.append([f"`{name}`", function.help, "; ".join(arguments)])
    return table(["function", "true of a contact who", "arguments, the first without a name"], rows)


def scalars() -> str:
    rows = [[f"`{name}(field)`", wants.value, gives.value] for name, (wants, gives, _) in SCALARS.items()]
    return table(["function", "of a", "gives a"], rows)


TRANSFORM_EXAMPLES: list[tuple[Any, Any]] = [
    ("trim", "  Ann  "), ("squeeze", "Ann   Marie\tLee "), ("lower", "Ann@Example.COM"), ("upper", "vip"), ("title", "ann lee"),
    ("digits", "No. 12-34"), ("phone", "0043 (0)660 123-45"), ("domain", "https://www.Example.com/about"),
    ("country_code", "Österreich"), ("language_tag", "de_at"), ({"blank_if": ["n/a", "-"]}, "N/A"),
    ({"replace": {"&amp;": "&", " Ltd.": ""}}, "Lee &amp; Sons Ltd."), ({"before": ","}, "Vienna, Austria"),
    ({"after": "#"}, "ticket #4711"), ({"cut": 4}, "1010 Vienna"), ({"split": ","}, "red, green"),
    ({"join": " / "}, ["red", "green"]), ({"times": 0.01}, "1999"), ({"date_from": "%d.%m.%Y"}, "24.11.2026"),
]  # fmt: skip
ENTRY_EXAMPLES = [
    ("city: {field: f, transform: [{before: ','}, trim, title]}", "  VIENNA , Austria"),
    ("company: {field: f, transform: [squeeze, {replace: {' GmbH': ''}}, {cut: 12}]}", "Lee  &  Sons GmbH"),
    ("phone: {field: f, transform: [{blank_if: [unknown, none]}, phone], default: '+43 1 0'}", "unknown"),
    ("price: {field: f, type: number, transform: {times: 0.01}}", "1999"),
    (
        "tags: {field: f, type: list, transform: [{split: ','}, lower], map: {vip: very important}}",
        "VIP, New",
    ),
    ("tier: {field: f, map: {A: gold, B: silver}}", "C"),
    ("tier: {field: f, map: {A: gold, B: silver}, unknown: blank, default: none}", "C"),
    ("tier: {field: f, map: {A: gold, B: silver}, unknown: reject}", "C"),
    ("born: {field: f, type: date, transform: {date_from: '%d/%m/%y'}}", "24/11/86"),
]
PUSH_EXAMPLES = [
    ("tier: {field: f, direction: both, map: {A: gold, B: silver}}", "gold"),
    ("tier: {field: f, direction: both, map: {A: gold, B: gold}}", "gold"),
    ("tier: {field: f, direction: both, map: {A: gold, B: silver}}", "bronze"),
    ("tier: {field: f, direction: both, map: {A: gold, B: silver}, unknown: reject}", "bronze"),
    ("tags: {field: f, type: list, direction: both, map: {r: red, g: green}}", ["red", "green"]),
    ("phone: {field: f, direction: both, push_transform: [phone, {cut: 14}]}", "+43 660 1234567"),
    ("vip: {field: f, type: boolean, direction: both}", True),
]
TYPE_EXAMPLES: dict[FieldType, Any] = {
    FieldType.TEXT: 42, FieldType.NUMBER: "12.50", FieldType.BOOLEAN: "yes", FieldType.DATE: "2026-11-24",
    FieldType.TIME: "1764000000000", FieldType.ENUM: "lead", FieldType.LIST: "red;green",
}  # fmt: skip


def transform_table() -> str:
    rows = [
        [f"`{flow(given)}`", f"`{value!r}`", f"`{transforms.made(transforms.step(given))(value)!r}`"]
        for given, value in TRANSFORM_EXAMPLES
    ]
    return table(["transform", "for example", "gives"], rows)


def flow(given: Any) -> str:
    """A value as YAML on one line."""
    made = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = 200
    yaml.allow_unicode = True
    yaml.dump(given, made)
    return made.getvalue().removesuffix("...\n").strip()


def entry_of(line: str) -> mappings.Mapping:
    return mappings.build([load_document(Path("example.yaml"), f"contact:\n  {line}\n")])


def pull_examples() -> str:
    """Whole entries with what they make of a value on the way in."""
    rows = []
    for line, value in ENTRY_EXAMPLES:
        mapped = entry_of(line).pull("contact")({"f": value})
        found = [v for v in (*mapped.columns.values(), *mapped.custom.values()) if v is not None]
        told = (
            f"`{found[0]!r}`"
            if found
            else f"nothing: {mapped.errors[0].message}"
            if mapped.errors
            else "blank"
        )
        rows.append([f"`{line}`", f"`{value!r}`", told])
    return table(["entry", "the vendor's value", "ours"], rows)


def push_examples() -> str:
    """Whole entries with what they write of a value."""
    rows = []
    for line, value in PUSH_EXAMPLES:
        try:
            told = f"`{entry_of(line).push('contact', {line.partition(':')[0]: value})['f']}`"
        except HubError as error:
            told = f"nothing: {error.what}"
        rows.append([f"`{line}`", f"`{value!r}`", told])
    return table(["entry", "our value", "is written as"], rows)


def type_table() -> str:
    rows = []
    for type_, work in transforms.BY_TYPE.items():
        given = TYPE_EXAMPLES[type_]
        taken = work(given)
        told = repr(taken) if not hasattr(taken, "isoformat") else taken.isoformat()
        rows.append([f"`{type_.value}`", f"`{given!r}`", f"`{told}`", f"`{transforms.pushed(taken)}`"])
    return table(["type", "for example", "in the hub", "pushed as"], rows)


def results() -> str:
    """The vocabulary of what comes back of a mail."""
    rows = [[f"`{kind.value}`", means, origin] for kind, (means, origin) in RESULTS.items()]
    return table(["result", "what it means", "where it comes from"], rows)


def replies() -> str:
    """How many texts of each receiver are known, by what they mean."""
    found: dict[str, Counter[str]] = {}
    for row in known_replies():
        found.setdefault(row.receiver, Counter())[row.kind.value] += 1
    rows = [
        [receiver, ", ".join(f"`{kind}` {n}" for kind, n in kinds.items())]
        for receiver, kinds in found.items()
    ]
    return table(["receiver", "texts"], rows)


# --- the command line and the house ------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, as `hub --help` has them."""
    return "\n\n".join(described(("hub",), command_line))


def described(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    arguments = " ".join(
        p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)
    )
    inner = command.commands if isinstance(command, click.Group) else {}
    title = " ".join((*path, arguments)).strip() + (" COMMAND" if inner else "")
    lines = [f"## `{title}`", inspect.cleandoc(command.help or "")]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        rows = [
            ["`" + "`, `".join([*o.opts, *o.secondary_opts]) + "`", environment(o), o.help or ""]
            for o in options
        ]
        lines.append(table(["option", "or the variable", "meaning"], rows))
    yield "\n\n".join(lines)
    for name, each in inner.items():
        yield from described((*path, name), each)


def environment(option: click.Option) -> str:
    return f"`{option.envvar}`" if option.envvar else ""


def tree() -> str:
    """Every file of the code with the first sentence of its own description."""
    lines = []
    for top in ("hub", "connectors", "contracts"):
        for file in sorted((ROOT / top).rglob("*.py")):
            told = ast.get_docstring(ast.parse(file.read_text())) or ""
            if told:
                first = re.split(r"(?<=[.!?])\s|\n\n", told, maxsplit=1)[0].replace("\n", " ").rstrip(".")
                lines.append([f"`{file.relative_to(ROOT)}`", first])
    return table(["file", "what it is"], lines)


def floors() -> str:
    """The layers that import-linter holds, the lowest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    rows = [[str(number), layer.replace(" | ", ", ")] for number, layer in enumerate(reversed(layers))]
    return table(["floor", "rooms; those of one floor do not import each other"], rows)


MAKERS: dict[str, Callable[..., str]] = {
    "keys": keys, "connector": connector, "settings": settings, "mapping": shipped, "sources": sources, "fields": fields,
    "functions": functions, "scalars": scalars, "transforms": transform_table,
    "entries": pull_examples, "written": push_examples, "types": type_table, "commands": commands,
    "tree": tree, "floors": floors, "replies": replies, "results": results,
}  # fmt: skip

# --- the picture ---------------------------------------------------------------------------------------------

SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own frame without its fonts from the net: a picture in a README may load nothing."""


def draw(contacts: int = 2_000) -> None:
    """Play a rehearsal and keep what it shows at its end as docs/demo.svg."""
    from rich.console import Console

    from hub.demo import play, stage
    from hub.demo.show import Show

    show = Show(contacts=contacts, to_terminal=False)
    with tempfile.TemporaryDirectory(prefix="mailyard-") as folder:
        started = time.monotonic()
        with stage.built(Path(folder), contacts=contacts) as built:
            found = play._journey(built, show, started)
    show.progress.stop()
    paper = Console(record=True, file=io.StringIO(), width=88, force_terminal=True, color_system="truecolor")
    paper.print("[bold green]$[/] scripts/demo\n", highlight=False)
    paper.print(show.progress.get_renderable())
    paper.print()
    show.console = show.out = paper
    show.result(found)
    svg = paper.export_svg(title="Mailyard: a rehearsal", code_format=SVG, unique_id="mailyard")
    PICTURE.write_text(TEXT.sub(placed, svg))


TEXT = re.compile(
    r'(<text class="mailyard-r\d+") x="([\d.]+)" (y="[\d.]+") textLength="([\d.]+)"([^>]*)>([^<]*)</text>'
)


def placed(found: re.Match[str]) -> str:
    """A piece of text as its words, each at its own place: not every viewer keeps blanks and widths."""
    head, x, y, length, rest, text = found.groups()
    plain = html.unescape(text).replace("\u00a0", " ")
    wide = float(length) / max(cell_len(plain), 1)
    return "\n".join(
        f'{head} x="{float(x) + cell_len(plain[: word.start()]) * wide:.1f}" {y} '
        f'textLength="{cell_len(word[0]) * wide:.1f}"{rest}>{html.escape(word[0], quote=False)}</text>'
        for word in re.finditer(r"\S+", plain)
    )


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--check"]:
        for page in stale():
            print(f"{page.relative_to(ROOT)}: its generated parts are stale; run scripts/docs")
        return 1 if stale() else 0
    if arguments == ["--picture"]:
        draw()
        print(f"drew {PICTURE.relative_to(ROOT)}")
        return 0
    if arguments:
        print("usage: scripts/docs [--check | --picture]", file=sys.stderr)
        return 2
    for page in stale():
        page.write_text(filled(page.read_text()))
        print(f"filled {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
