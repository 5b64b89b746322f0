"""Templates as programs: what is the same for everybody, what is filled in, and what depends on a condition.

Jinja2 parses; its tree is cut into text, values and branches. Simple expressions (a field, `or`, a comparison, a plain
filter) become Python functions; every other expression is left to Jinja itself, so that each means what Jinja says.
A template with a loop or a macro has no program: it is rendered by Jinja for each recipient.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Template, nodes
from jinja2.sandbox import SandboxedEnvironment

from hub.mail.encoding import printed

Values = Mapping[str, Any]
"""What a template may name: contact, deals, unsubscribe_url ..."""
Function = Callable[[Values], Any]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge,
}  # fmt: skip
PLAIN_FILTERS = ("capitalize", "lower", "title", "trim", "upper")


@dataclass(frozen=True)
class Value:
    """Filled in for each recipient, printed and escaped as Jinja does."""

    value: Function
    html: bool

    def text(self, values: Values) -> str:
        return printed(self.value(values), html=self.html)


@dataclass(frozen=True)
class Text:
    """Filled in for each recipient: a text that is escaped already, and that hardly two people share."""

    text: Callable[[Values], str]


@dataclass(frozen=True)
class Token:
    """Filled in for each recipient: plain characters that need neither escaping nor encoding."""

    make: Callable[[Values], bytes]


@dataclass(frozen=True)
class Branch:
    """One program or the other."""

    test: Function
    then: Program
    otherwise: Program


Item = str | Value | Text | Token | Branch
Program = tuple[Item, ...]


class NotCompilable(Exception):
    """The template needs more than text, values and branches."""


def compiled(
    source: str,
    environment: SandboxedEnvironment,
    contact_fields: Collection[str],
    special: Mapping[str, Program] | None = None,
) -> Program:
    """The program of a template. `special` are variables that stand for programs of their own: links, tokens.

    Raises `NotCompilable`, and jinja2's TemplateSyntaxError.
    """
    return _Compiler(environment, contact_fields, special or {}).body(environment.parse(source).body)


def fields_used(source: str, environment: SandboxedEnvironment) -> set[str] | None:
    """The contact fields that a template names; None when it takes the contact as a whole."""
    tree = environment.parse(source)
    found: set[str] = set()
    named = 0
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, nodes.Getattr | nodes.Getitem)
        if not (isinstance(node.node, nodes.Name) and node.node.name == "contact"):
            continue
        name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if name is None:
            return None
        named += 1
        found.add(name)
    whole = sum(node.name == "contact" for node in tree.find_all(nodes.Name))
    return found if whole == named else None


def names_used(source: str, environment: SandboxedEnvironment) -> set[str]:
    """The variables that a template names."""
    return {node.name for node in environment.parse(source).find_all(nodes.Name) if node.ctx == "load"}


def _constant(node: nodes.Expr) -> str | None:
    return node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else None


@dataclass
class _Compiler:
    environment: SandboxedEnvironment
    contact_fields: Collection[str]
    special: Mapping[str, Program]
    html: bool = field(init=False)

    def __post_init__(self) -> None:
        self.html = bool(self.environment.autoescape)

    def body(self, found: list[nodes.Node]) -> Program:
        return joined(item for node in found for item in self._items(node))

    def _items(self, node: nodes.Node) -> Iterator[Item]:
        if isinstance(node, nodes.Output):
            for each in node.nodes:
                if isinstance(each, nodes.TemplateData):
                    yield each.data
                elif isinstance(each, nodes.Name) and each.name in self.special:
                    yield from self.special[each.name]
                else:
                    yield self._output(each)
        elif isinstance(node, nodes.If):
            yield self._branch(node)
        else:
            raise NotCompilable(type(node).__name__)

    def _branch(self, node: nodes.If) -> Branch:
        otherwise = self.body(node.else_)
        for each in reversed(node.elif_):
            assert isinstance(each, nodes.If)
            otherwise = (Branch(self._test(each.test), self.body(each.body), otherwise),)
        return Branch(self._test(node.test), self.body(node.body), otherwise)

    # --- expressions -------------------------------------------------------------------------------------

    def _output(self, node: nodes.Expr) -> Value | Text:
        plain = self._plain(node)
        if plain is not None:
            return Value(plain, self.html)
        template = self._template([nodes.Output([node], lineno=1)])
        return Text(lambda values: "".join(template.root_render_func(template.new_context(dict(values)))))

    def _test(self, node: nodes.Node) -> Function:
        assert isinstance(node, nodes.Expr)
        plain = self._plain(node)
        if plain is not None:
            return plain
        mark = nodes.Output([nodes.TemplateData("1", lineno=1)], lineno=1)
        template = self._template([nodes.If(node, [mark], [], [], lineno=1)])
        return lambda values: any(template.root_render_func(template.new_context(dict(values))))

    def _template(self, body: list[nodes.Node]) -> Template:
        tree = nodes.Template(body, lineno=1)
        tree.set_environment(self.environment)
        code = self.environment.compile(tree)
        return Template.from_code(self.environment, code, self.environment.make_globals(None))

    def _plain(self, node: nodes.Expr) -> Function | None:
        """The expression as a plain function, or None where only Jinja knows what it means."""
        if isinstance(node, nodes.Const):
            constant = node.value
            return lambda values: constant
        if isinstance(node, nodes.Getattr | nodes.Getitem):
            return self._field(node)
        if isinstance(node, nodes.Name):
            name = node.name
            return (lambda values: values[name]) if name in _PLAIN_NAMES else None
        if isinstance(node, nodes.Filter):
            return self._filtered(node)
        if isinstance(node, nodes.Not):
            inner = self._plain(node.node)
            return None if inner is None else lambda values: not inner(values)
        if isinstance(node, nodes.Or | nodes.And):
            return self._both(node)
        if isinstance(node, nodes.Compare):
            return self._compared(node)
        return None

    def _field(self, node: nodes.Getattr | nodes.Getitem) -> Function | None:
        name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if not (
            isinstance(node.node, nodes.Name) and node.node.name == "contact" and name in self.contact_fields
        ):
            return None
        return lambda values: values["contact"][name]

    def _filtered(self, node: nodes.Filter) -> Function | None:
        if (
            node.node is None
            or node.name not in PLAIN_FILTERS
            or node.args
            or node.kwargs
            or node.dyn_args
            or node.dyn_kwargs
        ):
            return None
        inner = self._plain(node.node)
        apply = self.environment.filters[node.name]
        return None if inner is None else lambda values: apply(inner(values))

    def _both(self, node: nodes.Or | nodes.And) -> Function | None:
        left, right = self._plain(node.left), self._plain(node.right)
        if left is None or right is None:
            return None
        if isinstance(node, nodes.Or):
            return lambda values: left(values) or right(values)
        return lambda values: left(values) and right(values)

    def _compared(self, node: nodes.Compare) -> Function | None:
        if len(node.ops) != 1 or node.ops[0].op not in _COMPARE:
            return None
        left, right, compare = self._plain(node.expr), self._plain(node.ops[0].expr), _COMPARE[node.ops[0].op]
        if left is None or right is None:
            return None
        return lambda values: compare(left(values), right(values))


_PLAIN_NAMES = frozenset({"unsubscribe_url", "open_url", "preheader"})


def joined(items: Iterable[Item]) -> Program:
    """With neighbouring texts made one."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, str) and found and isinstance(found[-1], str):
            found[-1] += item
        elif item != "":
            found.append(item)
    return tuple(found)


def text_of(program: Program, values: Values) -> str:
    """The program's text for one recipient, not encoded."""
    found = []
    for item in program:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Value | Text):
            found.append(item.text(values))
        elif isinstance(item, Token):
            found.append(item.make(values).decode())
        else:
            found.append(text_of(item.then if item.test(values) else item.otherwise, values))
    return "".join(found)
