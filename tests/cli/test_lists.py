"""`hub lists`: what it answers, with a real hub behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from tests.cli.test_commands import Hub
from tests.support.rig import HELLO, HUB_YAML, KEY, SECRETS

LISTS = """\
lists:
  berlin: {{where: "city = 'Berlin' OR has_deal(stage => 'won')", exclude: [staff]}}
  staff: {{static: true}}
campaigns:
  spring: {{list: berlin, message: hello}}
"""


@pytest.fixture
def hub(tmp_path: Path, hubspot: HubSpotSandbox, database_url: str, redis_url: str) -> Iterator[Hub]:
    yaml = HUB_YAML.replace("lists:\n  berlin: {{where: \"city = 'Berlin'\"}}\n", LISTS)
    (tmp_path / "hub.yaml").write_text(
        yaml.format(hubspot=hubspot.url, relay_host="127.0.0.1", relay_port=9, relay_tls="none", relay_ca="")
    )
    (tmp_path / "hello.html").write_text(HELLO)
    for n, city in enumerate(["Berlin", "Berlin", "Wien"]):
        hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": city})
    environ = {**SECRETS, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY}
    one = Hub(tmp_path, database_url, environ, hubspot)
    one.json("sync", "--no-push")
    yield one


def test_sizes_and_changes(hub: Hub) -> None:
    berlin, staff = hub.json("lists")
    assert (berlin["name"], berlin["members"], berlin["joined"], berlin["left"]) == ("berlin", 2, 2, 0)
    assert berlin["rule"].endswith("EXCLUDING staff")
    assert (staff["members"], staff["rule"], staff["waiting"]) == (0, "imported", 0)
    assert 0 <= berlin["age_seconds"] < 60
    table = hub("lists")
    assert table.exit_code == 0
    assert "fresh" in table.stdout
    found = hub.json("lists", "show", "berlin")
    assert {(c["email"], c["change"]) for c in found["changes"]} == {
        ("p0@example.com", "joined"),
        ("p1@example.com", "joined"),
    }
    assert [(day["size"], day["joined"], day["left"]) for day in found["sizes"]] == [(2, 2, 0)]
    assert hub("lists", "show", "berlin").exit_code == 0
    wrong = hub("lists", "show", "berlni")
    assert wrong.exit_code == 1
    assert "hub.yaml has berlin, staff" in wrong.stderr


def test_why(hub: Hub) -> None:
    (ann,) = hub.json("lists", "why", "berlin", "P0@example.com")
    assert (ann["on_list"], ann["belongs"]) == (True, True)
    city, deal, staff = ann["conditions"]
    assert (city["condition"], city["holds"], city["decided"]) == ("city = 'Berlin'", True, True)
    (value,) = city["values"]
    run = hub.rows("SELECT id FROM run WHERE stream = 'contacts'")[0][0]
    assert (value["what"], value["value"], value["source"], value["run"]) == ("city", "Berlin", "crm", run)
    assert (deal["holds"], deal["decided"]) == (False, False)
    assert (staff["condition"], staff["holds"], staff["decided"]) == ("excluded: on list staff", False, True)

    (bob,) = hub.json("lists", "why", "berlin", "p2@example.com")
    assert (bob["on_list"], bob["belongs"]) == (False, False)
    assert [c["decided"] for c in bob["conditions"]] == [True, True, False]
    assert hub.json("lists", "why", "berlin", "nobody@example.com") == []
    for email in ("p0@example.com", "p2@example.com", "nobody@example.com"):
        assert hub("lists", "why", "berlin", email).exit_code == 0


def test_preview(hub: Hub) -> None:
    before = hub.counts()
    found = hub.json("lists", "preview", "city = 'Berlin' AND NOT in_list('staff')", "--samples", "1")
    assert (found["count"], found["contacts"]) == (2, 3)
    assert [(one["email"], one["name"]) for one in found["samples"]] == [("p0@example.com", "P0")]
    assert "2 of 3 contacts" in hub("lists", "preview", "city = 'Berlin'").stdout
    assert hub.counts() == before
    wrong = hub("lists", "preview", "citi = 'Berlin'")
    assert wrong.exit_code == 1
    assert "rule 1:1: unknown field 'citi'; did you mean 'city'?" in wrong.stderr


def test_import_and_exclusion(hub: Hub) -> None:
    file = hub.folder / "staff.csv"
    file.write_text("name;E-Mail\nA;P0@example.com\nB;nobody\nC;\nD;new@example.com\nA;p0@example.com\n")
    done = hub("lists", "import", "staff", str(file), "--json")
    assert done.exit_code == 1  # two rows were rejected
    found = json.loads(done.stdout)
    assert (found["new"], found["known"], found["waiting"], found["members"]) == (2, 0, 1, 1)
    assert found["rejected"] == [
        {"line": "line 3", "message": "'nobody' is no e-mail address"},
        {"line": "line 4", "message": "there is no e-mail address"},
    ]
    assert [one["members"] for one in hub.json("lists")] == [1, 1]
    run = hub.json("runs", str(found["run"]))
    assert (run["kind"], run["state"], len(run["rejects"])) == ("import", "partial", 2)
    (why,) = hub.json("lists", "why", "staff", "p0@example.com")
    assert why["conditions"][0]["values"][0]["run"] == found["run"]

    # Who was waited for joins when they come; who changes the address stays.
    hub.hubspot.create("contacts", {"email": "new@example.com", "city": "Berlin"})
    hub.rows("UPDATE contact SET email = 'p0@new.example' WHERE email = 'p0@example.com'")
    hub.json("sync", "--no-push", "--full")
    assert [one["members"] for one in hub.json("lists")] == [1, 2]

    file.write_text("new@example.com\n")
    again = hub("lists", "import", "staff", str(file), "--replace")
    assert again.exit_code == 0, again.output
    assert "0 new, 1 known, 1 removed; 1 are on staff" in again.stdout
    for arguments, words in (
        (("berlin", str(file)), "list berlin has a rule"),
        (("staff", "missing.csv"), "missing.csv: it cannot be read"),
        (("staff", str(file), "--column", "mail"), "staff.csv:1: there is no column 'mail'"),
    ):
        wrong = hub("lists", "import", *arguments)
        assert wrong.exit_code == 1
        assert words in wrong.stderr


def test_snapshots(hub: Hub) -> None:
    before = hub.rows("SELECT now()")[0][0]
    approved = hub.json("campaigns", "approve", "spring")
    assert approved["recipients"] == 2
    hub.rows("UPDATE contact SET city = 'Wien' WHERE email = 'p0@example.com'")
    hub.config.write_text(hub.config.read_text().replace("city = 'Berlin' OR", "city = 'Wien' OR"))
    hub.json("sync", "--no-push")
    now = hub.json("lists", "snapshot", "berlin")
    assert [one["email"] for one in now["members"]] == ["p0@example.com", "p2@example.com"]
    assert now["rule"].startswith("city = 'Wien'")
    then = hub.json("lists", "snapshot", "berlin", "--at", before.isoformat(), "--limit", "1")
    assert (then["size"], [one["email"] for one in then["members"]]) == (2, ["p0@example.com"])
    assert then["rule"].startswith("city = 'Berlin'")
    file = hub.folder / "frozen.csv"
    frozen = hub.json("lists", "snapshot", "--campaign", "spring", "--csv", str(file))
    assert (frozen["list"], frozen["size"]) == ("berlin", 2)
    assert frozen["rule"].startswith("city = 'Berlin'")
    assert len(file.read_text().splitlines()) == 3
    assert hub("lists", "snapshot", "berlin").exit_code == 0
    for arguments in (
        (),
        ("berlin", "--campaign", "spring"),
        ("berlin", "--at", "soon"),
        ("--campaign", "x"),
        ("nolist",),
    ):
        assert hub("lists", "snapshot", *arguments).exit_code == 1


def test_verify(hub: Hub) -> None:
    run = hub.json("lists", "verify")
    assert (run["state"], run["counts"], run["rejects"]) == ("done", {"read": 2}, [])
    hub.rows("DELETE FROM list_member WHERE contact_id = (SELECT min(contact_id) FROM list_member)")
    done = hub("lists", "verify")
    assert done.exit_code == 1
    assert "1 rows differed" in done.stdout
    assert "list berlin: belongs on it and was not" in " ".join(done.stdout.replace("│", " ").split())
    assert hub("lists", "verify").exit_code == 0


def test_check_doubts_stages_that_no_deal_is_in(hub: Hub) -> None:
    assert hub.json("check") == []  # no deal was read: nothing is known
    hub.rows(
        """INSERT INTO deal (connection, external_id, stage, pipeline, changed_at)
           VALUES ('crm', '1', 'closed won', 'sales', now()), ('crm', '2', 'open', 'support', now())"""
    )
    (doubt,) = hub.json("check")
    assert (doubt["what"], doubt["severity"]) == ("no deal that was read is in stage 'won'", "hint")
    line = hub.config.read_text().splitlines()[doubt["line"] - 1]
    assert line[doubt["column"] - 1 :].startswith("'won'")
    text = hub("check")
    assert text.exit_code == 0
    assert "no deal that was read is in stage 'won'; known are closed won, open (a hint)" in text.stdout
    hub.config.write_text(hub.config.read_text().replace("stage => 'won'", "'Open', pipeline => 'Sales'"))
    assert hub.json("check")[0]["what"] == "no deal of pipeline 'sales' that was read is in stage 'Open'"
    hub.config.write_text(hub.config.read_text().replace("pipeline => 'Sales'", "pipeline => 'Support'"))
    assert hub.json("check") == []
    hub.rows(
        "INSERT INTO segment (connection, external_id, name, changed_at) VALUES ('crm', '1', 'Partners', now())"
    )
    hub.config.write_text(hub.config.read_text().replace("city = 'Berlin' OR", "in_segment('Partner') OR"))
    assert hub.json("check")[0]["fix"] == "did you mean 'Partners'?"
