"""The SMTP side of the relay sandbox: aiosmtpd in a thread, doing as little as possible per message."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from contracts.smtp.audience import Audience, Fate
from contracts.smtp.faults import SmtpFault, SmtpFaults

HOSTNAME = "relay.sandbox.example"
AT_END_OF_DATA = ("reply", "slow", "drop", "drop_after_data", "lose_after_data")
Take = Callable[[str, list[str], bytes, bool], None]
"""Told (return path, recipients, content, over TLS) of each accepted message, before the client is."""
Refuse = Callable[[str, str], None]
"""Told (return path, recipient) of each recipient refused for good."""
Bearer = Callable[[str, str], bool]
"""Asked whether this user may log in with this access token."""
PASSWORD_MECHANISMS = ("LOGIN", "PLAIN")


@dataclass(frozen=True)
class Rules:
    """What the relay demands. `tls`: `starttls`, `implicit` or `none`. `login`: (user, password); `bearer`: access tokens by
    XOAUTH2; with neither it offers no AUTH."""

    tls: str = "starttls"
    require_tls: bool = False
    login: tuple[str, str] | None = None
    bearer: Bearer | None = None
    max_bytes: int = 10_485_760
    messages_per_connection: int = 0  # 0 = no limit; the next MAIL then gets 421
    greylist: bool = False  # the first try of each sender and recipient gets 450

    @property
    def auth(self) -> bool:
        return self.login is not None or self.bearer is not None


class Protocol(SMTP):
    """aiosmtpd's protocol with the places where a relay hangs up."""

    messages_taken = 0

    @property
    def secure(self) -> bool:
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is not None

    def hang_up(self) -> None:
        """Cut the connection now, without another word."""
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()

    def end(self) -> None:
        """Close the connection once everything written is on its way."""
        if self.transport is not None:
            self.transport.close()

    async def _handle_client(self) -> None:
        self.event_handler.connections += 1
        fault = self.event_handler.faults.take("connect")
        if fault is not None and not await _suffer(self, fault):
            await self.push(fault.text)
            self.end()
            return
        await super()._handle_client()

    async def smtp_DATA(self, arg: str) -> None:
        recipients = self.envelope.rcpt_tos if self.envelope and not arg else []
        if recipients and self.event_handler.faults.take("data", recipients[0], "drop_in_data"):
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await self._reader.readuntil(b"\r\n")
            self.hang_up()
            await _gone()
        await super().smtp_DATA(arg)


async def _gone() -> None:
    """Wait for the end: the lost connection cancels whoever serves it."""
    await asyncio.Event().wait()


async def _suffer(server: Protocol, fault: SmtpFault) -> bool:
    """Live through a fault. Returns whether the relay goes on as if nothing had been."""
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
        return True
    if fault.kind == "drop":
        server.hang_up()
        await _gone()
    return False


