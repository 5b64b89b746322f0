"""The functions of the rule language: for each its arguments, and the SQL that answers it for the contact `c`.

Each writer gets the arguments as checked Python values and a `Values` that turns them into parameters; so no
text of a rule ever becomes SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hub.model import FieldType
from hub.rules.rule import Flip, of_list


class Values:
    """Collects a rule's values as named parameters."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}

    def __call__(self, value: Any) -> str:
        """The placeholder of a value."""
        name = f"p{len(self.named)}"
        self.named[name] = value
        return f"%({name})s"


NOW = "%(now)s::timestamptz"
"""The hub's time, given when the rule is run; never the database's clock."""

Writer = Callable[[Mapping[str, Any], Values], str]


@dataclass(frozen=True)
class Argument:
    """`kind` is text, number, whole number (from 1), duration, time, or condition (about the deal or company, without a name).

    `names` says what a text must name: list, message, purpose, segment or connection; `choices` the only texts it takes.
    """

    kind: str = "text"
    required: bool = False
    names: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    """A function that is true or false of a contact. The first argument may be given without its name.

    `reads` tells what it asks of, as `list_touch.what`; `turns` when time alone may change its answer.
    """

    arguments: Mapping[str, Argument]
    write: Writer
    help: str
    first: str
    reads: Callable[[Mapping[str, Any]], str] = lambda given: "contact"
    turns: Callable[[Mapping[str, Any]], tuple[Flip, ...]] = lambda given: ()


DEALS = "contact_deal d"
COMPANIES = "contact_company k"
MAIN_COMPANY = "main_company k"


def _deal(given: Mapping[str, Any], value: Values) -> str:
    tests = ["d.contact_id = c.id"]
    for name in ("stage", "pipeline", "name", "owner", "currency", "role"):
        if name in given:
            tests.append(f"lower(d.{name}) = lower({value(given[name])})")
    if "amount_over" in given:
        tests.append(f"d.amount > {value(given['amount_over'])}")
    if "amount_under" in given:
        tests.append(f"d.amount < {value(given['amount_under'])}")
    if "within" in given:
        tests.append(f"d.created_at > {NOW} - {value(given['within'])}::interval")
    if "condition" in given:
        tests.append(f"({given['condition']})")
    return f"EXISTS (SELECT FROM {DEALS} WHERE {' AND '.join(tests)})"


def _company(given: Mapping[str, Any], value: Values) -> str:
    tests = ["k.contact_id = c.id"]
    for name in ("name", "domain", "industry", "country", "city", "owner", "role"):
        if name in given:
            tests.append(f"lower(k.{name}) = lower({value(given[name])})")
    if "employees_over" in given:
        tests.append(f"k.employees > {value(given['employees_over'])}")
    if "employees_under" in given:
        tests.append(f"k.employees < {value(given['employees_under'])}")
    if "condition" in given:
        tests.append(f"({given['condition']})")
    return f"EXISTS (SELECT FROM {COMPANIES} WHERE {' AND '.join(tests)})"


def _segment(given: Mapping[str, Any], value: Values) -> str:
    tests = ["s.contact_id = c.id", f"s.name = {value(given['name'])}"]
    if "connection" in given:
        tests.append(f"s.connection = {value(given['connection'])}")
    return f"EXISTS (SELECT FROM contact_segment s WHERE {' AND '.join(tests)})"


def _list(given: Mapping[str, Any], value: Values) -> str:
    return (
        "EXISTS (SELECT FROM list_member m JOIN list l ON l.id = m.list_id "
        f"WHERE m.contact_id = c.id AND l.name = {value(given['name'])})"
    )


def _event(kind: str) -> Writer:
    def write(given: Mapping[str, Any], value: Values) -> str:
        tests = ["e.contact_id = c.id", f"e.kind = {value(kind)}"]
        mails = ""
        if given.get("by", "person") == "person":
            tests.append("NOT e.machine")
        if "message" in given:
            mails = " JOIN delivery v ON v.id = e.delivery_id"
            tests.append(f"v.message = {value(given['message'])}")
        if "within" in given:
            tests.append(f"e.occurred_at > {NOW} - {value(given['within'])}::interval")
        if "after" in given:
            tests.append(f"e.occurred_at >= {value(given['after'])}::timestamptz")
        if "before" in given:
            tests.append(f"e.occurred_at < {value(given['before'])}::timestamptz")
        found = f"FROM event e{mails} WHERE {' AND '.join(tests)}"
        if given.get("times", 1) == 1:
            return f"EXISTS (SELECT {found})"
        return f"(SELECT count(*) FROM (SELECT {found} LIMIT {value(given['times'])}) n) = {value(given['times'])}"

    return write


