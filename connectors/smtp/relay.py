"""Any SMTP relay (RFC 5321): aiosmtplib opens, secures and authenticates a session; the mails on it are ours (wire.py)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal, cast

from pydantic import Field, SecretStr, model_validator

from connectors.smtp.envelope import Extensions
from connectors.smtp.learning import Learning
from connectors.smtp.login import connect
from connectors.smtp.marks import Marked
from connectors.smtp.oauth import LOOPBACK, OAuthSection, Tokens
from connectors.smtp.wire import Wire
from hub.sdk.connector import Context
from hub.sdk.relay import (
    NotSent,
    Offer,
    Pipelining,
    RelaySession,
    RelaySettings,
    Reply,
    Source,
    UnknownOutcome,
)

MECHANISMS = {
    "auto": ("plain", "login", "cram-md5"),
    "plain": ("plain",),
    "login": ("login",),
    "cram-md5": ("cram-md5",),
    "xoauth2": ("xoauth2",),
    "none": (),
}
"""Inside TLS the plainest is the one that works everywhere."""


class SmtpSettings(RelaySettings):
    """`tls: none` is for a relay on this machine only; elsewhere certificates are always checked."""

    host: str = Field(description="the relay's name or address")
    port: int = Field(587, ge=1, le=65535, description="587 for starttls, 465 for tls, as a rule")
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none: for a relay on this machine only"
    )
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2", "none"] = Field(
        "auto", description="how to log in; auto: xoauth2 with oauth or token, else plain, login or cram-md5"
    )
    username: str | None = Field(None, description="for SMTP AUTH; together with password, oauth or token")
    password: SecretStr | None = Field(None, description="for SMTP AUTH; together with username")
    oauth: OAuthSection | None = Field(
        None, description="where access tokens for XOAUTH2 come from; together with username"
    )
    token: SecretStr | None = Field(
        None,
        description="a fixed access token for XOAUTH2: it ends after an hour, as a rule; oauth renews its own",
    )
    ca_file: str | None = Field(None, description="certificates to trust instead of the system's")
    server_name: str | None = Field(
        None, description="the name in the relay's certificate, where it is not the host's"
    )
    timeout_seconds: float = Field(60.0, gt=0, description="how long to wait for each answer")
    helo: str | None = Field(
        None, pattern=r"^[!-~]+$", description="the name given in EHLO; default: this machine's"
    )
    pipelining: Literal["auto", "off", "envelope", "full"] = Field(
        "auto",
        description="how much goes out before an answer, if the relay offers PIPELINING: nothing, one envelope, "
        "or an envelope behind the mail before it; auto: what it is found to bear",
    )
    messages_per_connection: int = Field(
        0, ge=0, description="open another connection after so many mails; 0: no limit"
    )

    @model_validator(mode="after")
    def _no_plain_text_over_the_net(self) -> SmtpSettings:
        if self.tls == "none" and self.host not in LOOPBACK:
            raise ValueError("tls: none is allowed for a relay on this machine only; write starttls or tls")
        return self

    @model_validator(mode="after")
    def _login_is_whole(self) -> SmtpSettings:
        proofs = [key for key in ("password", "oauth", "token") if getattr(self, key) is not None]
        if len(proofs) > 1:
            raise ValueError(f"there are {' and '.join(proofs)}; give one of them")
        if (self.username is None) != (not proofs):
            raise ValueError("username and password (or oauth, or token) belong together; give both or none")
        if self.auth == "none" and self.username is not None:
            raise ValueError("auth: none takes no username")
        if self.auth == "xoauth2" and proofs not in (["oauth"], ["token"]):
            raise ValueError("auth: xoauth2 needs username and oauth (or token)")
        if self.auth in ("plain", "login", "cram-md5") and self.password is None:
            raise ValueError(f"auth: {self.auth} needs username and password")
        return self

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What may be used to log in, the best first; empty for no login."""
        if self.username is None:
            return ()
        return MECHANISMS["xoauth2" if self.password is None else self.auth]


class Smtp:
    """A configured relay."""

    Settings = SmtpSettings

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self.name, self.settings = name, settings
        self.learning = Learning(settings.pipelining)
        self.marks: Mapping[str, str] = {}
        self._tokens: Tokens | None = None
        self._context: ssl.SSLContext | None = None
        self._helo = settings.helo

    def equip(self, context: Context) -> None:
        """See `hub.sdk.relay.Equipped`."""
        if (section := self.settings.oauth) is not None:
            self._tokens = Tokens(self.name, section, self.settings.username or "", context)

    @property
    def pipelining(self) -> Pipelining | None:
        """See `hub.sdk.relay.Relay`."""
        return self.learning.found

    @pipelining.setter
    def pipelining(self, found: Pipelining | None) -> None:
        self.learning.found = found

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """An open, secured and authenticated session. Raises NotSent when there is none to be had."""
        s = self.settings
        client = await connect(self.name, s, self._tls(), self._helo, self._tokens)
        self._helo = client.local_hostname  # looking it up may take a while
        wire = Wire(
            self.name, Extensions.of(client.esmtp_extensions), self.learning,
            timeout_seconds=s.timeout_seconds, messages=s.messages_per_connection,
        )  # fmt: skip
        transport, protocol = client.transport, client.protocol
        if transport is None or protocol is None:
            raise NotSent(f"relay {self.name}: connection lost")
        wire.attach(cast(asyncio.Transport, transport), bytes(protocol._buffer))
        try:
            yield Session(wire, self.marks)
        finally:
            await wire.quit()

    def _tls(self) -> ssl.SSLContext | None:
        """Certificates are checked, and so is the name in them."""
        if self.settings.tls != "none" and self._context is None:
            try:
                context = ssl.create_default_context(cafile=self.settings.ca_file)
            except OSError as error:
                raise NotSent(
                    f"relay {self.name}: ca_file cannot be read: {type(error).__name__}", "check ca_file"
                ) from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context = context
        return self._context


class Session(RelaySession):
    """One session."""

    def __init__(self, wire: Wire, marks: Mapping[str, str]) -> None:
        self.wire, self.marks = wire, marks

    async def run(self, source: Source) -> None:
        """See `hub.sdk.relay.RelaySession`."""
        await self.wire.run(Marked(source, self.marks) if self.marks else source)

    async def send(self, return_path: str, recipient: str, message: bytes) -> Reply:
        """See `hub.sdk.relay.RelaySession`."""
        one = _One(Offer(0, return_path, recipient, message))
        try:
            await self.run(one)
        except NotSent as error:
            if one.fate is None:
                raise
            if isinstance(one.fate, Exception):
                one.fate.fix = error.fix
        if isinstance(one.fate, Reply):
            return one.fate
        assert one.fate is not None  # each offer is told of
        raise one.fate


class _One:
    """A source of a single message."""

    def __init__(self, offer: Offer) -> None:
        self.offer: Offer | None = offer
        self.fate: Reply | NotSent | UnknownOutcome | None = None

    def next(self) -> Offer | None:
        offer, self.offer = self.offer, None
        return offer

    async def more(self) -> bool:
        return False

    def begun(self, offer: Offer) -> None:
        pass

    def answered(self, offer: Offer, reply: Reply) -> None:
        self.fate = reply

    def unsent(self, offer: Offer, reason: str) -> None:
        self.fate = NotSent(reason)

    def unknown(self, offer: Offer, reason: str) -> None:
        self.fate = UnknownOutcome(reason)
