"""What each gate asks of a message and a relay: SPF, DKIM and DMARC through DNS, a way for bounces to come back, one-click
unsubscription under a signature, and the postal address that the law asks for.

The rules are those of mailbox providers for bulk senders (Gmail, Yahoo since 2024; Microsoft since 2025): SPF and DKIM
both pass, and one of them is aligned with From. A gate that DNS did not answer is unknown: neither yes nor no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from functools import cached_property
from ipaddress import ip_network
from typing import Any, Literal
from urllib.parse import urlsplit

from hub.config.settings import MessageSection, RelaySection, Settings
from hub.mail import dmarc, spf
from hub.mail.dkim import COVERED, GOOD_BITS, Key, Signer, ascii_domain
from hub.mail.published import wrong_record
from hub.mail.resolver import Answers, Unanswered

Severity = Literal["fail", "warn"]

ONE_CLICK = (b"list-unsubscribe", b"list-unsubscribe-post")
UNAUTHENTICATED = "550 5.7.26 (Gmail), 550 5.7.515 (Microsoft)"


@dataclass(frozen=True)
class Finding:
    """What one gate found. `ok` is None when it is not known. `code` is what receivers may answer, `source` the rule."""

    gate: str
    ok: bool | None
    severity: Severity
    what: str
    fix: str = ""
    code: str = ""
    source: str = ""

    @property
    def bars(self) -> bool:
        """Whether it keeps a message from being sent."""
        return self.ok is not True and self.severity == "fail"

    def as_dict(self) -> dict[str, Any]:
        return {
            "gate": self.gate, "ok": self.ok, "severity": self.severity, "what": self.what, "fix": self.fix,
            "code": self.code, "source": self.source,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.gate}: {self.what}" + (f"; {self.fix}" if self.fix else "")


async def findings(
    message: str, relay: str, settings: Settings, signer: Signer, answers: Answers
) -> list[Finding]:
    """Every gate's finding for mails of `message` that go out by `relay`, in the order of the gates."""
    pair = _Pair(
        message, settings.messages[message], relay, settings.relays[relay], settings, signer, answers
    )
    gates: Sequence[tuple[str, Callable[[], Awaitable[list[Finding]]]]] = (
        ("from", pair.from_domain),
        ("return_path", pair.return_path),
        ("spf", pair.sender_policy),
        ("dkim", pair.signatures),
        ("dmarc", pair.policy),
        ("alignment", pair.alignment),
        ("one_click", pair.one_click),
        ("postal_address", pair.postal_address),
        ("unsubscribe_url", pair.unsubscribe_url),
    )
    found = await asyncio.gather(*(_asked(name, gate) for name, gate in gates))
    return [finding for each in found for finding in each]


