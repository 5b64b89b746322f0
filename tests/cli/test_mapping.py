"""`hub mapping`: what it prints of two connections, and of a HubSpot account that changes under the mapping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from contracts.hubspot.properties import Property, option
from contracts.hubspot.sandbox import HubSpotSandbox
from tests.cli.test_commands import Hub
from tests.support.rig import HELLO, HUB_YAML, KEY, SECRETS

MINE = """\
contact:
  tier: {field: customer_tier, custom: true, direction: both, map: {A: gold, B: silver}, unknown: reject}
  city: {authority: sales, on_blank: clear}
  phone: {transform: phone, push_transform: phone, authority: newest}
"""


@pytest.fixture
def hub(tmp_path: Path, hubspot: HubSpotSandbox, database_url: str, redis_url: str) -> Iterator[Hub]:
    """Two connections to one account; `crm` has a mapping of its own."""
    text = HUB_YAML.format(
        hubspot=hubspot.url, relay_host="127.0.0.1", relay_port=9, relay_tls="none", relay_ca=""
    )
    hub_yaml = YAML(typ="safe").load(text)
    hub_yaml["connections"]["sales"] = dict(hub_yaml["connections"]["crm"])
    hub_yaml["connections"]["crm"]["mapping"] = "mine.yaml"
    (tmp_path / "hub.yaml").write_text(json.dumps(hub_yaml))
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "hello.html").write_text(HELLO)
    properties(hubspot)["customer_tier"] = Property(
        "customer_tier",
        "Tier",
        "enumeration",
        "select",
        options=[option("A"), option("B")],
        hubspot_defined=False,
    )
    environ = {**SECRETS, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY}
    yield Hub(tmp_path, database_url, environ, hubspot)


def properties(hubspot: HubSpotSandbox) -> dict[str, Property]:
    return hubspot.account.store("contacts").properties


def findings(hub: Hub, status: int, *options: str) -> list[tuple[str, str, str]]:
    done = hub("mapping", "check", "crm", "--json", *options)
    assert done.exit_code == status, done.output
    return [(f["level"], f["name"], f["what"]) for f in json.loads(done.stdout)["findings"]]


def test_show_tells_both_directions_and_who_wins(hub: Hub) -> None:
    found = hub.json("mapping", "show", "crm")
    pull = {(row["object"], row["to"]): row for row in found["pull"]}
    assert pull["contact", "tier"] == {
        "object": "contact", "from": "customer_tier", "to": "tier", "type": "text", "on_blank": "keep",
        "how": "A -> gold, B -> silver; others rejected",
    }  # fmt: skip
    push = {row["from"]: row for row in found["push"]}
    assert (push["tier"]["to"], push["tier"]["how"]) == (
        "customer_tier",
        "A <- gold, B <- silver; others rejected",
    )
    assert (push["phone"]["how"], push["lifecycle"]["set_by"]) == ("phone", ["greeting"])
    wins = {(row["object"], row["field"]): row for row in found["overwrites"]}
    assert wins["contact", "city"] == {
        "object": "contact", "field": "city", "wins": "sales, then crm", "with": ["sales"], "blank": "empties ours",
    }  # fmt: skip
    assert wins["contact", "phone"]["wins"] == "newest of crm, sales"
    assert (wins["contact", "tier"]["wins"], wins["contact", "tier"]["with"]) == ("crm", [])
    assert (wins["deal", "stage"]["wins"], wins["deal", "stage"]["with"]) == ("crm", [])
    assert found["consent"] == [{"purpose": "*", "field": "hs_email_optout"}]
    assert found["match"] == ["email"]


def test_tables_say_the_same(hub: Hub) -> None:
    printed = hub("mapping", "show", "crm", COLUMNS="200").output
    assert "sales, then crm" in printed
    assert "customer_tier" in printed
    assert "new people are matched by: email" in printed
    assert "no drift" in hub("mapping", "check", "crm").output


def test_an_account_that_fits_has_no_drift(hub: Hub) -> None:
    assert findings(hub, 0) == []
    assert hub.rows("SELECT connection, object FROM vendor_schema ORDER BY 2") == [
        ("crm", "contact"),
        ("crm", "deal"),
    ]


def test_drift_is_told_until_it_is_accepted_or_mended(hub: Hub) -> None:
    assert findings(hub, 0) == []
    tier = properties(hub.hubspot)["customer_tier"]
    tier.options = [option("A"), option("C")]
    properties(hub.hubspot)["lifecyclestage"].options.append(option("fan"))
    found = findings(hub, 1)
    assert found == [
        ("wrong", "tier", "'B' is no value of the vendor's 'customer_tier' any more"),
        ("wrong", "tier", "the map does not know 'C' of 'customer_tier': what it does not know is rejected"),
        ("note", "lifecycle", "the vendor's 'lifecyclestage' has new values: 'fan'"),
        ("note", "tier", "the vendor's 'customer_tier' has lost values: 'B'"),
        ("note", "tier", "the vendor's 'customer_tier' has new values: 'C'"),
    ]
    assert findings(hub, 1) == found
    assert findings(hub, 1, "--accept") == found
    assert [level for level, *_ in findings(hub, 1)] == [
        "wrong",
        "wrong",
    ]  # what is wrong stays so until it is mended
    (hub.folder / "mine.yaml").write_text(MINE.replace("B: silver", "C: silver"))
    assert findings(hub, 0) == []


def test_a_renamed_field_is_found_and_the_suggestion_mends_it(hub: Hub) -> None:
    assert findings(hub, 0) == []
    there = properties(hub.hubspot)
    there["customer_tier"].archived = True
    there["tier_2027"] = Property("tier_2027", "Tier", "enumeration", "select", hubspot_defined=False)
    there["shoe_size"] = Property("shoe_size", "Shoe size", "number", "number", hubspot_defined=False)
    assert findings(hub, 1) == [
        ("wrong", "tier", "the vendor has no contact field 'customer_tier' any more; tier keeps what it has")
    ]
    done = json.loads(hub("mapping", "check", "crm", "--json").stdout)
    assert done["findings"][0]["fix"] == "it may be 'tier_2027' now: map tier to it"
    found = hub.json("mapping", "suggest", "crm")
    assert found["yaml"].splitlines() == [
        "contact:",
        "  tier: {field: tier_2027, custom: true}  # was customer_tier, which is gone",
        "  shoe_size: {field: shoe_size, type: number, custom: true}  # Shoe size",
    ]
    printed = hub("mapping", "suggest", "crm").output
    assert printed.strip() == found["yaml"]
    (hub.folder / "pasted.yaml").write_text(printed)
    config: Any = json.loads(hub.config.read_text())
    config["connections"]["crm"]["mapping"] = "pasted.yaml"
    hub.config.write_text(json.dumps(config))
    assert hub("check").exit_code == 0
    assert findings(hub, 0) == []
    assert "nothing: every field" in hub("mapping", "suggest", "crm").output


def test_a_connection_that_is_not_there_is_told(hub: Hub) -> None:
    for command in ("show", "check", "suggest"):
        done = hub("mapping", command, "cmr")
        assert (done.exit_code, done.stderr.strip()) == (
            1,
            "there is no connection 'cmr'; hub.yaml has crm, sales",
        )


def test_authority_is_checked_over_all_mappings(hub: Hub) -> None:
    (hub.folder / "mine.yaml").write_text("contact:\n  city: {authority: slaes}\n")
    done = hub("check")
    assert done.exit_code == 1
    assert (
        "mine.yaml:2:21: authority names 'slaes', which is no connection; hub.yaml has crm, sales"
        in done.output
    )
    (hub.folder / "mine.yaml").write_text("match: [{field: email, of: slaes}]\n")
    assert "there is no connection 'slaes'" in hub("check").output
