"""What a check is, what was found, and the grade that follows from it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from structlog.testing import capture_logs

CHECK_SECONDS = 120.0
CaseT = TypeVar("CaseT")


class Grade(StrEnum):
    """How far a connector can be trusted; `hub.sdk.conformance` says what each one means."""

    NONE = "none"
    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


LADDER = (Grade.BRONZE, Grade.SILVER, Grade.GOLD)


class NotApplicable(Exception):
    """The connector has nothing that this check could hold against it. It stands in no grade's way."""


class NotGiven(Exception):
    """The connector has it, but the case says nothing of it. What was not checked earns no grade."""


@dataclass(frozen=True)
class Check(Generic[CaseT]):
    """One promise: `holds` says it in a sentence, `run` raises AssertionError with helpful words where it is broken."""

    name: str
    grade: Grade
    holds: str
    run: Callable[[type[CaseT]], Awaitable[None]]


class Checks(Generic[CaseT]):
    """A list of checks that grows by decoration: `@checks("pull.complete", Grade.BRONZE)`."""

    def __init__(self) -> None:
        self.all: list[Check[CaseT]] = []

    def __iter__(self) -> Iterator[Check[CaseT]]:
        return iter(self.all)

    def __call__(self, name: str, grade: Grade, holds: str = "") -> Callable[[Any], Any]:
        def keep(run: Callable[[type[CaseT]], Awaitable[None]]) -> Callable[[type[CaseT]], Awaitable[None]]:
            words = holds or (run.__doc__ or "").strip().split("\n\n")[0]
            self.all.append(Check(name, grade, " ".join(words.split()), run))
            return run

        return keep


@dataclass(frozen=True)
class Verdict:
    """What one check found: `state` is `passed`, `failed`, `skipped` or `not applicable`; `words` say why."""

    check: str
    grade: Grade
    state: str
    words: str = ""

    @property
    def fine(self) -> bool:
        return self.state in ("passed", "not applicable")


@dataclass(frozen=True)
class Report:
    """All verdicts of one case. `str(report)` is a table for people."""

    subject: str
    verdicts: Sequence[Verdict]

    @property
    def grade(self) -> Grade:
        """The highest grade whose checks, and those of the grades below it, all hold."""
        reached = Grade.NONE
        for grade in LADDER:
            if not all(v.fine for v in self.verdicts if v.grade is grade):
                break
            reached = grade
        return reached

    @property
    def failed(self) -> dict[str, str]:
        """check -> what is wrong."""
        return {v.check: v.words for v in self.verdicts if v.state == "failed"}

    def missing(self, grade: Grade) -> list[Verdict]:
        """What stands between the connector and a grade."""
        below = LADDER[: LADDER.index(grade) + 1] if grade in LADDER else ()
        return [v for v in self.verdicts if v.grade in below and not v.fine]

    def as_dict(self) -> dict[str, Any]:
        found = {v.check: {"grade": v.grade.value, "state": v.state, "words": v.words} for v in self.verdicts}
        return {"subject": self.subject, "grade": self.grade.value, "checks": found}

    def __str__(self) -> str:
        width = max((len(v.check) for v in self.verdicts), default=0)
        lines = [
            f"  {v.check:<{width}}  {v.grade:<6}  {v.state}{': ' if v.words else ''}{v.words}"
            for v in self.verdicts
        ]
        return "\n".join([f"{self.subject}: {self.grade}", *lines])


async def judge(check: Check[CaseT], case: type[CaseT]) -> Verdict:
    """Run one check in a world of its own. Never raises for what the connector does; its log is not shown."""
    with capture_logs():
        return await _judged(check, case)


async def _judged(check: Check[CaseT], case: type[CaseT]) -> Verdict:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check.run(case)
    except NotApplicable as why:
        return Verdict(check.name, check.grade, "not applicable", str(why))
    except NotGiven as why:
        return Verdict(check.name, check.grade, "skipped", str(why))
    except AssertionError as wrong:
        return Verdict(check.name, check.grade, "failed", str(wrong) or f"not so: {check.holds}")
    except TimeoutError:
        return Verdict(check.name, check.grade, "failed", f"it did not end within {CHECK_SECONDS:.0f} s")
    except Exception as bug:
        return Verdict(check.name, check.grade, "failed", f"{type(bug).__name__} at {_place(bug)}: {bug}")
    return Verdict(check.name, check.grade, "passed")


def _place(bug: BaseException) -> str:
    """Where a stray exception came from: the innermost line that is not a library's."""
    frames = traceback.extract_tb(bug.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "/lib/python" not in f.filename]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
