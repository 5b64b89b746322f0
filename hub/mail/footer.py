"""What stands in every body: the footer that the law asks for, the hidden preheader, the pixel."""

from __future__ import annotations

import re

from jinja2 import TemplateSyntaxError, nodes

from hub.mail import template

UNSUBSCRIBE = (
    '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}<br>'
    '<a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
POSTAL = '<p style="font:12px sans-serif;color:#666;text-align:center">{{ postal_address }}</p>'
PREHEADER = '<div style="display:none;max-height:0;overflow:hidden">{{ preheader }}</div>'
PIXEL = '<img src="{{ open_url }}" width="1" height="1" alt="">'
TRAP = '<a href="{{ trap_url }}" style="display:none" tabindex="-1" aria-hidden="true" rel="nofollow">&#8203;</a>'
"""A link that no person sees; programs that follow all links follow it too."""
_UNCHANGED = ("safe", "e", "escape", "forceescape", "trim", "string")


def with_footer(html: str, postal_address: str) -> str:
    """A marketing mail's template with the unsubscription and the postal address that it does not print itself."""
    if not prints(html, "unsubscribe_url"):
        return within_body(html, last=UNSUBSCRIBE)
    if postal_address and not prints(html, "postal_address"):
        return within_body(html, last=POSTAL)
    return html


def prints(source: str, name: str) -> bool:
    """Whether a template prints a variable for everybody: to be named in a condition, or in one branch, is not enough."""
    try:
        return _always(template.HTML.parse(source).body, name)
    except TemplateSyntaxError as error:
        raise template.mistake(error) from None


def _always(body: list[nodes.Node], name: str) -> bool:
    return any(_prints(node, name) for node in body)


def _prints(node: nodes.Node, name: str) -> bool:
    if isinstance(node, nodes.Output):
        return any(_innermost(each) == name for each in node.nodes)
    if isinstance(node, nodes.If):
        ways = [node.body, *(each.body for each in node.elif_), node.else_]
        return all(_always(way, name) for way in ways)
    return False


def _innermost(node: nodes.Expr) -> str | None:
    """The variable that an expression prints as it is."""
    while isinstance(node, nodes.Filter) and node.name in _UNCHANGED and node.node is not None:
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


def within_body(html: str, first: str = "", last: str = "") -> str:
    """Put something at the beginning and the end of the body."""
    if first:
        html, count = re.subn(
            r"(<body\b[^>]*>)", lambda found: found[1] + first, html, count=1, flags=re.IGNORECASE
        )
        html = html if count else first + html
    if last:
        at = html.lower().rfind("</body>")
        html = html[:at] + last + html[at:] if at >= 0 else html + last
    return html