@dataclass
class Handler:
    """aiosmtpd's hooks: who may send, who exists, and handing the message on."""

    audience: Audience
    faults: SmtpFaults
    rules: Rules
    take: Take
    refuse: Refuse
    connections: int = 0
    refused_logins: int = 0  # by XOAUTH2
    seen: set[tuple[str, str]] = field(default_factory=set)  # for greylisting

    async def handle_EHLO(
        self, server: Protocol, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        offered = [r for r in responses if self.rules.auth or not r.startswith("250-AUTH")]
        return [*offered[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", offered[-1]]

    async def handle_MAIL(
        self, server: Protocol, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        limit = self.rules.messages_per_connection
        if limit and server.messages_taken >= limit:
            return self._farewell(server, "421 4.7.0 Enough messages on this connection")
        if (reply := await self._fault(server, "mail")) is not None:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Sender ok"

    async def handle_RCPT(
        self, server: Protocol, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (reply := await self._fault(server, "rcpt", address)) is not None:
            return reply
        if self.audience.fate(address) is Fate.REFUSED:
            self.refuse(envelope.mail_from or "", address)
            status, text = self.audience.refusal(address)
            return f"550 {status} <{address}>: {text}"
        pair = (envelope.mail_from or "", address.lower())
        if self.rules.greylist and pair not in self.seen:
            self.seen.add(pair)
            return "450 4.7.1 Greylisted, try again in a moment"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Recipient ok"

    async def handle_DATA(self, server: Protocol, session: Session, envelope: Envelope) -> str:
        fault = self.faults.take("data", envelope.rcpt_tos[0], *AT_END_OF_DATA)
        if fault is not None and fault.kind == "lose_after_data":
            server.hang_up()
            await _gone()
        if fault is not None and fault.kind != "drop_after_data" and not await _suffer(server, fault):
            return self._farewell(server, fault.text)
        content = envelope.content
        assert isinstance(content, bytes)
        self.take(envelope.mail_from or "", list(envelope.rcpt_tos), content, server.secure)
        server.messages_taken += 1
        if fault is not None and fault.kind == "drop_after_data":
            server.hang_up()
            await _gone()
        return "250 2.0.0 Queued"

    async def _fault(self, server: Protocol, stage: str, recipient: str = "") -> str | None:
        fault = self.faults.take(stage, recipient)
        if fault is None or await _suffer(server, fault):
            return None
        return self._farewell(server, fault.text)

    def _farewell(self, server: Protocol, reply: str) -> str:
        """The reply; a 421 ends the connection once it is written."""
        if reply.startswith("421"):
            server.loop.call_soon(server.end)
        return reply

    def check(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        """aiosmtpd's authenticator."""
        known = self.rules.login
        if known is None or not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        right = hmac.compare_digest(data.login, known[0].encode())
        right &= hmac.compare_digest(data.password, known[1].encode())
        return AuthResult(success=right, handled=False)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:
        """aiosmtpd's hook for this mechanism; a refusal is told in two steps, as Gmail does it."""
        given = base64.b64decode(args[1]).decode() if len(args) > 1 else ""
        user, _, rest = given.removeprefix("user=").partition("\x01auth=Bearer ")
        if self.rules.bearer is not None and self.rules.bearer(user, rest.removesuffix("\x01\x01")):
            return AuthResult(success=True)
        self.refused_logins += 1
        await server.challenge_auth('{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}')
        return AuthResult(success=False, handled=False, message=f"535 5.7.8 {user} is not accepted")


@contextmanager
def serving(handler: Handler, context: ssl.SSLContext | None, port: int = 0) -> Iterator[int]:
    """Serve SMTP on 127.0.0.1 from a thread until the block ends; yields the port."""
    loop = asyncio.new_event_loop()
    rules = handler.rules

    def protocol() -> Protocol:
        return Protocol(
            handler,
            hostname=HOSTNAME,
            ident="ESMTP sandbox",
            data_size_limit=rules.max_bytes,
            enable_SMTPUTF8=True,
            tls_context=context if rules.tls == "starttls" else None,
            require_starttls=rules.tls == "starttls" and rules.require_tls,
            authenticator=handler.check,
            auth_required=rules.auth,
            auth_exclude_mechanism=[
                *(PASSWORD_MECHANISMS if rules.login is None else ()),
                *(("XOAUTH2",) if rules.bearer is None else ()),
            ],
            auth_require_tls=rules.tls == "starttls",
            loop=loop,
        )

    implicit = context if rules.tls == "implicit" else None
    thread = threading.Thread(target=loop.run_forever, name="relay-smtp", daemon=True)
    thread.start()  # before the server: the caller may be inside a loop of its own
    start = loop.create_server(protocol, "127.0.0.1", port, ssl=implicit, backlog=1024)
    try:
        server = asyncio.run_coroutine_threadsafe(start, loop).result(10)
    except BaseException:
        _stop(loop, thread)
        raise
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(10)
        _stop(loop, thread)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def _close(server: asyncio.Server) -> None:
    """Stop listening and hang up on everybody who is still connected."""
    server.close()
    others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
