"""HubSpot through the suite, and what is HubSpot's own."""

from __future__ import annotations

from hub.model import OutcomeStatus
from hub.sdk.conformance import Grade, run, suite_for
from hub.sdk.conformance.case import opened
from tests.conformance.cases import HubSpotCase, HubSpotOAuthCase

TestHubSpot = suite_for(HubSpotCase, Grade.GOLD)


async def test_signed_in_by_oauth_a_token_that_expires_is_renewed_on_the_way() -> None:
    names = ("settings.secret", "pull.complete", "fault.expired-token", "push.expired-token", "webhook.right")
    report = await run(HubSpotOAuthCase, names)
    assert [v.check for v in report.verdicts if v.state == "passed"] == sorted(names, key=names.index), str(
        report
    )


async def test_where_nothing_is_prepared_opt_outs_and_fields_go_out_all_the_same() -> None:
    async with opened(HubSpotCase) as bench:
        found = await bench.push(bench.case.pushes())
        results = [o for id, o in found.items() if id.startswith("d")]
        assert {o.status for o in results} == {OutcomeStatus.FIX_NEEDED}
        assert {id for id, o in found.items() if o.status is OutcomeStatus.DONE} == {
            "f1",
            "f2",
            "c1",
            "c2",
            "e1",
        }
        assert "p3@example.com 730001 UNSUBSCRIBED" in bench.case.written()
        assert all("prepare" in o.fix for o in results), results
