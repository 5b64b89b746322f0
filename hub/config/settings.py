"""The shape of hub.yaml: every key, its type and its default. Docstrings and descriptions feed `hub schema`."""

from __future__ import annotations

import builtins
import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, SecretStr

from hub.clock import parse_duration, parse_speed, parse_wall_time, zone_named

Duration = Annotated[timedelta, BeforeValidator(parse_duration, json_schema_input_type=str)]
WallTime = Annotated[datetime, BeforeValidator(parse_wall_time, json_schema_input_type=str)]
"""What a clock on a wall shows: a datetime without a zone."""
Speed = Annotated[float, BeforeValidator(parse_speed, json_schema_input_type=str)]
"""Mails a second."""


def _zone(text: str) -> str:
    if text != "recipient" and zone_named(text) is None:
        raise ValueError(f"{text!r} is no time zone; write for example Europe/Vienna")
    return text


def _fixed_zone(text: str) -> str:
    if text == "recipient":
        raise ValueError("it stands in for recipients without a zone: write for example Europe/Vienna")
    return _zone(text)


class Section(BaseModel):
    """Base of every section: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ConnectionSection(Section):
    """One account at a vendor. Keys beside these belong to the connector and are checked by its own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    connector: str = Field(description="name of the connector, see `hub connectors`")
    mapping: str | None = Field(
        None, description="mapping file that extends the shipped one, relative to hub.yaml"
    )
    account: str | None = Field(
        None, description="connections that share one vendor account share its quotas under this name"
    )

    @property
    def own(self) -> dict[str, Any]:
        """The connector's own keys."""
        return dict(self.model_extra or {})


class SyncSection(Section):
    """What is pulled from and pushed to a connection, and how often."""

    every: Duration = Field(timedelta(minutes=5), description="how often to pull, e.g. 5m")
    pull: list[Literal["leads", "contacts", "companies", "deals", "segments"]] = Field(
        default_factory=list, description="streams to read; the connector's page names those it has"
    )
    push: list[Literal["results", "consent", "fields"]] = Field(
        default_factory=list, description="what to write; the connector's page names what it can"
    )


