"""Templates as programs: what is the same for everybody, what is filled in, and what depends on a condition.

Jinja2 parses; its tree is cut into text, values and branches. Simple expressions (a field, `or`, a comparison, a plain
filter) become Python; every other expression is left to Jinja itself, so that each means what Jinja says.
A template with a loop or a macro has no program: it is rendered by Jinja for each recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from jinja2 import Template, nodes
from jinja2.sandbox import SandboxedEnvironment

from hub.mail.encoding import printed
from hub.signing import Kind

Values = Mapping[str, Any]
"""What a template may name: contact, deals, unsubscribe_url ..."""
Function = Callable[[Values], Any]

_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">="}
PEOPLE = {"contact": "", "company": "company."}
"""Variables with fields, and what stands before these among the fields of a recipient."""
PLAIN_FILTERS = ("capitalize", "lower", "title", "trim", "upper")
DEEPEST = 40
"""Expressions and branches inside of each other: Python takes about a hundred."""


class Expression(NamedTuple):
    """Python over `values` and `contact`, and what its other names stand for. They are made here and are all different;
    of the template only names of known fields are in it, as literals."""

    source: str
    names: dict[str, Any]
    depth: int = 0


@dataclass(frozen=True)
class Value:
    """Filled in for each recipient, printed and escaped as Jinja does."""

    value: Expression
    html: bool


@dataclass(frozen=True)
class Text:
    """Filled in for each recipient: a text that is escaped already, and that hardly two people share."""

    text: Callable[[Values], str]


@dataclass(frozen=True)
class Token:
    """Filled in for each recipient: the mail's token of this kind, plain characters that need no encoding."""

    kind: Kind


@dataclass(frozen=True)
class Branch:
    """One program or the other."""

    test: Expression
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
    """The contact's fields that a template names, those of its company as `company.name`; None when it takes either as a
    whole."""
    tree = environment.parse(source)
    found: set[str] = set()
    named = 0
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, nodes.Getattr | nodes.Getitem)
        if not (isinstance(node.node, nodes.Name) and node.node.name in PEOPLE):
            continue
        name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if name is None:
            return None
        named += 1
        found.add(f"{PEOPLE[node.node.name]}{name}")
    whole = sum(node.name in PEOPLE for node in tree.find_all(nodes.Name))
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
        if plain is not None and plain.depth <= DEEPEST:
            return Value(plain, self.html)
        template = self._template([nodes.Output([node], lineno=1)])
        return Text(lambda values: "".join(template.root_render_func(template.new_context(dict(values)))))

    def _test(self, node: nodes.Node) -> Expression:
        assert isinstance(node, nodes.Expr)
        plain = self._plain(node)
        if plain is not None and plain.depth <= DEEPEST:
            return plain
        mark = nodes.Output([nodes.TemplateData("1", lineno=1)], lineno=1)
        template = self._template([nodes.If(node, [mark], [], [], lineno=1)])
        return called(lambda values: any(template.root_render_func(template.new_context(dict(values)))))

    def _template(self, body: list[nodes.Node]) -> Template:
        tree = nodes.Template(body, lineno=1)
        tree.set_environment(self.environment)
        code = self.environment.compile(tree)
        return Template.from_code(self.environment, code, self.environment.make_globals(None))

    def _plain(self, node: nodes.Expr) -> Expression | None:
        """The expression in Python, or None where only Jinja knows what it means."""
        if isinstance(node, nodes.Const):
            return _constant_named(node.value)
        if isinstance(node, nodes.Getattr | nodes.Getitem):
            return self._field(node)
        if isinstance(node, nodes.Name):
            return Expression(f"values[{node.name!r}]", {}) if node.name in _PLAIN_NAMES else None
        if isinstance(node, nodes.Filter):
            return self._filtered(node)
        if isinstance(node, nodes.Not):
            inner = self._plain(node.node)
            return (
                None if inner is None else Expression(f"(not {inner.source})", inner.names, inner.depth + 1)
            )
        if isinstance(node, nodes.Or | nodes.And):
            return self._both(node.left, "or" if isinstance(node, nodes.Or) else "and", node.right)
        if isinstance(node, nodes.Compare) and len(node.ops) == 1 and node.ops[0].op in _COMPARE:
            return self._both(node.expr, _COMPARE[node.ops[0].op], node.ops[0].expr)
        return None

    def _field(self, node: nodes.Getattr | nodes.Getitem) -> Expression | None:
        name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if name is None or not (isinstance(node.node, nodes.Name) and node.node.name in PEOPLE):
            return None
        name = PEOPLE[node.node.name] + name
        return Expression(f"contact[{name!r}]", {}) if name in self.contact_fields else None

    def _filtered(self, node: nodes.Filter) -> Expression | None:
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
        if inner is None:
            return None
        apply = _constant_named(self.environment.filters[node.name])
        return Expression(f"{apply.source}({inner.source})", inner.names | apply.names, inner.depth + 1)

    def _both(self, left: nodes.Expr, operator: str, right: nodes.Expr) -> Expression | None:
        first, second = self._plain(left), self._plain(right)
        if first is None or second is None:
            return None
        return Expression(
            f"({first.source} {operator} {second.source})",
            first.names | second.names,
            max(first.depth, second.depth) + 1,
        )


