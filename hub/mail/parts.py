"""MIME around the two bodies: alternatives, inline images and attachments, all of it the same for everybody.

    multipart/mixed                   where something is attached (RFC 2046, 5.1.3)
      multipart/alternative           text, then HTML (5.1.4)
        text/plain
        multipart/related             where the HTML shows images of the mail (RFC 2387)
          text/html
          image/png                   Content-ID (RFC 2392)
      application/pdf                 Content-Disposition with its name (RFC 2183, RFC 2231)

Files are read and encoded once, when a message is compiled.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any, NamedTuple

from hub.errors import ConfigError

_OPENED = (
    "--%s\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
)
CID = re.compile(r"\bcid:([A-Za-z0-9_-]+)(?![\w@.-])")
"""An image as the HTML names it: `cid:logo`."""


class Frame(NamedTuple):
    """What stands around the bodies: up to the text, between text and HTML, after the HTML."""

    before: bytes
    between: bytes
    after: bytes


def frame(seed: str, images: Sequence[bytes] = (), attachments: Sequence[bytes] = ()) -> Frame:
    """`images` and `attachments` are finished parts. `seed` makes the boundaries: the same message, the same bytes."""
    # "=_" stands neither in quoted-printable nor in base64, so no body can hold a boundary (RFC 2045, 6.7).
    mark = "=_" + hashlib.sha256(seed.encode()).hexdigest()[:24]
    before = _multipart("alternative", mark) + _OPENED % (mark, "plain")
    between, after = "\r\n" + _OPENED % (mark, "html"), f"\r\n--{mark}--\r\n".encode()
    if images:
        related = f"{mark}r"
        opened = _multipart("related", related, ' type="text/html";') + _OPENED % (related, "html")
        between = f"\r\n--{mark}\r\n{opened}"
        after = _closed(related, images) + after
    if attachments:
        mixed = f"{mark}m"
        before = f"{_multipart('mixed', mixed)}--{mixed}\r\n{before}"
        after += _closed(mixed, attachments)
    return Frame(before.encode(), between.encode(), after)


def _multipart(kind: str, boundary: str, more: str = "") -> str:
    return f'Content-Type: multipart/{kind};{more}\r\n boundary="{boundary}"\r\n\r\n'


def _closed(boundary: str, parts: Sequence[bytes]) -> bytes:
    """The further parts of a multipart, and its end."""
    opened = f"\r\n--{boundary}\r\n".encode()
    return b"".join(opened + part for part in parts) + f"\r\n--{boundary}--\r\n".encode()


def attached(file: Path) -> bytes:
    """A file as an attachment. Raises ConfigError when it cannot be read."""
    return _part(file, disposition="attachment", filename=file.name)


def shown(file: Path, content_id: str) -> bytes:
    """An image that the HTML shows. Raises ConfigError for a file that is none."""
    if not content_type(file).startswith("image/"):
        raise ConfigError(
            f"{file.name} is no image by its name", "use .png, .jpg or .gif, which mail programs show"
        )
    return _part(file, disposition="inline", filename=file.name, cid=f"<{content_id}>")


def _part(file: Path, **headers: Any) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file.name} cannot be read: {error.strerror}", "check the path; it is relative to hub.yaml"
        ) from None
    part = EmailMessage(policy=SMTP)
    main, _, sub = content_type(file).partition("/")
    part.set_content(data, main, sub, **headers)
    del part["MIME-Version"]
    return part.as_bytes().removesuffix(b"\r\n")


def content_type(file: Path) -> str:
    """By the file's name. What is packed, and mails (which may not be base64: RFC 2046, 5.2.1), are plain octets."""
    found, packed = mimetypes.guess_type(file.name)
    if found is None or packed or found.startswith(("message/", "multipart/")):
        return "application/octet-stream"
    return found


def with_images(html: str, content_ids: Mapping[str, str]) -> str:
    """`cid:logo` as the whole Content-ID. Raises ConfigError for an image that the message does not have."""

    def whole(found: re.Match[str]) -> str:
        if found[1] not in content_ids:
            what = f"the HTML shows cid:{found[1]}, which is none of the message's images"
            raise ConfigError(what, "add it to `images`")
        return f"cid:{content_ids[found[1]]}"

    return CID.sub(whole, html)