class ListSection(Section):
    """A list: everybody for whom `where` is true, or who was imported into a static one."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["where"]}, {"required": ["static"]}]}
    )

    where: str | None = Field(
        None,
        description="a SQL condition over contact fields, e.g. country = 'DE' AND has_deal(stage => 'trial')",
    )
    static: bool = Field(
        False, description="instead of `where`: the list holds whom `hub lists import` names"
    )
    exclude: list[str] = Field(default_factory=list, description="lists whose members are never on this one")
    mirror: dict[str, str] = Field(
        default_factory=dict,
        description="connection -> name of a segment there that holds the same people; `hub connections prepare` makes it",
    )
    description: str = Field("", description="a word for people; the hub does not use it")


class Tracking(Section):
    """What is seen of a mail after it was sent. What a message leaves open its purpose says, then `tracking`."""

    opens: bool | None = Field(None, description="put a pixel into the HTML part")
    clicks: bool | None = Field(None, description="lead links in the HTML part through the hub")


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address or network; write for example 192.0.2.0/28") from None
    return text


class MachinesSection(Section):
    """How opens and clicks of machines are told from those of people."""

    soon: Duration = Field(
        timedelta(seconds=3),
        description="nobody opens or clicks within so long after sending; `0s`: never too soon",
    )
    networks: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=list, description="further networks that link checks come from, e.g. 198.51.100.0/24"
    )
    trap: bool = Field(
        False,
        description="put a link that no person sees into the HTML part: who follows it is a machine. Some filters dislike it",
    )


class TrackingSection(Section):
    """What is seen of mails where neither the message nor its purpose says it, and where nothing ever is."""

    opens: bool = Field(True, description="put a pixel into the HTML part")
    clicks: bool = Field(True, description="lead links in the HTML part through the hub")
    off_in: list[str] = Field(
        default_factory=list,
        description="countries of contacts (ISO 3166-1, two letters) whose mails are not tracked; `unknown`: those of none",
    )
    machines: MachinesSection = Field(
        MachinesSection(), description="how machines are told from people, see results"
    )


class UtmSection(Section):
    """Parameters for web analytics, for http(s) links that have none. Values may name `message`, `purpose`, `funnel`."""

    source: str | None = Field(None, description="utm_source, e.g. mailyard")
    medium: str | None = Field(None, description="utm_medium, e.g. email")
    campaign: str | None = Field(None, description="utm_campaign, e.g. {{ funnel }}")
    term: str | None = Field(None, description="utm_term")
    content: str | None = Field(None, description="utm_content, e.g. {{ message }}")
    hosts: list[str] | None = Field(
        None, description="only links to these hosts and those below them; all links when absent"
    )


class LanguageSection(Section):
    """A message in another language. What is absent is as in the message itself."""

    subject: str | None = Field(None, description="a template; so are preheader, html and text")
    template: str | None = Field(None, description="path of an .mjml or .html file, relative to hub.yaml")
    html: str | None = Field(None, description="the HTML itself, instead of `template`")
    text: str | None = Field(None, description="plain-text part; made from HTML of its own when absent")
    preheader: str | None = Field(None, description="the line that mail programs show beside the subject")


def _language_tag(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", text):
        raise ValueError(f"{text!r} is no language tag (BCP 47); write for example de or pt-BR")
    return text


LanguageTag = Annotated[str, AfterValidator(_language_tag)]


class MessageSection(Section):
    """A mail: subject, template, sender, and the purpose that consent is asked for."""

    subject: str = Field(description="a template; so are preheader, html and text")
    from_: str = Field(alias="from", description='"Ann <ann@example.com>"')
    purpose: str = Field(description="one of `purposes`; decides consent and the unsubscribe link")
    template: str | None = Field(None, description="path of an .mjml or .html file, relative to hub.yaml")
    html: str | None = Field(None, description="the HTML itself, instead of `template`")
    text: str | None = Field(None, description="plain-text part; made from the HTML when absent")
    preheader: str = Field("", description="the line that mail programs show beside the subject")
    reply_to: str | None = Field(None, description="address of the Reply-To header")
    track: Tracking = Field(Tracking(), description="what is seen of the mail")
    language: LanguageTag | None = Field(
        None, description="what it is written in (BCP 47), e.g. en: the Content-Language header"
    )
    languages: dict[LanguageTag, LanguageSection] = Field(
        default_factory=dict,
        description="language -> the message in it. For a contact of pt-BR pt-BR is taken, else pt, else the message itself",
    )
    attachments: list[str] = Field(default_factory=list, description="paths of files, relative to hub.yaml")
    images: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")], str] = Field(
        default_factory=dict,
        description="name -> path of an image that the mail carries and its HTML shows as cid:NAME",
    )
    max_size: ByteSize = Field(
        ByteSize(10_000_000), description="how large its files may make the mail, encoded, e.g. 10 MB"
    )
    utm: UtmSection | Literal[False] = Field(
        UtmSection(), description="parameters of its links, over those of the whole hub.yaml; false: none"
    )


class Send(Section):
    """Queue a mail."""

    send: str = Field(description="a message's name")


class Wait(Section):
    """Go on after some time."""

    wait: Duration = Field(description="counted from the moment the step is reached, e.g. 3 days")


class When(Section):
    """A branch. `when` is a rule; `then` runs where it holds, `else` where it does not."""

    when: str = Field(description="a rule, as in a list")
    then: list[Step] = Field(default_factory=list, description="steps for those for whom it holds")
    else_: list[Step] = Field(default_factory=list, alias="else", description="steps for the others")


class SetFields(Section):
    """Write fields of the contact at a connection."""

    set: dict[str, dict[str, Any]] = Field(description="connection -> hub field -> value")


Step = Send | Wait | When | SetFields


class Enter(Section):
    """Who enters."""

    list: str = Field(description="whoever joins this list enters")
    again: Literal["once", "each_time"] = Field(
        "once", description="may a person who joins the list again enter again?"
    )


class Leave(Section):
    """Who leaves early."""

    when: str = Field(description="a rule; asked before each step that is due")


class FunnelSection(Section):
    """Who enters, what happens step by step, and when a person leaves early."""

    enter: Enter = Field(description="who enters")
    leave: Leave | None = Field(None, description="who leaves early")
    steps: list[Step] = Field(min_length=1, description="taken in order")


class CampaignSection(Section):
    """One message to everybody on a list, once. Sent after `hub campaigns approve`, to those who are on the list then."""

    list: str = Field(description="who gets it")
    message: str = Field(description="a message's name")
    at: WallTime | None = Field(
        None, description="date and time in `time_zone`, e.g. 2026-12-01 09:00; default: when it is approved"
    )
    time_zone: Annotated[str, AfterValidator(_zone)] | None = Field(
        None, description="whose clock `at` is of: an IANA zone, or `recipient` for each one's own"
    )
    default_zone: Annotated[str, AfterValidator(_fixed_zone)] | None = Field(
        None,
        description="with `recipient`: for whom neither a zone nor a country of one clock is known",
    )
    speed: Speed | None = Field(
        None, description="e.g. 5000 per hour, spread evenly; default: as fast as the relays' limits allow"
    )
    exclude: builtins.list[str] = Field(
        default_factory=builtins.list, description="lists: an address that is on one of them gets nothing"
    )
    late: Duration = Field(
        timedelta(hours=12), description="a mail whose time is longer ago is held and waits for a person"
    )


class Tariff(Section):
    """What a relay costs, for the estimate of `hub campaigns plan`."""

    per_thousand: Decimal = Field(ge=0, description="price of 1,000 mails")
    currency: str = Field("USD", pattern="^[A-Z]{3}$", description="three letters of ISO 4217")
    included: int = Field(0, ge=0, description="mails of a campaign that cost nothing")


class DomainLimits(Section):
    """What one receiver may be asked for through a relay."""

    per_second: float | None = Field(
        None, gt=0, description="mails a second, spread evenly, shared by the workers"
    )
    per_minute: int | None = Field(None, gt=0, description="mails within any 60 seconds, of all workers")
    per_hour: int | None = Field(None, gt=0, description="mails within any 60 minutes, of all workers")
    per_day: int | None = Field(None, gt=0, description="mails a day of all workers, see `day` of the relay")
    connections: int | None = Field(
        None, ge=1, description="mails under way to the receiver at a time, of one worker"
    )


class RelayLimits(Section):
    """What a relay may be asked for. A mail counts when it is offered, whatever the answer."""

    per_second: float | None = Field(
        None, gt=0, description="mails a second, spread evenly, shared by the workers"
    )
    per_minute: int | None = Field(None, gt=0, description="mails within any 60 seconds, of all workers")
    per_hour: int | None = Field(None, gt=0, description="mails within any 60 minutes, of all workers")
    per_day: int | None = Field(None, gt=0, description="mails a day, of all workers")
    day: Literal["rolling", "utc"] = Field(
        "rolling", description="what a day is: any 24 hours, or from midnight to midnight UTC"
    )
    connections: int = Field(4, ge=1, le=64, description="sessions at a time of one worker")
    per_connection: int | None = Field(
        None, ge=1, description="mails of one session; then it is closed and another one opened"
    )


class WarmUp(Section):
    """How a new relay gets its name: a little more every day (days are UTC)."""

    start: date = Field(description="the first day, e.g. 2026-11-25; before it the relay carries nothing")
    plan: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1, description="mails on day 1, 2, 3 ...; after its end only `limits` hold"
    )


class Serves(Section):
    """What a relay may carry; an empty list is everything."""

    purposes: list[str] = Field(default_factory=list, description="names of `purposes`")
    from_domains: list[str] = Field(
        default_factory=list, description="domains of the sender's address, e.g. news.example.com"
    )
    countries: list[str] = Field(
        default_factory=list,
        description="countries of contacts (ISO 3166-1, two letters); whose country is unknown is served elsewhere",
    )


class EventsSection(Section):
    """How a relay tells what became of its mails, at /webhooks/relays/NAME. Keys beside `from` belong to the plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    from_: str = Field(alias="from", description="whose events, e.g. sendgrid; see `hub connectors`")

    @property
    def own(self) -> dict[str, Any]:
        """The plug-in's own keys."""
        return dict(self.model_extra or {})


