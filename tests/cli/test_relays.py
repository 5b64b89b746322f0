"""`hub relays`, as a table and as a document."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from hub.cli import main

HUB_YAML = """\
purposes:
  news: {title: News}
relays:
  main:
    host: 127.0.0.1
    port: 25
    tls: none
    limits: {per_minute: 600, per_day: 40000}
    domains: {gmail: {per_hour: 100}}
    warm_up: {start: 2020-01-01, plan: [50, 100]}
  spare: {host: 127.0.0.1, port: 26, tls: none}
"""
KNOWN = """
INSERT INTO relay_state (relay, state, reason, since, next_probe_at, pipelining)
VALUES ('main', 'closed', '', NULL, NULL, 'full'),
       ('spare', 'open', 'refuses the login (535)', now(), now() + interval '100 s', NULL);
INSERT INTO relay_slow VALUES ('main', 'yahoo', 2.5, 50, '421 4.7.0 [TSS04]', now(), now());
INSERT INTO relay_hold VALUES ('main', 'gmail', 'w', 7, now() + interval '60 s');
"""


@pytest.fixture
def environment(
    tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(KNOWN)
    return {"HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "COLUMNS": "200"}


def test_everything_that_is_known_of_each_relay(environment: dict[str, str]) -> None:
    done = CliRunner().invoke(main, ["relays", "--json"], env=environment)
    assert done.exit_code == 0, done.output
    first, spare = json.loads(done.output)
    assert (first["relay"], first["state"], first["pipelining"], first["order"]) == (
        "main",
        "used",
        "full",
        1,
    )
    assert first["windows"]["day"] == {"used": 0, "limit": 40_000}
    assert first["receivers"]["gmail"]["hour"] == {"used": 7, "limit": 100}
    assert first["warm_up"]["allowance"] is None
    assert [(each["receiver"], each["per_second"]) for each in first["slowed"]] == [("yahoo", 2.5)]
    assert (spare["state"], spare["reason"]) == ("left alone", "refuses the login (535)")
    assert 0 < spare["probe_in_seconds"] <= 100


def test_the_tables(environment: dict[str, str]) -> None:
    done = CliRunner().invoke(main, ["relays"], env=environment)
    assert done.exit_code == 0, done.output
    for words in (
        "left alone",
        "minute 0/600, day 0/40000",
        "hour 7/100",
        "yahoo",
        "2.5/s",
        "[TSS04]",
        "over",
    ):
        assert words in done.output


def test_a_relay_is_forgotten_by_name(environment: dict[str, str]) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(main, ["relays", *words], env=environment)
        assert done.exit_code == 0, done.output
        return done.output

    before = json.loads(said("--json"))
    assert said("forget", "spare") == (
        "Relay spare is learned anew; forgotten: left alone because refuses the login (535)\n"
    )
    assert json.loads(said("forget", "main", "--json")) == {
        "relay": "main", "pipelining": "full", "left_alone": None, "slowed": ["yahoo"],
    }  # fmt: skip
    assert said("forget", "main") == "Relay main is learned anew; forgotten: nothing was known\n"
    first, spare = json.loads(said("--json"))
    assert (first["pipelining"], first["slowed"], spare["state"]) == (None, [], "used")
    assert first["receivers"] == before[0]["receivers"]
    wrong = CliRunner().invoke(main, ["relays", "forget", "mian"], env=environment)
    assert wrong.exit_code == 1
    assert "there is no relay 'mian'" in wrong.output
