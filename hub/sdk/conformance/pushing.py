"""Checks of writing: one outcome a push, no bad row at its neighbours' cost, and no second effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hub.model import Outcome, OutcomeStatus, Push
from hub.sdk.conformance.case import KINDS, NO_OUTCOME, Bench, ConnectorCase, opened
from hub.sdk.conformance.failing import DAY_SECONDS, places
from hub.sdk.conformance.failing import KINDS as FAULTS
from hub.sdk.conformance.pulling import some
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable, NotGiven
from hub.sdk.http import ATTEMPTS

REFUSED = (OutcomeStatus.FIX_NEEDED, OutcomeStatus.DROPPED)
MOST_ROUNDS = 4
checks: Checks[ConnectorCase] = Checks()


def told(outcome: Outcome) -> str:
    return f"{outcome.id}: {outcome.status} {outcome.code} {outcome.message}".rstrip()


@checks("push.outcomes", Grade.BRONZE)
async def outcomes(case: type[ConnectorCase]) -> None:
    """A batch gets exactly one outcome for each push, good or bad, and none for anything else."""
    async with opened(case, "pushes") as bench:
        await bench.connector().prepare()
        batch = _mixed(bench)
        answers = Counter(o.id for o in await bench.connector().push(batch))
        asked = {each.id for each in batch}
        assert len(asked) == len(batch), "the case gives two pushes with one id"
        without, strange = asked - set(answers), set(answers) - asked
        assert not without, f"{len(without)} of {len(batch)} pushes get no outcome: {some(without)}"
        assert not strange, f"outcomes come for what was not pushed: {some(strange)}"
        often = [id for id, n in answers.items() if n > 1]
        assert not often, f"more than one outcome comes for {some(often)}"


@checks("push.accepted", Grade.BRONZE)
async def accepted(case: type[ConnectorCase]) -> None:
    """Every kind of push that the manifest lists is taken, and arrives at the vendor."""
    async with opened(case, "pushes") as bench:
        await bench.connector().prepare()
        pushes, before = bench.case.pushes(), bench.case.written()
        given = {KINDS[type(each)] for each in pushes}
        lacking = set(bench.manifest.pushes) - given
        if lacking:
            raise NotGiven(f"pushes() has none of: {', '.join(sorted(lacking))}")
        found = await bench.push(pushes)
        wrong = [told(o) for o in found.values() if o.status is not OutcomeStatus.DONE]
        assert not wrong, f"good pushes are not done: {'; '.join(wrong[:3])}"
        assert Counter(bench.case.written()) != Counter(before), "all is said to be done, and nothing arrived"


@checks("push.neighbours", Grade.BRONZE)
async def neighbours(case: type[ConnectorCase]) -> None:
    """A row that the vendor refuses does not fail the others of its batch."""
    async with opened(case, "pushes") as bench:
        done, expected = await _clean(case)
        await bench.connector().prepare()
        found = await bench.push(_mixed(bench))
        wrong = [told(found[id]) for id in done if found[id].status is not OutcomeStatus.DONE]
        assert not wrong, f"good rows fail beside a bad one: {'; '.join(wrong[:3])}"
        lost = Counter(expected) - Counter(bench.case.written())
        assert not lost, f"beside a bad row, what should arrive does not: {some(lost)}"


@checks("push.refusals", Grade.BRONZE)
async def refusals(case: type[ConnectorCase]) -> None:
    """A refused push says the vendor's code and message, and what a person can do about it."""
    async with opened(case, "pushes") as bench:
        await bench.connector().prepare()
        bad = bench.case.bad_pushes()
        for batch in ([each] for each in bad):
            await _refused(bench, batch)
        await _refused(bench, bad)


async def _refused(bench: Bench, batch: Sequence[Push]) -> None:
    for outcome in (await bench.push(batch)).values():
        if outcome.code == NO_OUTCOME:
            continue
        assert outcome.status in REFUSED, f"a bad push is not refused for good: {told(outcome)}"
        lacking = [n for n in ("code", "message", "fix") if not getattr(outcome, n).strip()]
        assert not lacking, f"a refusal does not say its {' and '.join(lacking)}: {told(outcome)}"


@checks("push.repeat", Grade.SILVER)
async def repeat(case: type[ConnectorCase]) -> None:
    """Where the manifest says `repeatable`, pushing the same again has no second effect."""
    async with opened(case, "pushes") as bench:
        if not bench.manifest.repeatable:
            raise NotApplicable(
                "the manifest says that pushes are not repeatable, so the hub never repeats one"
            )
        await bench.connector().prepare()
        pushes = bench.case.pushes()
        await bench.push(pushes)
        once = bench.case.written()
        await bench.push(pushes)
        for each in pushes:
            await bench.push([each])
        more, less = _difference(bench.case.written(), once)
        assert not more, f"a repetition leaves a second trace: {some(more)}"
        assert not less, f"a repetition takes something away: {some(less)}"