class RelaySection(Section):
    """A way out for mail. Keys beside these belong to the relay's connector (default: smtp)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    connector: str = Field("smtp", description="name of the relay's connector, see `hub connectors`")
    sends_from: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=list,
        description="addresses and networks that it delivers from: SPF must let them pass, see `deliverability`",
    )
    signs: list[str] = Field(
        default_factory=list, description="domains (d=) that it adds DKIM signatures of its own for"
    )
    limits: RelayLimits = Field(RelayLimits(), description="what it may be asked for")
    domains: dict[str, DomainLimits] = Field(
        default_factory=dict,
        description="receiver -> what it may be asked for: a domain, or gmail, yahoo or microsoft for all of theirs",
    )
    warm_up: WarmUp | None = Field(None, description="a plan for a relay that is new to its receivers")
    serves: Serves = Field(Serves(), description="what it may carry")
    order: int | None = Field(
        None,
        description="a lower one is tried first, relays of the same one share; default: its place in hub.yaml, from 1",
    )
    weight: float = Field(
        1.0, ge=0, description="its share among the relays of its order; 0: only when they fail"
    )
    tariff: Tariff | None = Field(None, description="what it costs")
    events: EventsSection | None = Field(
        None, description="how it tells what became of its mails, see relay events"
    )

    @property
    def own(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DoubleOptInSection(Section):
    """How people ask for a purpose: a mail asks them to confirm, and only then it is consent."""

    message: str = Field(description="the mail that asks; it prints `confirm_url`")
    expires: Duration = Field(timedelta(days=7), description="how long its link can be used, e.g. 7d")
    wording: str = Field(
        description="what people agree to, as the form shows it: kept as the proof. Change it together with every form"
    )


class PurposeSection(Section):
    """Why people get mail, in words they see on the preference page, and what the purpose is called elsewhere."""

    title: str = Field(description="the purpose in words")
    titles: dict[LanguageTag, str] = Field(
        default_factory=dict, description="language -> the title in it, for the hub's pages"
    )
    double_opt_in: DoubleOptInSection | None = Field(
        None, description="lets people ask for it, at `/subscribe/PURPOSE` under `web.public_url`"
    )
    basis: Literal["opt_out", "opt_in"] = Field("opt_out", description="opt_in: only with a recorded consent")
    marketing: bool = Field(
        True,
        description="false: no List-Unsubscribe headers and no footer (order confirmations and the like)",
    )
    subscriptions: dict[str, str] = Field(
        default_factory=dict, description="connection -> the vendor's subscription id"
    )
    track: Tracking = Field(Tracking(), description="what is seen of its messages, where they do not say it")


class WebSection(Section):
    """Where the hub listens and how the world reaches it."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    port: int = Field(8025, ge=0, le=65535, description="port to listen on")
    public_url: str = Field(
        "http://127.0.0.1:8025", description="base of tracking, unsubscribe and webhook URLs"
    )
    proxies: list[Annotated[str, AfterValidator(_network)]] = Field(
        default_factory=list,
        description="proxies in front, whose X-Forwarded-For tells where a reader comes from, e.g. 10.0.0.0/8",
    )
    requests_per_hour: int = Field(
        60, ge=1, description="how many requests for mail are taken from one network (/24, or /48 of IPv6)"
    )


