"""Tokens that nobody can guess or forge: for tracking links, unsubscription and return paths.

A token names a delivery and is signed with HMAC-SHA-256, cut to 80 bits, under a key of its kind. A return
path's token is lower-case base32, since mail servers may fold case; the others are URL-safe base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Literal

from hub.errors import SignatureError

Kind = Literal["open", "click", "unsubscribe", "bounce", "message"]
KINDS: tuple[Kind, ...] = ("open", "click", "unsubscribe", "bounce", "message")
SIGNATURE_BYTES = 10


class Signer:
    """Makes and reads tokens under one secret key."""

    def __init__(self, key: bytes) -> None:
        self._keys = {kind: hmac.digest(key, kind.encode(), "sha256") for kind in KINDS}

    def token(self, kind: Kind, delivery_id: int, extra: str = "") -> str:
        """A token for a URL. `extra` (a link's address) is signed with it but not carried inside."""
        body = _packed(delivery_id)
        return base64.urlsafe_b64encode(body + self._signature(kind, body, extra)).decode().rstrip("=")

    def read(self, kind: Kind, token: str, extra: str = "") -> int:
        """The delivery that a URL's token names. Raises SignatureError for any other text."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise SignatureError("the link is damaged") from None
        return self._checked(kind, raw, extra)

    def return_path(self, address: str, delivery_id: int) -> str:
        """`bounce@example.com` -> `bounce+TOKEN@example.com`, at most 64 octets before the @ (RFC 5321)."""
        body = _packed(delivery_id)
        raw = body + self._signature("bounce", body, "")
        local, _, domain = address.rpartition("@")
        return f"{local}+{base64.b32encode(raw).decode().rstrip('=').lower()}@{domain}"

    def read_return_path(self, address: str) -> int:
        """The delivery behind a return path. Raises SignatureError for any other address."""
        found = re.search(r"\+([a-z2-7]+)@", address.lower())
        if not found:
            raise SignatureError("the address carries no token")
        text = found[1].upper()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
        except ValueError:
            raise SignatureError("the address's token is damaged") from None
        return self._checked("bounce", raw, "")

    def _checked(self, kind: Kind, raw: bytes, extra: str) -> int:
        body, given = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        if not body or len(body) > 8 or not hmac.compare_digest(given, self._signature(kind, body, extra)):
            raise SignatureError("the token is not ours")
        return int.from_bytes(body, "big")

    def _signature(self, kind: Kind, body: bytes, extra: str) -> bytes:
        return hmac.digest(self._keys[kind], body + b"\x00" + extra.encode(), hashlib.sha256)[
            :SIGNATURE_BYTES
        ]


def _packed(delivery_id: int) -> bytes:
    return delivery_id.to_bytes(max(1, (delivery_id.bit_length() + 7) // 8), "big")
