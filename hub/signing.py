"""Tokens that nobody can guess or forge: for tracking links, unsubscription, return paths and Message-IDs.

A token names a delivery and is signed with keyed BLAKE2b (RFC 7693): one digest for each delivery, of which each kind of
token carries 80 bits of its own. A return path's token is hexadecimal, since mail servers may fold case; the others
are URL-safe base64. The address that a link leads to has a signature of its own: it is the same for everybody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Literal

from hub.errors import SignatureError

Kind = Literal["open", "click", "unsubscribe", "message", "bounce"]
KINDS: tuple[Kind, ...] = ("open", "click", "unsubscribe", "message", "bounce")
SIGNATURE_BYTES = 10
Tokens = tuple[bytes, bytes, bytes, bytes, bytes]
PREVIEW = "preview-has-no-token"
"""Stands in previews where a mail has a token, and is as long as one. No endpoint takes it for a delivery."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Signer:
    """Makes and reads tokens under one secret key."""

    def __init__(self, key: bytes) -> None:
        self._delivery = _keyed(key, b"delivery", SIGNATURE_BYTES * len(KINDS))
        self._link = _keyed(key, b"link", SIGNATURE_BYTES)

    def tokens(self, delivery_id: int) -> Tokens:
        """All tokens of one delivery, in the order of `KINDS`."""
        body = packed(delivery_id)
        tags = self._tags(body)
        raw = b"".join((body, tags[:10], body, tags[10:20], body, tags[20:30], body, tags[30:40]))
        text = binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE)
        size = len(text) // 4
        return (
            text[:size], text[size : 2 * size], text[2 * size : 3 * size], text[3 * size :],
            binascii.hexlify(body + tags[40:]),
        )  # fmt: skip

    def token(self, kind: Kind, delivery_id: int) -> str:
        """One of them."""
        return self.tokens(delivery_id)[KINDS.index(kind)].decode()

    def link(self, url: str) -> str:
        """The signature of an address that a mail of ours leads to."""
        return base64.urlsafe_b64encode(self._link_tag(url)).rstrip(b"=").decode()

    def read(self, kind: Kind, token: str) -> int:
        """The delivery that a URL's token names. Raises SignatureError for any other text."""
        return self._checked(kind, _decoded(token))

    def read_click(self, token: str, url: str) -> int:
        """The delivery that a click's token names, with the signature of the link's address behind a dot. Raises
        SignatureError for any other token, and for an address that `link` never signed."""
        token, _, signature = token.partition(".")
        if not hmac.compare_digest(_decoded(signature), self._link_tag(url)):
            raise SignatureError("the address is not ours")
        return self.read("click", token)

    def read_message_id(self, message_id: str) -> int:
        """The delivery behind one of our Message-IDs. Raises SignatureError for any other."""
        return self.read("message", message_id.strip().strip("<>").rpartition("@")[0])

    def read_return_path(self, address: str) -> int:
        """The delivery behind a return path. Raises SignatureError for any other address."""
        found = re.search(r"\+((?:[0-9a-f]{2})+)@", address.lower())
        if not found:
            raise SignatureError("the address carries no token")
        return self._checked("bounce", bytes.fromhex(found[1]))

    def _checked(self, kind: Kind, raw: bytes) -> int:
        body, given = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        at = KINDS.index(kind) * SIGNATURE_BYTES
        if len(body) not in (5, 8) or not hmac.compare_digest(
            given, self._tags(body)[at : at + SIGNATURE_BYTES]
        ):
            raise SignatureError("the token is not ours")
        return int.from_bytes(body, "big")

    def _tags(self, body: bytes) -> bytes:
        keyed = self._delivery.copy()
        keyed.update(body)
        return keyed.digest()

    def _link_tag(self, url: str) -> bytes:
        keyed = self._link.copy()
        keyed.update(url.encode("utf-8", "replace"))
        return keyed.digest()


class Unsigned(Signer):
    """Makes `PREVIEW` instead of tokens: what is composed with it looks like the mail and leads nowhere."""

    def __init__(self) -> None:
        super().__init__(b"")

    def tokens(self, delivery_id: int) -> Tokens:
        made = PREVIEW.encode()
        return made, made, made, made, made


def _keyed(key: bytes, use: bytes, size: int) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=size, key=hmac.digest(key, use, "sha256"), person=b"mailyard")


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise SignatureError("the link is damaged") from None


def packed(delivery_id: int) -> bytes:
    """An id as the bytes that a token carries: with the signature a multiple of three, so that base64 needs no padding."""
    return delivery_id.to_bytes(5 if delivery_id < 1 << 40 else 8, "big")
