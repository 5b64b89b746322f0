"""Any SMTP relay (RFC 5321): aiosmtplib opens, secures and authenticates a session and speaks each transaction.

Every stage is told apart, for it decides what may happen next: before the end of DATA nothing was accepted;
after it, until the answer, nobody knows.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import aiosmtplib
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from pydantic import Field, SecretStr, model_validator

from hub.sdk.relay import NotSent, Pipelining, RelaySession, RelaySettings, Reply, UnknownOutcome

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SmtpSettings(RelaySettings):
    """`tls: none` is for a relay on this machine only; elsewhere certificates are always checked."""

    host: str = Field(description="the relay's name or address")
    port: int = Field(587, ge=1, le=65535, description="587 for starttls, 465 for tls, as a rule")
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none: for a relay on this machine only"
    )
    username: str | None = Field(None, description="for SMTP AUTH; together with password")
    password: SecretStr | None = Field(None, description="for SMTP AUTH; together with username")
    ca_file: str | None = Field(None, description="certificates to trust instead of the system's")
    timeout_seconds: float = Field(60.0, gt=0, description="how long to wait for each answer")
    helo: str | None = Field(None, description="the name given in EHLO; default: this machine's")

    @model_validator(mode="after")
    def _no_plain_text_over_the_net(self) -> SmtpSettings:
        if self.tls == "none" and self.host not in LOOPBACK:
            raise ValueError("tls: none is allowed for a relay on this machine only; write starttls or tls")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together; give both or none")
        return self


class Smtp:
    """A configured relay."""

    Settings = SmtpSettings

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self.name, self.settings = name, settings
        self.pipelining: Pipelining | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """An open, secured and authenticated session. Raises NotSent when there is none to be had."""
        s = self.settings
        client = aiosmtplib.SMTP(
            hostname=s.host, port=s.port, timeout=s.timeout_seconds, local_hostname=s.helo, use_tls=s.tls == "tls",
            start_tls=s.tls == "starttls", tls_context=self._tls() if s.tls != "none" else None,
            username=s.username, password=s.password.get_secret_value() if s.password else None,
        )  # fmt: skip
        try:
            await client.connect()
        except SMTPAuthenticationError as error:
            raise NotSent(
                f"relay {self.name} refuses the login ({error.code})", "check username and password"
            ) from None
        except (SMTPException, OSError, ssl.SSLError) as error:
            raise NotSent(
                f"relay {self.name} cannot be reached: {type(error).__name__}",
                "check host, port, tls and ca_file",
            ) from None
        try:
            yield Session(self.name, client)
        finally:
            try:
                await client.quit()
            except (SMTPException, OSError):
                client.close()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class Session(RelaySession):
    """One session; transactions one after the other."""

    def __init__(self, relay: str, client: aiosmtplib.SMTP) -> None:
        self.relay, self.client = relay, client

    async def send(self, return_path: str, recipient: str, message: bytes) -> Reply:
        """See `hub.sdk.relay.RelaySession`. A refusal is a reply, not an error."""
        stage = "mail"
        utf8 = not recipient.isascii()
        try:
            options = [f"SIZE={len(message)}"] if self.client.supports_extension("size") else []
            if utf8:
                if not self.client.supports_extension("smtputf8"):
                    return Reply(
                        553, "the relay takes no addresses beyond ASCII (no SMTPUTF8)", "rcpt", "5.6.7"
                    )
                options.append("SMTPUTF8")
            await self.client.mail(return_path, options=options, encoding="utf-8" if utf8 else "ascii")
            stage = "rcpt"
            await self.client.rcpt(recipient, encoding="utf-8" if utf8 else "ascii")
        except SMTPResponseException as error:
            return await self._refused(error, stage)
        except (SMTPException, OSError) as error:
            raise NotSent(f"relay {self.relay}: connection lost at {stage}: {type(error).__name__}") from None
        try:
            response = await self.client.data(message)
        except SMTPResponseException as error:
            return await self._refused(error, "data")
        except (SMTPServerDisconnected, SMTPTimeoutError, SMTPException, OSError) as error:
            # aiosmtplib sends the whole message and then waits: the end of DATA may have arrived.
            raise UnknownOutcome(
                f"relay {self.relay}: no answer after the end of the message: {type(error).__name__}"
            ) from None
        return _reply(response.code, response.message, "data")

    async def _refused(self, error: SMTPResponseException, stage: str) -> Reply:
        reply = _reply(error.code, error.message, stage)
        if error.code == 421:
            self.client.close()
            raise NotSent(f"relay {self.relay} closes the session: {reply.text[:200]}")
        try:
            await self.client.rset()
        except (SMTPException, OSError) as lost:
            raise NotSent(
                f"relay {self.relay}: connection lost after a refusal: {type(lost).__name__}"
            ) from None
        return reply


def _reply(code: int, text: str, stage: str) -> Reply:
    words = " ".join(str(text).split())
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", words)
    return Reply(code, words, stage, enhanced[0] if enhanced else "")
