"""Tokens that nobody can guess or forge: for tracking links, unsubscription, return paths and Message-IDs.

A token names a delivery and is signed with keyed BLAKE2b (RFC 7693) of 80 bits, under a key of its kind. A return
path's token is hexadecimal, since mail servers may fold case; the others are URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Literal

from hub.errors import SignatureError

Kind = Literal["open", "click", "unsubscribe", "bounce", "message"]
KINDS: tuple[Kind, ...] = ("open", "click", "unsubscribe", "bounce", "message")
SIGNATURE_BYTES = 10
PREVIEW = "preview-not-a-token"
"""Stands in previews where a mail has a token, and is as long as one. No endpoint takes it for a delivery."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Signer:
    """Makes and reads tokens under one secret key. Making one takes about a microsecond: a mail has ten."""

    def __init__(self, key: bytes) -> None:
        self._keyed = {
            kind: hashlib.blake2b(
                digest_size=SIGNATURE_BYTES, key=hmac.digest(key, kind.encode(), "sha256"), person=b"mailyard"
            )
            for kind in KINDS
        }

    def token(self, kind: Kind, delivery_id: int, extra: str = "") -> str:
        """A token for a URL. `extra` (a link's address) is signed with it but not carried inside."""
        return self.token_bytes(kind, packed(delivery_id), extra.encode()).decode()

    def token_bytes(self, kind: Kind, body: bytes, extra: bytes = b"") -> bytes:
        """As `token`, of an id that is `packed` already."""
        text = binascii.b2a_base64(body + self._signature(kind, body, extra), newline=False)
        return text.translate(_URL_SAFE).rstrip(b"=")

    def read(self, kind: Kind, token: str, extra: str = "") -> int:
        """The delivery that a URL's token names. Raises SignatureError for any other text."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise SignatureError("the link is damaged") from None
        return self._checked(kind, raw, extra.encode())

    def message_id(self, delivery_id: int, domain: str) -> str:
        """The Message-ID of a delivery: the same however often its mail is composed."""
        return f"<{self.token('message', delivery_id)}@{domain}>"

    def read_message_id(self, message_id: str) -> int:
        """The delivery behind one of our Message-IDs. Raises SignatureError for any other."""
        return self.read("message", message_id.strip().strip("<>").rpartition("@")[0])

    def return_path(self, address: str, delivery_id: int) -> str:
        """`bounce@example.com` -> `bounce+TOKEN@example.com`, at most 64 octets before the @ (RFC 5321)."""
        local, _, domain = address.rpartition("@")
        return f"{local}+{self.bounce_token(packed(delivery_id))}@{domain}"

    def bounce_token(self, body: bytes) -> str:
        """The token within a return path, of an id that is `packed` already."""
        return (body + self._signature("bounce", body, b"")).hex()

    def read_return_path(self, address: str) -> int:
        """The delivery behind a return path. Raises SignatureError for any other address."""
        found = re.search(r"\+((?:[0-9a-f]{2})+)@", address.lower())
        if not found:
            raise SignatureError("the address carries no token")
        return self._checked("bounce", bytes.fromhex(found[1]), b"")

    def _checked(self, kind: Kind, raw: bytes, extra: bytes) -> int:
        body, given = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        if not body or len(body) > 8 or not hmac.compare_digest(given, self._signature(kind, body, extra)):
            raise SignatureError("the token is not ours")
        return int.from_bytes(body, "big")

    def _signature(self, kind: Kind, body: bytes, extra: bytes) -> bytes:
        keyed = self._keyed[kind].copy()
        keyed.update(b"%b\x00%b" % (body, extra))
        return keyed.digest()


class Unsigned(Signer):
    """Makes `PREVIEW` instead of tokens: what is composed with it looks like the mail and leads nowhere."""

    def __init__(self) -> None:
        super().__init__(b"")

    def token_bytes(self, kind: Kind, body: bytes, extra: bytes = b"") -> bytes:
        return PREVIEW.encode()

    def bounce_token(self, body: bytes) -> str:
        return PREVIEW


def packed(delivery_id: int) -> bytes:
    """An id as the bytes that a token carries."""
    return delivery_id.to_bytes((delivery_id.bit_length() + 7) // 8 or 1, "big")