_PLAIN_NAMES = frozenset(
    {"unsubscribe_url", "preferences_url", "confirm_url", "open_url", "trap_url", "preheader"}
)
_numbers = count()


def _constant_named(value: object) -> Expression:
    """A constant as an expression: of the same text the same, so that a value is known again where it stands twice."""
    if value.__class__ is str:
        return _text_named(value)
    name = f"k{next(_numbers)}"
    return Expression(name, {name: value})


@lru_cache(1024)
def _text_named(value: str) -> Expression:
    name = f"k{next(_numbers)}"
    return Expression(name, {name: value})


def called(function: Function) -> Expression:
    """A function of the values as an expression."""
    name = f"f{next(_numbers)}"
    return Expression(f"{name}(values)", {name: function})


def joined(items: Iterable[Item]) -> Program:
    """With neighbouring texts made one."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, str) and found and isinstance(found[-1], str):
            found[-1] += item
        elif item != "":
            found.append(item)
    return tuple(found)


def asks_for_more(program: Program) -> bool:
    """Whether it needs more of the values than `contact` and `preheader`, which hardly any does."""

    def asks(made: Expression) -> bool:
        return "values" in made.source.replace("values['preheader']", "")

    for item in program:
        if isinstance(item, Branch):
            if asks(item.test) or asks_for_more(item.then) or asks_for_more(item.otherwise):
                return True
        elif isinstance(item, Text) or (isinstance(item, Value) and asks(item.value)):
            return True
    return False


# --- Python made of programs ---------------------------------------------------------------------------------


def function(lines: Iterable[str], names: Mapping[str, Any], *more: str) -> Callable[..., Any]:
    """A function of the values, and of what else is named, with these lines as its body."""
    head = f"def made({', '.join(('values', *more))}):"
    source = "\n    ".join([head, "contact = values['contact']", *lines])
    namespace = dict(names)
    exec(compile(source, "<a compiled message>", "exec"), namespace)  # noqa: S102  # see Expression: no word of a template
    made: Callable[..., Any] = namespace["made"]
    return made


def as_text(program: Program, last: Callable[[str], str] = str) -> Callable[[Values], str]:
    """The program's text for one recipient, not encoded, as a function; `last` is done to it. Raises NotCompilable for too
    deep branches."""
    names: dict[str, Any] = {"html": _in_html, "text": _in_text, "last": last}
    return function([f"return last({_text_source(program, names, 0)})"], names)


def _text_source(program: Program, names: dict[str, Any], depth: int) -> str:
    if depth > DEEPEST:
        raise NotCompilable("branches too deep inside of each other")
    sources = []
    for item in program:
        if isinstance(item, str):
            made = _constant_named(item)
        elif isinstance(item, Value):
            source = item.value.source
            plain = f"(v if (v := {source}).__class__ is str else text(v))"
            made = item.value._replace(source=f"html({source})" if item.html else plain)
        elif isinstance(item, Text):
            made = called(item.text)
        else:
            assert isinstance(item, Branch)  # tokens stand in bodies only
            then, otherwise = (_text_source(side, names, depth + 1) for side in (item.then, item.otherwise))
            made = Expression(f"({then} if {item.test.source} else {otherwise})", item.test.names)
        names.update(made.names)
        sources.append(made.source)
    return f"''.join(({', '.join(sources)}{',' * bool(sources)}))"


def _in_html(value: object) -> str:
    return printed(value, html=True)


def _in_text(value: object) -> str:
    return printed(value, html=False)
