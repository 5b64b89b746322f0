"""Handshakes of webhooks: the calls by which vendors ask whether an address is ours before they send events to it."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

import msgspec

from hub.errors import SignatureError
from hub.sdk.connector import WebhookAnswer, WebhookRequest
from hub.sdk.signatures import hmac_sha256

MAX_CHALLENGE = 512
_CHALLENGE = re.compile(rf"[\w.~+/=:-]{{1,{MAX_CHALLENGE}}}", re.ASCII)


def subscription(request: WebhookRequest, verify_token: str) -> WebhookAnswer | None:
    """WebSub's verification as Meta does it: a GET with `hub.mode=subscribe`, our token and a challenge that is sent back bare.

    Raises `SignatureError` for another token. Source: Meta, "Webhooks: Getting Started".
    """
    asked = request.query
    if request.method != "GET" or asked.get("hub.mode") != "subscribe":
        return None
    given = asked.get("hub.verify_token", "")
    if not verify_token or not hmac.compare_digest(given.encode(), verify_token.encode()):
        raise SignatureError("the verify token is another one", "enter the connection's verify_token there")
    return _echo(asked.get("hub.challenge", ""))


def response_check(request: WebhookRequest, secrets: Sequence[str]) -> WebhookAnswer | None:
    """X's challenge-response check: a GET with `crc_token`, answered with its HMAC under the app's (first) secret.

    Source: X, "Securing webhooks".
    """
    token = request.query.get("crc_token")
    if request.method != "GET" or token is None:
        return None
    if not secrets:
        raise SignatureError("the connection has no secret to answer with", "set it to the app's secret")
    digest = base64.b64encode(hmac_sha256(secrets[0], token.encode())).decode()
    return WebhookAnswer(msgspec.json.encode({"response_token": f"sha256={digest}"}), "application/json")


def echo(request: WebhookRequest, parameter: str = "challenge") -> WebhookAnswer | None:
    """A GET whose parameter is sent back as plain text, as Dropbox and others ask."""
    given = request.query.get(parameter)
    return None if request.method != "GET" or given is None else _echo(given)


def presence(request: WebhookRequest) -> WebhookAnswer | None:
    """A bare GET or HEAD that wants any 2xx, as Mailchimp tries an address when a webhook is made."""
    return WebhookAnswer(b"here") if request.method in ("GET", "HEAD") else None


def _echo(challenge: str) -> WebhookAnswer:
    """Only what looks like a challenge is sent back: anybody may ask, and the answer stands under our name."""
    if not _CHALLENGE.fullmatch(challenge):
        raise SignatureError("that is no challenge", "challenges are short and hold no markup")
    return WebhookAnswer(challenge.encode())
