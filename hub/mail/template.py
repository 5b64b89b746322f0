"""Templates: Jinja2 in a sandbox, compiled once; MJML and CSS are worked into plain HTML before any value is filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hub.errors import ConfigError
from hub.mail import hidden as hiding
from hub.mail.program import PLAIN_FILTERS

MAX_RENDERED = 2_000_000
PAGES = {"preferences_url": "p", "confirm_url": "confirm"}
"""Links to pages of the hub, of which most mails have none: variable -> path."""
VARIABLES = frozenset(
    {"contact", "company", "deals", "unsubscribe_url", "preheader", "message", "postal_address", *PAGES}
)


class _Environment(ImmutableSandboxedEnvironment):
    """Templates see plain values only; a blank prints as nothing; an unknown name is an error, not a blank."""

    def __init__(self, *, html: bool) -> None:
        super().__init__(
            autoescape=html, undefined=StrictUndefined, finalize=lambda value: "" if value is None else value
        )
        for name in ("range", "lipsum", "cycler", "joiner", "namespace"):
            self.globals.pop(name, None)
        for name in PLAIN_FILTERS:
            self.filters[name] = _blank_safe(self.filters[name])


def _blank_safe(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that leaves a blank a blank: a missing name must not be greeted as NONE."""
    return lambda value, *more, **named: None if value is None else plain(value, *more, **named)


HTML, TEXT = _Environment(html=True), _Environment(html=False)


def compiled(source: str, *, html: bool) -> Callable[[dict[str, Any]], str]:
    """A function from values to the filled-in text. Raises ConfigError for a syntax error."""
    try:
        template = (HTML if html else TEXT).from_string(source)
    except TemplateSyntaxError as error:
        raise mistake(error) from None

    def render(values: dict[str, Any]) -> str:
        parts, size = [], 0
        for part in template.generate(values):
            size += len(part)
            if size > MAX_RENDERED:
                raise ConfigError(
                    f"the template gives more than {MAX_RENDERED} characters", "take the loop out"
                )
            parts.append(part)
        return "".join(parts)

    return render


def mistake(error: TemplateSyntaxError) -> ConfigError:
    """A template's syntax error in our words."""
    return ConfigError(f"the template is wrong at line {error.lineno}: {error.message}", "mend the template")


def syntax_error(source: str) -> tuple[str, int] | None:
    """(what is wrong, line) of a template that does not parse."""
    try:
        HTML.parse(source)
    except TemplateSyntaxError as error:
        return str(error.message), error.lineno
    return None


def unknown_names(source: str, contact_fields: Collection[str]) -> list[tuple[str, int, int]]:
    """(name, line, column) of every variable and field of the contact or its company that does not exist, in reading order.

    `contact_fields` has fields of the company as `company.name`.
    """
    tree = HTML.parse(source)
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")} | {"loop"}
    found: list[tuple[str, int]] = []
    for node in tree.find_all(nodes.Name):
        if node.ctx == "load" and node.name not in VARIABLES and node.name not in own:
            found.append((node.name, node.lineno))
    for attribute in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(attribute, nodes.Getattr | nodes.Getitem)
        if isinstance(attribute.node, nodes.Name) and attribute.node.name in ("contact", "company"):
            name = attribute.attr if isinstance(attribute, nodes.Getattr) else _constant(attribute.arg)
            of = attribute.node.name
            if name is not None and (name if of == "contact" else f"company.{name}") not in contact_fields:
                found.append((f"{of}.{name}", attribute.lineno))
    placed = {(name, line, _column(source, name, line)) for name, line in found}
    return sorted(placed, key=lambda place: (place[1:], place[0]))


def unknown_functions(source: str) -> list[tuple[str, str, int, int]]:
    """(`filter` or `test`, name, line, column) of each that Jinja does not have, in reading order."""
    tree = HTML.parse(source)
    found = {
        (node.lineno, kind, node.name)
        for kind, node_type, known in (
            ("filter", nodes.Filter, HTML.filters),
            ("test", nodes.Test, HTML.tests),
        )
        for node in tree.find_all(node_type)
        if node.name not in known
    }
    return [(kind, name, line, _column(source, name, line)) for line, kind, name in sorted(found)]


def others(source: str) -> list[tuple[str, int, int]]:
    """(tag, line, column) of each that would take in another template: there is none to take."""
    kinds = {
        nodes.Extends: "extends",
        nodes.Include: "include",
        nodes.Import: "import",
        nodes.FromImport: "from",
    }
    found = {(node.lineno, kinds[type(node)]) for node in HTML.parse(source).find_all(tuple(kinds))}
    return [(tag, line, _column(source, tag, line)) for line, tag in sorted(found)]


def _constant(node: nodes.Expr) -> str | None:
    return str(node.value) if isinstance(node, nodes.Const) else None


def _column(source: str, name: str, line: int) -> int:
    lines = source.splitlines()
    text = lines[line - 1] if line <= len(lines) else ""
    return text.find(name.removeprefix("contact.")) + 1 or 1


def as_html(source: str, *, mjml: bool) -> str:
    """The template as HTML with its styles inlined, Jinja tags as they are. Raises ConfigError for MJML that does not parse."""
    hidden, back = hiding.hide(source)
    if mjml:
        from mjml import mjml2html

        try:
            hidden = mjml2html(hidden)
        except ValueError as error:
            raise ConfigError(
                f"the MJML cannot be read: {error}",
                "check that every tag is closed and attributes are quoted",
            ) from None
    else:
        import css_inline

        inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)
        hidden = hiding.as_words(inliner.inline(hiding.as_comments(hidden)))
    return back(hidden)


def as_text(html: str) -> str:
    """The plain-text template of an HTML template, links written out."""
    from inscriptis import get_text
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.model.config import ParserConfig

    hidden, back = hiding.hide(html)
    hidden = hiding.without_tables(hidden)
    text = get_text(
        hidden, ParserConfig(CSS_PROFILES["strict"].copy(), display_links=True, display_anchors=False)
    )
    text = "\n".join([line.rstrip() for line in text.splitlines()])
    text = hiding.without_lone_lines(text, lambda words: "{{" not in back(words))
    return back(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
