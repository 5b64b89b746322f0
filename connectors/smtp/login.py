"""Open a connection to a relay, secure it and log in, all through aiosmtplib. Whatever fails is said in words to act on."""

from __future__ import annotations

import asyncio
import binascii
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

import aiosmtplib
from aiosmtplib.errors import SMTPAuthenticationError, SMTPException

from hub.sdk.relay import NotSent

if TYPE_CHECKING:
    from connectors.smtp.oauth import Tokens
    from connectors.smtp.relay import SmtpSettings

NOT_THIS_WAY = (500, 502, 504, 534, 538)
"""RFC 4954, 6: of the mechanism, not of the password; another one may do."""
NOT_TAKEN = 535
"""RFC 4954, 6: the credentials."""


async def connect(
    relay: str,
    settings: SmtpSettings,
    context: ssl.SSLContext | None,
    helo: str | None,
    tokens: Tokens | None = None,
) -> aiosmtplib.SMTP:
    """A connection that is ready for mail. An access token that is not taken is renewed once: it may have been revoked
    before its end."""
    try:
        if tokens is None:
            token = settings.token.get_secret_value() if settings.token else ""
            return await _opened(relay, settings, context, helo, token)
        token = await tokens.token()
        try:
            return await _opened(relay, settings, context, helo, token)
        except SMTPAuthenticationError as error:
            if error.code != NOT_TAKEN:
                raise
        return await _opened(relay, settings, context, helo, await tokens.token(refused=token))
    except (SMTPException, OSError, ValueError) as error:
        raise _unusable(relay, error, by_oauth=tokens is not None) from None


async def _opened(
    relay: str, settings: SmtpSettings, context: ssl.SSLContext | None, helo: str | None, token: str
) -> aiosmtplib.SMTP:
    """EHLO is read again after TLS and after the login."""
    client = await _client(settings, context, helo)
    try:
        await client.connect()
        await client.ehlo()
        if settings.tls == "starttls":
            if not client.supports_extension("starttls"):
                raise NotSent(
                    f"relay {relay} offers no STARTTLS, so nothing was sent to it",
                    "check host and port; if it should offer it, somebody in between may have taken it out",
                )
            await client.starttls(server_hostname=settings.server_name or settings.host, tls_context=context)
            await client.ehlo()
        if settings.mechanisms:
            await _login(relay, settings, client, token)
            await client.ehlo()
    except BaseException:
        client.close()
        raise
    return client


async def _client(s: SmtpSettings, context: ssl.SSLContext | None, helo: str | None) -> aiosmtplib.SMTP:
    if s.tls != "tls" or not s.server_name:
        return aiosmtplib.SMTP(
            hostname=s.host, port=s.port, timeout=s.timeout_seconds, local_hostname=helo, use_tls=s.tls == "tls",
            start_tls=False, tls_context=context,
        )  # fmt: skip
    # aiosmtplib checks a certificate against another name than the host's only on a socket that it is given
    sock = await asyncio.to_thread(socket.create_connection, (s.host, s.port), s.timeout_seconds)
    sock.setblocking(False)
    return aiosmtplib.SMTP(
        hostname=s.server_name, sock=sock, timeout=s.timeout_seconds, local_hostname=helo, use_tls=True,
        start_tls=False, tls_context=context,
    )  # fmt: skip


async def _login(relay: str, settings: SmtpSettings, client: aiosmtplib.SMTP, token: str) -> None:
    """By the first mechanism of the settings that the relay offers. A password is never tried twice."""
    if client.get_transport_info("sslcontext") is None and not _is_here(client):
        raise NotSent(
            f"relay {relay} is not on this machine, so no login goes there without TLS", "write tls: starttls"
        )
    offered = [each for each in settings.mechanisms if each in client.server_auth_methods]
    username = settings.username or ""
    password = settings.password.get_secret_value() if settings.password else ""
    refused: SMTPAuthenticationError | None = None
    for mechanism in offered:
        try:
            if mechanism == "xoauth2":
                await client.auth_xoauth2(username, token)
            elif mechanism == "plain":
                await client.auth_plain(username, password)
            elif mechanism == "login":
                await client.auth_login(username, password)
            else:
                await client.auth_crammd5(username, password)
            return
        except SMTPAuthenticationError as error:
            refused = error
            if error.code not in NOT_THIS_WAY:
                break
    if refused is not None:
        raise refused
    raise NotSent(
        f"relay {relay} offers no login by {' or '.join(settings.mechanisms)}",
        f"it offers: {', '.join(client.server_auth_methods) or 'none'}; see auth in its settings",
    )


def _is_here(client: aiosmtplib.SMTP) -> bool:
    peer = client.get_transport_info("peername")
    return bool(peer) and ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback


def _unusable(relay: str, error: Exception, *, by_oauth: bool = False) -> NotSent:
    """In words, none of them the relay's own: it may repeat what it was sent."""
    if isinstance(error, SMTPAuthenticationError):
        later = 400 <= error.code < 500
        return NotSent(
            f"relay {relay} {'takes no login now' if later else 'refuses the login'} ({error.code})",
            "check username, scope, and that the account lets this app send by SMTP"
            if by_oauth
            else "check username, password and token",
            login=not later,
        )
    for each in (error, error.__cause__, error.__context__):
        if isinstance(each, ssl.SSLCertVerificationError):
            return NotSent(
                f"relay {relay} shows a certificate that is not trusted: {each.verify_message}",
                "check host, server_name and ca_file",
            )
    code = getattr(error, "code", 0)
    kind = "no answer of SMTP" if isinstance(error, ValueError | binascii.Error) else type(error).__name__
    return NotSent(
        f"relay {relay} cannot be reached: {kind}{f' ({code})' if code else ''}",
        "check host, port, tls and ca_file",
    )
