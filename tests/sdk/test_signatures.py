"""Webhook signatures: compared in constant time, under the old and the new secret, fresh in both directions."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import SignatureError
from hub.sdk import signatures
from hub.sdk.signatures import MAX_AGE_SECONDS, check_base64_hmac, check_fresh, hmac_sha256

PARTS = [b"POST", b"https://hub.example/x", b'{"a": 1}']


def signed(secret: str, body: bytes = b"".join(PARTS)) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def test_a_known_digest() -> None:
    """RFC 4231, test case 2."""
    assert hmac_sha256("Jefe", b"what do ya want ", b"for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_either_secret_is_good_during_a_rotation() -> None:
    for secret in ("new", "old"):
        check_base64_hmac(signed(secret), ["new", "old"], iter(PARTS))
    with pytest.raises(
        SignatureError, match="the signature is wrong; check that the connection's webhook_secret"
    ):
        check_base64_hmac(signed("older"), ["new", "old"], PARTS)


@pytest.mark.parametrize(
    "given",
    ["", "x", signed("s")[:-1], signed("s") + "=", signed("s").lower(), signed("s", b"other"), "ü", "\x00"],
)
def test_a_wrong_signature(given: str) -> None:
    with pytest.raises(SignatureError):
        check_base64_hmac(given, ["s"], PARTS)


def test_no_secret_lets_nobody_in() -> None:
    with pytest.raises(SignatureError):
        check_base64_hmac(signed(""), [], PARTS)


def test_every_secret_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(signatures.hmac, "compare_digest", spy)
    check_base64_hmac(signed("new"), ["new", "old", "older"], PARTS)
    assert compared == [signed(secret).encode() for secret in ("new", "old", "older")]


def test_the_window_in_time() -> None:
    now = datetime(2026, 11, 24, 9, tzinfo=UTC)
    for seconds in (0, MAX_AGE_SECONDS, -MAX_AGE_SECONDS):
        check_fresh(now - timedelta(seconds=seconds), now)
    for seconds in (MAX_AGE_SECONDS + 1, -MAX_AGE_SECONDS - 1):
        with pytest.raises(SignatureError, match="older than 300 s"):
            check_fresh(now - timedelta(seconds=seconds), now)
    with pytest.raises(SignatureError, match="older than 10 s"):
        check_fresh(now - timedelta(seconds=11), now, max_age_seconds=10)
