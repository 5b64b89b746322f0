"""Questions to DNS: an answer, the certainty that there is none, or `Unanswered`; these three are never mixed up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from hub.config.settings import address_and_port
from hub.errors import HubError

Kind = Literal["A", "AAAA", "MX", "TXT", "PTR"]
Value = Any
"""An address or a name as a text, (preference, name) of an MX, the strings of a TXT as a tuple of bytes."""

LIFETIME_SECONDS, TRY_SECONDS = 5.0, 2.0


class Unanswered(HubError):
    """DNS did not answer (time-out, SERVFAIL, no server): nothing is known."""

    def __init__(self, name: str, kind: str, why: str) -> None:
        self.name = name
        super().__init__(f"DNS gave no answer for {kind} of {name}: {why}", "try again; check the resolver")


class Resolver:
    """Asks `nameservers` (`9.9.9.9`, `127.0.0.1:5353`, `[::1]:53`), or the machine's own when none are given.

    Answers are kept for as long as they say. A question ends after `lifetime_seconds`, whatever the servers do.
    """

    def __init__(
        self, nameservers: Sequence[str] = (), *, lifetime_seconds: float = LIFETIME_SECONDS
    ) -> None:
        self.nameservers, self.lifetime_seconds = list(nameservers), lifetime_seconds
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def ask(self, name: str, kind: Kind) -> list[Value]:
        """The records' values; empty when the name does not exist or has none of the kind. Raises Unanswered."""
        try:
            answer = await self._opened().resolve(name, kind, search=False, lifetime=self.lifetime_seconds)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.IDNAException):
            return []  # such a name cannot exist
        except dns.resolver.NoNameservers:
            raise Unanswered(name, kind, "the servers failed") from None
        except dns.resolver.NoResolverConfiguration:
            raise Unanswered(name, kind, "this machine has no resolver") from None
        except dns.exception.Timeout:
            raise Unanswered(name, kind, "time-out") from None
        except (dns.exception.DNSException, OSError) as error:
            raise Unanswered(name, kind, type(error).__name__) from None
        return [_value(each, kind) for each in answer]

    def _opened(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=not self.nameservers)
            self._resolver.timeout = min(TRY_SECONDS, self.lifetime_seconds)
            self._resolver.cache = dns.resolver.LRUCache()
            if self.nameservers:
                self._resolver.nameservers = [_server(each) for each in self.nameservers]
        return self._resolver


def _server(text: str) -> dns.nameserver.Nameserver:
    host, port = address_and_port(text)
    return dns.nameserver.Do53Nameserver(host, port)


def _value(record: Any, kind: Kind) -> Value:
    if kind in ("A", "AAAA"):
        return str(record.address)
    if kind == "MX":
        return record.preference, _plain(record.exchange)
    if kind == "TXT":
        return tuple(record.strings)
    return _plain(record.target)


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


class Answers:
    """One round of questions: each is asked once, and what stayed unanswered is not asked again in this round."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._asked: dict[tuple[str, Kind], asyncio.Task[list[Value]]] = {}

    async def of(self, name: str, kind: Kind) -> list[Value]:
        """As `Resolver.ask`."""
        key = (name.rstrip(".").lower(), kind)
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self.resolver.ask(*key))
        return await asyncio.shield(self._asked[key])

    async def texts(self, name: str) -> list[str]:
        """TXT records, each with its strings joined; bytes beyond ASCII become U+FFFD."""
        found = await self.of(name, "TXT")
        return [b"".join(strings).decode("ascii", "replace") for strings in found]
