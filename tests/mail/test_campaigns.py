"""Campaigns from their plan to their sums: a real database, a relay on loopback, two workers, clocks of the world."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts.smtp.relay import RelaySandbox
from hub.clock import moment, moment_for, zone_named
from hub.config.settings import RelaySection
from hub.errors import HubError
from hub.jobs import campaigns, stages
from hub.jobs import runtime as runtimes
from hub.mail import campaigns as planning
from hub.mail import send
from hub.mail.campaigns import Rate, paced, rates, split
from tests.support.rig import HUB_YAML, Rig

YAML = HUB_YAML[: HUB_YAML.index("funnels:")] + HUB_YAML[HUB_YAML.index("relays:") :].replace(
    "{relay_ca}}}", "{relay_ca}, tariff: {{per_thousand: 2.50, currency: EUR, included: 10}}}}"
)
CAMPAIGNS = """
campaigns:
  spring: {{list: berlin, message: hello}}
  slow: {{list: berlin, message: hello, speed: 360 per hour}}
  careful: {{list: berlin, message: hello, exclude: [vip]}}
  dated: {{list: berlin, message: hello, at: "2026-11-25 09:00", time_zone: Europe/Vienna, speed: 3600 per hour}}
  local: {{list: berlin, message: hello, at: "2026-11-26 09:00", time_zone: recipient, default_zone: Europe/Vienna}}
