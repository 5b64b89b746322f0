"""The command line on a small hub: what is printed, what is kept, and how errors are told."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from contracts.hubspot.sandbox import HubSpotSandbox
from hub.cli import main
from tests.support.rig import HELLO, HUB_YAML, KEY, SECRETS


class Hub:
    """A scratch hub.yaml, and commands on it."""

    def __init__(self, folder: Path, url: str, environ: dict[str, str], hubspot: HubSpotSandbox) -> None:
        self.folder, self.url, self.environ, self.hubspot = folder, url, environ, hubspot
        self.config = folder / "hub.yaml"

    def __call__(self, *arguments: str, **environ: str) -> Result:
        """The outcome; what no command may ever show is looked for in each."""
        env = {**{name: None for name in os.environ if name.startswith("HUB_")}, **self.environ, **environ}
        done = CliRunner().invoke(main, ["--config", str(self.config), *arguments], env=env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
        for secret in (*SECRETS.values(), KEY):
            assert secret not in done.output
        return done

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.exit_code == 0, done.output
        assert done.stderr == ""
        return json.loads(done.stdout)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            cursor = conn.execute(query.encode(), values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def counts(self) -> dict[str, int]:
        tables = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name: self.rows(f"SELECT count(*) FROM {name}")[0][0] for (name,) in tables}


@pytest.fixture
def hub(tmp_path: Path, hubspot: HubSpotSandbox, database_url: str, redis_url: str) -> Iterator[Hub]:
    (tmp_path / "hub.yaml").write_text(
        HUB_YAML.format(
            hubspot=hubspot.url, relay_host="127.0.0.1", relay_port=9, relay_tls="none", relay_ca=""
        )
    )
    (tmp_path / "hello.html").write_text(HELLO)
    for n, city in enumerate(["Berlin", "Berlin", "Wien"]):
        hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": city})
    environ = {**SECRETS, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY}
    yield Hub(tmp_path, database_url, environ, hubspot)


# --- setting up ----------------------------------------------------------------------------------------------------


def test_init_writes_a_hub_and_keeps_what_is_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["init", str(tmp_path / "new")])
    assert done.exit_code == 0
    assert (tmp_path / "new" / "templates" / "welcome.mjml").is_file()
    (tmp_path / "new" / "hub.yaml").write_text("mine: true\n")
    again = CliRunner().invoke(main, ["init", str(tmp_path / "new")])
    assert again.exit_code == 0
    assert again.output.count("kept ") == 2
    assert (tmp_path / "new" / "hub.yaml").read_text() == "mine: true\n"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    done = CliRunner().invoke(main, ["schema"])
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.fixture(scope="module")
def starter() -> Any:
    from hub.config.starter import HUB_YAML as text

    return json.loads(json.dumps(YAML(typ="safe").load(text)))


def test_the_schema_takes_what_the_hub_takes(schema: dict[str, Any], starter: Any, hub: Hub) -> None:
    jsonschema.validate(starter, schema)
    ours = YAML(typ="safe").load(hub.config.read_text())
    assert hub("check").exit_code == 0
    jsonschema.validate(json.loads(json.dumps(ours)), schema)


def test_the_schema_takes_secrets_of_an_inner_section_out_of_files(
    schema: dict[str, Any], starter: Any
) -> None:
    wider = copy.deepcopy(starter)
    oauth = {"token_url": "https://login.example/token", "client_id": "app", "refresh_token_file": "refresh"}
    wider["relays"]["main"] = {"host": "smtp.example.com", "username": "me", "oauth": oauth}
    jsonschema.validate(wider, schema)
    oauth["token_url_file"] = "url"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wider, schema)


BREAKS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "an unknown section": (("lits",), {}),
    "an unknown key": (("lists", "trial", "were"), "x"),
    "a missing rule": (("lists", "trial"), {}),
    "a text for a number": (("relays", "main", "port"), "twenty-five"),
    "a number for a text": (("messages", "welcome", "subject"), 5),
    "an unknown word": (("purposes", "product-news", "basis"), "opt_maybe"),
    "an unknown stream": (("sync", "crm", "pull"), ["contcats"]),
    "an unknown connector": (("connections", "crm", "connector"), "hubsport"),
    "a connector's unknown key": (("connections", "crm", "tokn"), "x"),
    "a relay's unknown key": (("relays", "main", "hots"), "x"),
    "a relay's unknown key inside": (("relays", "main", "oauth"), {"token_ulr": "x"}),
    "a funnel without steps": (("funnels", "onboarding", "steps"), []),
    "a step that does nothing": (("funnels", "onboarding", "steps", 0), {"sned": "welcome"}),
    "a step inside a branch": (("funnels", "onboarding", "steps", 2, "then", 0), {"sned": "x"}),
    "a list for a table": (("lists",), []),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_the_schema_refuses_what_the_hub_refuses(
    schema: dict[str, Any], starter: Any, name: str, tmp_path: Path
) -> None:
    path, value = BREAKS[name]
    broken = copy.deepcopy(starter)
    node = broken
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)
    CliRunner().invoke(main, ["init", str(tmp_path)])
    (tmp_path / "hub.yaml").write_text(json.dumps(broken))
    secrets = dict.fromkeys(("HUBSPOT_TOKEN", "HUBSPOT_APP_SECRET", "SMTP_PASSWORD"), "x")
    done = CliRunner().invoke(main, ["--config", str(tmp_path / "hub.yaml"), "check"], env=secrets)
    assert done.exit_code == 1
    assert "hub.yaml:1:" in done.output


def test_check(hub: Hub) -> None:
    assert hub("check").output.strip().endswith("no mistakes found")
    assert hub.json("check") == []
    hub.config.write_text(hub.config.read_text().replace("city = 'Berlin'", "citi = 'Berlin'"))
    done = hub("check", "--json")
    assert done.exit_code == 1
    (problem,) = json.loads(done.stdout)
    assert (problem["what"], problem["fix"]) == ("unknown field 'citi'", "did you mean 'city'?")
    text = hub("check")
    assert text.exit_code == 1
    assert (
        f"hub.yaml:{problem['line']}:{problem['column']}: unknown field 'citi'; did you mean 'city'?"
        in text.output
    )


# --- running ------------------------------------------------------------------------------------------------------


def test_sync_tells_each_run(hub: Hub) -> None:
    runs = hub.json("sync")
    assert [(run["connection"], run["stream"], run["state"]) for run in runs] == [
        ("crm", stream, "done") for stream in ("contacts", "deals", "segments")
    ]
    assert runs[0]["counts"]["created"] == 3
    assert hub.rows("SELECT count(*) FROM list_member") == [(2,)]
    again = hub.json("sync", "crm")
    assert again[0]["counts"].get("created", 0) == 0
    table = hub("sync", "crm", "--full", "--no-push")
    assert table.exit_code == 0
    assert "contacts" in table.stdout


def test_sync_of_a_vendor_that_refuses_is_a_failure(hub: Hub) -> None:
    hub.hubspot.faults.plan("expired_token", times=99)
    done = hub("sync", "--json")
    assert done.exit_code == 1
    assert {run["state"] for run in json.loads(done.stdout)} == {"failed"}
    assert "renew the token" in json.loads(done.stdout)[0]["reason"]


def test_plan_says_what_would_happen_and_keeps_nothing(hub: Hub) -> None:
    hub("runs")  # what hub.yaml says is written down by whatever opens the hub first
    before = hub.counts()
    found = hub.json("plan", "--pull")
    assert hub.counts() == before
    assert before["contact"] == before["delivery"] == before["run"] == 0
    assert found["problems"] == []
    (berlin,) = found["lists"]
    assert (berlin["list"], berlin["size"], berlin["joined"]) == ("berlin", 2, 2)
    assert set(berlin["samples"]) == {"p0@example.com", "p1@example.com"}
    (hello,) = found["mails"]
    assert (hello["message"], hello["send"], hello["excluded"]) == ("hello", 2, 0)
    assert found["writes"] == []

    hub.json("sync")
    before = hub.counts()
    assert len(hub.json("plan", "--samples", "1")["mails"][0]["samples"]) == 1
    table = hub("plan")
    assert table.exit_code == 0
    assert "would be sent" in table.stdout
    assert hub.counts() == before
    assert hub.hubspot.faults.count("/crm/v3/objects/contacts", "PATCH") == 0


def test_plan_without_the_vendor_says_so(hub: Hub) -> None:
    hub.hubspot.faults.plan("expired_token", times=99)
    found = hub.json("plan", "--pull")
    assert any("crm contacts" in problem for problem in found["problems"])
    assert found["mails"] == []


# --- asking -------------------------------------------------------------------------------------------------------


def test_funnels_contact_and_runs(hub: Hub) -> None:
    assert hub.json("funnels") == []
    assert "nobody has entered" in hub("funnels").stdout
    hub.json("sync")
    ids = dict(hub.rows("SELECT email, id FROM contact"))
    hub.rows("INSERT INTO funnel (name) VALUES ('greeting')")
    hub.rows(
        "INSERT INTO funnel_entry (funnel_id, contact_id, wake_at, entered_at) SELECT f.id, %s, now(), now() FROM funnel f",
        ids["p0@example.com"],
    )
    (entry,) = hub.json("funnels")
    assert (entry["funnel"], entry["state"], entry["people"]) == ("greeting", "active", 1)
    (person,) = hub.json("contact", "P0@example.com")
    assert person["contact"]["city"] == "Berlin"
    assert person["identities"][0]["connection"] == "crm"
    assert person["story"]
    assert "Berlin" in hub("contact", "p0@example.com").stdout

    runs = hub.json("runs")
    assert len(runs) >= 3
    assert len(hub.json("runs", "--limit", "1")) == 1
    hub.rows(
        """INSERT INTO run_reject (run_id, object, external_id, code, message, fix, at)
           VALUES (%s, 'contact', '7', 'BAD_VALUE', 'is [bold]no number', 'mend it', now())""",
        runs[0]["id"],
    )
    run = hub.json("runs", str(runs[0]["id"]))
    assert [(r["code"], r["fix"]) for r in run["rejects"]] == [("BAD_VALUE", "mend it")]
    number = str(runs[0]["id"])
    assert "1 rows" in hub("runs", number, "--csv", str(hub.folder / "bad.csv")).stdout
    with (hub.folder / "bad.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {key: row[key] for key in ("object", "code", "message", "row")} == {
        key: str(run["rejects"][0][key]) for key in ("object", "code", "message", "row")
    }
    assert hub("runs", "--csv", "x.csv").stderr == "--csv needs a run; see `hub runs` for their numbers\n"
    assert "there is no run 99" in hub("runs", "99", "--csv", str(hub.folder / "x.csv")).stderr
    assert "[bold]no" in hub("runs", str(runs[0]["id"])).stdout  # a vendor's words are no markup
    assert hub("funnels").exit_code == hub("runs").exit_code == 0


def test_connectors_and_connections(hub: Hub) -> None:
    found = {one["name"]: one for one in hub.json("connectors")}
    assert found["hubspot"]["streams"] == ["contacts", "companies", "deals", "segments"]
    assert found["smtp"]["pushes"] == ["mail"]
    assert "HubSpot" in hub("connectors").stdout
    tested = hub("connections", "test", "crm", "--json")
    assert tested.exit_code == 1
    (missing,) = [one for one in json.loads(tested.stdout) if not one["ok"]]
    assert missing["fix"] == "run `hub connections prepare`"
    planned = hub.json("connections", "prepare", "--dry")
    made = hub.json("connections", "prepare")
    assert [one["what"].replace("created", "is missing") for one in made] == [one["what"] for one in planned]
    assert len(made) > 5
    assert hub.json("connections", "prepare", "crm") == []
    assert all(one["ok"] for one in hub.json("connections", "test", "crm"))
    hub.hubspot.faults.plan("expired_token", times=99)
    assert hub("connections", "test").exit_code == 1


def test_replay_queues_dead_letters_again(hub: Hub) -> None:
    for n, state in enumerate(["dead", "dead", "uncertain", "done", "dropped"]):
        hub.rows(
            """INSERT INTO outbox (connection, kind, dedupe_key, payload, state, attempts, created_at)
               VALUES ('crm', 'field', %s, '{"fields": {}}', %s, 8, now())""",
            str(n), state,
        )  # fmt: skip
    states = "SELECT state, count(*) FROM outbox GROUP BY 1"
    assert hub.json("replay", "crm")["queued"] == 2
    assert dict(hub.rows(states)) == {"queued": 2, "uncertain": 1, "done": 1, "dropped": 1}
    assert hub("replay", "crm", "--uncertain").stdout.strip() == "1 writes are queued again"
    assert dict(hub.rows(states))["queued"] == 3
    assert hub.json("replay", "crm")["queued"] == 0


# --- errors -------------------------------------------------------------------------------------------------------


ERRORS: list[tuple[list[str], str]] = [
    (["sync", "nobody"], "nothing is synced with 'nobody'; hub.yaml syncs crm"),
    (["lists", "show", "berlni"], "there is no list 'berlni'; hub.yaml has berlin"),
    (["lists", "why", "berlni", "p0@example.com"], "there is no list 'berlni'"),
    (
        ["contact", "nobody@example.com"],
        "no contact has the address nobody@example.com; check the spelling",
    ),
    (["runs", "987654"], "there is no run 987654; see `hub runs`"),
    (["replay", "nobody"], "there is no connection 'nobody'; hub.yaml has crm"),
    (["connections", "test", "nobody"], "there is no connection 'nobody'; hub.yaml has crm"),
]


def test_an_error_is_one_line_on_stderr(hub: Hub) -> None:
    for number, (arguments, words) in enumerate(ERRORS):
        done = hub(*arguments, *(["--json"] if number % 2 else []))
        assert done.exit_code == 1
        assert done.stdout == ""
        assert done.stderr.startswith(words)
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_hub_yaml_that_is_missing_or_wrong(hub: Hub) -> None:
    text = hub.config.read_text()
    for content, words in (
        (text.replace("where:", "were:"), "unknown key 'were'"),
        (text + "\tx: y\n", "mend the YAML here"),
        (text.replace('"${HUBSPOT_TOKEN}"', '"${TOKEN_OF_NOBODY}"'), "TOKEN_OF_NOBODY is not set"),
    ):
        hub.config.write_text(content)
        done = hub("lists")
        assert done.exit_code == 1
        assert "hub.yaml:" in done.stderr
        assert words in done.stderr
    hub.config.unlink()
    assert "cannot be read: No such file or directory" in hub("sync").stderr


def test_a_rule_that_is_wrong_is_told_by_every_command_that_needs_it(hub: Hub) -> None:
    hub.config.write_text(hub.config.read_text().replace("city = 'Berlin'", "citi = 'Berlin'"))
    for arguments in (["plan"], ["lists", "why", "berlin", "p0@example.com"]):
        done = hub(*arguments)
        assert done.exit_code == 1
        assert (
            done.stderr.startswith("rule 1:1: unknown field 'citi'; did you mean 'city'?")
            or done.stdout == ""
        )


def test_a_key_that_is_none(hub: Hub) -> None:
    for key in ("short", "", "no base64!", KEY + ",short"):
        done = hub("lists", HUB_SECRET_KEY=key)
        assert done.exit_code == 1
        assert "HUB_SECRET_KEY" in done.stderr


def test_what_is_misspelt() -> None:
    for arguments in (["nonsense"], ["runs", "x"], ["sync", "--nonsense"], ["plan", "--samples", "many"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "Usage:" in done.stderr


def test_json_may_stand_anywhere(hub: Hub) -> None:
    documents = {
        hub("--json", "lists").stdout,
        hub("lists", "--json").stdout,
        CliRunner().invoke(main, ["--json", "--config", str(hub.config), "lists"], env=hub.environ).stdout,
    }
    assert len(documents) == 1
    assert isinstance(json.loads(documents.pop()), list)


def test_a_hub_of_its_own_servers_in_a_process_of_its_own(hub: Hub) -> None:
    """Nothing but hub.yaml: servers, tables and key are made, kept for the next command, and ended with it."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")} | SECRETS
    with tempfile.TemporaryDirectory(prefix="hub-cli-") as data:
        command = [sys.executable, "-m", "hub", "--config", str(hub.config), "--data", data]
        for arguments, words in ((["sync", "--json"], '"created": 3'), (["lists", "--json"], '"members": 2')):
            done = subprocess.run(
                [*command, *arguments], env=environ, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            assert words in done.stdout
        assert (Path(data) / "secret.key").stat().st_mode & 0o777 == 0o600
        assert not list((Path(data) / "users").iterdir())


def test_a_command_that_is_interrupted_says_so_and_ends_with_the_status_that_shells_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hub.config.schema.json_schema", interrupted)
    done = CliRunner().invoke(main, ["schema"])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "interrupted\n")
