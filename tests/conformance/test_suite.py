"""The suite under test: each wrong connector is failed by the check that is meant for it, and by no other of its kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from acme_case import AcmeCase

from connectors.smtp import Smtp
from hub.sdk.conformance import Grade, Report, Verdict, checks_for, report, run
from hub.sdk.conformance.suite import CONNECTOR_CHECKS, RELAY_CHECKS
from hub.sdk.relay import NotSent, RelaySession, Reply, UnknownOutcome
from tests.conformance.broken import BROKEN
from tests.conformance.cases import SmtpCase


@pytest.mark.parametrize(
    ("case", "expected", "families"), BROKEN, ids=[case.connector.__name__ for case, _, _ in BROKEN]
)
async def test_a_wrong_connector_is_found_out(
    case: type[AcmeCase], expected: frozenset[str], families: tuple[str, ...]
) -> None:
    names = [check.name for check in CONNECTOR_CHECKS if check.name.startswith(families)]
    found = await run(case, names)
    assert set(found.failed) == expected, str(found)
    assert all(len(words) > 15 for words in found.failed.values()), str(found)
    assert not found.missing(Grade.NONE)
    assert found.grade is not Grade.GOLD


def test_every_check_has_a_wrong_connector() -> None:
    proven = {check for _, expected, _ in BROKEN for check in expected}
    passing_faults = {"fault.truncated", "fault.html", "fault.expired-token", "fault.lost-answer"}
    same_as_a_fault = {"push.429", "push.500", "push.html", "push.expired-token"}
    unproven = {check.name for check in CONNECTOR_CHECKS} - proven - passing_faults - same_as_a_fault
    assert unproven == set()


def test_names_are_unique_and_every_check_says_what_holds() -> None:
    for checks in (CONNECTOR_CHECKS, RELAY_CHECKS):
        assert len({check.name for check in checks}) == len(checks)
        assert all(check.holds.endswith(".") and len(check.holds) > 30 for check in checks)


# -- relays -------------------------------------------------------------------------------------------------


class Wrapped:
    """The good relay, altered: it offers one message after the other."""

    Settings = Smtp.Settings
    pipelining = None

    def __init__(self, name: str, settings: Any) -> None:
        self.name, self.settings = name, settings

    @asynccontextmanager
    async def session(self) -> AsyncIterator[RelaySession]:
        altered = self

        class Session(RelaySession):
            async def send(self, return_path: str, recipient: str, message: bytes) -> Reply:
                return await altered.alter(good.send, return_path, recipient, message)

        async with AsyncExitStack() as stack:
            try:
                good = await stack.enter_async_context(Smtp(self.name, self.settings).session())
            except NotSent as error:
                raise NotSent(self.words(error), error.fix) from None
            yield Session()

    async def alter(self, send: Any, *offer: Any) -> Reply:
        found: Reply = await send(*offer)
        return found

    def words(self, error: NotSent) -> str:
        return error.what


class TakesALostAnswerForARefusal(Wrapped):
    async def alter(self, send: Any, *offer: Any) -> Reply:
        try:
            found: Reply = await send(*offer)
        except UnknownOutcome as error:
            raise NotSent(error.what) from None
        return found


class TakesADropForAnUnknown(Wrapped):
    async def alter(self, send: Any, *offer: Any) -> Reply:
        try:
            found: Reply = await send(*offer)
        except NotSent as error:
            raise UnknownOutcome(error.what) from None
        return found


class TakesEveryRefusalForGood(Wrapped):
    async def alter(self, send: Any, *offer: Any) -> Reply:
        found: Reply = await send(*offer)
        return found._replace(code=550) if found.temporary else found


class StripsDots(Wrapped):
    async def alter(self, send: Any, path: str, to: str, content: bytes) -> Reply:
        found: Reply = await send(path, to, content.replace(b"\r\n..", b"\r\n."))
        return found


class TellsThePassword(Wrapped):
    def words(self, error: NotSent) -> str:
        return f"{self.settings.password.get_secret_value()} is refused"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Wrapped, set()),
        (TakesALostAnswerForARefusal, {"mail.unknown"}),
        (TakesADropForAnUnknown, {"mail.dropped", "mail.closing"}),
        (TakesEveryRefusalForGood, {"mail.temporary"}),
        (StripsDots, {"mail.intact"}),
        (TellsThePassword, {"login.refused", "connect.refused"}),
    ],
)
async def test_a_wrong_relay_is_found_out(kind: Any, expected: set[str]) -> None:
    case = type("BrokenCase", (SmtpCase,), {"relay": kind})
    names = [check.name for check in RELAY_CHECKS if check.name.startswith(("mail.", "login.", "connect."))]
    found = await run(case, names)
    assert set(found.failed) == expected, str(found)


# -- the grade ----------------------------------------------------------------------------------------------


def told(bronze: str = "passed", silver: str = "passed", gold: str = "passed") -> Report:
    states = ((Grade.BRONZE, bronze), (Grade.SILVER, silver), (Grade.GOLD, gold))
    return Report("acme", [Verdict(f"a.{grade}", grade, state) for grade, state in states])


@pytest.mark.parametrize(
    ("states", "grade"),
    [
        ({}, Grade.GOLD),
        ({"gold": "not applicable"}, Grade.GOLD),
        ({"gold": "skipped"}, Grade.SILVER),
        ({"silver": "failed"}, Grade.BRONZE),
        ({"bronze": "failed"}, Grade.NONE),
        ({"bronze": "skipped"}, Grade.NONE),
    ],
)
def test_the_grade_is_what_the_verdicts_bear(states: dict[str, str], grade: Grade) -> None:
    assert told(**states).grade is grade


class SilentCase(AcmeCase):
    """Says nothing of webhooks, nor how to remove a record."""

    def webhook_bodies(self) -> list[bytes]:
        return super(AcmeCase, self).webhook_bodies()

    def remove(self, stream: str, id: str) -> None:
        super(AcmeCase, self).remove(stream, id)


def test_what_the_case_does_not_give_is_skipped_and_earns_no_grade() -> None:
    found = report(SilentCase, ["webhook.right", "pull.removals", "manifest.complete"])
    states = {v.check: v.state for v in found.verdicts}
    assert states == {"manifest.complete": "passed", "pull.removals": "skipped", "webhook.right": "skipped"}
    assert found.grade is Grade.NONE
    assert "webhook_bodies" in str(found)


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(LookupError, match=r"pull\.everything"):
        report(AcmeCase, ["pull.everything"])


def test_the_checks_of_a_case_are_those_of_its_kind() -> None:
    assert checks_for(SmtpCase) == RELAY_CHECKS
    assert checks_for(AcmeCase) == CONNECTOR_CHECKS


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-m", "hub.sdk.conformance", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_the_command_prints_the_report_and_tells_by_its_code_whether_the_grade_is_reached() -> None:
    done = command("acme_case:AcmeCase", "--only", "manifest.complete", "--only", "pull.complete", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["subject"]) == (0, "acme_crm")
    assert {name: check["state"] for name, check in told["checks"].items()} == {
        "manifest.complete": "passed", "pull.complete": "passed",
    }  # fmt: skip
    wrong = command("tests.conformance.broken:HasNoLimitsCase", "--only", "manifest.complete")
    assert wrong.returncode == 1
    assert "failed: limits is empty" in wrong.stdout


def test_the_suite_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import hub.sdk.conformance; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr
