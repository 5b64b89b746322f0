"""One message to everybody on a list, once: who gets it, when each mail goes, by which relays, at what price.

`freeze` is the same for a plan and for the real thing: a plan is taken back by its caller.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from hub.clock import moment, moment_for, zone_named
from hub.config.settings import CampaignSection, MessageSection, RelaySection, Settings
from hub.errors import HubError
from hub.mail.proofs import domain_of
from hub.mail.routing import in_orders, serves
from hub.mail.windows import relay_limits, warming
from hub.store import campaigns
from hub.store.campaigns import NewCampaign, Piece, Start
from hub.store.database import Connection

SPAN_SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400, "date": 86_400}
FURTHEST = timedelta(days=3_650)


class Rate(NamedTuple):
    """Mails a second at a moment (infinite: no limit), and until when that holds (None: for good)."""

    per_second: float
    until: datetime | None


@dataclass(frozen=True)
class Share:
    """What one relay has to carry."""

    relay: str
    mails: int
    cost: Decimal | None
    currency: str


@dataclass(frozen=True)
class Planned:
    """What a campaign is, before anything of it is sent. `late` are mails whose time is too long ago already."""

    campaign: str
    message: str
    audience: str
    plan: str
    frozen: int
    recipients: int
    excluded: dict[str, int]
    late: int
    per_hour: float | None
    first_at: datetime | None
    last_at: datetime | None
    starts: list[dict[str, Any]]
    shares: list[Share]
    new: bool = True
    costs: dict[str, Decimal] = field(default_factory=dict)

    @property
    def duration_seconds(self) -> float | None:
        """From the first mail to the last; None when nothing but the relays themselves says how long it takes."""
        if self.first_at is None or self.last_at is None or self.per_hour is None:
            return None
        return (self.last_at - self.first_at).total_seconds()


async def freeze(
    conn: Connection,
    name: str,
    settings: Settings,
    purposes: Mapping[str, bool],
    *,
    template: bytes,
    now: datetime,
    wanted: str | None = None,
) -> Planned:
    """Freeze a campaign in the caller's transaction: its row, and one row of the ledger for everybody on its list.

    `wanted` is the hash of a plan: raises HubError when the audience, the campaign or the message is another one
    since. Freezing twice changes nothing (`new` is False).
    """
    section, message = settings.campaigns[name], settings.messages[settings.campaigns[name].message]
    await campaigns.gather(conn, section.list, section.exclude, message.purpose, purposes)
    plan = _plan_id(name, section, message, template, await campaigns.fingerprint(conn))
    if wanted is not None and wanted != plan:
        raise HubError(
            f"campaign {name} is not what was planned: its plan is {plan} now",
            "its audience, its settings or its message changed; look at `hub campaigns plan` again",
        )
    excluded, places = await campaigns.reasons(conn), await campaigns.whereabouts(conn)
    starts = [Start(zone, country, _start(section, zone, country, now)) for zone, country, _ in places]
    sizes: Counter[datetime] = Counter()
    for start, (_, _, count) in zip(starts, places, strict=True):
        sizes[start.at] += count
    late = {at for at in sizes if at < now - section.late}
    timely = sorted((at, count) for at, count in sizes.items() if at not in late)
    sender = domain_of(message.from_)
    rate = rates(settings.relays, message.purpose, sender, section.speed)
    pieces = paced(timely, rate)
    recipients = sum(sizes.values())
    first = min((p.at for p in pieces), default=min(late, default=None))
    last = max((_end(p) for p in pieces), default=max(late, default=None))
    slowest = min((1 / p.gap_seconds for p in pieces if p.gap_seconds), default=None)
    new = NewCampaign(
        name=name, message=section.message, purpose=message.purpose, list=section.list, hash=plan,
        frozen=recipients + sum(excluded.values()), recipients=recipients, per_second=slowest, late=section.late,
        first_at=first or now, last_at=last,
    )  # fmt: skip
    id = await campaigns.add(conn, new, now=now)
    if id is not None:
        held = [Piece(at, 0, sizes[at], at, 0.0) for at in late]
        rows = await campaigns.freeze(conn, id, new, starts, [*pieces, *held], now=now)
        if rows != new.frozen:
            raise HubError(
                f"campaign {name} would have {rows} rows for {new.frozen} people", "this is a defect"
            )
    countries: Counter[str] = Counter()
    for _, country, count in places:
        countries[country] += count
    seconds = (last - first).total_seconds() if first and last and slowest else 0.0
    shares = _priced(
        settings.relays, split(settings.relays, message.purpose, sender, countries, seconds, first or now)
    )
    return Planned(
        campaign=name, message=section.message, audience=section.list, plan=plan, frozen=new.frozen, recipients=recipients,
        excluded=excluded, late=sum(sizes[at] for at in late), per_hour=slowest and slowest * 3600, first_at=first,
        last_at=last, starts=_told(section, starts, places), shares=shares, new=id is not None,
        costs=_costs(shares),
    )  # fmt: skip


def _plan_id(
    name: str, section: CampaignSection, message: MessageSection, template: bytes, audience: str
) -> str:
    parts = (name, section.model_dump_json(), message.model_dump_json(), template, audience)
    whole = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return hashlib.sha256(whole).hexdigest()[:16]


# --- when -------------------------------------------------------------------------------------------------------


def _start(section: CampaignSection, time_zone: str, country: str, now: datetime) -> datetime:
    """When the mails to people of a zone and country may begin: never before now, unless that is too late."""
    if section.at is None:
        return now
    if section.time_zone == "recipient":
        zone = zone_named(section.default_zone or "")
        at = moment_for(section.at, time_zone, country) or (moment(section.at, zone) if zone else None)
    else:
        zone = zone_named(section.time_zone or "")
        at = moment(section.at, zone) if zone else None
    if at is None:
        raise HubError("a campaign with `at` needs a time zone", "see `hub check`")
    return at if at < now - section.late else max(at, now)


def paced(starts: Sequence[tuple[datetime, int]], rate: Callable[[datetime], Rate]) -> list[Piece]:
    """Times for mails that may begin at these moments (in order, each with how many), one after the other at the rate of the
    time. Raises HubError when there is no rate for ten years."""
    found: list[Piece] = []
    at = starts[0][0] if starts else datetime.min.replace(tzinfo=UTC)
    for start, count in starts:
        at, first = max(at, start), 0
        while first < count:
            per_second, until = rate(at)
            if at - start > FURTHEST:
                raise HubError("its mails would go on for ten years", "see `speed` and the relays' limits")
            if not per_second:
                if until is None:
                    raise HubError("no relay may carry its mails", "see `serves` and `limits` of the relays")
                at = until
                continue
            gap = 0.0 if math.isinf(per_second) else 1 / per_second
            mails = count - first
            if until is not None and gap:
                mails = min(mails, max(1, math.floor((until - at).total_seconds() * per_second)))
            found.append(Piece(start, first, mails, at, gap))
            first, at = first + mails, at + timedelta(seconds=mails * gap)
            if until is not None and until - at < timedelta(seconds=gap):
                at = max(at, until)
    return found


def _end(piece: Piece) -> datetime:
    return piece.at + timedelta(seconds=(piece.mails - 1) * piece.gap_seconds)


def rates(
    relays: Mapping[str, RelaySection], purpose: str, from_domain: str, speed: float | None
) -> Callable[[datetime], Rate]:
    """The rate at which a campaign's mails may go: its own speed, and what its relays can take in the long run."""
    orders = _orders(relays, purpose, from_domain, None)
    warm = [plan for names in orders for name in names if (plan := relays[name].warm_up) is not None]

    def rate(at: datetime) -> Rate:
        total = 0.0
        for names in orders:
            total += sum(_per_second(relays[name], at) for name in names)
            if any(not relay_limits(relays[name], at) for name in names):
                break  # it never sends on what it has no room for
        changing = any(warming(plan, at).allowance is not None for plan in warm)
        midnight = datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
        return Rate(min(total, speed or math.inf), midnight if changing else None)

    return rate