def _key_or_its_file(schema: dict[str, Any]) -> None:
    """For editors: `private_key_file` becomes `private_key` before this model sees it."""
    schema["properties"]["private_key_file"] = {
        "type": "string", "description": "file with the private key, relative to hub.yaml",
    }  # fmt: skip
    schema["required"].remove("private_key")
    schema["oneOf"] = [{"required": ["private_key"]}, {"required": ["private_key_file"]}]


class DkimKeySection(Section):
    """A key that signs mails of a domain. Of each algorithm the first key of the domain that may sign does."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_key_or_its_file)

    selector: str = Field(description="the public key is published at SELECTOR._domainkey.DOMAIN")
    private_key: SecretStr = Field(
        description="RSA or Ed25519 in PEM, or an Ed25519 seed in base64; a reference, or `private_key_file`"
    )
    sign: bool = Field(True, description="false: published, and not used yet (or any more)")
    expires_after: Duration | None = Field(
        None, description="signatures are good for so long, e.g. 7 days; forever when absent"
    )


def address_and_port(text: str) -> tuple[str, int]:
    """(address, port) of a name server as it may be written: `9.9.9.9`, `127.0.0.1:5353`, `[::1]:53`. Raises ValueError."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return str(ip_address(host)), int(port)


def _nameserver(text: str) -> str:
    try:
        address_and_port(text)
    except ValueError:
        raise ValueError(f"{text!r} is no name server's address; write for example 9.9.9.9") from None
    return text


