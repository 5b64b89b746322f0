"""The documents tell the truth: commands are run as shown, examples are checked, links lead somewhere, nothing is stale.

Console blocks are run for real, in order, each page in a folder of its own that holds a rehearsal's hub.yaml; see
`tests/support/documents.py`. A command that serves is started, seen to serve, and interrupted.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from docs import generate
from hub.check import check
from hub.cli import main
from hub.config.settings import MessageSection, Settings
from hub.config.starter import files
from hub.mail import template
from hub.mail.compose import Composer, Recipient
from hub.mail.preview import preview
from hub.mapping import transforms
from hub.mapping.language import DIRECTIONS, ON_BLANK, UNKNOWN
from hub.mapping.reading import KEYS
from hub.model import CONTACT_FIELDS, BounceClass, DeliveryState, FieldType, HubField, ResultKind
from hub.rules import Catalog
from hub.rules import problems as rule_problems
from hub.rules.functions import FUNCTIONS, SCALARS
from hub.sdk import registry
from hub.signing import Unsigned
from tests.support.documents import ROOT, Shown, anchors, blocks, code_spans, commands, place

PAGES = generate.pages()
WITH_COMMANDS = [page for page in PAGES if commands(page)]
NOT_RUN = {
    "scripts/test": "it would run this test again; .ci/run runs it",
    "scripts/check": "it would hold this test to its style; .ci/run runs it",
    "scripts/docs": "it would change the checkout under other tests; its functions are tested below",
}
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # good for every secret that an example names
RUN_ANYWAY = ("scripts/docs --check",)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_run(shown: Shown) -> bool:
    return shown.command in RUN_ANYWAY or shown.command.split()[0] not in NOT_RUN


# --- commands ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[str]]:
    """page -> what was not as the page shows it. Several pages at once: most of a command is its start."""
    with place(tmp_path_factory.mktemp("documents")) as there, ThreadPoolExecutor(3) as pool:
        # The longest first, so that it does not run alone at the end.
        pages = sorted(WITH_COMMANDS, key=lambda page: -len(commands(page)))
        work = {
            page: pool.submit(there.run, page, [c for c in commands(page) if is_run(c)]) for page in pages
        }
        return {page: done.result() for page, done in work.items()}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_commands_do_what_the_page_shows(page: Path, ran: dict[Path, list[str]]) -> None:
    assert not ran[page], "\n".join(ran[page])


def test_a_command_that_is_not_run_here_is_run_by_ci() -> None:
    ci = (ROOT / ".ci/run").read_text()
    for name in ("scripts/test", "scripts/check", "scripts/demo --once"):
        assert re.search(rf"^timed {name}", ci, re.MULTILINE), name


def test_commands_that_are_not_run_name_files_and_options_that_exist() -> None:
    left_out = [c for page in WITH_COMMANDS for c in commands(page) if not is_run(c)]
    assert left_out
    for shown in left_out:
        script, *arguments = shlex.split(shown.command)
        assert (ROOT / script).is_file(), shown
        for argument in arguments:
            if script == "scripts/docs":
                assert f'["{argument}"]' in (ROOT / "docs/generate.py").read_text(), shown
            elif not argument.startswith("-"):
                assert (ROOT / argument).exists(), shown


# --- the command line against the documents ------------------------------------------------------------------------


def walk(
    command: click.Command, path: tuple[str, ...] = ("hub",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))


def options_of(command: click.Command) -> set[str]:
    named = [p for p in command.params if isinstance(p, click.Option)]
    return {flag for o in named for flag in (*o.opts, *o.secondary_opts)} | {"-h", "--help"}


def wrong_in(words: list[str]) -> str:
    """What a shown `hub ...` names that does not exist."""
    here: click.Command = main
    allowed = options_of(main)
    skip = False
    for word in words[1:]:
        if skip:
            skip = False
        elif word.startswith("-") and len(word) > 1:
            if word.partition("=")[0] not in allowed:
                return f"no option {word}"
            skip = word in (
                "--config",
                "--data",
                "--limit",
                "--samples",
                "--contacts",
                "--plan",
                "--campaign",
                "--state",
                "--message",
                "--relay",
                "--funnel",
            )
        elif isinstance(here, click.Group) and not re.fullmatch(r"[A-Z.\[\]]+", word):
            if word not in here.commands:
                return f"no command {word}"
            here = here.commands[word]
            allowed |= options_of(here)
    return ""


def named_commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        spans = [*code_spans(page), *(c.command for c in commands(page))]
        for span in spans:
            if re.match(r"hub(\s|$)", span):
                yield name_of(page), shlex.split(re.split(r"\s+[>|#]", span)[0])


def test_no_page_names_a_command_or_an_option_that_does_not_exist() -> None:
    found = list(named_commands())
    assert len(found) > 40
    assert [(page, words, said) for page, words in found if (said := wrong_in(words))] == []


def test_every_command_and_option_is_named() -> None:
    spans = {span for page in PAGES for span in code_spans(page)}
    shown = {" ".join(words) for _, words in named_commands()}
    for path, command in walk(main):
        name = " ".join(path)
        assert any(s == name or s.startswith(f"{name} ") for s in shown), name
        for flag in options_of(command) - {"-h", "--help"}:
            assert flag in spans, f"{name} {flag}"


def test_every_script_that_is_named_exists() -> None:
    named = {found for page in PAGES for found in re.findall(r"\bscripts/\w+", page.read_text())}
    assert named
    assert [name for name in named if not os.access(ROOT / name, os.X_OK)] == []


# --- examples ------------------------------------------------------------------------------------------------


EXAMPLES = [block for page in PAGES for block in blocks(page, "yaml")]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_yaml_that_is_shown_has_no_mistakes(block: Any, tmp_path: Path) -> None:
    """A part of hub.yaml is put into the starter's; a mapping is put beside it. Then `hub check` reads all."""
    for name, content in files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    yaml = YAML(typ="safe")
    whole, shown = yaml.load(files()["hub.yaml"]), yaml.load(block.text)
    if set(shown) <= {"lead", "contact", "company", "deal", "consent", "match"}:
        (tmp_path / "mapping.yaml").write_text(block.text)
        whole["connections"]["sales"] = dict(whole["connections"]["crm"])
        whole["connections"]["crm"]["mapping"] = "mapping.yaml"
    else:
        for section, content in shown.items():
            whole[section] = {**whole.get(section, {}), **content}
    for message in whole["messages"].values():
        for name in [*message.get("images", {}).values(), *message.get("attachments", [])]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "hub.yaml").open("w") as file:
        YAML().dump(whole, file)
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", (tmp_path / "hub.yaml").read_text()), KEY)
    assert [str(problem) for problem in check(tmp_path / "hub.yaml", environ).problems] == []


