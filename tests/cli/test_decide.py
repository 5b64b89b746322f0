"""`hub deliveries` and `hub suppression`: looked at from the sums down to one mail, and decided by hand with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from hub.cli import main

HUB_YAML = """\
purposes:
  news: {title: News}
messages:
  hello: {subject: Hello, from: ann@mailyard.example, purpose: news, html: "<p>Hello</p>"}
relays:
  main: {host: 127.0.0.1, port: 25, tls: none}
sender: {list_domain: mailyard.example}
"""
LEDGER = """
INSERT INTO contact (email, changed_at) SELECT 'p' || n || '@example.com', now() FROM generate_series(1, 9) n;
INSERT INTO campaign (name, state, message, purpose, list, hash, frozen, recipients, late, approved_at)
    SELECT state, state, 'hello', 'news', 'all', '', 1, 1, '1 day', now()
    FROM unnest('{paused,cancelled,finished}'::text[]) state;
INSERT INTO delivery (message, contact_id, occurrence, purpose, email, claimed_by, queued_at, attempts, state, reason, relay,
                      reply_code, reply_text, campaign_id, funnel)
    SELECT v.message, n, 'a', 'news', 'p' || n || '@example.com', 'w', now(), 1, v.state, v.reason, v.relay, v.code, v.text,
           v.campaign, v.funnel
    FROM (VALUES
        (1, 'hello', 'uncertain', 'the connection broke', 'main', NULL, NULL, NULL, ''),
        (2, 'hello', 'uncertain', 'the connection broke', 'main', NULL, NULL, NULL, 'way'),
        (3, 'hello', 'accepted', '', 'main', 250, '2.0.0 queued', NULL, ''),
        (4, 'hello', 'queued', '', NULL, NULL, NULL, NULL, ''),
        (5, 'hello', 'queued', 'the relay asked to try later', 'main', 451, 'greylisted', NULL, ''),
        (6, 'hello', 'uncertain', 'broke', 'spare', NULL, NULL, 1, ''),
        (7, 'hello', 'uncertain', 'broke', 'spare', NULL, NULL, 2, ''),
        (8, 'hello', 'uncertain', 'broke', 'spare', NULL, NULL, 3, ''),
        (9, 'other', 'rejected', 'refused by the relay', 'main', 550, 'no such user', NULL, '')
    ) v (n, message, state, reason, relay, code, text, campaign, funnel) ORDER BY n;
UPDATE delivery SET not_before = now() + '2 days' WHERE id = 4;
UPDATE delivery SET retry_at = now() + '99 s' WHERE id = 5;
INSERT INTO suppression (email_hash, reason, at, evidence) VALUES
    (address_hash('p9@example.com'), 'bounced: the address does not exist', now(), '{"delivery": 9, "class": "address"}');
