"""What a person looks at and decides by hand: mails of the ledger, and addresses that get none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hub.config.loading import nearest
from hub.errors import HubError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.model import DeliveryState
from hub.store import decisions, deliveries, fence, incidents

_FOLLOWS = {"accepted": "results", "queued": "mail"}
"""What a settled mail is work for."""


async def sums(runtime: Runtime, chosen: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Mails by message, state and relay."""
    _known(chosen)
    async with runtime.db.connection() as conn:
        return await deliveries.sums(conn, chosen)


async def mails(runtime: Runtime, chosen: Mapping[str, str | None], limit: int) -> list[dict[str, Any]]:
    """The newest mails, each with `why` it is where it is."""
    _known(chosen)
    now = runtime.clock.now()
    async with runtime.db.connection() as conn:
        fenced = await fence.standing(conn) is not None
        return [
            {**row, "why": why(row, now, fenced)}
            for row in await deliveries.newest(conn, chosen, limit=limit)
        ]


async def mail(runtime: Runtime, delivery_id: int) -> dict[str, Any]:
    """Everything that is known of a mail."""
    async with runtime.db.connection() as conn:
        row = await deliveries.one(conn, delivery_id)
        fenced = await fence.standing(conn) is not None
    if row is None:
        raise HubError(f"there is no delivery {delivery_id}", "see `hub deliveries list`")
    return {**row, "why": why(row, runtime.clock.now(), fenced)}


def _known(chosen: Mapping[str, str | None]) -> None:
    state = chosen.get("state")
    known = [each.value for each in DeliveryState]
    if state is not None and state not in known:
        raise HubError(f"there is no state {state!r}", nearest(state, known))


def why(row: Mapping[str, Any], now: datetime, fenced: bool) -> str:
    """Why a mail is in its state, in a sentence."""
    said = " ".join(str(part) for part in (row["reply_code"] or "", row["reply_text"] or "") if part)
    last = "; ".join(part for part in (row["reason"], said) if part)
    if row["state"] == "queued":
        return _waits(row, now, fenced) + (f" (last time: {last})" if last else "")
    if row["state"] == "claimed":
        return f"a worker is at it ({row['claimed_by']})"
    if row["state"] == "accepted":
        return last or "the relay took it"
    return last or f"it is {row['state']}"


def _waits(row: Mapping[str, Any], now: datetime, fenced: bool) -> str:
    if fenced:
        return "nothing is sent: the database was restored or copied, see `hub release`"
    if row["not_before"] is not None and row["not_before"] > now:
        return f"its time is {row['not_before']:%Y-%m-%d %H:%M} UTC"
    if row["retry_in"] is not None and row["retry_in"] > timedelta():
        return f"it is tried again in {round(row['retry_in'].total_seconds()):,} s"
    return "it waits for a worker"


async def settle(
    runtime: Runtime, ids: Sequence[int], state: str, *, because: str, by: str
) -> list[dict[str, Any]]:
    """Settle uncertain mails, each in a transaction of its own. `state` of each is what it is now, None where nothing was
    changed, since what `why` says."""
    _reason(because)
    found = []
    for id in ids:
        said = await runtime.db.repeated(
            lambda conn, id=id: deliveries.settle(  # type: ignore[misc]
                conn, id, state, because=because, by=by, now=runtime.clock.now()
            )
        )
        changed = said in list(DeliveryState)
        found.append({"id": id, "state": said if changed else None, "why": "" if changed else said})
    await runtime.bell.ring([Wake(_FOLLOWS[row["state"]]) for row in found if row["state"] in _FOLLOWS])
    return found


async def suppressed(runtime: Runtime, email: str | None, limit: int) -> dict[str, Any]:
    """Suppressed addresses and their sums by reason, and incidents that lifted some; of one address the decisions about it."""
    async with runtime.db.connection() as conn:
        return {
            "sums": await decisions.sums(conn),
            "addresses": await decisions.suppressed(conn, email=email, limit=limit),
            "decisions": await decisions.of_address(conn, email) if email else [],
            "incidents": [] if email else await incidents.recent(conn),
        }


async def suppress(runtime: Runtime, email: str, *, because: str, by: str) -> bool:
    """Never send to an address again. Returns whether that is new."""
    _reason(because)
    if not email.strip("@").count("@") == 1:
        raise HubError(f"{email!r} is no address", "write ann@example.com")
    async with runtime.db.transaction() as conn:
        return await decisions.suppress(conn, email, because=because, by=by, now=runtime.clock.now())


async def lift(runtime: Runtime, email: str, *, because: str, by: str) -> dict[str, Any]:
    """Let an address get mail again. Returns what had suppressed it."""
    _reason(because)
    async with runtime.db.transaction() as conn:
        was = await decisions.lift(conn, email, because=because, by=by, now=runtime.clock.now())
    if was is None:
        raise HubError(
            "this address is not suppressed", "see `hub contact EMAIL` for what else keeps mail back"
        )
    return was


def _reason(because: str) -> None:
    if not because.strip():
        raise HubError("a decision needs its reason", "say it with --because")
