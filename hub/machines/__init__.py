"""Who opened and clicked, a person or a machine: a verdict on each hit of a mail, from all of its hits together.

Machines prefetch images, follow links to check them, and follow all of them. What one hit does not show the next one may,
so verdicts are reckoned anew with each; more evidence only ever turns a person into a machine. Known programs and networks
stand in signs.csv, each with the page that tells of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

MACHINE = 100
"""From so many points on it was a machine."""
AT_ONCE = ((2, timedelta(seconds=2)), (3, timedelta(seconds=10)))
"""So many different links within so long: nobody reads that fast."""
WITH_TRAP = timedelta(minutes=1)
RATHER_SOON = 12
"""A click within so many times `soon` is a weak sign."""
Network = IPv4Network | IPv6Network


class Hit(NamedTuple):
    """An open or a click. `network` is what is kept of the address (`network_of`), `said` a relay's own word that it was a
    machine, `trap`: it followed the link that no person sees."""

    key: str
    kind: str  # opened or clicked
    at: datetime
    agent: str = ""
    network: str = ""
    link: str = ""
    trap: bool = False
    said: str = ""
    known: bool = True  # whether agent and network are those of who did it


class Sign(NamedTuple):
    """Something that speaks for a machine. `points` are of `MACHINE`."""

    what: str
    points: int


@dataclass(frozen=True)
class KnownSign:
    """A row of signs.csv: a program's name, or a network, and what it means for `what` (opened, clicked or any)."""

    of: str
    what: str
    pattern: str
    weight: int
    means: str
    source: str


@cache
def known_signs() -> tuple[KnownSign, ...]:
    """The maintained table. Of each kind the first row that fits decides."""
    text = resources.files(__package__).joinpath("signs.csv").read_text("utf-8")
    return tuple(
        KnownSign(row["of"], row["what"], row["pattern"], int(row["weight"]), row["means"], row["source"])
        for row in csv.DictReader(text.splitlines())
    )


@cache
def _agents() -> tuple[tuple[re.Pattern[str], KnownSign], ...]:
    return tuple((re.compile(s.pattern, re.IGNORECASE), s) for s in known_signs() if s.of == "agent")


@cache
def _networks() -> tuple[tuple[Network, KnownSign], ...]:
    return tuple((ip_network(s.pattern), s) for s in known_signs() if s.of == "network")


def network_of(address: str) -> str:
    """What is kept of an address: its /24 or /48. Empty for what is no address."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    return str(ip_network(f"{found}/{24 if found.version == 4 else 48}", strict=False))


def judge(
    hits: Sequence[Hit],
    sent_at: datetime | None,
    *,
    soon: timedelta,
    networks: Iterable[Network] = (),
) -> dict[str, tuple[Sign, ...]]:
    """key of each hit -> what speaks for a machine; `is_machine` adds it up. The order of `hits` does not matter.

    `sent_at` is when the relay took the mail (None: its answer is not written down yet); nobody opens or clicks within
    `soon`. `networks` are further ones that machines come from.
    """
    at_once = _at_once(hits)
    traps = [(hit.network, hit.at) for hit in hits if hit.trap]
    own = tuple(networks)
    return {hit.key: tuple(_signs(hit, sent_at, soon, own, traps, at_once)) for hit in hits}


def is_machine(signs: Iterable[Sign]) -> bool:
    return sum(sign.points for sign in signs) >= MACHINE


def as_evidence(hit: Hit, sent_at: datetime | None, signs: Sequence[Sign]) -> Mapping[str, object]:
    """What is kept beside the event: `network`, `seconds` after sending, and `signs` in words."""
    found: dict[str, object] = {"network": hit.network} if hit.network else {}
    if sent_at is not None:
        found["seconds"] = round((hit.at - sent_at).total_seconds(), 1)
    if signs:
        found["signs"] = [f"{sign.what} ({sign.points})" for sign in signs]
    return found


def _signs(
    hit: Hit,
    sent_at: datetime | None,
    soon: timedelta,
    networks: Sequence[Network],
    traps: Sequence[tuple[str, datetime]],
    at_once: frozenset[str],
) -> Iterable[Sign]:
    if hit.said:
        yield Sign(hit.said, MACHINE)
    if hit.trap:
        yield Sign("followed the link that no person sees", MACHINE)
    elif hit.network and any(n == hit.network and abs(hit.at - at) <= WITH_TRAP for n, at in traps):
        yield Sign("came with one that followed the link that no person sees", MACHINE)
    if hit.key in at_once:
        yield Sign("different links at once", MACHINE)
    if soon:
        after = timedelta() if sent_at is None else hit.at - sent_at
        if after < soon:
            yield Sign(f"within {soon.total_seconds():g} s of sending", MACHINE)
        elif hit.kind == "clicked" and after < soon * RATHER_SOON:
            yield Sign(f"within {(soon * RATHER_SOON).total_seconds():g} s of sending", 40)
    if hit.known:
        yield from _known(hit, networks)


def _known(hit: Hit, networks: Sequence[Network]) -> Iterable[Sign]:
    for pattern, sign in _agents():
        if sign.what in ("any", hit.kind) and pattern.search(hit.agent):
            if sign.weight:
                yield Sign(sign.means, sign.weight)
            break
    if not hit.network:
        return
    came_from = ip_network(hit.network)
    if any(_overlap(came_from, network) for network in networks):
        yield Sign("from a network that tracking.machines names", MACHINE)
    for network, sign in _networks():
        if sign.what in ("any", hit.kind) and _overlap(came_from, network):
            yield Sign(f"from the network of {sign.means}", sign.weight)
            break


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _at_once(hits: Sequence[Hit]) -> frozenset[str]:
    """Clicks that were among too many different links within too short a time."""
    clicks = sorted((h for h in hits if h.kind == "clicked" and not h.trap), key=lambda h: (h.at, h.key))
    found: set[str] = set()
    for number, first in enumerate(clicks):
        for links, within in AT_ONCE:
            burst = [h for h in clicks[number:] if h.at - first.at <= within]
            if len({h.link for h in burst}) >= links:
                found.update(h.key for h in burst)
    return frozenset(found)
