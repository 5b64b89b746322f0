"""Running the checks: all of them for a report, or each as a test of pytest's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from hub.sdk.conformance import describing, failing, hearing, privacy, pulling, pushing, relaying
from hub.sdk.conformance.case import ConnectorCase
from hub.sdk.conformance.relaying import RelayCase
from hub.sdk.conformance.verdict import Check, Grade, Report, Verdict, judge

CONNECTOR_CHECKS: tuple[Check[ConnectorCase], ...] = (
    *describing.checks, *pulling.checks, *failing.checks, *pushing.checks, *hearing.checks, *privacy.checks,
)  # fmt: skip
RELAY_CHECKS: tuple[Check[RelayCase], ...] = tuple(relaying.checks)
Case = ConnectorCase | RelayCase


def checks_for(case: type[Case]) -> tuple[Check[Any], ...]:
    """The checks of a case, in the order in which they are worth reading."""
    return RELAY_CHECKS if issubclass(case, RelayCase) else CONNECTOR_CHECKS


def subject_of(case: type[Case]) -> str:
    """The name of what is checked."""
    return case.relay.__name__.lower() if issubclass(case, RelayCase) else str(case.connector.manifest.name)


async def run(case: type[Case], only: Iterable[str] | None = None) -> Report:
    """Run the checks (all, or those named) one after the other. Never raises for what a connector does."""
    wanted = checks_for(case)
    if only is not None:
        names = set(only)
        unknown = names - {check.name for check in wanted}
        if unknown:
            raise LookupError(f"there is no check {', '.join(sorted(unknown))}")
        wanted = tuple(check for check in wanted if check.name in names)
    return Report(subject_of(case), [await judge(check, case) for check in wanted])


def report(case: type[Case], only: Iterable[str] | None = None) -> Report:
    """As `run`, for callers without an event loop."""
    return asyncio.run(run(case, only))


def suite_for(case: type[Case], grade: Grade | str = Grade.NONE) -> type[Any]:
    """A test class: `TestAcme = suite_for(AcmeCase, Grade.GOLD)` in a test module is one test a check.

    With a grade there is one more test, that the connector reaches at least that. Checks that do not apply, and
    those that the case gives nothing for, are shown as skipped with the reason. Needs no plug-in of pytest's.
    """
    found: dict[str, Verdict] = {}
    wished = Grade(grade)

    def verdict(check: Check[Any]) -> Verdict:
        if check.name not in found:
            found[check.name] = asyncio.run(judge(check, case))
        return found[check.name]

    def a_test(check: Check[Any]) -> Any:
        def test(self: Any) -> None:
            told = verdict(check)
            if told.state == "failed":
                raise AssertionError(told.words)
            if told.state != "passed":
                import pytest

                pytest.skip(f"{told.state}: {told.words}")

        test.__doc__ = check.holds
        return test

    tests = {f"test_{c.name.replace('.', '_').replace('-', '_')}": a_test(c) for c in checks_for(case)}
    if wished is not Grade.NONE:

        def test_grade(self: Any) -> None:
            told = Report(subject_of(case), [verdict(check) for check in checks_for(case)])
            lacking = [f"{v.check}: {v.state}: {v.words}" for v in told.missing(wished)]
            if lacking:
                raise AssertionError(f"{told.subject} is {told.grade}, not {wished}:\n" + "\n".join(lacking))

        tests[f"test_is_{wished}"] = test_grade
    return type(f"Test{subject_of(case).title().replace('_', '')}", (), tests)
