"""Which relays may carry a mail, and in which order they are tried."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

from hub.config.settings import RelaySection

_MASK = (1 << 64) - 1


class Routing:
    """Routes by what relays serve, their order, and their weight within an order.

    The choice within an order depends on the delivery alone (rendezvous hashing): a retry goes the same way on every
    worker, and a relay that is added or taken away moves only its own share.
    """

    def __init__(self, sections: Mapping[str, RelaySection]) -> None:
        self._sections = sections
        self._seeds = {name: _mixed(zlib.crc32(name.encode()) + 1) for name in sections}
        self._known: dict[tuple[str, str, str], tuple[tuple[str, ...], ...]] = {}
        self._fixed: dict[
            tuple[str, str, str], tuple[str, ...]
        ] = {}  # where the delivery makes no difference

    def routes(self, purpose: str, from_domain: str, country: str, delivery: int) -> tuple[str, ...]:
        """Relays in the order to try them; empty when none may carry it. `country` is empty when it is unknown."""
        key = (purpose, from_domain, country)
        fixed = self._fixed.get(key)
        if fixed is not None:
            return fixed
        orders = self._known.get(key)
        if orders is None:
            if len(self._known) > 10_000:  # countries come from contacts: what they hold has no end
                self._known.clear()
                self._fixed.clear()
            orders = self._known[key] = self._serving(*key)
        if all(len(names) == 1 for names in orders):
            self._fixed[key] = tuple(names[0] for names in orders)
            return self._fixed[key]
        found: list[str] = []
        for names in orders:
            found += sorted(names, key=lambda name: self._score(name, delivery), reverse=True)
        return tuple(found)

    def _serving(self, purpose: str, from_domain: str, country: str) -> tuple[tuple[str, ...], ...]:
        """Names by order."""
        found = (
            tuple(n for n in names if serves(self._sections[n], purpose, from_domain, country))
            for names in in_orders(self._sections).values()
        )
        return tuple(names for names in found if names)

    def _score(self, name: str, delivery: int) -> float:
        """Weighted rendezvous: each relay draws w / -ln(u); the highest is first with probability w / sum of w."""
        uniform = (_mixed(self._seeds[name] ^ _mixed(delivery)) + 0.5) / 2.0**64
        if uniform >= 1.0:
            return math.inf
        weight = self._sections[name].weight
        return weight / -math.log(uniform) if weight else uniform - 1.0


def in_orders(sections: Mapping[str, RelaySection]) -> dict[int, tuple[str, ...]]:
    """order -> its relays, lowest order first. A relay without an order has its place among all, from 1."""
    found: dict[int, list[str]] = {}
    for place, (name, section) in enumerate(sections.items(), start=1):
        found.setdefault(place if section.order is None else section.order, []).append(name)
    return {order: tuple(found[order]) for order in sorted(found)}


def serves(section: RelaySection, purpose: str, from_domain: str, country: str | None) -> bool:
    """Whether a relay may carry such a mail. `country` None: to some country or other."""
    wanted = section.serves
    return (
        (not wanted.purposes or purpose in wanted.purposes)
        and (not wanted.from_domains or from_domain.lower() in {d.lower() for d in wanted.from_domains})
        and (
            not wanted.countries
            or country is None
            or country.upper() in {c.upper() for c in wanted.countries}
        )
    )


def _mixed(number: int) -> int:
    """SplitMix64: every bit of the number moves every bit of the result."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
