"""Which fields of the contact and its company a template uses, and whether it says what stands there when one is blank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jinja2 import TemplateSyntaxError, nodes

from hub.mail import template
from hub.mail.program import PEOPLE, fields_used, names_used

DEALS = "deals"
"""Counts among the fields of a template that names deals."""
Use = tuple[str, bool]
"""A field, and whether a blank is seen to where it stands."""


def uses(sources: Iterable[str]) -> dict[str, bool] | None:
    """field -> whether a blank is seen to wherever the field stands; None when the contact is taken as a whole.

    `{{ contact.city or 'town' }}`, `{% if contact.city %}` and `contact.city == 'Wien'` see to a blank; `{{ contact.city }}`
    prints nothing in its place. Raises ConfigError for a syntax error.
    """
    found: dict[str, bool] = {}
    for source in sources:
        try:
            tree, known = template.TEXT.parse(source), fields_used(source, template.TEXT)
        except TemplateSyntaxError as error:
            raise template.mistake(error) from None
        if known is None:
            return None
        for field, seen_to in _uses(tree, frozenset()):
            found[field] = seen_to and found.get(field, True)
        if DEALS in names_used(source, template.TEXT):
            found[DEALS] = True
    return found


def _uses(node: nodes.Node, asked: frozenset[str]) -> Iterator[Use]:
    """`asked` are the fields that a condition around the node has asked for."""
    field = field_of(node)
    if field is not None:
        yield field, field in asked
    elif isinstance(node, nodes.If | nodes.CondExpr):
        inside = asked | _named(node.test)
        for child in node.iter_child_nodes():
            yield from _uses(child, inside)
    elif isinstance(node, nodes.Or):
        yield from _uses(node.left, asked | _named(node.left))
        yield from _uses(node.right, asked | _named(node.left))
    elif isinstance(node, nodes.And):
        for child in (node.left, node.right):
            yield from _uses(child, asked | _named(node.left))
    elif isinstance(node, nodes.Compare | nodes.Test | nodes.Not) or replaces_blanks(node):
        for name in _named(node):
            yield name, True
    else:
        for child in node.iter_child_nodes():
            yield from _uses(child, asked)


def _named(node: nodes.Node) -> frozenset[str]:
    found = {field_of(each) for each in node.find_all((nodes.Getattr, nodes.Getitem))} | {field_of(node)}
    return frozenset(name for name in found if name is not None)


def field_of(node: nodes.Node) -> str | None:
    """`city` for `contact.city` and `contact['city']`, `company.city` for `company.city`."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    if not (isinstance(node.node, nodes.Name) and node.node.name in PEOPLE):
        return None
    of = PEOPLE[node.node.name]
    if isinstance(node, nodes.Getattr):
        return of + node.attr
    known = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
    return of + node.arg.value if known and isinstance(node.arg, nodes.Const) else None


def replaces_blanks(node: nodes.Node) -> bool:
    """Whether it is `default(..., true)`: without its second argument that leaves a blank as it is."""
    if not (isinstance(node, nodes.Filter) and node.name in ("default", "d")):
        return False
    given = [*node.args[1:], *(each.value for each in node.kwargs if each.key == "boolean")]
    return any(isinstance(each, nodes.Const) and bool(each.value) for each in given)