def _per_second(section: RelaySection, at: datetime) -> float:
    windows = [limit / SPAN_SECONDS[span] for span, limit in relay_limits(section, at).items()]
    return min([section.limits.per_second or math.inf, *windows])


# --- by which relay ----------------------------------------------------------------------------------------------


def _orders(
    relays: Mapping[str, RelaySection], purpose: str, from_domain: str, country: str | None
) -> list[tuple[str, ...]]:
    found = (
        tuple(n for n in names if serves(relays[n], purpose, from_domain, country))
        for names in in_orders(relays).values()
    )
    return [names for names in found if names]


def split(
    relays: Mapping[str, RelaySection],
    purpose: str,
    from_domain: str,
    countries: Mapping[str, int],
    seconds: float,
    first_at: datetime,
) -> dict[str, int]:
    """relay -> how many of so many mails (by country) it is to carry: the first order by weight, and the next one what
    exceeds the windows of the time that the campaign takes. '' is for mails that no relay may carry."""
    room = {name: _room(section, seconds, first_at) for name, section in relays.items()}
    found: Counter[str] = Counter()
    for country, count in countries.items():
        orders = _orders(relays, purpose, from_domain, country)
        left = count
        for names in orders:
            for name, wanted in _by_weight(relays, names, left):
                taken = int(min(wanted, room[name]))
                room[name] -= taken
                found[name] += taken
                left -= taken
        for name, waiting in _by_weight(relays, orders[0], left) if orders else [("", left)]:
            found[name] += waiting
    return {name: mails for name, mails in found.items() if mails}