def rules_shown() -> list[str]:
    """Code of docs/lists.md that is a whole rule about some field, or a call of a function that is true or false."""
    names = "|".join([*CONTACT_FIELDS, "score", "vip", "tags"])
    compared = rf"(?:\w+\()?(?:{names})\)? (?:=|<>|<|>|IN|BETWEEN|LIKE|IS) ?.+"
    called = rf"(?:NOT )?(?:{'|'.join(FUNCTIONS)})\(.*\)"
    spans = code_spans(ROOT / "docs/lists.md")
    return [span for span in spans if re.fullmatch(rf"(?:NOT )?{compared}|{called}", span)]


def test_rules_that_are_shown_are_rules() -> None:
    own = {
        "score": HubField("score", FieldType.NUMBER), "vip": HubField("vip", FieldType.BOOLEAN),
        "tags": HubField("tags", FieldType.LIST),
    }  # fmt: skip
    catalog = Catalog(
        {**CONTACT_FIELDS, **own}, frozenset({"trial"}), frozenset({"welcome"}), frozenset({"product-news"})
    )
    shown = rules_shown()
    assert len(shown) >= 15
    assert [(rule, str(error)) for rule in shown for error in rule_problems(rule, catalog)] == []


def values_shown() -> list[tuple[str, str, str]]:
    """(template, contact, what it gives) of the table in docs/messages.md."""
    rows = re.findall(
        r"^\| `(.+)` \| `(\{.*\})` \| `(.+)` \|$", (ROOT / "docs/messages.md").read_text(), re.MULTILINE
    )
    return [(source.replace("\\|", "|"), contact, gives) for source, contact, gives in rows]


