"""Deliverability gates against a real DNS server on loopback that answers, fails, is silent, or truncates."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.check import check
from hub.cli import main
from hub.clock import ManualClock
from hub.config.loading import Config, load
from hub.mail import dkim, dmarc, gates, spf
from hub.mail.gates import Finding, Gates
from hub.mail.resolver import Answers, Resolver, Unanswered
from tests.support.dns import DnsServer, served

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="

HUB_YAML = """\
connections:
  crm: {connector: hubspot, token: "${T}"}
purposes:
  news: {title: News}
  orders: {title: Orders, marketing: false}
messages:
  hello: {subject: Hello, html: "<p>Hello</p>", from: "Ann <ann@example.com>", purpose: news}
  order: {subject: Order, html: "<p>Order</p>", from: "Ann <ann@example.com>", purpose: orders}
relays:
  main: {host: smtp.relay.example, sends_from: [192.0.2.0/28, "2001:db8:1::5"]}
  near: {host: 127.0.0.1, port: 25, tls: none}
dkim:
  example.com:
    - {selector: s2026, private_key_file: s2026.pem}
    - {selector: ed1, private_key: "${ED}"}
bounces: {return_path: bounce@mail.example.com}
sender: {postal_address: "Mailyard, Vienna", list_domain: example.com}
web: {public_url: "https://mail.example.com"}
deliverability: {nameservers: ["SERVER"], timeout: 1s}
"""


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


S2026 = dkim.Key.load("example.com", "s2026", pem(PRIVATE))
ED1 = dkim.Key.load("example.com", "ed1", SEED)


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    """A sender whose every gate holds."""
    server = DnsServer()
    server.zone["example.com"] = {"MX": ["10 mx.example.com."], "A": ["192.0.2.80"]}
    server.zone["mail.example.com"] = {"A": ["192.0.2.81"]}
    server.txt(
        "mail.example.com",
        "google-site-verification=x",
        "v=spf1 include:_spf.relay.example ip6:2001:db8:1::/48 -all",
    )
    server.txt("_spf.relay.example", "v=spf1 ip4:192.0.2.0/24 ~all")
    server.txt("_dmarc.example.com", "v=DMARC1; p=none; rua=mailto:dmarc@example.com")
    for key in (S2026, ED1):
        server.txt(key.name, key.record)
    async with served(server):
        yield server


class Hub:
    """A configuration, its gates and their clock."""

    def __init__(self, folder: Path, server: DnsServer, text: str) -> None:
        self.file, self.clock = folder / "hub.yaml", ManualClock()
        (folder / "s2026.pem").write_text(pem(PRIVATE))
        (folder / "weak.pem").write_text(pem(WEAK))
        self.file.write_text(text.replace("SERVER", server.address))
        self.config: Config = load(self.file, {"T": "x", "ED": SEED})
        # Reading an RSA key takes long, since it is checked.
        keys = [S2026, ED1] if text == HUB_YAML else dkim.keys(self.config.settings.dkim)
        self.signer = dkim.Signer(keys, self.clock)
        self.gates = Gates(self.config, self.signer, self.clock)

    async def found(self, message: str = "hello", relay: str = "main") -> list[Finding]:
        return await self.gates.findings(message, relay)

    async def troubles(self, message: str = "hello", relay: str = "main") -> dict[str, str]:
        """gate -> what is wrong, for findings that bar."""
        return {each.gate: each.what for each in await self.found(message, relay) if each.bars}

    async def advice(self) -> dict[str, str]:
        return {each.gate: each.what for each in await self.found() if each.ok is not True and not each.bars}


@pytest.fixture
def hub(tmp_path: Path, zone: DnsServer) -> Hub:
    return Hub(tmp_path, zone, HUB_YAML)


def changed(tmp_path: Path, zone: DnsServer, *changes: tuple[str, str]) -> Hub:
    text = HUB_YAML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Hub(tmp_path, zone, text)


async def test_a_sound_sender_passes_every_gate(hub: Hub) -> None:
    found = await hub.found()
    assert [each for each in found if each.ok is not True] == []
    assert [each.gate for each in found] == [
        "from", "return_path", "spf", "spf", "spf", "dkim", "dkim", "dmarc", "alignment", "one_click",
        "postal_address", "unsubscribe_url",
    ]  # fmt: skip
    assert all(each.source for each in found)
    assert (await hub.gates.verdict("hello", "main")).ok


async def test_mails_that_are_no_marketing_owe_less(hub: Hub) -> None:
    assert {each.gate for each in await hub.found("order")} == {
        "from", "return_path", "spf", "dkim", "dmarc", "alignment",
    }  # fmt: skip


# --- SPF ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "has no SPF record"),
        (["v=spf2 -all", "some text"], "has no SPF record"),
        (["v=spf1 -all", "v=spf1 +all"], "has 2 SPF records"),
        (["v=spf1 +all"], "lets every sender of the world pass"),
        (["v=spf1 ip4:0.0.0.0/0 -all"], "lets every sender of the world pass"),
        (["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 all"], "lets every sender of the world pass"),
        (["v=spf1 ip4:192.0.2.0/29 ip6:2001:db8::/32 -all"], "says fail for 192.0.2.15 of relay main"),
        (["v=spf1 ip4:192.0.2.0/24 ~all"], "says softfail for 2001:db8:1::5 of relay main"),
        (["v=spf1 ip4:192.0.2.0/24 ipv6:1 -all"], "is wrong"),
        (["v=spf1 include:nowhere.example -all"], "is wrong"),
        (["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 exists:é -all"], "is wrong"),
        (["v=spf1 " + " ".join(f"a:v{n}.example" for n in range(3)) + " -all"], "3 names in the SPF record"),
        (["v=spf1 " + " ".join("a:mail.example.com" for _ in range(11)) + " -all"], "needs 11 DNS look-ups"),
        (["v=spf1 include:loop.example -all"], "DNS look-ups; 10 are allowed"),
    ],
)
async def test_spf(hub: Hub, zone: DnsServer, records: list[str], words: str) -> None:
    del zone.zone["mail.example.com"]["TXT"]
    if records:
        zone.zone["mail.example.com"]["TXT"] = [f'"{text}"' for text in records]
    zone.txt("loop.example", "v=spf1 include:again.example -all")
    zone.txt("again.example", "v=spf1 include:loop.example -all")
    found = await hub.found()
    (spoken,) = [each for each in found if each.gate == "spf" and each.bars]
    assert words in spoken.what and spoken.fix and spoken.code.startswith("550 5.7.2") and spoken.ok is False


async def test_ten_lookups_and_two_voids_are_allowed(hub: Hub, zone: DnsServer) -> None:
    names = [f"a:s{n}.example" for n in range(7)] + ["a:void1.example", "a:void2.example"]
    for n in range(7):
        zone.zone[f"s{n}.example"] = {"A": [f"198.51.100.{n}"]}
    zone.txt(
        "mail.example.com", f"v=spf1 {' '.join(names)} include:_spf.relay.example ip6:2001:db8:1::/48 -all"
    )
    assert await hub.troubles() == {}
    assert any("10 look-ups" in each.what for each in await hub.found())


async def test_an_spf_record_that_says_nothing_of_others_is_advised_against(
    hub: Hub, zone: DnsServer
) -> None:
    zone.txt("mail.example.com", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 ?all")
    assert await hub.troubles() == {}
    assert list(await hub.advice()) == ["spf"]


async def test_without_the_relays_addresses_spf_is_not_proved(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, (', sends_from: [192.0.2.0/28, "2001:db8:1::5"]', ""))
    assert await hub.troubles() == {}
    assert "is not known" in (await hub.advice())["spf"]


@pytest.mark.parametrize(
    ("record", "address", "result"),
    [
        ("v=spf1 mx -all", "192.0.2.25", "pass"),
        ("v=spf1 a/28 -all", "192.0.2.90", "pass"),
        ("v=spf1 redirect=_spf.relay.example", "192.0.2.1", "pass"),
        ("v=spf1 redirect=_spf.relay.example", "198.51.100.1", "softfail"),
        ("v=spf1 exists:%{ir}.list.example -all", "192.0.2.77", "pass"),
        ("v=spf1 exists:%{ir}.list.example -all", "192.0.2.78", "fail"),
        ("v=spf1 -ip4:192.0.2.1 include:_spf.relay.example -all", "192.0.2.1", "fail"),
        ("v=spf1 ?include:_spf.relay.example -all exp=why.example", "192.0.2.1", "neutral"),
        ("v=spf1 -all exp=why.example", "192.0.2.1", "fail"),
        ("v=spf1 ptr:relay.example -all", "192.0.2.33", "pass"),
        ("v=spf1 include:alias.example -all", "192.0.2.1", "pass"),
    ],
)
async def test_spf_is_evaluated_as_receivers_do(
    zone: DnsServer, record: str, address: str, result: str
) -> None:
    zone.txt("x.example", record)
    zone.zone["x.example"] |= {"MX": ["10 mx.x.example."], "A": ["192.0.2.80"]}
    zone.zone["mx.x.example"] = {"A": ["192.0.2.25"]}
    zone.zone["77.2.0.192.list.example"] = {"A": ["127.0.0.2"]}
    zone.zone["33.2.0.192.in-addr.arpa"] = {"PTR": ["out.relay.example."]}
    zone.zone["out.relay.example"] = {"A": ["192.0.2.33"]}
    zone.zone["alias.example"] = {"CNAME": ["_spf.relay.example."]}
    zone.txt("why.example", "not you, %{i}")
    answers = Answers(Resolver([zone.address]))
    assert (await spf.evaluate(answers, "x.example", address)).result == result
    assert len(zone.asked) == len(set(zone.asked))


# --- DKIM ---------------------------------------------------------------------------------------------------

OTHER = base64.b64encode(dkim.Key.load("example.com", "x", pem(WEAK)).public).decode()
OURS = base64.b64encode(S2026.public).decode()
BARE = base64.b64encode(
    PRIVATE.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
).decode()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "there is no key at s2026._domainkey.example.com"),
        (["v=DKIM1; k=rsa; p="], "is revoked"),
        ([f"v=DKIM1; k=rsa; p={OTHER}"], "is another one than ours"),
        (["v=DKIM1; k=rsa; p=!!!"], "cannot be read"),
        (["v=DKIM1; k=rsa"], "is no DKIM record"),
        (["hello"], "is no DKIM record"),
        ([f"v=DKIM1; k=ed25519; p={OURS}"], "is for ed25519, ours is for rsa"),
        ([f"v=DKIM1; h=sha1; p={OURS}"], "does not allow SHA-256"),
        ([f"v=DKIM1; s=chat; p={OURS}"], "is not for e-mail"),
        ([S2026.record, S2026.record + ";"], "there are 2 records"),
    ],
)
async def test_dkim(hub: Hub, zone: DnsServer, records: list[str], words: str) -> None:
    del zone.zone[S2026.name]
    if records:
        zone.txt(S2026.name, *records)
    found = [each for each in await hub.found() if each.gate == "dkim"]
    assert [each.ok for each in found] == [False, True]
    assert words in found[0].what and "550 5.7.26" in found[0].code


@pytest.mark.parametrize(
    "record",
    [
        f"p={OURS}",
        f"v=DKIM1;k=rsa;h=sha1:sha256;s=email;p={OURS};",
        f"v=DKIM1; p={OURS[:70]} {OURS[70:]}",
        f"p={BARE}",
    ],
)
async def test_other_ways_to_write_our_key(hub: Hub, zone: DnsServer, record: str) -> None:
    zone.txt(S2026.name, record)
    assert await hub.troubles() == {} and await hub.advice() == {}


async def test_short_keys_and_tests_are_advised_against(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, ("private_key_file: s2026.pem", "private_key_file: weak.pem"))
    weak = hub.signer.signing("example.com")[0]
    zone.txt(weak.name, weak.record)
    assert "1024 bits only" in (await hub.advice())["dkim"]
    zone.txt(weak.name, weak.record + "; t=y:s")
    hub.clock.advance(minutes=10)
    assert "marked as a test" in next(f.what for f in await fresh(hub) if f.gate == "dkim")


async def fresh(hub: Hub) -> list[Finding]:
    """As if the TTL of all answers were over."""
    hub.gates = Gates(hub.config, hub.signer, hub.clock)
    return await hub.found()


async def test_a_key_that_does_not_sign_yet_is_not_asked_for(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, ('private_key: "${ED}"', 'private_key: "${ED}", sign: false'))
    del zone.zone[ED1.name]
    assert await hub.troubles() == {}


NO_KEYS = ("dkim:\n  example.com:", "dkim:\n  example.net:")


async def test_nobody_signs(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, NO_KEYS)
    troubles = await hub.troubles()
    assert troubles["dkim"] == "nobody signs mails From example.com"
    assert troubles["one_click"] == "no signature covers List-Unsubscribe and List-Unsubscribe-Post"


async def test_a_relay_that_signs_itself_has_to_be_probed(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(
        tmp_path, zone, NO_KEYS, ("smtp.relay.example,", "smtp.relay.example, signs: [example.com],")
    )
    assert await hub.troubles() == {}
    assert {gate: "probe" in what for gate, what in (await hub.advice()).items()} == {
        "dkim": True,
        "one_click": True,
    }


# --- DMARC --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "example.com has no DMARC record"),
        (["v=DMARC2; p=none"], "has no DMARC record"),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], "there are 2 DMARC records"),
        (["v=DMARC1; p=maybe"], "has no valid p="),
        (["v=DMARC1; p=none; sp=maybe"], "has no valid p="),
    ],
)
async def test_dmarc(hub: Hub, zone: DnsServer, records: list[str], words: str) -> None:
    del zone.zone["_dmarc.example.com"]
    if records:
        zone.txt("_dmarc.example.com", *records)
    assert words in (await hub.troubles())["dmarc"]


async def test_reports_are_advised(hub: Hub, zone: DnsServer) -> None:
    zone.txt("_dmarc.example.com", "v=DMARC1; p=reject")
    assert await hub.troubles() == {} and list(await hub.advice()) == ["dmarc"]


async def test_the_policy_of_the_organization_counts_for_its_subdomains(
    tmp_path: Path, zone: DnsServer
) -> None:
    hub = changed(tmp_path, zone, ("ann@example.com", "ann@news.example.com"))
    zone.zone["news.example.com"] = {"MX": ["10 mx.example.com."]}
    assert await hub.troubles() == {} and await hub.advice() == {}


@pytest.mark.parametrize(
    ("policy", "back", "keys", "bars", "words"),
    [
        ("p=none", "mail.example.com", True, False, ""),
        ("p=none; aspf=s", "mail.example.com", True, False, "DMARC rests on DKIM alone"),
        ("p=none", "relay.example", True, False, "DMARC rests on DKIM alone"),
        ("p=none", "mail.example.com", False, False, "forwarded mails will fail DMARC"),
        ("p=none", "relay.example", False, True, "neither the return path (relay.example) nor a signature"),
        ("p=none; aspf=s", "mail.example.com", False, True, "neither the return path"),
    ],
)
async def test_alignment(
    tmp_path: Path, zone: DnsServer, policy: str, back: str, keys: bool, bars: bool, words: str
) -> None:
    changes = [("bounce@mail.example.com", f"bounce@{back}")] + ([] if keys else [NO_KEYS])
    hub = changed(tmp_path, zone, *changes)
    zone.txt("_dmarc.example.com", f"v=DMARC1; {policy}; rua=mailto:a@example.com")
    zone.txt("relay.example", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all")
    (found,) = [each for each in await hub.found() if each.gate == "alignment"]
    assert (found.bars, found.ok) == (bars, not words)
    assert words in found.what


async def test_strict_dkim_wants_a_key_of_the_very_domain(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, ("ann@example.com", "ann@news.example.com"), ("bounce@mail.", "bounce@"))
    zone.zone["news.example.com"] = {"MX": ["10 mx.example.com."]}
    zone.zone["example.com"]["TXT"] = zone.zone["mail.example.com"]["TXT"]
    zone.txt("_dmarc.example.com", "v=DMARC1; p=none; adkim=s; aspf=s; rua=mailto:a@example.com")
    assert "neither the return path" in (await hub.troubles())["alignment"]


@pytest.mark.parametrize(
    ("records", "domain", "organization"),
    [
        ({}, "a.example.com", "a.example.com"),
        ({"example.com": ""}, "a.b.example.com", "example.com"),
        ({"b.example.com": "", "example.com": ""}, "a.b.example.com", "example.com"),
        ({"b.example.com": "psd=n", "example.com": ""}, "a.b.example.com", "b.example.com"),
        ({"com": "psd=y"}, "a.b.example.com", "example.com"),
        ({"com": "psd=y", "example.com": ""}, "a.b.example.com", "example.com"),
        ({"com": "psd=y"}, "com", "com"),
        ({"j.example.com": ""}, "a.b.c.d.e.f.g.h.i.j.example.com", "j.example.com"),
    ],
)
async def test_the_organizational_domain(
    zone: DnsServer, records: dict[str, str], domain: str, organization: str
) -> None:
    zone.zone.clear()
    for name, tag in records.items():
        zone.txt(f"_dmarc.{name}", f"v=DMARC1; p=none; {tag}")
    answers = Answers(Resolver([zone.address]))
    assert await dmarc.organizational(answers, domain) == organization
    assert len(zone.asked) <= 8


# --- the rest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "has neither an MX nor an address"),
        ({"MX": ["0 ."]}, "says that it takes no mail"),
        ({"MX": ["0 ."], "A": ["192.0.2.1"]}, "says that it takes no mail"),
    ],
)
async def test_nothing_can_come_back(
    hub: Hub, zone: DnsServer, records: dict[str, list[str]], words: str
) -> None:
    zone.zone["example.com"] = records
    assert words in (await hub.troubles())["from"]


async def test_an_address_of_version_6_is_enough(hub: Hub, zone: DnsServer) -> None:
    zone.zone["example.com"] = {"AAAA": ["2001:db8::1"]}
    assert await hub.troubles() == {}


async def test_marketing_owes_an_address_and_a_link(tmp_path: Path, zone: DnsServer) -> None:
    hub = changed(tmp_path, zone, ('"Mailyard, Vienna"', '" "'), ("https://mail", "http://mail"))
    assert sorted(await hub.troubles()) == ["postal_address", "unsubscribe_url"]
    assert await hub.troubles("order") == {}


async def test_relays_on_this_machine_are_exempt(hub: Hub, zone: DnsServer) -> None:
    assert await hub.found("hello", "near") == []
    assert (await hub.gates.verdict("hello", "near")).ok
    assert zone.asked == []
    hosts = ("localhost", "127.0.0.9", "::1", "[::1]", "smtp.example", "10.0.0.1", "127.example.com", "")
    assert [gates.exempt({"host": host}) for host in hosts] == [True] * 4 + [False] * 4


# --- DNS that does not answer ---------------------------------------------------------------------------------

NAMES = {
    "example.com": {"from"},
    "mail.example.com": {"return_path", "spf"},
    "_spf.relay.example": {"spf"},
    "s2026._domainkey.example.com": {"dkim"},
    "_dmarc.example.com": {"dmarc", "alignment"},
}


@pytest.mark.parametrize("name", NAMES)
async def test_what_fails_to_answer_is_unknown(hub: Hub, zone: DnsServer, name: str) -> None:
    zone.failing.add(name)
    if name == "example.com":
        zone.failing.discard("mail.example.com")
    found = await hub.found()
    unknown = [each for each in found if each.ok is None]
    assert {each.gate for each in unknown} == NAMES[name]
    assert all(each.what.startswith("unknown: DNS gave no answer for") and each.bars for each in unknown)
    verdict = await hub.gates.verdict("hello", "main")
    assert (verdict.ok, verdict.state) == (False, "unknown")


async def test_silence_is_unknown_and_takes_no_longer_than_said(hub: Hub, zone: DnsServer) -> None:
    zone.silent |= {"mail.example.com", "_dmarc.example.com"}
    loop = asyncio.get_running_loop()
    begun = loop.time()
    found = await hub.found()
    assert loop.time() - begun < 4  # the timeout is 1 s, and two silent names may follow each other
    assert {each.gate for each in found if each.ok is None} == {"return_path", "spf", "dmarc", "alignment"}
    assert "time-out" in next(each.what for each in found if each.gate == "spf")


async def test_no_server_at_all_is_unknown() -> None:
    async with served(DnsServer()) as gone:
        pass
    with pytest.raises(Unanswered, match="DNS gave no answer"):
        await Resolver([gone.address], lifetime_seconds=0.3).ask("example.com", "TXT")


async def test_a_failure_outweighs_what_is_unknown(hub: Hub, zone: DnsServer) -> None:
    zone.failing.add("mail.example.com")
    del zone.zone[S2026.name]
    assert (await hub.gates.verdict("hello", "main")).state == "failed"


async def test_long_records_come_over_tcp_and_in_pieces(hub: Hub, zone: DnsServer) -> None:
    zone.long |= {S2026.name}
    assert len(zone.zone[S2026.name]["TXT"][0]) > 400  # two strings
    assert await hub.troubles() == {}
    assert [protocol for protocol, name, _ in zone.asked if name == S2026.name] == ["udp", "tcp"]


async def test_names_that_cannot_exist_do_not_exist(zone: DnsServer) -> None:
    resolver = Resolver([zone.address])
    assert await resolver.ask("a" * 64 + ".example", "TXT") == []
    assert await resolver.ask("a..example", "TXT") == []
    assert zone.asked == []


# --- verdicts -------------------------------------------------------------------------------------------------


async def test_a_verdict_is_remembered_and_asked_again_in_time(hub: Hub, zone: DnsServer) -> None:
    del zone.zone[S2026.name]
    first = await hub.gates.verdict("hello", "main")
    assert not first.ok and [each.gate for each in first.reasons] == ["dkim"]
    asked = len(zone.asked)
    assert await hub.gates.verdict("hello", "main") is first
    assert len(zone.asked) == asked
    zone.txt(S2026.name, S2026.record)
    hub.gates.resolver = Resolver([zone.address])  # as if the negative answer's TTL were over
    hub.clock.advance(minutes=2)
    good = await hub.gates.verdict("hello", "main")
    assert good.ok and good.reasons == ()
    hub.clock.advance(minutes=10)
    assert await hub.gates.verdict("hello", "main") is good
    hub.clock.advance(minutes=6)
    assert await hub.gates.verdict("hello", "main") is not good


async def test_what_was_proved_holds_while_dns_is_away(hub: Hub, zone: DnsServer) -> None:
    assert (await hub.gates.verdict("hello", "main")).ok
    zone.failing.add("_dmarc.example.com")
    for hours, ok in ((1, True), (20, True), (4, False)):
        hub.clock.advance(hours=hours)
        hub.gates.resolver = Resolver([zone.address])
        assert (await hub.gates.verdict("hello", "main")).ok is ok
    zone.failing.clear()
    del zone.zone["_dmarc.example.com"]
    hub.clock.advance(minutes=2)
    assert (await hub.gates.verdict("hello", "main")).state == "failed"


async def test_many_who_ask_at_once_ask_dns_once(hub: Hub, zone: DnsServer) -> None:
    verdicts = await asyncio.gather(*(hub.gates.verdict("hello", "main") for _ in range(20)))
    assert len({id(each) for each in verdicts}) == 1
    assert len(zone.asked) == len(set(zone.asked))


@pytest.mark.parametrize(("gate", "reasons"), [("warn", 1), ("off", 0)])
async def test_gates_may_warn_only_or_be_off(
    tmp_path: Path, zone: DnsServer, gate: str, reasons: int
) -> None:
    hub = changed(tmp_path, zone, ("timeout: 1s", f"timeout: 1s, gate: {gate}"))
    del zone.zone[S2026.name]
    verdict = await hub.gates.verdict("hello", "main")
    assert verdict.ok and len(verdict.reasons) == reasons
    assert bool(zone.asked) == bool(reasons)


# --- the command and the file ---------------------------------------------------------------------------------


async def run(hub: Hub, *arguments: str) -> Any:
    environ = {"T": "x", "ED": SEED}
    return await asyncio.to_thread(
        CliRunner().invoke, main, ["--config", str(hub.file), "deliverability", *arguments], env=environ
    )


async def test_the_command(hub: Hub, zone: DnsServer) -> None:
    done = await run(hub, "--json")
    assert done.exit_code == 0, done.output
    assert [(row["message"], row["relay"], row["state"], row["exempt"]) for row in json.loads(done.output)] == [
        ("hello", "main", "ok", False), ("hello", "near", "ok", True),
        ("order", "main", "ok", False), ("order", "near", "ok", True),
    ]  # fmt: skip
    zone.failing.add("_dmarc.example.com")
    assert (await run(hub, "hello")).exit_code == 2
    del zone.zone[S2026.name]
    told = await run(hub, "hello")
    assert told.exit_code == 1
    assert "hello by main: failed" in told.output and "exempt" in told.output
    assert "there is no message" in (await run(hub, "nobody")).output


def test_mistakes_in_the_settings_have_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hub.yaml").write_text(
        "relays:\n"
        "  main: {host: 127.0.0.1, tls: none, sends_from: [192.0.2.1, 192.0.2.1/28]}\n"
        "deliverability: {gate: of, nameservers: [9.9.9.9, '[::1]:5353', '127.0.0.1:53', resolver.example]}\n"
    )
    assert [str(problem) for problem in check(Path("hub.yaml"), {}).problems] == [
        "hub.yaml:2:62: '192.0.2.1/28' is no address or network; write for example 192.0.2.0/28",
        "hub.yaml:3:24: gate: 'of' is unknown; did you mean 'off'?",
        "hub.yaml:3:81: 'resolver.example' is no name server's address; write for example 9.9.9.9",
    ]