def _random(given: Mapping[str, Any], value: Values) -> str:
    """By MD5, since who is in a sample must stay in it, whatever version of PostgreSQL answers."""
    drawn = f"('x' || left(md5({value(given.get('seed', ''))}::text || c.id), 8))::bit(32)::bigint"
    return f"{drawn} * 100.0 < {value(given['percent'])}::numeric * 4294967296"


def _verdict(status: str, purpose: str) -> str:
    """Whether the consent ledger's verdict on a purpose is `status`; without a row of its own that on all purposes holds."""
    return (
        "EXISTS (SELECT FROM consent_verdict v WHERE v.email_hash = address_hash(c.email) AND v.channel = 'email' "
        f"AND v.status = '{status}' AND (v.purpose = {purpose} OR v.purpose = '*' AND NOT EXISTS (SELECT FROM consent_verdict o "
        f"WHERE o.email_hash = v.email_hash AND o.channel = v.channel AND o.purpose = {purpose})))"
    )


def _consented(given: Mapping[str, Any], value: Values) -> str:
    return _verdict("in", value(given["purpose"]))


def _opted_out(given: Mapping[str, Any], value: Values) -> str:
    return _verdict("out", value(given.get("purpose", "*")))


def _mail(kind: str, help: str) -> Function:
    def turns(given: Mapping[str, Any]) -> tuple[Flip, ...]:
        if "within" not in given:
            return ()
        return (Flip("event e", "e.contact_id", "e.occurred_at", given["within"], f"e.kind = '{kind}'"),)

    arguments = {
        "message": Argument(names="message"), "within": Argument("duration"), "after": Argument("time"),
        "before": Argument("time"), "times": Argument("whole number"),
    }  # fmt: skip
    if kind in ("opened", "clicked"):
        arguments["by"] = Argument(choices=("person", "anybody"))
    return Function(arguments, _event(kind), help, "message", lambda given: f"event:{kind}", turns)


def _deal_turns(given: Mapping[str, Any]) -> tuple[Flip, ...]:
    return (Flip(DEALS, "d.contact_id", "d.created_at", given["within"]),) if "within" in given else ()


FUNCTIONS: dict[str, Function] = {
    "has_deal": Function(
        {
            **{name: Argument() for name in ("stage", "pipeline", "name", "owner", "currency", "role")},
            "amount_over": Argument("number"),
            "amount_under": Argument("number"),
            "within": Argument("duration"),
            "condition": Argument("condition"),
        },
        _deal,
        "has an open record of a deal with all of these",
        "stage",
        lambda given: "deals",
        _deal_turns,
    ),
    "has_company": Function(
        {
            **{
                name: Argument()
                for name in ("name", "domain", "industry", "country", "city", "owner", "role")
            },
            "employees_over": Argument("number"),
            "employees_under": Argument("number"),
            "condition": Argument("condition"),
        },
        _company,
        "belongs to a company with all of these",
        "name",
        lambda given: "companies",
    ),
    "in_segment": Function(
        {"name": Argument(required=True, names="segment"), "connection": Argument(names="connection")},
        _segment,
        "is in a segment of a CRM",
        "name",
        lambda given: "segments",
    ),
    "in_list": Function(
        {"name": Argument(required=True, names="list")},
        _list,
        "is on another list",
        "name",
        lambda given: of_list(given["name"]),
    ),
    "received": _mail("sent", "was sent a message"),
    "opened": _mail("opened", "opened a message; `by => 'anybody'`: or a machine did"),
    "clicked": _mail("clicked", "clicked in a message; `by => 'anybody'`: or a machine did"),
    "replied": _mail("replied", "replied to a message"),
    "bounced": _mail("bounced", "a message to them bounced"),
    "complained": _mail("complained", "reported a message as spam"),
    "unsubscribed": _mail("unsubscribed", "unsubscribed by a message"),
    "consented": Function(
        {"purpose": Argument(required=True, names="purpose")},
        _consented,
        "has a recorded opt-in that stands",
        "purpose",
        lambda given: "consent",
    ),
    "opted_out": Function(
        {"purpose": Argument(names="purpose")},
        _opted_out,
        "has opted out",
        "purpose",
        lambda given: "consent",
    ),
    "random_percent": Function(
        {"percent": Argument("number", required=True), "seed": Argument()},
        _random,
        "is among so many percent of all, always the same ones",
        "percent",
    ),
}

SCALARS: dict[str, tuple[FieldType, FieldType, str]] = {
    "lower": (FieldType.TEXT, FieldType.TEXT, "lower({})"),
    "upper": (FieldType.TEXT, FieldType.TEXT, "upper({})"),
    "length": (FieldType.TEXT, FieldType.NUMBER, "length({})"),
    "days_since": (FieldType.TIME, FieldType.NUMBER, "extract(epoch FROM " + NOW + " - {}) / 86400.0"),
}
"""name -> (type of the argument, type of the answer, SQL)."""
