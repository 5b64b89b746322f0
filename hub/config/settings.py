"""The shape of hub.yaml: every key, its type and its default. Docstrings and descriptions feed `hub schema`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hub.clock import parse_duration

Duration = Annotated[timedelta, BeforeValidator(parse_duration, json_schema_input_type=str)]


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
    pull: list[Literal["contacts", "deals", "segments"]] = Field(default_factory=list)
    push: list[Literal["results", "consent", "fields"]] = Field(default_factory=list)


class ListSection(Section):
    """A dynamic list: everybody for whom `where` is true."""

    where: str = Field(
        description="a SQL condition over contact fields, e.g. country = 'DE' AND has_deal(stage => 'trial')"
    )
    description: str = ""


class Tracking(Section):
    opens: bool = True
    clicks: bool = True


class MessageSection(Section):
    """A mail: subject, template, sender, and the purpose that consent is asked for."""

    subject: str
    from_: str = Field(alias="from", description='"Ann <ann@example.com>"')
    purpose: str = Field(description="one of `purposes`; decides consent and the unsubscribe link")
    template: str | None = Field(None, description="path of an .mjml or .html file, relative to hub.yaml")
    html: str | None = Field(None, description="the HTML itself, instead of `template`")
    text: str | None = Field(None, description="plain-text part; made from the HTML when absent")
    preheader: str = ""
    reply_to: str | None = None
    track: Tracking = Tracking()


class Send(Section):
    send: str = Field(description="a message's name")


class Wait(Section):
    wait: Duration


class When(Section):
    """A branch. `when` is a rule; `then` runs where it holds, `else` where it does not."""

    when: str
    then: list[Step] = Field(default_factory=list)
    else_: list[Step] = Field(default_factory=list, alias="else")


class SetFields(Section):
    set: dict[str, dict[str, Any]] = Field(description="connection -> hub field -> value")


Step = Send | Wait | When | SetFields


class Enter(Section):
    list: str
    again: Literal["once", "each_time"] = Field(
        "once", description="may a person who joins the list again enter again?"
    )


class Leave(Section):
    when: str


class FunnelSection(Section):
    """Who enters, what happens step by step, and when a person leaves early."""

    enter: Enter
    leave: Leave | None = None
    steps: list[Step] = Field(min_length=1)


class RelayLimits(Section):
    per_second: float | None = Field(None, gt=0)
    per_day: int | None = Field(None, gt=0)
    connections: int = Field(4, ge=1, le=64)


class RelaySection(Section):
    """A way out for mail. Keys beside these belong to the relay's connector (default: smtp)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    connector: str = "smtp"
    limits: RelayLimits = RelayLimits()

    @property
    def own(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class PurposeSection(Section):
    """Why people get mail, in words they see on the preference page, and what the purpose is called elsewhere."""

    title: str
    basis: Literal["opt_out", "opt_in"] = Field("opt_out", description="opt_in: only with a recorded consent")
    marketing: bool = True
    subscriptions: dict[str, str] = Field(
        default_factory=dict, description="connection -> the vendor's subscription id"
    )


class WebSection(Section):
    """Where the hub listens and how the world reaches it."""

    host: str = "127.0.0.1"
    port: int = Field(8025, ge=0, le=65535)
    public_url: str = Field(
        "http://127.0.0.1:8025", description="base of tracking, unsubscribe and webhook URLs"
    )


class BouncesSection(Section):
    """Where delivery status notifications come in."""

    return_path: str = Field(
        "bounce@localhost", description="return path; becomes bounce+TOKEN@domain for each mail"
    )
    maildir: str | None = Field(None, description="a Maildir folder that the mail server delivers bounces to")


class ResultsSection(Section):
    delivered_after: Duration = Field(
        timedelta(hours=24),
        description="an accepted mail without a failure report by then counts as delivered",
    )


class SenderSection(Section):
    """Who sends, for the footer that the law asks for."""

    postal_address: str = ""
    list_domain: str = Field("localhost", description="domain of List-Id and Message-ID")


class Settings(Section):
    """The whole of hub.yaml."""

    connections: dict[str, ConnectionSection] = Field(default_factory=dict)
    sync: dict[str, SyncSection] = Field(default_factory=dict)
    purposes: dict[str, PurposeSection] = Field(default_factory=dict)
    lists: dict[str, ListSection] = Field(default_factory=dict)
    messages: dict[str, MessageSection] = Field(default_factory=dict)
    funnels: dict[str, FunnelSection] = Field(default_factory=dict)
    relays: dict[str, RelaySection] = Field(default_factory=dict)
    bounces: BouncesSection = BouncesSection()
    results: ResultsSection = ResultsSection()
    sender: SenderSection = SenderSection()
    web: WebSection = WebSection()


When.model_rebuild()
FunnelSection.model_rebuild()