def _promise(kind: str, words: str) -> None:
    @checks(
        f"push.{kind.replace('_', '-')}",
        Grade.SILVER,
        f"A push that meets {words} ends as it would without, or says truly that nobody knows.",
    )
    async def fault(case: type[ConnectorCase]) -> None:
        async with opened(case, "pushes") as bench:
            await bench.connector().prepare()
            before = bench.case.calls()
            await bench.push(bench.case.pushes())
            calls = bench.case.calls() - before
        done, expected = await _clean(case)
        for skip, times in [(calls // 2, 1), *((place, ATTEMPTS) for place in places(calls))]:
            async with opened(case) as bench:
                await bench.connector().prepare()
                await _delivered(bench, kind, skip, times, done, expected)


for _kind, _words in FAULTS.items():
    _promise(_kind, _words)


async def _delivered(
    bench: Bench, kind: str, skip: int, times: int, done: set[str], expected: Sequence[str]
) -> None:
    """Deliver as the hub delivers: rows to be retried are offered again, uncertain ones never."""
    when = f"with {kind} at call {skip + 1}" + (f" and the {times - 1} after it" if times > 1 else "")
    again = {OutcomeStatus.RETRY} | ({OutcomeStatus.FIX_NEEDED} if kind == "expired_token" else set())
    bench.case.fault(kind, times=times, skip=skip)
    pushes, last = bench.case.pushes(), dict[str, Outcome]()
    waiting = pushes
    for _ in range(MOST_ROUNDS):
        last |= await bench.push(waiting)
        bench.case.heal()
        waiting = [each for each in pushes if last[each.id].status in again]
        if not waiting:
            break
        bench.pauses.now += DAY_SECONDS
    repeatable = bench.manifest.repeatable
    fine = (OutcomeStatus.DONE,) if repeatable else (OutcomeStatus.DONE, OutcomeStatus.UNCERTAIN)
    wrong = [told(last[id]) for id in done if last[id].status not in fine]
    hint = " (a repeatable push may be tried again)" if repeatable else ""
    assert not wrong, f"{when}, a good push ends as {'; '.join(wrong[:3])}{hint}"
    more, less = _difference(bench.case.written(), expected)
    assert not more, f"{when}, something arrives that should not, or twice: {some(more)}"
    uncertain = [id for id in done if last[id].status is OutcomeStatus.UNCERTAIN]
    assert not less or uncertain, f"{when}, pushes are said to be done that did not arrive: {some(less)}"


async def _clean(case: type[ConnectorCase]) -> tuple[set[str], list[str]]:
    """(which of the case's good pushes are done when nothing disturbs, what then stands at the vendor)."""
    async with opened(case) as bench:
        await bench.connector().prepare()
        found = await bench.push(bench.case.pushes())
        return {id for id, o in found.items() if o.status is OutcomeStatus.DONE}, bench.case.written()


@checks("mirror.members", Grade.SILVER)
async def mirror(case: type[ConnectorCase]) -> None:
    """A segment that is made for a list is found again by its name, takes contacts in and out, and tells who is in it."""
    if not case.connector.manifest.mirrors:
        raise NotApplicable("the manifest says that it mirrors no lists")
    async with opened(case) as bench:
        connector, ids = bench.connector(), sorted(bench.case.seeded("contacts"))[:5]
        assert await connector.static_segment("Mailyard conformance") == "", (
            "a segment is there that nobody made"
        )
        made = await connector.make_segment("Mailyard conformance")
        found = await bench.connector(fresh=True).static_segment("Mailyard conformance")
        assert found == made, f"the segment {made} is made, and by its name {found or 'none'} is found"
        for add, remove, expected in (
            (ids, [], ids), (ids, [], ids), ([], ids[:2], ids[2:]), (ids[:1], ids[2:3], [ids[0], *ids[3:]]),
        ):  # fmt: skip
            unknown = await bench.connector().change_members(made, add, remove)
            assert not unknown, f"contacts that live are called unknown: {some(unknown)}"
            there = await bench.connector().members(made)
            assert there == set(expected), f"members are {some(there)}, not {some(expected)}"
        unknown = await bench.connector().change_members(made, ["99999999", ids[1]], [])
        assert unknown == {"99999999"}, (
            f"of an unknown contact and a known one these are called unknown: {some(unknown)}"
        )


def _mixed(bench: Bench) -> list[Push]:
    """Good and bad pushes, the bad ones in the middle."""
    good, bad = bench.case.pushes(), bench.case.bad_pushes()
    half = (len(good) + 1) // 2
    return [*good[:half], *bad, *good[half:]]


def _difference(now: Sequence[str], then: Sequence[str]) -> tuple[list[str], list[str]]:
    """(lines that are more now, lines that are fewer)."""
    a, b = Counter(now), Counter(then)
    return list((a - b).elements()), list((b - a).elements())
