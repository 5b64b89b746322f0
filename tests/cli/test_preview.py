"""`hub preview`: one contact, a made-up one, and what is refused. Nothing is kept of any of it."""

from __future__ import annotations

import csv
import email
import email.policy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from hub.cli import main
from hub.signing import PREVIEW

HUB_YAML = """\
connections:
  crm: {connector: hubspot, token: "${HUBSPOT_TOKEN}"}
purposes:
  news: {title: News}
lists:
  all: {where: "city IS NOT NULL"}
messages:
  hello:
    subject: "Hello {{ contact.first_name or 'there' }}"
    from: "Ann <ann@mailyard.example>"
    purpose: news
    html: "<p>{{ contact.company }}{% for deal in deals %}, {{ deal.name }}{% endfor %}</p>"
relays:
  main: {host: 127.0.0.1, port: 25, tls: none}
tracking: {off_in: [DE]}
sender: {postal_address: "Mailyard, Vienna", list_domain: mailyard.example}
web: {public_url: "https://hub.example"}
"""
PEOPLE = """
INSERT INTO contact (email, first_name, company, country, city, state, changed_at) VALUES
    ('bob@example.com', 'Old', 'Gone Inc', 'AT', 'Wien', 'archived', now()),
    ('bob@example.com', 'Bob', 'Bobs Inc', 'DE', 'Wien', 'live', now()),
    ('bob@example.com', 'Rob', NULL, 'AT', 'Wien', 'live', now()),
    ('out@example.com', 'Out', NULL, 'AT', 'Wien', 'live', now());
INSERT INTO consent (email_hash, purpose, status, source, at) VALUES (address_hash('out@example.com'), '*', 'out', 'web', now());
INSERT INTO list (name, rule, refreshed_at) VALUES ('all', '', now());
INSERT INTO list_member SELECT l.id, c.id, now() FROM list l, contact c;
INSERT INTO contact_identity (connection, object, external_id, contact_id, seen_at)
    SELECT 'crm', 'contact', id + 100, id, now() FROM contact;
INSERT INTO deal (connection, external_id, name, changed_at) VALUES ('crm', 'd1', 'Big deal', now());
INSERT INTO deal_contact (deal_id, connection, contact_ref) SELECT d.id, 'crm', '102' FROM deal d;
"""
TABLES = ("delivery", "event", "consent", "campaign", "outbox", "contact_change", "run")
Hub = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    monkeypatch.chdir(tmp_path)
    for name in ("HUB_DATABASE_URL", "HUB_REDIS_URL", "HUB_SECRET_KEY", "HUBSPOT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def hub(place: Path, database_url: str, redis_url: str) -> Hub:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(PEOPLE)
    environ = {
        "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUBSPOT_TOKEN": "x", "COLUMNS": "200",
    }  # fmt: skip

    def run(*arguments: str, **more: str) -> Result:
        with psycopg.connect(database_url, autocommit=True) as conn:
            counts = [conn.execute(f"SELECT count(*) FROM {name}".encode()).fetchone() for name in TABLES]
            done = CliRunner().invoke(main, ["preview", *arguments], env={**environ, **more})
            after = [conn.execute(f"SELECT count(*) FROM {name}".encode()).fetchone() for name in TABLES]
        assert after == counts
        assert "Traceback" not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return run


def test_the_mail_that_a_contact_would_get(hub: Hub, place: Path) -> None:
    done = hub("hello", "Bob@example.com", "--json", "--html", "mail.html", "--eml", "mail.eml")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["contact_id"], found["others"], found["excluded"]) == (2, [1, 3], None)
    assert found["subject"] == "Hello Bob"
    assert "Bobs Inc, Big deal" in found["text"]
    assert found["tracking"]["opens"] == {"on": False, "why": "`tracking.off_in` holds DE"}
    assert [(f["field"], f["blank"]) for f in found["fields"]] == [
        ("company", False), ("deals", False), ("first_name", False),
    ]  # fmt: skip
    mail = email.message_from_bytes((place / "mail.eml").read_bytes(), policy=email.policy.default)
    assert mail["Subject"] == "Hello Bob"
    assert "Bobs Inc, Big deal" in (place / "mail.html").read_text()
    assert f"/u/{PREVIEW}" in (place / "mail.html").read_text()


def test_the_same_as_tables(hub: Hub) -> None:
    said = hub("hello", "bob@example.com").stdout
    for words in (
        "hello for bob@example.com", "Hello Bob", "contact 1, contact 3", "no: `tracking.off_in` holds DE",
        "bytes", "Fields that it uses", "Bobs Inc, Big deal",
    ):  # fmt: skip
        assert words in said


def test_one_who_would_get_none_and_why(hub: Hub) -> None:
    found = json.loads(hub("hello", "out@example.com", "--json").stdout)
    assert found["excluded"] == "opted out, by the word of web"
    assert found["tracking"]["opens"]["on"] is True
    blanks = {f["field"]: f["seen_to"] for f in found["fields"] if f["blank"]}
    assert blanks == {"company": False, "deals": True}
    assert "no: opted out, by the word of web" in hub("hello", "out@example.com").stdout


