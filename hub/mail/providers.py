"""Receivers that are one for many domains: what one of them says of a rate holds for all of its domains.

Sources: Google Workspace Admin Help, "Email sender guidelines" (personal accounts end in gmail.com or
googlemail.com); Yahoo Sender Hub, "Sender Best Practices" and FAQs (Yahoo, AOL and the domains hosted by them);
Microsoft, "Outlook.com Postmaster" (Outlook.com, Hotmail, Live, MSN). Hosted domains of companies are not among
them: they are known by their MX only. yahoo.co.jp is another company.
"""

from __future__ import annotations

PROVIDERS: dict[str, tuple[str, ...]] = {
    "gmail": ("gmail.com", "googlemail.com"),
    "yahoo": (
        "yahoo.com", "yahoo.de", "yahoo.fr", "yahoo.es", "yahoo.it", "yahoo.ie", "yahoo.gr", "yahoo.ro", "yahoo.se",
        "yahoo.no", "yahoo.dk", "yahoo.pl", "yahoo.ca", "yahoo.in", "yahoo.co.uk", "yahoo.co.in", "yahoo.co.id",
        "yahoo.co.nz", "yahoo.co.th", "yahoo.co.za", "yahoo.com.ar", "yahoo.com.au", "yahoo.com.br", "yahoo.com.hk",
        "yahoo.com.mx", "yahoo.com.my", "yahoo.com.ph", "yahoo.com.sg", "yahoo.com.tr", "yahoo.com.tw", "yahoo.com.vn",
        "ymail.com", "rocketmail.com", "myyahoo.com", "aol.com", "aol.de", "aol.fr", "aol.co.uk", "aim.com",
        "verizon.net",
    ),
    "microsoft": (
        "outlook.com", "outlook.de", "outlook.fr", "outlook.es", "outlook.it", "outlook.at", "outlook.be", "outlook.dk",
        "outlook.ie", "outlook.pt", "outlook.cl", "outlook.in", "outlook.jp", "outlook.kr", "outlook.com.au",
        "outlook.com.br", "outlook.com.tr", "hotmail.com", "hotmail.de", "hotmail.fr", "hotmail.es", "hotmail.it",
        "hotmail.at", "hotmail.be", "hotmail.ch", "hotmail.nl", "hotmail.se", "hotmail.no", "hotmail.dk", "hotmail.fi",
        "hotmail.gr", "hotmail.ca", "hotmail.co.uk", "hotmail.co.jp", "hotmail.co.th", "hotmail.com.ar", "hotmail.com.au",
        "hotmail.com.br", "hotmail.com.tr", "live.com", "live.de", "live.fr", "live.it", "live.at", "live.be", "live.nl",
        "live.se", "live.no", "live.dk", "live.ie", "live.ca", "live.co.uk", "live.com.au", "live.com.mx", "live.com.pt",
        "live.cn", "live.jp", "msn.com", "windowslive.com", "passport.com",
    ),
}  # fmt: skip
_RECEIVER = {domain: name for name, domains in PROVIDERS.items() for domain in domains}


def receiver_of(domain: str) -> str:
    """Who takes mail for a domain: `gmail`, `yahoo`, `microsoft`, or the domain itself. Also takes a receiver's name."""
    return _RECEIVER.get(domain, domain)


def domains_of(receiver: str) -> tuple[str, ...]:
    """All domains of a receiver."""
    return PROVIDERS.get(receiver, (receiver,))