"""
YAML = YAML.replace("messages:\n", "  vip: {{where: \"company = 'VIP'\"}}\nmessages:\n") + CAMPAIGNS


@pytest.fixture
def hub_yaml() -> str:
    return YAML


async def fill(rig: Rig, count: int, **fields: str) -> None:
    """So many people on the list, without the way through a CRM."""
    async with rig.runtime.db.transaction() as conn:
        await conn.execute(
            """INSERT INTO contact (email, city, company, country, time_zone, changed_at)
               SELECT coalesce(%(email)s, 'p' || m + n || '@example.com'), 'Berlin', %(company)s, %(country)s, %(zone)s, now()
               FROM generate_series(1, %(count)s) n, (SELECT coalesce(max(id), 0) AS m FROM contact) c""",
            {
                "count": count, "email": fields.get("email"), "company": fields.get("company"),
                "country": fields.get("country"), "zone": fields.get("zone"),
            },
        )  # fmt: skip
        await conn.execute(
            """INSERT INTO cursor (connection, stream, saved_at, loaded_at)
               SELECT 'crm', stream, now(), now() FROM unnest('{contacts,deals,segments}'::text[]) s (stream)
               ON CONFLICT DO NOTHING"""
        )


async def states(rig: Rig, name: str = "spring") -> dict[str, int]:
    query = "SELECT state, count(*) FROM delivery WHERE occurrence = 'campaign:' || %s GROUP BY 1"
    return dict(await rig.rows(query, name))


async def about(rig: Rig, name: str = "spring") -> dict[str, Any]:
    return next(row for row in await campaigns.overview(rig.runtime) if row["name"] == name)


def recipients(relay: RelaySandbox) -> Counter[str]:
    relay.office.wait_drained(60)
    return Counter(d.recipient for d in relay.office.deliveries)


# --- plan and approve ------------------------------------------------------------------------------------------


async def test_a_plan_keeps_nothing_and_says_what_approval_then_does(post: Rig, relay: RelaySandbox) -> None:
    await fill(post, 30)
    await fill(post, 3, company="VIP")
    await fill(post, 3, email="shared@example.com")
    await fill(post, 1, email="")
    await fill(post, 1, email="gone@example.com")
    await fill(post, 1, email="p31@example.com")  # has the address of one who is on the list of exceptions
    async with post.runtime.db.transaction() as conn:
        await conn.execute(
            "INSERT INTO suppression (email_hash, reason, at) VALUES (address_hash('p1@example.com'), 'complained', now())"
        )
        await conn.execute(
            """INSERT INTO consent (email_hash, purpose, status, source, at)
               VALUES (address_hash('p2@example.com'), '*', 'out', 'crm', now())"""
        )
    plan = await campaigns.plan(post.runtime, "careful")
    assert await post.value("SELECT count(*) FROM delivery") == 0
    assert await post.value("SELECT count(*) FROM campaign") == 0
    assert (plan["frozen"], plan["recipients"]) == (39, 30)
    assert plan["excluded"] == {
        "on the list vip": 4, "duplicate address": 2, "the contact has no e-mail address": 1,
        "opted out, by the word of crm": 1, "suppressed: complained": 1,
    }  # fmt: skip
    assert plan["costs"] == {"EUR": Decimal("0.05")}
    assert [(r["relay"], r["mails"], r["gate"]) for r in plan["relays"]] == [("main", 30, "ok")]
    done = await campaigns.approve(post.runtime, "careful", plan["plan"])
    assert (done["approved"], done["state"], done["frozen"], done["hash"]) == (
        True,
        "approved",
        39,
        plan["plan"],
    )
    assert await states(post, "careful") == {"queued": 30, "excluded": 9}
    await post.run("mail")
    assert await states(post, "careful") == {"accepted": 30, "excluded": 9}
    found = await about(post, "careful")
    assert (found["state"], found["settled"], found["adds_up"], found["progress"]) == (
        "finished",
        39,
        True,
        1.0,
    )
    got = recipients(relay)
    assert len(got) == 30
    assert set(got.values()) == {1}
    assert got["shared@example.com"] == 1


async def test_approving_twice_changes_nothing_even_at_once(post: Rig) -> None:
    await fill(post, 20)
    both = await asyncio.gather(*(campaigns.approve(post.runtime, "spring", None) for _ in range(2)))
    assert sorted(done["approved"] for done in both) == [False, True]
    await fill(post, 5)
    again = await campaigns.approve(post.runtime, "spring", "of another plan")
    assert (again["approved"], again["frozen"]) == (False, 20)
    assert await states(post) == {"queued": 20}
    with pytest.raises(HubError, match="approved already"):
        await campaigns.plan(post.runtime, "spring")


@pytest.mark.parametrize("change", ["somebody joins", "somebody opts out", "the template"])
async def test_a_plan_that_is_not_true_any_more_is_refused(post: Rig, change: str) -> None:
    await fill(post, 10)
    plan = (await campaigns.plan(post.runtime, "spring"))["plan"]
    assert (await campaigns.plan(post.runtime, "spring"))["plan"] == plan
    if change == "somebody joins":
        await fill(post, 1)
    elif change == "the template":
        (post.folder / "hello.html").write_text("<p>Another one</p>")
    else:
        async with post.runtime.db.transaction() as conn:
            await conn.execute(
                """INSERT INTO consent (email_hash, purpose, status, source, at)
                   VALUES (address_hash('p2@example.com'), 'news', 'out', 'web', now())"""
            )
    with pytest.raises(HubError, match="is not what was planned"):
        await campaigns.approve(post.runtime, "spring", plan)
    assert await states(post) == {}


async def test_who_comes_later_is_not_in_it_and_who_opts_out_later_gets_nothing(
    post: Rig, relay: RelaySandbox
) -> None:
    await fill(post, 10)
    await campaigns.approve(post.runtime, "dated", None)
    await fill(post, 10)
    async with post.runtime.db.transaction() as conn:
        await conn.execute(
            """INSERT INTO consent (email_hash, purpose, status, source, at)
               VALUES (address_hash('p2@example.com'), 'news', 'out', 'web', now())"""
        )
    post.clock.advance(hours=24)
    await post.run("lists", "mail")
    assert await states(post, "dated") == {"accepted": 9, "excluded": 1}
    assert (await about(post, "dated"))["state"] == "finished"
    assert len(recipients(relay)) == 9


async def test_unknown_campaigns_and_lists_that_wait(post: Rig) -> None:
    with pytest.raises(HubError, match="there is no campaign 'sprin'"):
        await campaigns.plan(post.runtime, "sprin")
    with pytest.raises(HubError, match="waits for crm/contacts"):
        await campaigns.plan(post.runtime, "spring")
    with pytest.raises(HubError, match="is not approved"):
        await campaigns.pause(post.runtime, "spring")


# --- speed and times ---------------------------------------------------------------------------------------------


async def test_mails_go_at_their_speed(post: Rig) -> None:
    await fill(post, 60)
    await campaigns.approve(post.runtime, "slow", None)  # one in 10 seconds
    for minute in range(1, 5):
        await post.run("mail")
        assert (await states(post, "slow"))["accepted"] == 1 + 6 * (minute - 1)
        post.clock.advance(minutes=1)
    found = await about(post, "slow")
    assert found["state"] == "sending"
    assert timedelta(minutes=5) < found["eta"] - post.clock.now() < timedelta(minutes=15)
    post.clock.advance(minutes=6)
    await post.run("mail")
    assert await states(post, "slow") == {"accepted": 60}


async def test_a_pause_is_followed_by_no_burst(post: Rig) -> None:
    await fill(post, 60)
    await campaigns.approve(post.runtime, "slow", None)
    await post.run("mail")
    post.clock.advance(seconds=95)
    assert (await campaigns.pause(post.runtime, "slow"))["mails"] == 59
    assert await states(post, "slow") == {"accepted": 1, "held": 59}
    post.clock.advance(hours=1)
    await post.run("mail")
    assert await states(post, "slow") == {"accepted": 1, "held": 59}
    assert (await campaigns.resume(post.runtime, "slow"))["mails"] == 59
    await post.run("mail")
    assert (await states(post, "slow"))["accepted"] == 2
    post.clock.advance(minutes=1)
    await post.run("mail")
    assert (await states(post, "slow"))["accepted"] == 8
    post.clock.advance(minutes=9)
    await post.run("mail")
    found = await about(post, "slow")
    assert (found["state"], found["counts"]) == ("finished", {"accepted": 60})


async def test_everybody_by_their_own_clock(post: Rig) -> None:
    for zone, country in (
        ("America/New_York", "US"), ("asia_slash_tokyo", None), ("nowhere", "AT"), (None, "US"), (None, "IN"), ("", None),
    ):  # fmt: skip
        await fill(post, 2, zone=zone, country=country)  # type: ignore[arg-type]
    plan = await campaigns.plan(post.runtime, "local")
    assert [(row["at"].isoformat(), row["recipients"], row["of"]) for row in plan["starts"]] == [
        ("2026-11-26T00:00:00+00:00", 2, ["Asia/Tokyo"]),
        ("2026-11-26T03:30:00+00:00", 2, ["IN"]),
        ("2026-11-26T08:00:00+00:00", 6, ["AT", "Europe/Vienna (by default)"]),
        ("2026-11-26T14:00:00+00:00", 2, ["America/New_York"]),
    ]
    await campaigns.approve(post.runtime, "local", plan["plan"])
    sent = []
    for at in (
        "2026-11-25T23:59",
        "2026-11-26T00:00",
        "2026-11-26T07:59",
        "2026-11-26T08:00",
        "2026-11-26T14:00",
    ):
        post.clock.current = datetime.fromisoformat(at).replace(tzinfo=UTC)
        await post.run("mail")
        sent.append((await states(post, "local")).get("accepted", 0))
    assert sent == [0, 2, 4, 10, 12]


async def test_what_is_too_late_is_held_and_waits_for_a_person(post: Rig, relay: RelaySandbox) -> None:
    await fill(post, 10)
    await campaigns.approve(post.runtime, "dated", None)
    post.clock.current = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)  # the hub was away for 19 hours
    await post.run("mail")
    assert await states(post, "dated") == {"held": 10}
    assert (await about(post, "dated"))["state"] == "sending"
    found = await campaigns.held(post.runtime)
    assert found["fence"] is None
    assert found["held"] == [{"campaign": "dated", "reason": "late", "mails": 10}]
    assert recipients(relay) == {}
    post.clock.advance(hours=5)
    assert (await campaigns.release(post.runtime, "dated"))["queued"] == 10
    post.clock.advance(minutes=1)
    await post.run("mail")
    assert await states(post, "dated") == {"accepted": 10}
    assert (await about(post, "dated"))["state"] == "finished"


async def test_a_time_that_has_passed_is_refused(post: Rig) -> None:
    await fill(post, 3)
    post.clock.advance(days=3)
    for do in (campaigns.plan(post.runtime, "dated"), campaigns.approve(post.runtime, "dated", None)):
        with pytest.raises(HubError, match="has passed"):
            await do
    assert await states(post, "dated") == {}


# --- in the middle of sending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["resume", "cancel"])
async def test_paused_in_the_middle_with_two_workers(
    post: Rig, relay: RelaySandbox, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(send, "CHUNK", 50)
    await fill(post, 600)
    relay.faults.plan("reply", stage="rcpt", text="450 4.2.1 Try later", times=40)
    await campaigns.approve(post.runtime, "spring", None)

    async def paused_in_between() -> None:
        while not relay.office.deliveries:  # as soon as something is on its way
            await asyncio.sleep(0)
        await campaigns.pause(post.runtime, "spring")

    async with runtimes.opened(post.folder / "hub.yaml", post.environ, clock=post.clock) as other:
        await asyncio.gather(
            stages.run(post.runtime, "mail", ""), stages.run(other, "mail", ""), paused_in_between()
        )
        middle = await states(post)
        assert set(middle) == {"accepted", "held"}  # also what came back of the relay while it was paused
        assert middle["held"] >= 40
        assert sum(middle.values()) == 600
        assert (await about(post))["state"] == "paused"
        if ending == "cancel":
            await campaigns.cancel(post.runtime, "spring")
        else:
            await campaigns.resume(post.runtime, "spring")
            async with post.runtime.db.transaction() as conn:
                await conn.execute("UPDATE delivery SET retry_at = NULL")
        await asyncio.gather(stages.run(post.runtime, "mail", ""), stages.run(other, "mail", ""))
    got = recipients(relay)
    assert set(got.values()) == {1}
    found = await about(post)
    assert found["adds_up"]
    if ending == "resume":
        assert (found["state"], found["counts"]) == ("finished", {"accepted": 600})
        assert len(got) == 600
    else:
        assert found["state"] == "cancelled"
        assert found["counts"] == {"accepted": middle["accepted"], "excluded": middle["held"]}
        assert len(got) == middle["accepted"]
        with pytest.raises(HubError, match="is cancelled"):
            await campaigns.resume(post.runtime, "spring")


async def test_it_is_not_finished_while_a_mail_waits_and_uncertain_is_counted_apart(
    post: Rig, relay: RelaySandbox
) -> None:
    await fill(post, 10)
    relay.faults.plan("reply", stage="rcpt", text="450 4.2.1 Try later", times=1)
    relay.faults.plan("reply", stage="rcpt", text="550 5.1.1 No such user", times=1)
    relay.faults.plan("drop_after_data", times=1)
    await campaigns.approve(post.runtime, "spring", None)
    await post.run("mail")
    assert (await about(post))["state"] == "sending"
    async with post.runtime.db.transaction() as conn:
        await conn.execute("UPDATE delivery SET retry_at = NULL")
    await post.run("mail")
    found = await about(post)
    assert (found["state"], found["counts"]) == ("finished", {"accepted": 8, "rejected": 1, "uncertain": 1})


async def test_a_row_that_is_lost_keeps_a_campaign_from_being_finished(post: Rig) -> None:
    await fill(post, 5)
    await campaigns.approve(post.runtime, "spring", None)
    async with post.runtime.db.transaction() as conn:
        await conn.execute("DELETE FROM delivery WHERE id = (SELECT min(id) FROM delivery)")
    await post.run("mail", "campaigns")
    found = await about(post)
    assert (found["state"], found["settled"], found["adds_up"]) == ("sending", 4, False)


async def test_the_sweep_finds_campaigns_that_nobody_wakes(post: Rig) -> None:
    await fill(post, 3)
    await campaigns.approve(post.runtime, "dated", None)
    assert {w.kind for w in await stages.waiting(post.runtime)} & {"mail", "campaigns"} == set()
    post.clock.advance(days=1)
    found = {w.kind: w.count for w in await stages.waiting(post.runtime)}
    assert (found["mail"], found["campaigns"]) == (3, 1)


# --- clocks and rates, without a database --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wall", "zone", "utc"),
    [
        ("2026-03-29 02:30", "Europe/Vienna", "2026-03-29 01:00"),  # skipped: the first moment after it
        ("2026-10-25 02:30", "Europe/Vienna", "2026-10-25 00:30"),  # twice: the first of both
        ("2026-03-08 02:00", "America/New_York", "2026-03-08 07:00"),
        ("2026-10-04 02:15", "Australia/Lord_Howe", "2026-10-03 15:30"),  # a change by half an hour
        ("2011-12-30 09:00", "Pacific/Apia", "2011-12-30 10:00"),  # a day that never was
        ("2026-07-01 09:00", "Asia/Kathmandu", "2026-07-01 03:15"),
    ],
)
def test_wall_times(wall: str, zone: str, utc: str) -> None:
    named = zone_named(zone)
    assert named is not None
    assert moment(datetime.fromisoformat(wall), named) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


def test_a_country_answers_only_with_one_clock() -> None:
    nine = datetime(2026, 12, 1, 9)
    assert moment_for(nine, "", "de") == datetime(2026, 12, 1, 8, tzinfo=UTC)  # Berlin and Büsingen agree
    assert [moment_for(nine, "", code) for code in ("US", "ES", "CN", "XX", "")] == [None] * 5


def test_the_pace_of_a_warm_up() -> None:
    section = RelaySection.model_validate({"warm_up": {"start": "2026-12-01", "plan": [86_400, 172_800]}})
    rate = rates({"main": section}, "news", "a.example", None)
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert rate(noon) == Rate(0.0, datetime(2026, 12, 1, tzinfo=UTC))
    pieces = paced([(noon, 300_000)], rate)
    assert [(p.mails, p.at.isoformat(), p.gap_seconds) for p in pieces] == [
        (86_400, "2026-12-01T00:00:00+00:00", 1.0),
        (172_800, "2026-12-02T00:00:00+00:00", 0.5),
        (40_800, "2026-12-03T00:00:00+00:00", 0.0),
    ]


def test_mails_that_begin_while_others_are_still_going_go_after_them() -> None:
    first, second = datetime(2026, 12, 1, 8, tzinfo=UTC), datetime(2026, 12, 1, 9, tzinfo=UTC)
    pieces = paced([(first, 7_200), (second, 100)], lambda at: Rate(1.0, None))
    assert [p.at for p in pieces] == [first, first + timedelta(hours=2)]


def test_no_relay_no_pace() -> None:
    with pytest.raises(HubError, match="no relay may carry"):
        paced([(datetime(2026, 12, 1, tzinfo=UTC), 1)], rates({}, "news", "a.example", None))


def test_which_relay_carries_how_much() -> None:
    relays = {
        "a": RelaySection.model_validate({"order": 1, "weight": 3, "limits": {"per_day": 1_000}}),
        "b": RelaySection.model_validate({"order": 1, "weight": 1}),
        "german": RelaySection.model_validate({"order": 0, "serves": {"countries": ["DE"]}}),
        "spare": RelaySection.model_validate({"order": 2}),
    }
    at = datetime(2026, 12, 1, tzinfo=UTC)
    assert split(relays, "news", "x.example", {"DE": 10, "AT": 400}, 0.0, at) == {
        "german": 10,
        "a": 300,
        "b": 100,
    }
    limited = {"a": relays["a"], "spare": relays["spare"]}
    assert split(limited, "news", "x.example", {"AT": 5_000}, 0.0, at) == {"a": 1_000, "spare": 4_000}
    assert split(limited, "news", "x.example", {"AT": 5_000}, 3 * 86_400.0, at) == {
        "a": 3_000,
        "spare": 2_000,
    }
    assert split({"german": relays["german"]}, "news", "x.example", {"": 2, "DE": 1}, 0.0, at) == {
        "": 2,
        "german": 1,
    }


def test_a_campaigns_speed_is_the_least_of_all_limits() -> None:
    relays = {"main": RelaySection.model_validate({"limits": {"per_second": 20, "per_day": 86_400}})}
    at = datetime(2026, 12, 1, tzinfo=UTC)
    assert rates(relays, "news", "x.example", None)(at) == Rate(1.0, None)
    assert rates(relays, "news", "x.example", 0.5)(at) == Rate(0.5, None)
    assert planning.rates({"main": RelaySection()}, "news", "x.example", None)(at).per_second == float("inf")