def test_a_made_up_contact_needs_neither_servers_nor_secrets(place: Path) -> None:
    sample = {
        "email": "zoe@example.com",
        "first_name": "Zoë",
        "company": None,
        "deals": [{"name": "Small one"}],
    }
    (place / "zoe.json").write_text(json.dumps(sample))
    done = CliRunner().invoke(main, ["preview", "hello", "--sample", "zoe.json", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["contact_id"], found["subject"]) == (None, "Hello Zoë")
    assert ", Small one" in found["text"]
    assert not (place / "data").exists()


def test_it_opens_a_browser(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "zoe.json").write_text('{"email": "zoe@example.com", "company": "Zoës"}')
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    done = CliRunner().invoke(main, ["preview", "hello", "--sample", "zoe.json", "--browser"])
    assert done.exit_code == 0, done.output
    assert "Zoës" in Path(opened[0]).read_text()
    Path(opened[0]).unlink()


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (
            '{"email": "z@example.com", "frist_name": "Z"}',
            "the sample's 'frist_name' is no field of contacts; did you mean 'first_name'?",
        ),
        ('{"first_name": "Z"}', "the sample has no address"),
        ('{"email": "z@example.com", "deals": [1]}', "the sample's deals are no list of objects"),
        ('{"email": "z z@example.com"}', "the contact's address cannot stand in a mail"),
        ("[]", "zoe.json holds no contact"),
        ("{", "zoe.json is no JSON: "),
    ],
)  # fmt: skip
def test_a_sample_that_is_none(place: Path, sample: str, words: str) -> None:
    (place / "zoe.json").write_text(sample)
    done = CliRunner().invoke(main, ["preview", "hello", "--sample", "zoe.json"])
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_refused(hub: Hub) -> None:
    refused: dict[tuple[Any, ...], str] = {
        ("hello",): "give an address, --sample or --list",
        ("hello", "bob@example.com", "--sample", "x.json"): "give an address, --sample or --list",
        ("hello", "bob@example.com", "--list", "all"): "give an address, --sample or --list",
        (
            "hello",
            "bob@example.com",
            "--missing",
            "company",
        ): "--missing and --csv are about a list; add --list LIST",
        ("hello", "--list", "all", "--html", "x.html"): "--html, --eml and --browser are about one mail",
        ("hello", "--list", "all", "--csv", "x.csv"): "--csv writes who lacks a field; add --missing FIELD",
        ("hello", "--list", "al"): "there is no list 'al'; did you mean 'all'?",
        ("hello", "--list", "all", "--missing", "city"): "message hello does not use the field 'city'",
        ("hello", "--list", "all", "--missing", "company", "--csv", "no/x.csv"): "no/x.csv cannot be written",
        ("hello", "nobody@example.com"): "no contact has the address nobody@example.com",
        ("helo", "bob@example.com"): "there is no message 'helo'",
        ("hello", "--sample", "gone.json"): "gone.json cannot be read: No such file or directory",
        ("hello", "bob@example.com", "--html", "no/such/place.html"): "no/such/place.html cannot be written",
    }
    for arguments, words in refused.items():
        done = hub(*arguments)
        assert done.exit_code == 1, arguments
        assert words in done.stderr


def test_a_whole_list(hub: Hub) -> None:
    found = json.loads(hub("hello", "--list", "all", "--json").stdout)
    assert (found["message"], found["list"], found["recipients"]) == ("hello", "all", 1)
    assert found["excluded"] == {
        "duplicate address": 1, "opted out, by the word of web": 1, "the contact is archived": 1,
    }  # fmt: skip
    assert {row["field"]: row["blank"] for row in found["fields"]} == {
        "company": 0,
        "deals": 0,
        "first_name": 0,
    }
    said = hub("hello", "--list", "all").stdout
    for words in ("hello to all: 1 recipients", "duplicate address", "Fields that it uses", "nobody's mail",
                  "none exceeds 102 KB", "The mails of all 1 recipients were composed"):  # fmt: skip
        assert words in said


def test_who_lacks_a_field(hub: Hub, place: Path, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            """WITH c AS (INSERT INTO contact (email, first_name, last_name, changed_at)
                   SELECT 'n' || n || '@example.com', '=N', 'o, "x"', now() FROM generate_series(1, 30) n RETURNING id)
               INSERT INTO list_member SELECT l.id, c.id, now() FROM list l, c"""
        )
    rows = json.loads(hub("hello", "--list", "all", "--missing", "company", "--json").stdout)
    assert len(rows) == 30
    assert rows[0]["email"] == "n1@example.com"
    assert "and 10 more" in hub("hello", "--list", "all", "--missing", "company").stdout
    done = hub("hello", "--list", "all", "--missing", "company", "--csv", "who.csv")
    assert done.stdout.strip() == "who.csv: 30 records"
    with (place / "who.csv").open(newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == ["contact_id", "email", "name", "records"]
    assert [row[1] for row in written[1:]] == [row["email"] for row in rows]
    assert {row[2] for row in written[1:]} == {"'" + '=N o, "x"'}  # no formula
    said = hub("hello", "--list", "all", "--compose", "3").stdout
    assert "Mails were composed of" in said
    assert "3 drawn at random" in said
