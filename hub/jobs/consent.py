"""What a person does with the consent ledger: look at what was said, add a word by hand, import many."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from hub.config.settings import PurposeSection
from hub.errors import HubError
from hub.jobs import consent_file
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.lists.csv_file import ADDRESS
from hub.model import ConsentHow, ConsentSource
from hub.rules.reading import nearest
from hub.store import addresses, consent, contacts, decisions, obligations, optin, runs
from hub.store.consent import Statement

BATCH = 1_000


async def show(runtime: Runtime, email: str) -> dict[str, Any]:
    """`entries` (all that was said), `verdicts` (what follows for each purpose and channel, by which entry), `suppressed`."""
    async with runtime.db.connection() as conn:
        rows = await consent.verdicts(conn, email)
        judged = {
            (v["channel"], v["purpose"]): v for v in rows if v["purpose"] != "*" or v["status"] != "none"
        }
        entries = await consent.story(conn, email)
        suppressed = await decisions.suppressed(conn, email=email, limit=1)
    verdicts = []
    for channel in sorted({channel for channel, _ in judged} | {"email"}):
        for purpose in sorted({p for c, p in judged if c == channel} | set(runtime.settings.purposes)):
            stands = judged.get((channel, purpose)) or judged.get((channel, "*"))
            section = runtime.settings.purposes.get(purpose)
            status = stands["status"] if stands else "none"
            verdicts.append(
                {
                    "channel": channel, "purpose": purpose, "status": status,
                    "entry": stands["entry_id"] if stands else None, "source": stands["source"] if stands else "",
                    "at": stands["at"] if stands else None,
                    "mail": bool(section) and not suppressed and status != "out"
                            and (status == "in" or (section is not None and section.basis == "opt_out")),
                }
            )  # fmt: skip
    return {"email": email, "verdicts": verdicts, "entries": entries, "suppressed": suppressed}


async def record(
    runtime: Runtime, email: str, purpose: str, *, granted: bool, source: str, proof: str, at: datetime | None
) -> bool:
    """Add a word by hand. Returns whether it is new. Raises HubError for one that the ledger cannot take."""
    email = _address(email)
    if purpose != "*":
        _purpose(runtime, purpose)
    if granted and purpose == "*":
        raise HubError("nobody consents to everything", "name the purpose")
    if granted and not proof.strip():
        raise HubError("an opt-in needs its proof", "say with --proof where and how it was given")
    now = runtime.clock.now()
    if at is not None and at > now:
        raise HubError("it was said in the future", "correct --at")
    said = Statement(
        email, purpose, "in" if granted else "out", source, at or now, None, proof.strip(), ConsentSource.ADMIN,
        ConsentHow.BY_HAND, recorded_at=now,
    )  # fmt: skip
    return await _recorded(runtime, [said]) == 1


async def request(runtime: Runtime, email: str, purpose: str) -> dict[str, Any]:
    """Have the mail sent that asks somebody to confirm. Raises HubError when none is due."""
    email = _address(email)
    section = _purpose(runtime, purpose).double_opt_in
    if section is None:
        raise HubError(f"purpose {purpose} has no double_opt_in", "add it in hub.yaml")
    asked = optin.Asked(
        email, purpose, section.message, runtime.settings.messages[section.message].purpose, section.wording, consent.ADMIN,
        section.expires,
    )  # fmt: skip
    said = await runtime.db.repeated(lambda conn: optin.request(conn, asked, now=runtime.clock.now()))
    if said == "consented":
        raise HubError("no mail is sent: it is consented to", "see `hub consent show EMAIL`")
    if said == "limited":
        raise HubError(
            "no mail is sent: too many were asked for",
            f"one address gets {optin.PER_DAY} a day, and one about a purpose in {optin.PAUSE.seconds // 60} minutes",
        )
    await runtime.bell.ring([Wake("mail")])
    return {"email": email, "purpose": purpose, "asked": True}


async def clock(runtime: Runtime, *, everything: bool, limit: int) -> dict[str, Any]:
    """`sums` of the opt-outs that other systems have to be told, and the `obligations` with what to `do` about each."""
    now = runtime.clock.now()
    async with runtime.db.connection() as conn:
        rows = await obligations.clock(conn, now=now, everything=everything, limit=limit)
        sums = await obligations.sums(conn, now=now)
    return {"sums": sums, "obligations": [{**row, "do": _to_do(row)} for row in rows]}


def _to_do(row: dict[str, Any]) -> str:
    name, state = row["connection"], row["state"]
    if state == "confirmed" or (state == "waiting" and not row["overdue"]):
        return ""
    if state == "waiting":
        return f"`hub connections test {name}`; it is tried on. Until it is taken, opt them out there by hand"
    if state == "uncertain":
        return f"look whether it stands there; `hub replay {name} --uncertain` says it again"
    return f"{row['fix'] or 'see what it says'}; then `hub replay {name}`"


def _address(email: str) -> str:
    email = email.strip().lower()
    if len(email) > 254 or not ADDRESS.fullmatch(email):
        raise HubError(f"{email!r} is no address", "write ann@example.com")
    return email


def _purpose(runtime: Runtime, name: str) -> PurposeSection:
    section = runtime.settings.purposes.get(name)
    if section is None:
        raise HubError(f"unknown purpose {name!r}", nearest(name, list(runtime.settings.purposes)))
    return section


async def take_in(runtime: Runtime, file: Path) -> dict[str, Any]:
    """Import a CSV file as one run. Rows that say nothing are rejected, each with its line."""
    now = runtime.clock.now()
    said, bad = consent_file.statements(file, runtime.settings.purposes, now=now)
    async with runtime.db.transaction() as conn:
        run_id = await runs.start(conn, "import", "", "consent", now=now)
    new = 0
    for begin in range(0, len(said), BATCH):
        new += await _recorded(runtime, said[begin : begin + BATCH])
    async with runtime.db.transaction() as conn:
        counts = runs.Counts(
            read=len(said) + len(bad), created=new, unchanged=len(said) - new, rejected=len(bad)
        )
        await runs.reject(conn, run_id, bad, now=now)
        await runs.finish(conn, run_id, counts, state="done", now=now)
    rejected = [{"line": each.id, "message": each.message, "fix": each.fix} for each in bad]
    return {"run": run_id, "new": new, "known": len(said) - new, "rejected": rejected}


async def _recorded(runtime: Runtime, said: list[Statement]) -> int:
    async with runtime.db.transaction() as conn:
        new = await consent.record(conn, said)
        people = await contacts.with_addresses(conn, [s.email for s in said if s.status == "out"])
        await addresses.carry_opt_outs(conn, people)
    if new:
        await runtime.bell.ring([Wake("lists"), Wake("results")])
    return new
