"""Checks of reading while the vendor fails: a run ends complete or with an error that resumes, and nothing is lost."""

from __future__ import annotations

from hub.errors import FixNeeded, Retry
from hub.sdk.conformance.case import Bench, ConnectorCase, Pulled, described, opened
from hub.sdk.conformance.pulling import same
from hub.sdk.conformance.verdict import Checks, Grade
from hub.sdk.connector import Cursor
from hub.sdk.http import ATTEMPTS

KINDS = {
    "429": "too many calls, with the vendor's own headers",
    "500": "an internal error",
    "truncated": "an answer whose JSON is cut off",
    "html": "a proxy's page instead of an answer",
    "expired_token": "a token that has expired",
    "lost_answer": "an answer that never arrives",
}
MOST_PLACES, MOST_RUNS, DAY_SECONDS = 4, 12, 86_400.0
checks: Checks[ConnectorCase] = Checks()


def places(calls: int) -> list[int]:
    """Which calls to let fail: all of a few, else the first two, one in the middle and the last."""
    if calls <= MOST_PLACES:
        return list(range(calls))
    return [0, 1, calls // 2, calls - 1]


def _promise(kind: str, words: str) -> None:
    @checks(
        f"fault.{kind.replace('_', '-')}",
        Grade.SILVER,
        f"A pull that meets {words}, once or lastingly, ends complete or resumes, and nothing is lost.",
    )
    async def fault(case: type[ConnectorCase]) -> None:
        async with opened(case, "streams") as bench:
            for stream in bench.streams():
                before = bench.case.calls()
                whole = await bench.whole(stream)
                calls = bench.case.calls() - before
                await _ridden_out(bench, stream, whole, kind, calls // 2, 1)
                for skip in places(calls):
                    await _ridden_out(bench, stream, whole, kind, skip, ATTEMPTS)


for _kind, _words in KINDS.items():
    _promise(_kind, _words)


async def _ridden_out(bench: Bench, stream: str, whole: Pulled, kind: str, skip: int, times: int) -> None:
    """Run as the hub runs: whatever a run brought is kept with its cursor, and the next one goes on there."""
    when = f"with {kind} at call {skip + 1}" + (f" and the {times - 1} after it" if times > 1 else "")
    bench.case.fault(kind, times=times, skip=skip)
    told, cursor = Pulled(), Cursor()
    try:
        for _ in range(MOST_RUNS):
            run = await bench.pull(stream, cursor)
            told.pages += run.pages
            cursor = run.cursor(cursor)
            if run.error is None:
                break
            _must_pass(stream, kind, when, run.error)
            bench.case.heal()
            bench.pauses.now += DAY_SECONDS  # whatever the vendor asked to wait for is over
        else:
            raise AssertionError(f"{stream}: {when}, {MOST_RUNS} runs do not reach the end")
    finally:
        bench.case.heal()
    same(stream, whole, Pulled(), told, when)


def _must_pass(stream: str, kind: str, when: str, error: Exception) -> None:
    """A passing fault is a Retry; only a token may need a person."""
    allowed = (Retry, FixNeeded) if kind == "expired_token" else (Retry,)
    assert isinstance(error, allowed), (
        f"{stream}: {when}, the run ends in {described(error)}; a fault that passes is hub.errors.Retry"
        " (mark reading calls that are POSTs as repeatable=True)"
    )
