"""Webhook signatures: HMACs over raw bodies, compared in constant time, with room for a secret's rotation."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime

from hub.errors import SignatureError

MAX_AGE_SECONDS = 300


def hmac_sha256(secret: str, *parts: bytes) -> bytes:
    """HMAC-SHA-256 over the parts, one after the other (RFC 2104)."""
    digest = hmac.new(secret.encode(), digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part)
    return digest.digest()


def check_base64_hmac(given: str, secrets: Sequence[str], parts: Iterable[bytes]) -> None:
    """Raise `SignatureError` unless `given` is the base64 HMAC of the parts under one of the secrets."""
    pieces = tuple(parts)
    expected = [base64.b64encode(hmac_sha256(secret, *pieces)) for secret in secrets]
    # All are compared, so that time does not tell which secret nearly fitted.
    if not sum(hmac.compare_digest(given.encode(), one) for one in expected):
        raise SignatureError(
            "the signature is wrong", "check that the connection's webhook_secret is the vendor app's secret"
        )


def check_fresh(sent_at: datetime, now: datetime, *, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
    """Raise `SignatureError` unless the time is within the window, in either direction."""
    if abs((now - sent_at).total_seconds()) > max_age_seconds:
        raise SignatureError(
            f"the signature is older than {max_age_seconds:.0f} s",
            "check this machine's clock; an old call may be a replay",
        )
