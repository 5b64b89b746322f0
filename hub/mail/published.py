"""A DKIM key as DNS has it, held against ours (RFC 6376, section 3.6.1)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hub.mail.dkim import LEAST_BITS, Key


def wrong_record(key: Key, tags: Mapping[str, str]) -> str:
    """What keeps receivers from using a published record (its `tags`) for our signatures; empty when nothing does."""
    public = "".join(tags.get("p", "").split())
    kind = tags.get("k", "rsa").lower()
    if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
        return "is no DKIM record"
    if not public:
        return "is revoked (p= is empty)"
    if kind != key.algorithm.partition("-")[0]:
        return f"is for {kind}, ours is for {key.algorithm.partition('-')[0]}"
    if "sha256" not in tags.get("h", "sha256").lower().split(":"):
        return "does not allow SHA-256 (h=)"
    if not {"*", "email"} & {each.strip().lower() for each in tags.get("s", "*").split(":")}:
        return "is not for e-mail (s=)"
    try:
        published = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError):
        return "cannot be read (p= is not base64)"
    if published != key.public and not _same_rsa(published, key):
        return "is another one than ours"
    return "" if key.bits >= LEAST_BITS or kind != "rsa" else f"has {key.bits} bits only"


def _same_rsa(published: bytes, key: Key) -> bool:
    """Whether a record in the other encoding in use (a bare RSAPublicKey) holds the same key."""
    try:
        found = load_der_public_key(published)
    except (ValueError, UnsupportedAlgorithm):
        return False
    ours = key.private.public_key()
    return (
        isinstance(found, RSAPublicKey)
        and isinstance(ours, RSAPublicKey)
        and found.public_numbers() == ours.public_numbers()
    )
