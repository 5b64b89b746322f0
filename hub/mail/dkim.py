"""DKIM signatures (RFC 6376, relaxed/simple) on `cryptography`: RSA-SHA256 and Ed25519-SHA256 (RFC 8463).

A domain may have several keys. Of each algorithm the first one that may sign does; so with an RSA and an Ed25519
key a mail carries both signatures. Rotation: publish the new key's record, add the key with `sign: false`, and once
the record is seen everywhere put the key first and let it sign; take the old one out some days after its last mail.

What is signed beside the body: the header fields of `COVERED` as often as they are there, and From once more than
it is there, so that nobody can add a second From (RFC 6376, section 8.15). Messages have CRLF lines only.

The header is relaxed and the body simple: a relay may fold a header anew, but in a body of quoted-printable and base64
there is no white space that one would touch; and the relaxed form of a body costs a sixth of what RSA does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parseaddr
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from hub.clock import Clock
from hub.config.settings import DkimKeySection
from hub.errors import ConfigError
from hub.sdk.content import sound

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

LEAST_BITS, GOOD_BITS = 1024, 2048  # RFC 8301, section 3.2
LINE = 78  # RFC 5322, section 2.1.1
CHUNK = 16
COVERED = (
    b"from", b"to", b"subject", b"date", b"message-id", b"reply-to", b"mime-version", b"content-type",
    b"content-transfer-encoding", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post", b"feedback-id",
    b"auto-submitted",
)  # fmt: skip
_COVERED = frozenset(COVERED)
_PADDING, _SHA256 = PKCS1v15(), hashes.SHA256()
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*")


@dataclass(frozen=True)
class Key:
    """A private key and the name under which its public half is published. `load` makes one."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)
    signs: bool = True
    expires_after: timedelta | None = None

    @classmethod
    def load(
        cls,
        domain: str,
        selector: str,
        text: str,
        *,
        signs: bool = True,
        expires_after: timedelta | None = None,
    ) -> Key:
        """A key out of PEM (RSA or Ed25519; line breaks may be written `\\n`, as in environment variables) or of an
        Ed25519 seed (32 bytes in base64). Raises ConfigError for what is no such key, and for RSA below 1024 bits."""
        private = _private_key(text)
        if isinstance(private, RSAPrivateKey) and private.key_size < LEAST_BITS:
            raise ConfigError(
                f"an RSA key of {private.key_size} bits is not accepted anywhere (RFC 8301)",
                f"make one of {GOOD_BITS} bits",
            )
        for name, kind in ((ascii_domain(domain), "domain"), (selector, "selector")):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} is no {kind}", "use letters, digits, hyphens and dots")
        return cls(ascii_domain(domain), selector, private, signs, expires_after)

    @property
    def algorithm(self) -> Algorithm:
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def bits(self) -> int:
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 256

    @property
    def name(self) -> str:
        """Where the public key is published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @cached_property
    def public(self) -> bytes:
        """The public key as `p=` holds it, before base64: DER for RSA, 32 bytes for Ed25519."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        return self.private.public_key().public_bytes_raw()

    @cached_property
    def record(self) -> str:
        """The TXT record to publish."""
        kind = self.algorithm.partition("-")[0]
        return f"v=DKIM1; k={kind}; p={base64.b64encode(self.public).decode()}"

    def sign(self, data: bytes) -> bytes:
        """The signature of canonical header fields."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, _PADDING, _SHA256)
        return self.private.sign(sha256(data).digest())


def _private_key(text: str) -> RSAPrivateKey | Ed25519PrivateKey:
    text = text.strip()
    if not text.startswith("-----"):
        try:
            return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))
        except ValueError:
            raise ConfigError(
                "this is neither a private key in PEM nor an Ed25519 seed", "use 32 bytes in base64, or PEM"
            ) from None
    try:
        found = serialization.load_pem_private_key(text.replace("\\n", "\n").encode(), None)
    except TypeError:
        raise ConfigError("the private key is encrypted", "store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("this is no private key in PEM", "make one with `openssl genrsa 2048`") from None
    if not isinstance(found, RSAPrivateKey | Ed25519PrivateKey):
        raise ConfigError("DKIM knows RSA and Ed25519 keys only", "make one with `openssl genrsa 2048`")
    return found


def keys(sections: Mapping[str, Sequence[DkimKeySection]]) -> list[Key]:
    """The configured keys in their order. Raises ConfigError that names the key which cannot be used."""
    found = []
    for domain, entries in sections.items():
        for section in entries:
            try:
                found.append(key(domain, section))
            except ConfigError as error:
                where = f"dkim: {domain}: {section.selector}"
                raise ConfigError(error.what, error.fix, where) from None
    return found


def key(domain: str, section: DkimKeySection) -> Key:
    """One configured key. Raises ConfigError."""
    return Key.load(
        domain,
        section.selector,
        section.private_key.get_secret_value(),
        signs=section.sign,
        expires_after=section.expires_after,
    )


def ascii_domain(domain: str) -> str:
    """A domain as DNS knows it: lower case, IDNA (RFC 5890)."""
    domain = domain.rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain


class Signer:
    """Signs messages by the domain of their From: with that domain's keys, else with those of the nearest domain above.

    It is safe to use from several threads. `threads` says how many sign at a time (default: one a core).
    """

    def __init__(self, keys: Iterable[Key], clock: Clock, *, threads: int | None = None) -> None:
        self.clock = clock
        self._signing: dict[str, list[Key]] = {}
        for each in keys:
            of_domain = self._signing.setdefault(each.domain, [])
            if each.signs and each.algorithm not in (other.algorithm for other in of_domain):
                of_domain.append(each)
        self._threads = threads or os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None
        self._keys_of = lru_cache(1024)(self._find)

    def signing(self, domain: str) -> list[Key]:
        """The keys that sign mail From this domain; none when it is not ours."""
        labels = ascii_domain(domain).split(".")
        for start in range(len(labels) - 1):
            found = self._signing.get(".".join(labels[start:]))
            if found:
                return found
        return []

    def _find(self, from_: bytes) -> list[Key]:
        address = parseaddr(from_.decode("utf-8", "surrogateescape"))[1]
        return self.signing(address.rpartition("@")[2])

    def sign(self, message: bytes) -> bytes:
        """The message behind its DKIM-Signature fields; unchanged when no key is for its From.

        Raises ValueError for a message without From."""
        end = message.find(b"\r\n\r\n")
        head = message if end < 0 else message[:end]
        fields = canonical_fields(head)
        if b"from" not in fields:
            raise ValueError("a message without From cannot be signed")
        signing = self._keys_of(fields[b"from"][-1])
        if not signing:
            return message
        # Several fields of one name are taken from the last one up (RFC 6376, section 5.4.2).
        names = (b"from", *(name for name in COVERED if name in fields for _ in fields[name]))
        covered = b"\r\n".join(
            value for name in COVERED if name in fields for value in reversed(fields[name])
        )
        hashed = binascii.b2a_base64(body_hash(message, len(head) + 4), newline=False)
        now = int(self.clock.wall().timestamp())
        parts: list[bytes] = []
        for each in signing:
            start = b"".join((_first_lines(each, names, now), b"\r\n\tbh=", hashed, b";\r\n\tb="))
            # The field itself comes last, as relaxed as the others, with its b= still empty and without its CRLF.
            own = b"dkim-signature:" + start[16:].replace(b"\r\n\t", b" ")
            signature = binascii.b2a_base64(each.sign(covered + b"\r\n" + own), newline=False)
            parts += (start, _folded(signature), b"\r\n")
        return sound(b"".join(parts)) + message

    async def sign_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """All messages signed, in their order, by threads: `cryptography` lets the others run while it signs."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="dkim")
        loop = asyncio.get_running_loop()
        size = max(1, min(CHUNK, -(-len(messages) // self._threads)))
        chunks = [messages[start : start + size] for start in range(0, len(messages), size)]
        done = await asyncio.gather(*(loop.run_in_executor(self._pool, self._chunk, c) for c in chunks))
        return [message for chunk in done for message in chunk]

    def _chunk(self, messages: Sequence[bytes]) -> list[bytes]:
        return [self.sign(message) for message in messages]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def canonical_fields(head: bytes) -> dict[bytes, list[bytes]]:
    """name -> the canonical fields of that name from the top down, each without its CRLF (RFC 6376, section 3.4.2).
    Only names of COVERED."""
    found: dict[bytes, list[bytes]] = {}
    for line in head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        name, canonical = _canonical(line)
        if name in _COVERED:
            found.setdefault(name, []).append(canonical)
    return found


@lru_cache(1024)
def _canonical(line: bytes) -> tuple[bytes, bytes]:
    """(its name, the field as it is signed) of an unfolded line; most are the same in all mails of a message."""
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t").lower()
    if not colon:
        return b"", b""
    # bytes.split() also takes vertical tabs and form feeds for spaces, which DKIM does not.
    if b"\x0b" in value or b"\x0c" in value:
        return name, name + b":" + re.sub(rb"[ \t]+", b" ", value).strip(b" ")
    return name, name + b":" + b" ".join(value.split())


def body_hash(message: bytes, start: int) -> bytes:
    """SHA-256 over the body, which begins at `start`, in the simple form (RFC 6376, section 3.4.3): as it is, with one
    CRLF at its end."""
    end = len(message)
    while end - start >= 4 and message.endswith(b"\r\n\r\n", 0, end):
        end -= 2
    found = sha256(memoryview(message)[start:end])
    if not message.endswith(b"\r\n", start, end):
        found.update(b"\r\n")
    return found.digest()


@lru_cache(256)
def _first_lines(key: Key, names: tuple[bytes, ...], now: int) -> bytes:
    """The field down to its h=, the same for all mails of one second."""
    tags = [
        f"v=1; a={key.algorithm}; c=relaxed/simple;",
        f"d={key.domain};",
        f"s={key.selector};",
        f"t={now};",
    ]
    if key.expires_after is not None:
        tags.append(f"x={now + int(key.expires_after.total_seconds())};")
    lines, line = [], "DKIM-Signature:"
    for tag in tags:
        if len(line) + 1 + len(tag) > LINE:
            lines.append(line)
            line = "\t" + tag
        else:
            line += " " + tag
    lines.append(line)
    line = "\th="
    for number, name in enumerate(names):
        piece = name.decode() + (":" if number < len(names) - 1 else ";")
        if len(line) + len(piece) > LINE:
            lines.append(line)
            line = "\t"
        line += piece
    return "\r\n".join([*lines, line]).encode()


def _folded(signature: bytes) -> bytes:
    """The signature behind `\\tb=`, no line longer than LINE."""
    first, width = LINE - 3, LINE - 1
    rest = [signature[at : at + width] for at in range(first, len(signature), width)]
    return b"\r\n\t".join((signature[:first], *rest))