async def _asked(name: str, gate: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        return await gate()
    except Unanswered as error:
        return [_unknown(name, error)]


def _unknown(gate: str, error: Unanswered) -> Finding:
    return Finding(gate, None, "fail", f"unknown: {error.what}", error.fix)


class _Pair:
    """One message and one relay, and the gates. Each gate may raise Unanswered."""

    def __init__(
        self,
        name: str,
        message: MessageSection,
        relay_name: str,
        relay: RelaySection,
        settings: Settings,
        signer: Signer,
        answers: Answers,
    ) -> None:
        self.name, self.message, self.relay_name, self.relay = name, message, relay_name, relay
        self.settings, self.signer, self.answers = settings, signer, answers
        self.from_ = domain_of(message.from_)
        self.back = domain_of(settings.bounces.return_path)
        self.marketing = settings.purposes[message.purpose].marketing

    @cached_property
    def keys(self) -> list[Key]:
        return self.signer.signing(self.from_)

    @cached_property
    def signing_domains(self) -> list[str]:
        """Every d= that a mail will carry, ours first."""
        ours = [key.domain for key in self.keys]
        return list(dict.fromkeys([*ours, *(ascii_domain(each) for each in self.relay.signs)]))

    # --- can bounces and answers come back? -----------------------------------------------------------------

    async def from_domain(self) -> list[Finding]:
        return await self._takes_mail("from", self.from_, "From")

    async def return_path(self) -> list[Finding]:
        return await self._takes_mail("return_path", self.back, "the return path")

    async def _takes_mail(self, gate: str, domain: str, role: str) -> list[Finding]:
        source = "RFC 5321, section 5.1; RFC 7505"
        exchanges = await self.answers.of(domain, "MX")
        if any(name in ("", ".") for _, name in exchanges):
            what = f"{domain} ({role}) says that it takes no mail (a null MX)"
            return [_no(gate, what, f"give {domain} an MX", "550 5.7.27", source)]
        if exchanges:
            return [_yes(gate, f"{domain} ({role}) has an MX", source)]
        if await self.answers.of(domain, "A") or await self.answers.of(domain, "AAAA"):
            return [_yes(gate, f"{domain} ({role}) has an address", source)]
        what = f"{domain} ({role}) has neither an MX nor an address: nothing can come back"
        return [_no(gate, what, f"give {domain} an MX", "550 5.1.8", source)]

    # --- SPF --------------------------------------------------------------------------------------------------

    async def sender_policy(self) -> list[Finding]:
        """The record is there, once, within its limits, lets not everybody pass, and lets the relay pass."""
        records = await spf.records(self.answers, self.back)
        if not records:
            what = f"{self.back} (the return path) has no SPF record"
            fix = f"publish a TXT record at {self.back} that lets relay {self.relay_name} pass"
            return [
                _no(
                    "spf",
                    what,
                    fix,
                    UNAUTHENTICATED,
                    "RFC 7208; bulk sender rules of Gmail, Yahoo and Microsoft",
                )
            ]
        if len(records) > 1:
            what = f"{self.back} has {len(records)} SPF records: receivers take none of them"
            return [_no("spf", what, "join them into one", "550 5.7.24", "RFC 7208, section 4.5")]
        nobody = await spf.evaluate(self.answers, self.back, spf.NOBODY[0])
        broken = self._broken(nobody)
        if broken:
            return broken
        if nobody.result == (await spf.evaluate(self.answers, self.back, spf.NOBODY[1])).result == "pass":
            what = f"the SPF record of {self.back} lets every sender of the world pass"
            return [_no("spf", what, "end it in ~all or -all", UNAUTHENTICATED, "RFC 7208, section 11.4")]
        found = [
            _yes(
                "spf",
                f"{self.back} has one SPF record with {nobody.lookups} look-ups",
                "RFC 7208, section 4.6.4",
            )
        ]
        if nobody.result == "neutral":
            what = f"the SPF record of {self.back} says nothing of other senders"
            found.append(_warn("spf", what, "end it in ~all or -all", "RFC 7208, section 11.2"))
        return found + [await self._lets_in(network) for network in self.relay.sends_from] + self._unproved()

    def _broken(self, found: spf.Evaluation) -> list[Finding]:
        limits = "RFC 7208, section 4.6.4"
        if found.lookups > spf.LOOKUPS:
            what = (
                f"the SPF record of {self.back} needs {found.lookups} DNS look-ups; {spf.LOOKUPS} are allowed"
            )
            return [_no("spf", what, "take includes out that are no longer used", "550 5.7.24", limits)]
        if found.voids > spf.VOIDS:
            what = (
                f"{found.voids} names in the SPF record of {self.back} do not exist; {spf.VOIDS} are allowed"
            )
            return [_no("spf", what, "take them out", "550 5.7.24", limits)]
        if found.result in ("permerror", "none"):
            what = f"the SPF record of {self.back} is wrong: {found.why}"
            return [_no("spf", what, "mend it", "550 5.7.24", "RFC 7208, section 2.6.7")]
        return []

    async def _lets_in(self, text: str) -> Finding:
        """The first and the last address of a network that the relay delivers from."""
        network = ip_network(text)
        for address in dict.fromkeys((network[0], network[-1])):
            result = (await spf.evaluate(self.answers, self.back, str(address))).result
            if result != "pass":
                what = f"SPF of {self.back} says {result} for {address} of relay {self.relay_name}"
                fix = f"add {text} or the relay's own include to the SPF record of {self.back}"
                return _no("spf", what, fix, UNAUTHENTICATED, "RFC 7208, section 2.6")
        return _yes("spf", f"SPF of {self.back} lets {text} of relay {self.relay_name} pass", "RFC 7208")

    def _unproved(self) -> list[Finding]:
        if self.relay.sends_from:
            return []
        what = f"whether SPF lets relay {self.relay_name} pass is not known"
        fix = f"list its addresses under relays.{self.relay_name}.sends_from"
        return [Finding("spf", None, "warn", what, fix, source="RFC 7208, section 2.6")]

    # --- DKIM -------------------------------------------------------------------------------------------------

    async def signatures(self) -> list[Finding]:
        """Somebody signs, and each of our signing keys is published as it is."""
        found = [await self._published(key) for key in self.keys]
        found += [
            Finding(
                "dkim", None, "warn", f"relay {self.relay_name} is said to sign as {domain}: a probe has to prove it",
                "send a mail to an account of your own and look at its Authentication-Results", source="RFC 8601",
            )
            for domain in self.relay.signs
        ]  # fmt: skip
        if not found:
            what = f"nobody signs mails From {self.from_}"
            fix = f"give {self.from_} a key under dkim, or say relays.{self.relay_name}.signs where the relay does"
            found = [
                _no("dkim", what, fix, UNAUTHENTICATED, "bulk sender rules of Gmail, Yahoo and Microsoft")
            ]
        return found

    async def _published(self, key: Key) -> Finding:
        gate, source = "dkim", "RFC 6376, section 3.6"
        texts = await self.answers.texts(key.name)
        fix = f"publish as TXT at {key.name}: {key.record}"
        if not texts:
            return _no(gate, f"there is no key at {key.name}", fix, UNAUTHENTICATED, source)
        if len(texts) > 1:
            return _no(
                gate, f"there are {len(texts)} records at {key.name}", "leave one", UNAUTHENTICATED, source
            )
        tags = dmarc.tags(texts[0])
        what = wrong_record(key, tags)
        if what:
            return _no(gate, f"the key at {key.name} {what}", fix, UNAUTHENTICATED, source)
        if "y" in tags.get("t", "").lower().split(":"):
            return _warn(gate, f"the key at {key.name} is marked as a test (t=y)", "take t=y out", source)
        if key.algorithm == "rsa-sha256" and key.bits < GOOD_BITS:
            what = f"the key at {key.name} has {key.bits} bits only"
            return _warn(gate, what, f"make a key of {GOOD_BITS} bits", "RFC 8301, section 3.2")
        return _yes(gate, f"the key at {key.name} is ours", source)

    # --- DMARC ------------------------------------------------------------------------------------------------

    async def policy(self) -> list[Finding]:
        """From has a policy that receivers apply; p=none is enough."""
        source = "RFC 9989; bulk sender rules of Gmail, Yahoo and Microsoft"
        here = await dmarc.at(self.answers, self.from_)
        policy = await dmarc.policy(self.answers, self.from_)
        if len(here) > 1:
            what = f"there are {len(here)} DMARC records at _dmarc.{self.from_}: receivers take none of them"
            return [_no("dmarc", what, "leave one", UNAUTHENTICATED, source)]
        if policy is None:
            what = f"{self.from_} has no DMARC record"
            fix = f'publish as TXT at _dmarc.{self.from_}: "v=DMARC1; p=none; rua=mailto:dmarc@{self.from_}"'
            return [_no("dmarc", what, fix, UNAUTHENTICATED, source)]
        if not policy.counts:
            what = f"the DMARC record at _dmarc.{policy.domain} has no valid p=, sp= or np="
            return [
                _no(
                    "dmarc",
                    what,
                    "write p=none, p=quarantine or p=reject",
                    UNAUTHENTICATED,
                    "RFC 9989, section 4.7",
                )
            ]
        found = [_yes("dmarc", f"{self.from_} has a DMARC policy at _dmarc.{policy.domain}", source)]
        if "rua" not in policy.tags:
            what, fix = "nobody gets the reports of DMARC", f"add rua=mailto:dmarc@{policy.domain}"
            found.append(_warn("dmarc", what, fix, "RFC 9990"))
        return found

    async def alignment(self) -> list[Finding]:
        """The return path or a signature is of From's organization; without both it takes little to lose it."""
        policy = await dmarc.policy(self.answers, self.from_)
        by_spf = await dmarc.aligned(
            self.answers, self.back, self.from_, strict=policy is not None and policy.strict("aspf")
        )
        strict = policy is not None and policy.strict("adkim")
        by_dkim = [
            each for each in self.signing_domains
            if await dmarc.aligned(self.answers, each, self.from_, strict=strict)
        ]  # fmt: skip
        source = "RFC 9989, section 4.4"
        if not by_spf and not by_dkim:
            what = (
                f"neither the return path ({self.back}) nor a signature is aligned with From ({self.from_})"
            )
            fix = f"sign as {self.from_}, or take a return path in {self.from_}"
            return [_no("alignment", what, fix, UNAUTHENTICATED, source)]
        if not by_dkim:
            what = f"no signature is aligned with From ({self.from_}): forwarded mails will fail DMARC"
            return [_warn("alignment", what, f"sign as {self.from_}", source)]
        if not by_spf:
            what = f"the return path ({self.back}) is not aligned with From ({self.from_}): DMARC rests on DKIM alone"
            return [_warn("alignment", what, f"take a return path in {self.from_}", source)]
        what = f"the return path ({self.back}) and d={by_dkim[0]} are aligned with From ({self.from_})"
        return [_yes("alignment", what, source)]

    # --- what marketing mails owe -------------------------------------------------------------------------------

    async def one_click(self) -> list[Finding]:
        """A signature covers both headers of one-click unsubscription."""
        source = "RFC 8058, section 4"
        if not self.marketing:
            return []
        if self.keys and set(ONE_CLICK) <= set(COVERED):
            return [
                _yes("one_click", "our signature covers List-Unsubscribe and List-Unsubscribe-Post", source)
            ]
        if self.relay.signs:
            what = f"whether the signature of relay {self.relay_name} covers List-Unsubscribe-Post has to be proved by a probe"
            fix = "look for both headers in h= of a mail to yourself"
            return [Finding("one_click", None, "warn", what, fix, source=source)]
        what = "no signature covers List-Unsubscribe and List-Unsubscribe-Post"
        return [_no("one_click", what, f"give {self.from_} a key under dkim", "550 5.7.26 (Gmail)", source)]

    async def postal_address(self) -> list[Finding]:
        source = "CAN-SPAM, 15 U.S.C. 7704(a)(5)(A)(iii)"
        if not self.marketing:
            return []
        if self.settings.sender.postal_address.strip():
            return [_yes("postal_address", "the postal address is in the footer", source)]
        what = f"message {self.name} is marketing, and there is no postal address for its footer"
        return [_no("postal_address", what, "set sender.postal_address", "", source)]

    async def unsubscribe_url(self) -> list[Finding]:
        if not self.marketing:
            return []
        url = urlsplit(self.settings.web.public_url)
        if url.scheme == "https":
            return [
                _yes(
                    "unsubscribe_url",
                    f"people unsubscribe at https://{url.hostname}",
                    "RFC 8058, section 3.1",
                )
            ]
        what = f"the address for unsubscribing begins with {url.scheme}://"
        return [
            _no(
                "unsubscribe_url", what, "let web.public_url begin with https://", "", "RFC 8058, section 3.1"
            )
        ]


def domain_of(address: str) -> str:
    """The domain of `Ann <ann@example.com>`, as DNS knows it."""
    return ascii_domain(parseaddr(address)[1].rpartition("@")[2])


def _yes(gate: str, what: str, source: str) -> Finding:
    return Finding(gate, True, "fail", what, source=source)


def _no(gate: str, what: str, fix: str, code: str, source: str) -> Finding:
    return Finding(gate, False, "fail", what, fix, code, source)


def _warn(gate: str, what: str, fix: str, source: str) -> Finding:
    return Finding(gate, False, "warn", what, fix, source=source)