"""


class Hub:
    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self.url, self.environ = url, environ

    def __call__(self, *arguments: str) -> Result:
        done = CliRunner().invoke(main, [*arguments], env=self.environ)
        assert "Traceback" not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def json(self, *arguments: str, status: int = 0) -> Any:
        done = self(*arguments, "--json")
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            return list(conn.execute(query.encode()).fetchall())


@pytest.fixture
def hub(tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Hub:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HUB_SECRET_KEY", raising=False)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(LEDGER.encode())
    environ = {"HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "COLUMNS": "220"}
    return Hub(database_url, environ)


# --- looking -----------------------------------------------------------------------------------------------------


def test_sums_by_message_state_and_relay(hub: Hub) -> None:
    found = {
        (r["message"], r["state"], r["relay"]): (r["mails"], r["reason"]) for r in hub.json("deliveries")
    }
    assert found == {
        ("hello", "accepted", "main"): (1, ""),
        ("hello", "queued", ""): (1, ""),
        ("hello", "queued", "main"): (1, "the relay asked to try later"),
        ("hello", "uncertain", "main"): (2, "the connection broke"),
        ("hello", "uncertain", "spare"): (3, "broke"),
        ("other", "rejected", "main"): (1, "refused by the relay"),
    }
    assert "the connection broke" in hub("deliveries").stdout
    with psycopg.connect(hub.url, autocommit=True) as conn:
        conn.execute("UPDATE delivery SET reason = 'the hub stopped' WHERE id = 7")
    by_reason = [
        (r["relay"], r["mails"], r["reason"]) for r in hub.json("deliveries", "--state", "uncertain")
    ]
    assert by_reason == [
        ("main", 2, "the connection broke"), ("spare", 2, "broke"), ("spare", 1, "the hub stopped"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ((), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (("--limit", "2"), [9, 8]),
        (("--state", "uncertain"), [8, 7, 6, 2, 1]),
        (("--state", "uncertain", "--relay", "main"), [2, 1]),
        (("--message", "other"), [9]),
        (("--funnel", "way"), [2]),
        (("--campaign", "cancelled"), [7]),
        (("--campaign", "nothing"), []),
        (("--email", "P7@example.com"), [7]),
    ],
)
def test_down_to_single_mails(hub: Hub, chosen: tuple[str, ...], ids: list[int]) -> None:
    assert [row["id"] for row in hub.json("deliveries", "list", *chosen)] == ids
    assert hub("deliveries", "list", *chosen).exit_code == 0
    if "--limit" not in chosen:
        assert sum(row["mails"] for row in hub.json("deliveries", *chosen)) == len(ids)


def test_why_each_is_where_it_is(hub: Hub) -> None:
    why = {row["id"]: row["why"] for row in hub.json("deliveries", "list")}
    assert why[1] == "the connection broke"
    assert why[3] == "250 2.0.0 queued"
    assert why[4].startswith("its time is 20")
    assert why[5].startswith("it is tried again in 9")
    assert why[5].endswith(" (last time: the relay asked to try later; 451 greylisted)")
    assert why[9] == "refused by the relay; 550 no such user"
    with psycopg.connect(hub.url, autocommit=True) as conn:
        conn.execute("UPDATE delivery SET not_before = NULL WHERE id = 4")
        conn.execute("UPDATE delivery SET state = 'claimed', lease_until = now() WHERE id = 5")
    why = {row["id"]: row["why"] for row in hub.json("deliveries", "list")}
    assert (why[4], why[5]) == ("it waits for a worker", "a worker is at it (w)")
    with psycopg.connect(hub.url, autocommit=True) as conn:
        conn.execute("UPDATE instance SET fenced_at = now(), fenced_for = 'x'")
    why = {row["id"]: row["why"] for row in hub.json("deliveries", "list")}
    assert why[4] == "nothing is sent: the database was restored or copied, see `hub release`"


def test_one_mail(hub: Hub) -> None:
    found = hub.json("deliveries", "show", "9")
    assert (found["email"], found["state"], found["reply_code"], found["events"]) == (
        "p9@example.com",
        "rejected",
        550,
        [],
    )
    assert "no such user" in hub("deliveries", "show", "9").stdout


# --- settling ----------------------------------------------------------------------------------------------------


def settle(hub: Hub, *ids: int, to: str, status: int = 0) -> list[dict[str, Any]]:
    numbers = [str(id) for id in ids]
    return list(
        hub.json("deliveries", "settle", *numbers, "--as", to, "--because", "the relay's log", "--by", "Ann", status=status)
    )  # fmt: skip


def test_settled_as_accepted_it_counts_as_sent(hub: Hub) -> None:
    assert settle(hub, 1, to="accepted") == [{"id": 1, "state": "accepted", "why": ""}]
    assert hub.rows("SELECT state, reason, sent_at IS NOT NULL FROM delivery WHERE id = 1") == [
        ("accepted", "settled by hand: the relay's log", True)
    ]
    assert hub.rows("SELECT kind, source, source_key, planned_at FROM event") == [
        ("sent", "admin", "sent:1", None)
    ]
    assert settle(hub, 1, to="accepted", status=1)[0]["state"] is None
    (decision,) = hub.json("deliveries", "show", "1")["decisions"]
    assert (decision["what"], decision["decided_by"], decision["because"]) == (
        "settled",
        "Ann",
        "the relay's log",
    )
    assert decision["detail"] == {"from": "uncertain", "reason": "the connection broke", "to": "accepted"}
    (person,) = hub.json("contact", "p1@example.com")
    assert person["story"][-1]["what"] == "decided by hand: settled hello as accepted"


def test_settled_as_rejected_it_is_no_bounce(hub: Hub) -> None:
    settle(hub, 1, 2, to="rejected")
    assert (
        hub.rows("SELECT state, settled_at IS NOT NULL FROM delivery WHERE id < 3")
        == [("rejected", True)] * 2
    )
    assert hub.rows("SELECT count(*) FROM event") == [(0,)]
    assert hub.rows("SELECT count(*) FROM suppression") == [(1,)]


def test_settled_as_queued_it_is_due_again(hub: Hub) -> None:
    settle(hub, 1, to="queued")
    assert hub.rows("SELECT state, reason, retry_at, attempts FROM delivery WHERE id = 1") == [
        ("queued", "", None, 1)
    ]
    assert {row["id"]: row["why"] for row in hub.json("deliveries", "list")}[1] == "it waits for a worker"


def test_settled_as_queued_within_campaigns(hub: Hub) -> None:
    assert [row["state"] for row in settle(hub, 6, 7, 8, to="queued", status=1)] == ["held", None, "queued"]
    assert hub.rows("SELECT state, reason FROM delivery WHERE id IN (6, 7) ORDER BY id") == [
        ("held", "the campaign is paused"), ("uncertain", "broke"),
    ]  # fmt: skip
    assert hub.rows("SELECT name, state FROM campaign ORDER BY id") == [
        ("paused", "paused"), ("cancelled", "cancelled"), ("finished", "sending"),
    ]  # fmt: skip


def test_only_what_is_uncertain_is_settled_and_the_others_still_are(hub: Hub) -> None:
    done = hub("deliveries", "settle", "3", "77", "2", "--as", "queued", "--because", "x")
    assert done.exit_code == 1
    assert done.stdout.strip() == "delivery 2 is queued"
    assert done.stderr.splitlines() == [
        "delivery 3 is accepted: only what is uncertain is settled by hand",
        "there is no delivery 77",
    ]
    assert hub.rows("SELECT delivery_id FROM decision") == [(2,)]


# --- suppression -------------------------------------------------------------------------------------------------


def test_suppressed_addresses(hub: Hub) -> None:
    found = hub.json("suppression", "list")
    assert found["sums"] == {"bounced: the address does not exist": 1}
    assert [(row["email"], row["evidence"]["class"]) for row in found["addresses"]] == [
        ("p9@example.com", "address")
    ]
    assert "does not exist" in hub("suppression", "list").stdout
    assert "not suppressed" in hub("suppression", "list", "p1@example.com").stdout


def test_lifted_with_a_reason_and_an_audit(hub: Hub) -> None:
    done = hub(
        "suppression", "lift", "P9@example.com", "--because", "the mailbox is open again", "--by", "Ann"
    )
    assert (
        done.stdout.strip()
        == "P9@example.com is no longer suppressed; it was: bounced: the address does not exist"
    )
    found = hub.json("suppression", "list", "p9@example.com")
    assert found["addresses"] == []
    (decision,) = found["decisions"]
    assert (decision["what"], decision["because"], decision["decided_by"]) == (
        "lifted",
        "the mailbox is open again",
        "Ann",
    )
    assert decision["detail"]["evidence"] == {"delivery": 9, "class": "address"}
    again = hub("suppression", "lift", "p9@example.com", "--because", "x")
    assert again.exit_code == 1
    assert again.stderr.startswith("this address is not suppressed")
    (person,) = hub.json("contact", "p9@example.com")
    assert person["story"][-1]["what"] == "decided by hand: lifted"


def test_added_by_hand_and_kept_as_a_hash_only(hub: Hub) -> None:
    assert hub.json("suppression", "add", "p1@example.com", "--because", "asked by phone")["new"] is True
    assert hub.json("suppression", "add", "P1@Example.com", "--because", "asked again")["new"] is False
    assert hub.json("suppression", "add", "stranger@example.com", "--because", "a trap")["new"] is True
    found = hub.json("suppression", "list")
    assert found["sums"] == {"by hand": 2, "bounced: the address does not exist": 1}
    assert {row["email"] for row in found["addresses"]} == {"p1@example.com", None, "p9@example.com"}
    assert "(known by its hash)" in hub("suppression", "list").stdout
    for table in ("suppression", "decision"):
        assert "@" not in str(hub.rows(f"SELECT {table}::text FROM {table}"))
    assert len(hub.json("suppression", "list", "p1@example.com")["decisions"]) == 1


ERRORS: list[tuple[list[str], str]] = [
    (["deliveries", "--state", "uncertian"], "there is no state 'uncertian'; did you mean 'uncertain'?"),
    (
        ["deliveries", "--state", "uncertain", "list"],
        "options of `hub deliveries` stand behind its subcommand",
    ),
    (["deliveries", "show", "77"], "there is no delivery 77"),
    (["deliveries", "settle", "1", "--as", "queued", "--because", "  "], "a decision needs its reason"),
    (["suppression", "lift", "p9@example.com", "--because", ""], "a decision needs its reason"),
    (["suppression", "add", "nobody", "--because", "x"], "'nobody' is no address"),
]


def test_errors(hub: Hub) -> None:
    for arguments, words in ERRORS:
        done = hub(*arguments)
        assert done.exit_code == 1, arguments
        assert done.stderr.startswith(words)
    assert hub.rows("SELECT count(*) FROM decision") == [(0,)]
    for arguments in (
        ["deliveries", "settle", "1", "--as", "queued"],
        ["suppression", "lift", "p9@example.com"],
    ):
        assert hub(*arguments).exit_code == 2