class DeliverabilitySection(Section):
    """SPF, DKIM, DMARC and what the law asks for, proved through DNS before the first mail of a message goes out."""

    gate: Literal["refuse", "warn", "off"] = Field(
        "refuse",
        description="refuse: a message that receivers would refuse is not sent; warn: it is sent and the log tells",
    )
    nameservers: list[Annotated[str, AfterValidator(_nameserver)]] = Field(
        default_factory=list, description="DNS servers to ask instead of this machine's, e.g. 9.9.9.9"
    )
    timeout: Duration = Field(timedelta(seconds=5), description="how long to wait for one answer")
    recheck: Duration = Field(timedelta(minutes=15), description="how long a good answer is believed")


class IncidentSection(Section):
    """When many dead addresses at once are taken for an incident of ours: what they suppressed is let go again."""

    mails: int = Field(20, ge=2, description="so many of one relay, one receiver and one text")
    within: Duration = Field(
        timedelta(hours=1), description="within so long; and over when none came for so long"
    )


class BouncesSection(Section):
    """Where delivery status notifications come in."""

    return_path: str = Field(
        "bounce@localhost", description="return path; becomes bounce+TOKEN@domain for each mail"
    )
    maildir: str | None = Field(None, description="a Maildir folder that the mail server delivers bounces to")
    incident: IncidentSection = Field(
        IncidentSection(), description="when many dead addresses at once are not believed"
    )


class ResultsSection(Section):
    """How results are read."""

    delivered_after: Duration = Field(
        timedelta(hours=24),
        description="an accepted mail without a failure report by then counts as delivered",
    )


class SenderSection(Section):
    """Who sends, for the footer that the law asks for."""

    postal_address: str = Field("", description="put into the footer, and `postal_address` in templates")
    list_domain: str = Field("localhost", description="domain of List-Id and Message-ID")


class Settings(Section):
    """The whole of hub.yaml."""

    connections: dict[str, ConnectionSection] = Field(default_factory=dict, description="accounts at vendors")
    sync: dict[str, SyncSection] = Field(
        default_factory=dict, description="connection -> what is pulled and pushed"
    )
    purposes: dict[str, PurposeSection] = Field(default_factory=dict, description="why people get mail")
    lists: dict[str, ListSection] = Field(default_factory=dict, description="dynamic lists")
    messages: dict[str, MessageSection] = Field(default_factory=dict, description="mails")
    tracking: TrackingSection = Field(
        TrackingSection(), description="what is seen of mails, and where nothing is"
    )
    utm: UtmSection = Field(
        UtmSection(), description="parameters of the links of all messages, for web analytics"
    )
    funnels: dict[str, FunnelSection] = Field(
        default_factory=dict, description="what happens to people on a list"
    )
    campaigns: dict[str, CampaignSection] = Field(
        default_factory=dict, description="one message to everybody on a list, once"
    )
    relays: dict[str, RelaySection] = Field(
        default_factory=dict, description="ways out for mail, see `order` and `weight`"
    )
    dkim: dict[str, list[DkimKeySection]] = Field(
        default_factory=dict, description="domain -> keys that sign its mails"
    )
    deliverability: DeliverabilitySection = Field(
        DeliverabilitySection(), description="what is asked of DNS before a message's first mail"
    )
    bounces: BouncesSection = Field(BouncesSection(), description="where failure reports come in")
    results: ResultsSection = Field(ResultsSection(), description="how results are read")
    sender: SenderSection = Field(SenderSection(), description="who sends")
    web: WebSection = Field(WebSection(), description="where the hub listens")


When.model_rebuild()
FunnelSection.model_rebuild()