def _by_weight(relays: Mapping[str, RelaySection], names: Sequence[str], count: int) -> list[tuple[str, int]]:
    """Whole mails for each; the sum is `count`."""
    weights = [relays[name].weight for name in names]
    if not sum(weights):
        weights = [1.0] * len(names)
    ends = [round(count * sum(weights[: n + 1]) / sum(weights)) for n in range(len(names))]
    return [(name, end - begin) for name, begin, end in zip(names, [0, *ends], ends, strict=False)]


def _room(section: RelaySection, seconds: float, at: datetime) -> float:
    """What a relay's windows take in so many seconds; a limit of a second makes mails wait, not go elsewhere."""
    windows = [
        limit * max(1.0, seconds / SPAN_SECONDS[span]) for span, limit in relay_limits(section, at).items()
    ]
    return min(windows, default=math.inf)


# --- what is told of it -----------------------------------------------------------------------------------------


def _told(
    section: CampaignSection, starts: Sequence[Start], places: Sequence[tuple[str, str, int]]
) -> list[dict[str, Any]]:
    """Each moment at which mails begin: for how many people, and where."""
    found: dict[datetime, dict[str, Any]] = {}
    for start, (zone, country, count) in zip(starts, places, strict=True):
        row = found.setdefault(start.at, {"at": start.at, "recipients": 0, "of": set()})
        row["recipients"] += count
        if section.at is None or section.time_zone != "recipient":
            row["of"].add(section.time_zone or "")
        elif (named := zone_named(zone)) is not None:
            row["of"].add(named.key)
        else:
            told = moment_for(section.at, "", country) is not None
            row["of"].add(country.upper() if told else f"{section.default_zone} (by default)")
    return [{**row, "of": sorted(row["of"] - {""})} for _, row in sorted(found.items())]


def _priced(relays: Mapping[str, RelaySection], shares: Mapping[str, int]) -> list[Share]:
    found = []
    for name, mails in shares.items():
        tariff = relays[name].tariff if name else None
        cost = Decimal(max(0, mails - tariff.included)) * tariff.per_thousand / 1000 if tariff else None
        found.append(Share(name, mails, cost, tariff.currency if tariff else ""))
    return found


def _costs(shares: Sequence[Share]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for share in shares:
        if share.cost is not None:
            found[share.currency] = found.get(share.currency, Decimal(0)) + share.cost
    return found
