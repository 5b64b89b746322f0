"""`hub check`: everything that is wrong with a configuration, at once and offline, each as file:line:column.

The shape is checked by `hub.config`; here everything is held against everything else: names against what is
defined, rules and templates against the fields that exist, mappings against the vendors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from hub import lists
from hub import mapping as mappings
from hub.config.countries import COUNTRIES
from hub.config.loading import Config, nearest, read, shape_problems
from hub.config.settings import EventsSection, ListSection, Send, SetFields, Step, When
from hub.document import At, Problem, Problems
from hub.document import load as load_document
from hub.errors import ConfigError, RuleError
from hub.mail import checking, dkim
from hub.mail.providers import PROVIDERS, receiver_of
from hub.mail.routing import in_orders, serves
from hub.rules import Catalog, Rule, parse
from hub.rules import problems as rule_problems
from hub.sdk import registry
from hub.store.database import Connection

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Report:
    """What was found, in the order of the file; `config` is what could be understood. `hints` stop nothing."""

    problems: list[Problem]
    config: Config | None
    hints: list[Problem] = field(default_factory=list)


def check(path: Path, environ: Mapping[str, str]) -> Report:
    """Find every mistake. Never raises for what is in the file."""
    try:
        document = load_document(path)
    except Problems as error:
        return Report(error.problems, None)
    config, problems = read(document, environ)
    if config is None:
        return Report(sorted(set(problems)), None)
    checker = _Checker(config)
    problems = problems + checker.all()
    return Report(sorted(set(problems)), config, sorted(set(checker.hints)))


async def doubts(conn: Connection, config: Config) -> list[Problem]:
    """Rules of a configuration without mistakes that match nothing of what was read: stages and segments."""
    checker = _Checker(config)
    checker.all()
    rules: dict[At, Rule] = {
        ("lists", name, "where"): lists.compiled(name, section, checker.catalog)
        for name, section in config.settings.lists.items()
        if section.where is not None
    } | {
        ("funnels", name, "leave", "when"): parse(section.leave.when, checker.catalog)
        for name, section in config.settings.funnels.items()
        if section.leave
    }
    return [
        Problem(config.document.inside(at, doubt.line, doubt.column), doubt.what, doubt.fix)
        for at, rule in rules.items()
        for doubt in await lists.doubts(conn, rule)
    ]


class _Checker:
    def __init__(self, config: Config) -> None:
        self.config, self.document, self.settings = config, config.document, config.settings
        self.found: list[Problem] = []
        self.hints: list[Problem] = []
        self.mappings: dict[str, mappings.Mapping] = {}
        self.all_fields_known = True

    def all(self) -> list[Problem]:
        self._connections()
        self._sync()
        self._purposes()
        self.catalog = self._catalog()
        self._lists()
        self._messages()
        self._funnels()
        self._campaigns()
        self._relays()
        self._dkim()
        self._web()
        return self.found

    def _names(self, section: str) -> set[str]:
        """What a section defines, also where the definition itself is wrong."""
        given = (self.document.data or {}).get(section)
        return set(getattr(self.settings, section)) | (set(given) if isinstance(given, dict) else set())

    def _wrong(self, at: At, what: str, fix: str = "", *, key: bool = False) -> None:
        self.found.append(self.document.problem(at, what, fix, key=key))

    def _known(self, at: At, kind: str, name: str, known: Iterable[str]) -> bool:
        if name in known:
            return True
        self._wrong(at, f"there is no {kind} {name!r}", nearest(name, known))
        return False

    # --- connections ------------------------------------------------------------------------------------

    def _connections(self) -> None:
        kinds = registry.connectors()
        for name, section in self.settings.connections.items():
            at: At = ("connections", name)
            if section.connector not in kinds:
                reason = registry.broken().get(section.connector)
                fix = f"it is installed but broken: {reason}" if reason else nearest(section.connector, kinds)
                self._wrong((*at, "connector"), f"there is no connector {section.connector!r}", fix)
                continue
            self._own(at, kinds[section.connector].Settings, section.own)

    def _own(self, at: At, model: Any, keys: Mapping[str, Any]) -> None:
        """A connector's own keys. A secret that is missing was told of already."""
        try:
            model.model_validate(self.config.own(keys))
        except ValidationError as error:
            self.found += shape_problems(self.document, error, model, at)

    def _sync(self) -> None:
        kinds = registry.connectors()
        for name, section in self.settings.sync.items():
            if not self._known(("sync", name), "connection", name, self._names("connections")):
                continue
            kind = (
                kinds.get(self.settings.connections[name].connector)
                if name in self.settings.connections
                else None
            )
            if kind is None:
                continue
            for key, wished, offered in (
                ("pull", section.pull, kind.manifest.streams),
                ("push", section.push, kind.manifest.pushes),
            ):
                for number, each in enumerate(wished):
                    if each not in offered:
                        fix = f"it can {', '.join(offered)}" if offered else f"it has nothing to {key}"
                        self._wrong(
                            ("sync", name, key, number), f"{kind.manifest.name} cannot {key} {each}", fix
                        )

    def _purposes(self) -> None:
        for name, section in self.settings.purposes.items():
            for connection in section.subscriptions:
                at: At = ("purposes", name, "subscriptions", connection)
                self._known(at, "connection", connection, self._names("connections"))
            if section.double_opt_in is not None:
                self._double_opt_in(
                    ("purposes", name, "double_opt_in", "message"), section.double_opt_in.message
                )

    def _double_opt_in(self, at: At, message: str) -> None:
        """Its mail must hold the link, and go out by another purpose than the one that is not consented to yet."""
        if not self._known(at, "message", message, self._names("messages")):
            return
        section = self.settings.messages.get(message)
        if section is None:
            return
        purpose = self.settings.purposes.get(section.purpose)
        if purpose is not None and purpose.marketing:
            what = f"message {message} is of the purpose {section.purpose}, which is marketing"
            self._wrong(at, what, "give it a purpose of its own with `marketing: false`")
        if not checking.names(self.config, section, "confirm_url"):
            self._wrong(at, f"message {message} does not print confirm_url", "put the link into its template")

    def _catalog(self) -> Catalog:
        """All fields of all mappings; a mapping's own mistakes are told here."""
        fields, deal_fields = dict(Catalog().contact_fields), dict(Catalog().deal_fields)
        company_fields = dict(Catalog().company_fields)
        kinds = registry.connectors()
        self.all_fields_known = set(self.settings.connections) == self._names("connections")
        for name, section in self.settings.connections.items():
            kind = kinds.get(section.connector)
            if kind is None:
                self.all_fields_known = False
                continue
            documents = [mappings.shipped(section.connector, registry.module(section.connector))]
            if section.mapping:
                file = self.config.base_dir / section.mapping
                if not file.is_file():
                    self._wrong(
                        ("connections", name, "mapping"),
                        f"the file {section.mapping} does not exist",
                        "check the path",
                    )
                else:
                    try:
                        documents.append(load_document(file))
                    except Problems as error:
                        self.found += error.problems
            try:
                built = mappings.build([d for d in documents if d], kind.known_fields)
                fields.update(built.contact_fields)
                deal_fields.update(built.deal_fields)
                company_fields.update(built.company_fields)
                self.mappings[name] = built
            except Problems as error:
                self.all_fields_known = False
                self.found += error.problems
        if self.all_fields_known:
            self.found += mappings.conflicts(self.mappings)
        for name, mapping in self.mappings.items():
            for hint in mapping.match:
                if hint.of:
                    self._known(
                        ("connections", name, "mapping"), "connection", hint.of, self._names("connections")
                    )
        lists, messages, purposes, connections = (
            frozenset(self._names(section)) for section in ("lists", "messages", "purposes", "connections")
        )
        return Catalog(
            fields, lists, messages, purposes, connections=connections, deal_fields=deal_fields,
            company_fields=company_fields,
        )  # fmt: skip

    # --- rules ------------------------------------------------------------------------------------------

    def _rule(self, at: At, text: str) -> bool:
        found = rule_problems(text, self.catalog)
        for error in found:
            if not self.all_fields_known and error.what.startswith("unknown field"):
                continue  # the mapping that would make it is what is wrong
            place = self.document.inside(at, error.line, error.column)
            self.found.append(Problem(place, error.what, error.fix))
        return not found

    def _lists(self) -> None:
        sound = {
            name: lists.compiled(name, section, self.catalog)
            for name, section in self.settings.lists.items()
            if self._list(name, section)
        }
        try:
            lists.in_order(sound)
        except RuleError as error:
            name = error.what.rsplit(" -> ", 1)[-1]
            where = "exclude" if self.settings.lists[name].where is None else "where"
            self._wrong(("lists", name, where), error.what, error.fix)

    def _list(self, name: str, section: ListSection) -> bool:
        at: At = ("lists", name)
        known = [
            self._known((*at, "exclude", number), "list", each, self._names("lists"))
            for number, each in enumerate(section.exclude)
        ]
        self._mirrors(name, section, at)
        if section.static == (section.where is not None):
            what = "has both where and static" if section.static else "has neither where nor static"
            self._wrong(at, f"list {name} {what}", "give one of them", key=True)
            return False
        return all(known) and (section.where is None or self._rule((*at, "where"), section.where))

    def _mirrors(self, name: str, section: ListSection, at: At) -> None:
        """Where a list is kept as a segment, and that no two lists are kept as one."""
        for connection, segment in section.mirror.items():
            inside: At = (*at, "mirror", connection)
            if not self._known(inside, "connection", connection, self._names("connections")):
                continue
            given = self.settings.connections.get(connection)
            kind = registry.connectors().get(given.connector) if given else None
            if kind is not None and not kind.manifest.mirrors:
                what = f"{kind.manifest.name} has no segments that the hub could fill"
                self._wrong(inside, what, "take it out", key=True)
            if not segment.strip():
                self._wrong(inside, "the segment has no name", "e.g. Mailyard trial")
            before = [n for n, s in self.settings.lists.items() if s.mirror.get(connection) == segment]
            if before[0] != name:
                what = f"list {before[0]} is kept as {segment!r}, too"
                self._wrong(inside, what, "give each list a segment of its own")

    # --- messages and funnels -----------------------------------------------------------------------------

    def _messages(self) -> None:
        for name, section in self.settings.messages.items():
            self._known(("messages", name, "purpose"), "purpose", section.purpose, self._names("purposes"))
        found = checking.messages(self.config, self.catalog.template_fields, all_known=self.all_fields_known)
        self.found += found.problems
        self.hints += found.hints

    def _funnels(self) -> None:
        for name, section in self.settings.funnels.items():
            at: At = ("funnels", name)
            self._known((*at, "enter", "list"), "list", section.enter.list, self._names("lists"))
            if section.leave:
                self._rule((*at, "leave", "when"), section.leave.when)
            for number, step in enumerate(section.steps):
                self._step(step, (*at, "steps", number))

    def _step(self, step: Step, at: At) -> None:
        if isinstance(step, Send):
            self._known((*at, "send"), "message", step.send, self._names("messages"))
        elif isinstance(step, When):
            self._rule((*at, "when"), step.when)
            for arm, steps in (("then", step.then), ("else", step.else_)):
                for number, inner in enumerate(steps):
                    self._step(inner, (*at, arm, number))
        elif isinstance(step, SetFields):
            for connection, fields in step.set.items():
                inside: At = (*at, "set", connection)
                if self._known(inside, "connection", connection, self._names("connections")):
                    for name in fields:
                        if self._known((*inside, name), "field", name, self.catalog.contact_fields):
                            self._writes((*inside, name), connection, name)

    def _writes(self, at: At, connection: str, name: str) -> None:
        """Whether a connection's mapping lets a field be written there."""
        mapping = self.mappings.get(connection)
        if mapping is None:
            return  # it was told of already
        entry = mapping.entries.get("contact", {}).get(name)
        if entry is None:
            fix = "add it there with direction: push, or both"
            self._wrong(at, f"the mapping of {connection} does not have the field {name!r}", fix, key=True)
        elif not entry.pushes:
            what = f"the mapping of {connection} only pulls the field {name!r}"
            self._wrong(at, what, "give it direction: both there", key=True)

    def _campaigns(self) -> None:
        for name, section in self.settings.campaigns.items():
            at: At = ("campaigns", name)
            self._known((*at, "list"), "list", section.list, self._names("lists"))
            self._known((*at, "message"), "message", section.message, self._names("messages"))
            for number, each in enumerate(section.exclude):
                self._known((*at, "exclude", number), "list", each, self._names("lists"))
            if section.at is not None and section.time_zone is None:
                fix = "add time_zone, e.g. Europe/Vienna, or recipient"
                self._wrong((*at, "at"), "whose clock shows this time is not said", fix)
            if section.at is None and section.time_zone is not None:
                self._wrong((*at, "time_zone"), "a time zone and no time", "add at, e.g. 2026-12-01 09:00")
            if section.time_zone == "recipient" and section.default_zone is None:
                what = "who has no time zone of their own has none at all"
                self._wrong((*at, "time_zone"), what, "add default_zone, e.g. Europe/Vienna")
            if section.time_zone != "recipient" and section.default_zone is not None:
                what = "nobody needs a default zone: `time_zone` is not recipient"
                self._wrong((*at, "default_zone"), what, "take it out, or write time_zone: recipient")

    # --- relays and web -----------------------------------------------------------------------------------

    def _relays(self) -> None:
        kinds = registry.relays()
        for name, section in self.settings.relays.items():
            if section.connector not in kinds:
                what = f"there is no relay connector {section.connector!r}"
                self._wrong(("relays", name, "connector"), what, nearest(section.connector, kinds))
                continue
            self._own(("relays", name), kinds[section.connector].Settings, section.own)
            self._events(name, section.events)
        self._ways()
        if self.settings.messages and not self._names("relays"):
            self._wrong(("messages",), "there are messages and no relay to send them", "add relays", key=True)

    def _events(self, relay: str, section: EventsSection | None) -> None:
        kinds = registry.events()
        if section is None:
            return
        at: At = ("relays", relay, "events")
        if section.from_ not in kinds:
            what = f"nothing reads events of {section.from_!r}"
            self._wrong((*at, "from"), what, nearest(section.from_, kinds))
            return
        self._own(at, kinds[section.from_].Settings, section.own)

    def _dkim(self) -> None:
        for domain, sections in self.settings.dkim.items():
            for number, section in enumerate(sections):
                if not section.private_key.get_secret_value():
                    continue  # a file or a variable that is missing was told of already
                try:
                    dkim.key(domain, section)
                except ConfigError as error:
                    given = self.document.data["dkim"][domain][number]
                    key = "private_key_file" if "private_key_file" in given else "private_key"
                    self._wrong(("dkim", domain, number, key), error.what, error.fix)

    def _ways(self) -> None:
        """What relays serve, their plans and weights, and whether every message has a way out."""
        for name, section in self.settings.relays.items():
            at: At = ("relays", name)
            for number, purpose in enumerate(section.serves.purposes):
                self._known((*at, "serves", "purposes", number), "purpose", purpose, self._names("purposes"))
            for number, code in enumerate(section.serves.countries):
                if code.upper() not in COUNTRIES:
                    fix = "write its two letters of ISO 3166-1, e.g. DE; the United Kingdom is GB"
                    self._wrong((*at, "serves", "countries", number), f"{code!r} is no country", fix)
            self._receivers(at, section.domains)
            plan = section.warm_up.plan if section.warm_up else []
            for number, (before, mails) in enumerate(pairwise(plan), start=1):
                if mails < before:
                    what = f"the warm-up plan goes down on day {number + 1}, from {before} to {mails}"
                    self._wrong((*at, "warm_up", "plan", number), what, "let each day allow as many or more")
        for order, names in in_orders(self.settings.relays).items():
            if not any(self.settings.relays[name].weight for name in names):
                what = f"every relay of order {order} has the weight 0"
                self._wrong(("relays", names[0], "weight"), what, "give one of them a weight above 0")
        if set(self.settings.relays) == self._names("relays"):
            self._messages_have_a_way()

    def _receivers(self, at: At, domains: Iterable[str]) -> None:
        """Each receiver once, by a domain or by a provider's name."""
        seen: dict[str, str] = {}
        for key in domains:
            who = receiver_of(key.lower())
            if who not in PROVIDERS and "." not in who:
                fix = nearest(key, PROVIDERS)
                self._wrong((*at, "domains", key), f"{key!r} is no domain and no provider", fix, key=True)
            elif who in seen:
                what = f"{key} is the same receiver as {seen[who]}"
                self._wrong((*at, "domains", key), what, "keep one of them", key=True)
            seen.setdefault(who, key)

    def _messages_have_a_way(self) -> None:
        for name, message in self.settings.messages.items():
            domain = parseaddr(message.from_)[1].rpartition("@")[2]
            relays = self.settings.relays.values()
            if any(set(relay.serves.purposes) - self._names("purposes") for relay in relays):
                continue  # the purpose that is misspelt may be this one
            if relays and not any(serves(relay, message.purpose, domain, None) for relay in relays):
                what = f"no relay may carry message {name}: none serves {message.purpose} from {domain}"
                self._wrong(("messages", name), what, "see `serves` of the relays", key=True)

    def _web(self) -> None:
        url = urlsplit(self.settings.web.public_url)
        at: At = ("web", "public_url")
        if url.scheme not in ("http", "https") or not url.hostname:
            self._wrong(at, f"{self.settings.web.public_url!r} is no URL", "write https://mail.example.com")
        elif url.scheme == "http" and url.hostname not in LOOPBACK:
            self._wrong(
                at,
                "links in mails would not be encrypted",
                "put a proxy with TLS in front and write https://",
            )
