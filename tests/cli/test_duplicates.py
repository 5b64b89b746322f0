"""`hub duplicates` on a small hub: suspects, a merge and its undoing with lists and funnels, and who is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.hubspot.sandbox import HubSpotSandbox
from tests.cli.test_commands import Hub
from tests.support.rig import HELLO, HUB_YAML, KEY, SECRETS


@pytest.fixture
def hub(tmp_path: Path, hubspot: HubSpotSandbox, database_url: str, redis_url: str) -> Iterator[Hub]:
    text = HUB_YAML.format(
        hubspot=hubspot.url, relay_host="127.0.0.1", relay_port=9, relay_tls="none", relay_ca=""
    )
    (tmp_path / "hub.yaml").write_text(text)
    (tmp_path / "hello.html").write_text(HELLO)
    for n, city in enumerate(["Berlin", "Berlin", "Wien"]):
        hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": "Ann", "lastname": "Lee", "company": "X" * (n < 2),
                                    "city": city})  # fmt: skip
    environ = {**SECRETS, "HUB_DATABASE_URL": database_url, "HUB_REDIS_URL": redis_url, "HUB_SECRET_KEY": KEY}
    made = Hub(tmp_path, database_url, environ, hubspot)
    assert made("sync", "--no-push").exit_code == 0
    yield made


def members(hub: Hub) -> list[int]:
    return [row[0] for row in hub.rows("SELECT contact_id FROM list_member ORDER BY 1")]


def test_a_pair_is_suspected_merged_and_made_two_again(hub: Hub) -> None:
    (pair,) = hub.json("duplicates")
    assert (pair["one"], pair["other"], pair["because"]) == (1, 2, ["name and company"])
    assert pair["one_email"] == "p0@example.com"
    assert "name and company" in hub("duplicates", COLUMNS="200").output
    assert members(hub) == [1, 2]

    assert hub.json("duplicates", "merge", "2", "1") == {"contact": 2, "into": 1}
    assert hub.json("duplicates") == []
    (merged,) = hub.json("duplicates", "--merged")
    assert (merged["contact"], merged["into"], merged["source"], merged["can_be_undone"]) == (
        2,
        1,
        "admin",
        True,
    )
    assert members(hub) == [1]  # the lists follow at once

    assert hub("sync", "--full", "--no-push").exit_code == 0  # what the CRM tells again changes nothing of it
    assert members(hub) == [1]
    assert hub.rows("SELECT state FROM contact ORDER BY id") == [("live",), ("merged",), ("live",)]

    done = hub("duplicates", "unmerge", "2")
    assert (done.exit_code, done.output.strip()) == (0, "contacts 2 and 1 are two again")
    assert members(hub) == [1, 2]
    assert hub.json("duplicates", "--merged") == hub.json("duplicates") == []
    emails = hub.rows("SELECT email, state FROM contact ORDER BY id")
    assert emails == [("p0@example.com", "live"), ("p1@example.com", "live"), ("p2@example.com", "live")]


def test_a_merge_and_its_undoing_send_nobody_into_a_funnel_again(hub: Hub) -> None:
    def entries() -> list[tuple[int, int]]:
        hub("plan")  # runs the funnels' code and takes it back
        return hub.rows("SELECT contact_id, occurrence FROM funnel_entry ORDER BY 1, 2")

    funnels(hub)
    assert entries() == [(1, 1), (2, 1)]
    sent = hub.rows("SELECT message, contact_id, occurrence FROM delivery ORDER BY contact_id")
    hub("duplicates", "merge", "2", "1")
    funnels(hub)
    hub("duplicates", "unmerge", "2")
    funnels(hub)
    assert entries() == [(1, 1), (2, 1)]
    assert hub.rows("SELECT message, contact_id, occurrence FROM delivery ORDER BY contact_id") == sent


def funnels(hub: Hub) -> None:
    """Let the funnels take in what the lists say now."""
    import asyncio

    from hub.jobs import runtime, stages

    async def go() -> None:
        environ = {**hub.environ}
        async with runtime.opened(hub.config, environ) as opened:
            await stages.run(opened, "funnels", "")

    asyncio.run(go())


def test_two_people_are_told_apart(hub: Hub) -> None:
    assert hub("duplicates", "apart", "2", "1").output.strip() == "contacts 1 and 2 are two people"
    assert hub.json("duplicates") == []


def test_whom_a_system_parted_is_told(hub: Hub) -> None:
    assert hub.json("duplicates", "--parted") == []
    hub.rows(
        """INSERT INTO contact_parted (contact_id, other, connection, external_id, at, restored)
           VALUES (2, 1, 'crm', '77', '2026-11-24', true) RETURNING id"""
    )
    (found,) = hub.json("duplicates", "--parted")
    assert (found["contact"], found["other"], found["record"], found["restored"]) == (2, 1, "crm/77", True)
    assert "parted again by a system that had made one person of two: 1" in hub("duplicates").output
    assert "crm/77" in hub("duplicates", "--parted").output


def test_mistakes_are_told(hub: Hub) -> None:
    for arguments, words in (
        (("merge", "2", "9"), "there is no contact 9; see `hub duplicates` or `hub contact EMAIL`"),
        (("unmerge", "2"), "contact 2 is not merged into another; `hub duplicates --merged` lists what is"),
        (("apart", "2", "2"), "a contact cannot be told apart from itself; name two contacts"),
        (("apart", "2", "9"), "there is no contact 9; see `hub duplicates`"),
    ):
        done = hub("duplicates", *arguments)
        assert (done.exit_code, done.stderr.strip()) == (1, words)
    assert hub("duplicates", "--limit", "0").exit_code == 0