@pytest.mark.parametrize(("source", "contact", "gives"), values_shown())
def test_what_a_template_gives(source: str, contact: str, gives: str, tmp_path: Path) -> None:
    message = {
        "subject": "x",
        "from": "ann@example.com",
        "purpose": "orders",
        "html": f"<body><p>{source}</p></body>",
    }
    settings = Settings.model_validate(
        {
            "purposes": {"orders": {"title": "x", "marketing": False, "track": {"opens": False}}},
            "messages": {"x": message},
        }
    )
    fields = json.loads(contact)
    deals = fields.pop("deals", [])
    composer = Composer(settings, tmp_path, Unsigned(), contact_fields=CONTACT_FIELDS)
    to = Recipient(0, "bob@example.com", fields, deals)
    found = preview(composer.message("x"), to, now=datetime(2026, 1, 1, tzinfo=UTC))["html"]
    assert f"<p>{gives}" in found.replace(" </p>", "</p>")
    assert found.count("<p>") == 1


def test_enough_of_what_templates_give_is_shown() -> None:
    assert len(values_shown()) >= 13


def test_each_transform_and_type_has_an_example() -> None:
    shown = [transforms.step(given)[0] for given, _ in generate.TRANSFORM_EXAMPLES]
    assert sorted(shown) == sorted([*transforms.PLAIN, *transforms.TAKING])
    assert set(generate.TYPE_EXAMPLES) == set(transforms.BY_TYPE)
    for given, value in generate.TRANSFORM_EXAMPLES:
        assert transforms.made(transforms.step(given))(value) != value, f"{given}: the example shows nothing"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("lists.md", [*FUNCTIONS, "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "ILIKE", "IS NULL"]),
        ("lists.md", [f"{name}(field)" for name in SCALARS]),
        (
            "mapping.md",
            [*KEYS, *DIRECTIONS, *ON_BLANK, *UNKNOWN, *transforms.PLAIN, *transforms.TAKING, *FieldType],
        ),
        ("sending.md", [*DeliveryState]),
        (
            "messages.md",
            [
                *template.VARIABLES,
                *(field.alias or name for name, field in MessageSection.model_fields.items()),
            ],
        ),
        (
            "results.md",
            [*ResultKind, *BounceClass, "queued", "attempting", "done", "dead", "dropped", "uncertain"],
        ),
        ("operating.md", ["HUB_DATABASE_URL", "HUB_REDIS_URL", "HUB_SECRET_KEY", "HUB_CONFIG", "HUB_DATA"]),
        ("operating.md", ["/healthz", "/status.json", "/o/", "/c/", "/u/", "/webhooks/CONNECTION"]),
    ],
)
def test_a_page_names_every_word_of_its_language(page: str, words: list[str]) -> None:
    code = " ".join(code_spans(ROOT / "docs" / page))
    assert [word for word in words if word not in code] == []


# --- links and generated parts -----------------------------------------------------------------------------------


def test_links_lead_to_files_and_headings_that_exist() -> None:
    wrong, seen = [], 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target:
                continue
            seen += 1
            name, _, anchor = target.partition("#")
            to = (page.parent / name).resolve() if name else page
            if not to.is_file() or (anchor and anchor not in anchors(to)):
                wrong.append((name_of(page), target))
    assert seen > 30
    assert wrong == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s:]+\.md)", page.read_text())
        ahead += [(page.parent / link).resolve() for link in links]
    assert [name_of(page) for page in PAGES if page not in reached] == []


def test_generated_parts_are_fresh() -> None:
    assert [name_of(page) for page in generate.stale()] == [], "run scripts/docs"


def test_every_connector_has_its_page_with_its_keys() -> None:
    for name in itertools.chain(registry.connectors(), registry.relays()):
        if name in registry.BUILT_IN:
            text = (ROOT / f"docs/connectors/{name}.md").read_text()
            assert f"<!-- generated: settings {name} -->" in text
    for name, kind in registry.connectors().items():
        assert (
            not kind.manifest.docs or name not in registry.BUILT_IN or (ROOT / kind.manifest.docs).is_file()
        )


def test_the_picture_shows_a_rehearsal_whose_sums_agree_and_loads_nothing() -> None:
    text = generate.PICTURE.read_text()
    words = " ".join(
        "".join(node.itertext()) for node in ET.fromstring(text).iter() if node.tag.endswith("text")
    )
    assert "All sums agree" in words.replace("\xa0", " ")
    assert re.findall(r"(?:https?:)?//[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
