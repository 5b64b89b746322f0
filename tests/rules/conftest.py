"""A small world to ask rules about: its people are known by their first names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from hub import embedded
from hub.model import COMPANY_FIELDS, CONTACT_FIELDS, FieldType, HubField
from hub.rules import Catalog, parse

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
OWN = {
    "score": FieldType.NUMBER, "vip": FieldType.BOOLEAN, "birthday": FieldType.DATE, "seen_at": FieldType.TIME,
    "tags": FieldType.LIST, "tier": FieldType.ENUM, "nick": FieldType.TEXT,
}  # fmt: skip
CATALOG = Catalog(
    {**CONTACT_FIELDS, **{name: HubField(name, kind) for name, kind in OWN.items()}},
    lists=frozenset({"berlin", "others"}),
    messages=frozenset({"welcome", "reminder"}),
    purposes=frozenset({"news", "offers"}),
    segments=frozenset({"Partners", "Leads"}),
    company_fields={**COMPANY_FIELDS, "tier": HubField("tier", FieldType.TEXT)},
)

PEOPLE: dict[str, dict[str, Any]] = {
    # with everything
    "ann": {"city": "Berlin", "country": "DE", "company": "Ätna AG", "created": 10,
            "fields": {"score": 10, "vip": True, "birthday": "1990-05-01", "seen_at": "2026-11-23T09:00:00Z",
                       "tags": ["a", "b"], "tier": "gold", "nick": "100%_"}},
    # with other things
    "bob": {"city": "Wien", "country": "AT", "company": "bob's", "created": 100,
            "fields": {"score": 3.5, "vip": False, "birthday": "2000-01-01", "seen_at": "2026-01-01T00:00:00Z",
                       "tags": ["b"], "tier": "silver", "nick": "100 percent"}},
    # with nothing
    "cid": {},
    # with blanks, and values that are not what their fields say
    "dot": {"city": "", "country": "",
            "fields": {"score": "many", "vip": "yes", "birthday": "soon", "seen_at": "never", "tags": [], "tier": "",
                       "nick": None}},
    # like ann, but gone
    "eve": {"city": "Berlin", "country": "DE", "created": 10, "state": "archived", "fields": {"score": 10, "vip": True}},
}  # fmt: skip


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


class World:
    """Answers rules with the first names of those for whom they are true."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.ids: dict[str, int] = {}

    def fill(self) -> None:
        for name, one in PEOPLE.items():
            row = self.conn.execute(
                """INSERT INTO contact (email, first_name, city, country, company, created_at, fields, state, changed_at)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id""",
                [
                    f"{name}@example.com", name, one.get("city"), one.get("country"), one.get("company"),
                    ago(one["created"]) if "created" in one else None, json.dumps(one.get("fields", {})),
                    one.get("state", "live"), NOW,
                ],
            ).fetchone()  # fmt: skip
            assert row
            self.ids[name] = row[0]
            self.conn.execute(
                "INSERT INTO contact_identity VALUES ('crm', 'contact', %s, %s, NULL, NULL, 'live', %s)",
                [name, row[0], NOW],
            )
        self._deals_and_segments()
        self._companies()
        self._mails()
        self._consents()

    def _deals_and_segments(self) -> None:
        for ref, person, stage, amount, state, created in (
            ("1", "ann", "trial", 500, "live", 5),
            ("2", "ann", "won", 9000, "live", 50),
            ("3", "bob", "Übergabe", None, "live", None),
            ("4", "cid", "trial", 500, "archived", 5),
        ):
            self.conn.execute(
                """WITH d AS (INSERT INTO deal (connection, external_id, name, pipeline, stage, amount, currency, owner,
                                                state, created_at, changed_at)
                              VALUES ('crm', %s, 'Big', 'sales', %s, %s, 'EUR', '77', %s, %s, %s) RETURNING id)
                   INSERT INTO deal_contact SELECT id, 'crm', %s FROM d""",
                [ref, stage, amount, state, None if created is None else ago(created), NOW, person],
            )
        for ref, name, connection, person in (
            ("1", "Partners", "crm", "ann"),
            ("2", "Leads", "crm", "bob"),
            ("3", "Partners", "other", "cid"),
        ):
            self.conn.execute(
                """WITH s AS (INSERT INTO segment (connection, external_id, name, changed_at)
                              VALUES (%s, %s, %s, %s) RETURNING id)
                   INSERT INTO segment_member SELECT id, 'crm', %s, %s FROM s""",
                [connection, ref, name, NOW, person, NOW],
            )
        for name, person in (("berlin", "ann"), ("others", "bob")):
            self.conn.execute(
                """WITH l AS (INSERT INTO list (name, rule) VALUES (%s, '') RETURNING id)
                   INSERT INTO list_member SELECT id, %s, %s FROM l""",
                [name, self.ids[person], NOW],
            )

    def _companies(self) -> None:
        for ref, name, industry, employees, state, created, people in (
            ("1", "Ätna AG", "software", 250, "live", 5, (("ann", "", True), ("bob", "Adviser", False))),
            (
                "2",
                "Bob & Co",
                "retail",
                None,
                "live",
                400,
                (("bob", "Owner", True), ("bob", "Billing", True)),
            ),
            ("3", "Gone Ltd", "software", 9, "archived", 5, (("cid", "", True),)),
        ):
            row = self.conn.execute(
                """INSERT INTO company (connection, external_id, name, industry, employees, state, created_at, fields, changed_at)
                   VALUES ('crm', %s, %s, %s, %s, %s, %s, '{"tier": "gold"}', %s) RETURNING id""",
                [ref, name, industry, employees, state, ago(created), NOW],
            ).fetchone()
            assert row
            for person, role, primary in people:
                self.conn.execute(
                    "INSERT INTO company_contact VALUES (%s, 'crm', %s, %s, %s)",
                    [row[0], person, role, primary],
                )

    def _mails(self) -> None:
        for person, message, happened in (
            ("ann", "welcome", {"sent": 2, "opened": 1, "unsubscribed": 1}),
            ("bob", "reminder", {"sent": 40, "opened": 39, "clicked": 39}),
            ("cid", "welcome", {"sent": 2, "bounced": 2}),
        ):
            row = self.conn.execute(
                """INSERT INTO delivery (message, contact_id, occurrence, purpose, state, queued_at)
                   VALUES (%s, %s, 'x', 'news', 'accepted', %s) RETURNING id""",
                [message, self.ids[person], NOW],
            ).fetchone()
            assert row
            for kind, days in happened.items():
                self.conn.execute(
                    """INSERT INTO event (delivery_id, contact_id, kind, occurred_at, received_at, source, source_key)
                       VALUES (%s, %s, %s, %s, %s, 'web', %s)""",
                    [row[0], self.ids[person], kind, ago(days), NOW, f"{kind}:{row[0]}"],
                )

    def _consents(self) -> None:
        for person, purpose, status, days, proof in (
            ("ann", "news", "out", 10, ""), ("ann", "news", "in", 5, "form"),
            ("bob", "*", "out", 3, ""), ("bob", "news", "in", 1, ""),
            ("cid", "*", "in", 5, ""), ("dot", "offers", "out", 5, ""),
        ):  # fmt: skip
            self.conn.execute(
                """INSERT INTO consent (email_hash, purpose, status, source, at, proof)
                   VALUES (address_hash(%s), %s, %s, 'crm', %s, %s)""",
                [f"{person}@example.com", purpose, status, ago(days), proof],
            )

    def ask(self, text: str) -> set[str]:
        """The first names, together (`everybody` is ann, bob, cid and dot)."""
        rule = parse(text, CATALOG)
        found = self.conn.execute(rule.select().encode(), rule.values(NOW)).fetchall()
        names = {number: name for name, number in self.ids.items()}
        return {names[number] for (number,) in found}


@pytest.fixture(scope="package")
def connection(servers: embedded.Urls, template: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database of this folder's own. Its time zone is far from UTC: no answer may depend on that."""
    with psycopg.connect(servers.database, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS hub_rules")
        admin.execute(f"CREATE DATABASE hub_rules TEMPLATE {template}".encode())
        base, _, query = servers.database.partition("?")
        url = f"{base.rsplit('/', 1)[0]}/hub_rules" + (f"?{query}" if query else "")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SET timezone = 'Pacific/Auckland'")
            yield conn
        admin.execute("DROP DATABASE hub_rules WITH (FORCE)")


@pytest.fixture(scope="package")
def world(connection: psycopg.Connection[Any]) -> World:
    world = World(connection)
    world.fill()
    return world
