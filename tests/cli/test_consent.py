"""`hub consent`: what was said of an address, words added by hand, and files of them with every bad row told by its line."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from hub.cli import main

HUB_YAML = """\
purposes:
  news: {title: News, basis: opt_in, double_opt_in: {message: ask, wording: Send me news.}}
  tips: {title: Tips}
  account: {title: Confirmations, marketing: false}
messages:
  ask: {subject: Please confirm, from: ann@mailyard.example, purpose: account, html: "<p>{{ confirm_url }}</p>"}
"""
ACCOUNT = {"account": ("none", True)}


class Hub:
    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def __call__(self, *arguments: str, status: int = 0) -> Result:
        done = CliRunner().invoke(main, [*arguments], env=self.environ)
        assert done.exit_code == status, done.output
        assert "Traceback" not in done.output
        return done

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status).stdout)

    def stands(self, email: str) -> dict[str, tuple[str, bool]]:
        found = self.json("consent", "show", email)["verdicts"]
        return {row["purpose"]: (row["status"], row["mail"]) for row in found}


@pytest.fixture
def hub(tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Hub:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HUB_SECRET_KEY", raising=False)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO contact (email, changed_at) VALUES ('ann@example.com', now())")
    return Hub({"HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "COLUMNS": "220"})


def test_a_word_by_hand_and_what_follows(hub: Hub) -> None:
    assert hub.stands("ann@example.com") == {**ACCOUNT, "news": ("none", False), "tips": ("none", True)}
    said = ("consent", "record", "Ann@Example.com", "news")
    refused = hub(*said, "--granted", status=1).output
    assert refused == "an opt-in needs its proof; say with --proof where and how it was given\n"
    hub(*said, "--granted", "--proof", "paper form 7", "--source", "fair", "--at", "2026-01-02T10:00")
    assert hub.stands("ann@example.com") == {**ACCOUNT, "news": ("in", True), "tips": ("none", True)}
    hub("consent", "record", "ann@example.com", "*", "--withdrawn", "--source", "phone")
    found = hub.json("consent", "ann@example.com")
    assert {v["purpose"]: (v["status"], v["source"]) for v in found["verdicts"]} == {
        "*": ("out", "phone"), "account": ("out", "phone"), "news": ("out", "phone"), "tips": ("out", "phone"),
    }  # fmt: skip
    first, second = found["entries"]
    assert {v["entry"] for v in found["verdicts"]} == {second["id"]}
    assert (first["source_kind"], first["how"], first["source"], first["proof"], first["status"]) == (
        "admin", "by_hand", "fair", "paper form 7", "in",
    )  # fmt: skip
    assert datetime.fromisoformat(first["at"]) == datetime.fromisoformat("2026-01-02T10:00+00:00")
    # An older opt-in lifts nothing, a newer one does.
    hub(*said, "--granted", "--proof", "old form", "--at", "2026-01-03")
    assert hub.stands("ann@example.com")["news"] == ("out", False)
    hub(*said, "--granted", "--proof", "asked on the phone")
    assert hub.stands("ann@example.com") == {
        "*": ("out", False),
        "account": ("out", False),
        "news": ("in", True),
        "tips": ("out", False),
    }
    assert "asked on the phone" in hub("consent", "show", "ann@example.com").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ann", "news", "--withdrawn"), "'ann' is no address; write ann@example.com"),
        (("a@b.example", "newz", "--withdrawn"), "unknown purpose 'newz'; did you mean 'news'?"),
        (("a@b.example", "*", "--granted", "--proof", "x"), "nobody consents to everything; name the purpose"),
        (("a@b.example", "news", "--withdrawn", "--at", "soon"), "'soon' is no time; write for example 2026-11-24T09:00"),
        (("a@b.example", "news", "--withdrawn", "--at", "2999-01-01"), "it was said in the future; correct --at"),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused(hub: Hub, arguments: tuple[str, ...], words: str) -> None:
    assert hub("consent", "record", *arguments, status=1).output == words + "\n"


def test_a_request_queues_the_mail_that_asks(hub: Hub) -> None:
    asked = ("consent", "request", "New@example.com", "news")
    assert hub(*asked).stdout == "a mail to new@example.com asks for confirmation\n"
    assert hub(*asked, status=1).output.startswith("no mail is sent: too many were asked for; ")
    assert hub("consent", "request", "a@b.example", "tips", status=1).output == (
        "purpose tips has no double_opt_in; add it in hub.yaml\n"
    )
    (mail,) = hub.json("deliveries", "list")
    assert (mail["message"], mail["state"], mail["email"]) == ("ask", "queued", "new@example.com")
    hub("consent", "record", "ann@example.com", "news", "--granted", "--proof", "form")
    found = hub("consent", "request", "ann@example.com", "news", status=1).output
    assert found == "no mail is sent: it is consented to; see `hub consent show EMAIL`\n"


def test_the_clock_ends_with_1_when_something_is_overdue(hub: Hub) -> None:
    assert hub("consent", "clock").stdout == "0 confirmed, 0 open, 0 overdue, 0 late\nOwed: nothing\n"
    with psycopg.connect(hub.environ["HUB_DATABASE_URL"], autocommit=True) as conn:
        conn.execute(
            """WITH said AS (INSERT INTO consent (email_hash, purpose, status, source, at)
                             VALUES ('x', 'tips', 'out', 'web', now() - interval '3 days') RETURNING id, at),
                    told AS (INSERT INTO outbox (connection, kind, dedupe_key, payload, state, code, message, fix,
                                                 created_at)
                             SELECT 'crm', 'consent', 'k', '{}', 'dead', 'E7', 'no such subscription', 'name another', at
                             FROM said RETURNING id)
               INSERT INTO consent_obligation (entry_id, email_hash, contact_id, connection, purpose, said_at, due_at, outbox_id)
               SELECT said.id, 'x', 1, 'crm', 'tips', at, at + interval '2 days', told.id FROM said, told"""
        )
    shown = hub("consent", "clock", status=1).stdout
    for words in ("1 overdue", "no such subscription", "name another; then `hub replay crm`", "refused"):
        assert words in shown
    (row,) = hub.json("consent", "clock", status=1)["obligations"]
    assert (row["contact_id"], row["connection"], row["overdue"]) == (1, "crm", True)


def test_a_file_of_words(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "consent.csv"
    file.write_text(
        "Email;Purpose;Status;At;Proof;Source\n"
        "ann@example.com;news;granted;2026-02-01;form 3: send me news;shop\n"
        "bob@example.com;news;granted;;;\n"
        "\n"
        "cid@example.com;news;;2026-02-01;;\n"
        "nobody;news;granted;;;\n"
        "dan@example.com;*;withdrawn\n"
        "eve@example.com;newz;withdrawn;;;\n"
        "eve@example.com;*;granted;;;\n"
        "eve@example.com;tips;withdrawn;last week;;\n"
        "eve@example.com;tips;granted;2999-01-01;;\n"
    )
    done = hub("consent", "import", str(file), status=1)
    assert done.stdout == "3 new, 0 known, 6 rejected\n"
    assert [line.removeprefix(f"{file}: ") for line in done.stderr.splitlines()] == [
        "line 5: its status is neither granted nor withdrawn; mend the row and import it again",
        "line 6: there is no e-mail address in it; mend the row and import it again",
        "line 8: unknown purpose 'newz'; did you mean 'news'?",
        "line 9: nobody consents to everything; name the purpose",
        "line 10: 'last week' is no time; write for example 2026-11-24T09:00",
        "line 11: it was said in the future; correct the time in `at`",
    ]
    assert hub.stands("ann@example.com")["news"] == ("in", True)
    assert hub.stands("bob@example.com")["news"] == ("in", True)
    assert hub.stands("cid@example.com")["news"] == ("none", False)
    assert hub.stands("dan@example.com")["tips"] == ("out", False)
    entry = hub.json("consent", "show", "bob@example.com")["entries"][0]
    assert (entry["source"], entry["source_kind"], entry["how"], entry["dated"]) == (
        "consent.csv", "import", "imported", False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "{file}: it is empty; its first line names email, purpose, status, at, proof, source"),
        ("email,status\n", "{file}:1: no column is called purpose; the first line names email,"),
        ("email,purpose,status\n\xff", "{file}: byte 21 is not UTF-8; save the file as UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(hub: Hub, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "consent.csv"
    file.write_bytes(text.encode("latin-1"))
    assert hub("consent", "import", str(file), status=1).output.startswith(words.format(file=file))


def test_export_and_erasure(hub: Hub) -> None:
    hub("consent", "record", "ann@example.com", "news", "--granted", "--proof", "form 9")
    found = json.loads(hub("export", "ann@example.com").stdout)
    assert found["held"]["contact"][0]["email"] == "ann@example.com"
    assert found["held"]["consent"][0]["proof"] == "form 9"
    assert hub("erase", "ann@example.com").stdout.endswith("nothing was done; --yes erases\n")
    assert hub("export", "ann@example.com").stdout.count("form 9") == 1
    hub("erase", "ann@example.com", "--yes", "--by", "me")
    left = json.loads(hub("export", "ann@example.com").stdout)
    assert set(left["held"]) == {"consent", "consent_verdict", "erasure", "suppression"}
    (receipt,) = hub.json("erasures", "ann@example.com")
    assert (receipt["decided_by"], receipt["systems"], receipt["counts"]["contact"]) == ("me", [], 1)
    assert "this hub" in hub("erasures").stdout
    assert hub("erase", "ann", "--yes", status=1).output == "this is no address; write ann@example.com\n"
