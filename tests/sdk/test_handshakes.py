"""Handshakes: what a vendor asks before it calls is answered, and what anybody else asks is not echoed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest

from hub.errors import SignatureError
from hub.sdk.connector import WebhookRequest
from hub.sdk.handshakes import echo, presence, response_check, subscription


def asked(query: str, method: str = "GET") -> WebhookRequest:
    return WebhookRequest(method, f"https://hub.example/webhooks/x?{query}", {}, b"", datetime.now(UTC))


def test_a_subscription_is_confirmed_with_the_bare_challenge() -> None:
    answer = subscription(asked("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=ours"), "ours")
    assert answer is not None
    assert (answer.status, answer.body, answer.content_type) == (
        200,
        b"1158201444",
        "text/plain; charset=utf-8",
    )


@pytest.mark.parametrize("token", ["", "theirs", "ours%20", "%C3%BC"])
def test_a_subscription_with_another_token_is_refused(token: str) -> None:
    with pytest.raises(SignatureError, match="verify token"):
        subscription(asked(f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}"), "ours")


def test_without_a_token_of_ours_nobody_is_confirmed() -> None:
    with pytest.raises(SignatureError):
        subscription(asked("hub.mode=subscribe&hub.challenge=1&hub.verify_token="), "")


def test_a_response_check_is_answered_with_the_hmac_of_its_token() -> None:
    answer = response_check(asked("crc_token=abc%2Fdef&nonce=1"), ["new", "old"])
    assert answer is not None and answer.content_type == "application/json"
    digest = hmac.new(b"new", b"abc/def", hashlib.sha256).digest()
    assert json.loads(answer.body) == {"response_token": "sha256=" + base64.b64encode(digest).decode()}
    with pytest.raises(SignatureError, match="no secret"):
        response_check(asked("crc_token=abc"), [])


def test_a_challenge_is_echoed_as_text() -> None:
    answer = echo(asked("challenge=Zm9v-_=="))
    assert answer is not None and answer.body == b"Zm9v-_=="


@pytest.mark.parametrize("given", ["", "%3Cscript%3E", "a%0d%0ab", "x" * 513, "%C3%BC", "a%20b"])
def test_markup_and_the_like_is_never_echoed(given: str) -> None:
    with pytest.raises(SignatureError, match="no challenge"):
        echo(asked(f"challenge={given}"))
    with pytest.raises(SignatureError, match="no challenge"):
        subscription(asked(f"hub.mode=subscribe&hub.verify_token=t&hub.challenge={given}"), "t")


def test_calls_that_bring_events_are_no_handshakes() -> None:
    for query in ("", "hub.mode=unsubscribe", "other=1"):
        assert (
            subscription(asked(query), "t")
            is response_check(asked(query), ["s"])
            is echo(asked(query))
            is None
        )
    everything = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=t&crc_token=1&challenge=1"
    posted = asked(everything, "POST")
    assert (
        subscription(posted, "t") is response_check(posted, ["s"]) is echo(posted) is presence(posted) is None
    )
    assert presence(asked("")) is not None
