"""A pull while HubSpot fails: every run ends complete, or partial with the reason and the place where it resumes."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.hubspot.limits import Limits
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from hub.sync import pull as pull_stage
from tests.support.rig import Rig, hubspot_account

PEOPLE = 450  # five pages of the list endpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their pauses, and batches of one page, so that a fault strikes between two."""
    monkeypatch.setattr("hub.sdk.http.Http._pause", staticmethod(lambda attempt, failure: 0.0))
    monkeypatch.setattr(pull_stage, "BATCH_RECORDS", 100)


def fill(hubspot: HubSpotSandbox, count: int = PEOPLE) -> None:
    for n in range(count):
        hubspot.create("contacts", {"email": f"p{n}@example.com", "firstname": f"P{n}", "city": "Berlin"})


async def people(rig: Rig) -> int:
    return int(await rig.value("SELECT count(DISTINCT email) FROM contact WHERE state = 'live'"))


@pytest.mark.parametrize("kind", ["429", "500", "truncated", "html", "lost_answer"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_passing_fault_is_ridden_out_within_the_run(rig: Rig, kind: str, method: str) -> None:
    fill(rig.hubspot)
    rig.hubspot.faults.plan(
        kind, times=2, method=method, skip=1 if method == "GET" else 0, path="/crm/v3/objects/contacts"
    )
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert (run["state"], run["counts"]["created"]) == ("done", PEOPLE)
    assert run["counts"]["repeated_calls"] == 2
    assert await people(rig) == PEOPLE


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("429", "ten_secondly_rolling"),
        ("500", "internal"),
        ("truncated", "lost"),
        ("html", "502"),
        ("lost_answer", "lost"),
        ("expired_token", "token"),
    ],
)
async def test_a_lasting_fault_ends_the_run_partial_and_the_next_one_goes_on_there(
    rig: Rig, kind: str, reason: str
) -> None:
    fill(rig.hubspot)
    rig.hubspot.faults.plan(kind, times=5, skip=2, path="/crm/v3/objects/contacts")
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert run["state"] == "partial"
    assert reason in run["reason"].lower()
    assert run["counts"]["created"] == 200
    assert run["resumes_at"]["part"] == "list"
    assert run["resumes_at"]["after"]
    assert await people(rig) == 200

    rig.hubspot.faults.planned.clear()
    before = rig.hubspot.faults.count("/crm/v3/objects/contacts$", "GET")
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert (run["state"], run["counts"]["created"]) == ("done", PEOPLE - 200)
    # Three pages were left, and the one of archived people; the first two are not read again.
    assert rig.hubspot.faults.count("/crm/v3/objects/contacts$", "GET") - before == 4
    assert await people(rig) == PEOPLE


async def test_a_fault_before_anything_was_read_is_a_failed_run_that_says_what_to_do(rig: Rig) -> None:
    rig.hubspot.faults.plan("expired_token", times=9)
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert run["state"] == "failed"
    assert "renew the token" in run["reason"]


async def test_the_daily_quota_ends_the_run_and_names_when_it_goes_on(
    rig: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(rig.hubspot)
    connector = await rig.runtime.connector("crm", pulling=True)
    limits = tuple(
        limit if limit.name != "daily" else type(limit)("daily", 5, 86_400) for limit in connector.http.limits
    )
    monkeypatch.setattr(connector.http, "limits", limits)
    monkeypatch.setattr(connector.http, "share", 0.8)  # of five calls a pull may use four
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert run["state"] == "partial"
    assert "the quota 'daily'" in run["reason"]
    assert run["counts"]["calls"] == 4
    resumable = await rig.value("SELECT resume_after FROM run ORDER BY id DESC LIMIT 1")
    assert (resumable - clock.now()).total_seconds() > 3600


async def test_an_oauth_token_that_expires_in_the_middle_is_renewed_once(
    rig: Rig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(rig.hubspot)
    config = rig.folder / "hub.yaml"
    config.write_text(
        config.read_text().replace(
            'token: "${HUBSPOT_TOKEN}"',
            'client_id: sandbox-client-id\n    client_secret: "${HUBSPOT_APP_SECRET}"\n'
            '    refresh_token: "${REFRESH_TOKEN}"',
        )
    )
    environ = {**rig.environ, "REFRESH_TOKEN": refresh_token(rig.hubspot)}
    from hub.jobs import runtime as runtimes

    async with runtimes.opened(config, environ, clock=clock) as runtime:
        again = Rig(runtime, rig.hubspot, clock, rig.folder, rig.environ)
        rig.hubspot.faults.plan("expired_token", times=1, skip=2, path="/crm/v3/objects/contacts")
        await again.run("pull:contacts")
    run = await rig.last_run()
    assert (run["state"], run["counts"]["created"]) == ("done", PEOPLE)
    assert rig.hubspot.faults.count("/oauth/v1/token", "POST") == 2
    sealed = await rig.rows("SELECT * FROM token")
    assert len(sealed) == 1
    assert not any(token in str(sealed) for token in rig.hubspot.tokens.access)


def refresh_token(hubspot: HubSpotSandbox) -> str:
    """What an admin gets by consenting once in the browser."""
    form = {
        "grant_type": "authorization_code", "code": hubspot.tokens.issue_code(),
        "client_id": hubspot.client_id, "client_secret": hubspot.client_secret,
    }  # fmt: skip
    return str(hubspot.tokens.exchange(form, v3=False)["refresh_token"])


async def test_the_vendors_burst_limit_is_kept_and_never_met(
    tmp_path: Any, clock: ManualClock, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.rig import opened

    monkeypatch.undo()
    with hubspot_account(clock, limits=Limits()) as hubspot:
        fill(hubspot, 120)
        async with opened(tmp_path, clock, hubspot, database_url=database_url, redis_url=redis_url) as rig:
            await rig.run("pull:contacts", "pull:deals", "pull:segments")
            assert await people(rig) == 120
        assert hubspot.faults.count(status=429) == 0


async def test_a_connectors_own_bug_ends_its_run_and_nothing_else(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(rig.hubspot, 3)

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("results")

    monkeypatch.setattr("connectors.hubspot.reading._record", broken)
    await rig.run("pull:contacts")
    run = await rig.last_run()
    assert run["state"] == "failed"
    assert "the connector failed: KeyError" in run["reason"]
