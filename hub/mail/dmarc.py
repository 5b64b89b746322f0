"""DMARC (RFC 9989): the policy for a From, and which domains are aligned, both by the walk up the DNS tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hub.mail.resolver import Answers

LABELS = 8
_VERSION = re.compile(r"\s*v\s*=\s*DMARC1\s*(;|$)")
_TAG = re.compile(r"\s*([A-Za-z]+)\s*=\s*(.*?)\s*")
_REPORTS = re.compile(r"mailto:[^@\s,]+@[^@\s,]+", re.IGNORECASE)


@dataclass(frozen=True)
class Policy:
    """A record at _dmarc.`domain`. `tags` holds what could be read."""

    domain: str
    text: str
    tags: Mapping[str, str]

    @property
    def counts(self) -> bool:
        """Whether receivers apply it: p= is valid, or reports are wanted, which makes it p=none (section 4.7)."""
        known = ("none", "quarantine", "reject")
        sound = self.tags.get("p", "").lower() in known and all(
            self.tags[tag].lower() in known for tag in ("sp", "np") if tag in self.tags
        )
        return sound or _REPORTS.search(self.tags.get("rua", "")) is not None

    def strict(self, tag: str) -> bool:
        """Whether `aspf` or `adkim` asks for the very same domain."""
        return self.tags.get(tag, "r").lower() == "s"


async def at(answers: Answers, domain: str) -> list[Policy]:
    """Every record at _dmarc.`domain`; with more than one receivers discard them all. Raises Unanswered."""
    return [
        Policy(domain, text, tags(text))
        for text in await answers.texts(f"_dmarc.{domain}")
        if _VERSION.match(text)
    ]


def tags(text: str) -> dict[str, str]:
    """A record's tags, as in DKIM: names in lower case, the first of a name counts."""
    found: dict[str, str] = {}
    for piece in text.split(";"):
        if (tag := _TAG.fullmatch(piece)) is not None:
            found.setdefault(tag[1].lower(), tag[2])
    return found


async def walk(answers: Answers, domain: str) -> list[Policy]:
    """The records from `domain` up, at most eight questions (section 4.10). Raises Unanswered."""
    found: list[Policy] = []
    labels = domain.split(".")
    while labels:
        here = await at(answers, ".".join(labels))
        if len(here) == 1:
            found.append(here[0])
            if here[0].tags.get("psd", "").lower() in ("y", "n"):
                break
        labels = labels[1:] if len(labels) <= LABELS else labels[-(LABELS - 1) :]
    return found


async def organizational(answers: Answers, domain: str) -> str:
    """The organizational domain (section 4.10.2). Raises Unanswered."""
    found = await walk(answers, domain)
    for policy in found:
        psd = policy.tags.get("psd", "").lower()
        if psd == "n":
            return policy.domain
        if psd == "y" and policy.domain != domain:
            above = policy.domain.count(".") + 1
            return ".".join(domain.split(".")[-(above + 1) :])
    return found[-1].domain if found else domain


async def policy(answers: Answers, domain: str) -> Policy | None:
    """The policy for mail From `domain`: its own, its organizational domain's, or its public suffix's. Raises Unanswered."""
    found = await walk(answers, domain)
    top = await organizational(answers, domain)
    for wanted in (domain, top):
        for each in found:
            if each.domain == wanted:
                return each
    return next((each for each in found if each.tags.get("psd", "").lower() == "y"), None)


async def aligned(answers: Answers, one: str, other: str, *, strict: bool) -> bool:
    """Whether two domains are aligned (section 4.4). Raises Unanswered."""
    if one == other or strict:
        return one == other
    return await organizational(answers, one) == await organizational(answers, other)
