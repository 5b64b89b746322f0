"""What relays tell of the mails that they took, by webhook: a plug-in a vendor that proves a call to be authentic and reads
the vendor's events in the hub's words.

A package names its class in a module attribute `events`, as others have `connector` or `relay`; an admin writes
`relays.<name>.events.from`. What the plug-in gives is stored before the vendor gets its answer, and worked later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, SecretStr

from hub.bounces import classify, enhanced_code
from hub.errors import SignatureError
from hub.model import BounceClass, ResultKind

if TYPE_CHECKING:
    from hub.sdk.connector import Context, WebhookRequest

__all__ = [
    "MARK", "EventSettings", "RelayEvent", "RelayEvents", "check_basic", "check_bearer", "check_hex_hmac", "classify", "digest",
    "enhanced_code", "objects", "text_of",
]  # fmt: skip
MARK = "mailyard"
"""The name under which a relay gets our token with each mail, and gives it back with each event."""


class RelayEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a relay tells of one mail.

    `key` is the vendor's own id of the event, the same when it is told again; `once` something else that a call must not
    bring twice, where the signature covers no more. The mail is named by `token` (what `MARK` brought, or the return path)
    or `message_id`. `code`, `enhanced` and `text` are the receiver's reply; `bounce` is a class that needs no reading of
    them. `machine`: the relay's own word, in words, that no person opened or clicked.
    """

    key: str
    kind: ResultKind
    occurred_at: datetime
    token: str = ""
    message_id: str = ""
    once: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    bounce: BounceClass | None = None
    link: str = ""
    agent: str = ""
    address: str = ""
    machine: str = ""
    type: str = ""  # the vendor's own word


class EventSettings(BaseModel):
    """Base of a plug-in's own keys under `relays.<name>.events`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RelayEvents:
    """Base of a plug-in. `relay` is the relay's name in hub.yaml."""

    title: ClassVar[str] = ""
    Settings: ClassVar[type[EventSettings]] = EventSettings

    def __init__(self, relay: str, settings: Any, context: Context) -> None:
        self.relay, self.settings, self.context = relay, settings, context

    @property
    def marks(self) -> Mapping[str, str]:
        """Headers that the relay must get with each mail, so that its events name it; `{token}` stands for ours."""
        return {}

    async def verify(self, request: WebhookRequest) -> None:
        """Raise `SignatureError` unless the call is authentic."""
        raise SignatureError(f"{type(self).__name__} proves nothing", "use another plug-in")

    async def greet(self, request: WebhookRequest) -> bool:
        """Answer an authentic call that is about the webhook itself. Returns whether it was one; it has no events then."""
        return False

    def events(self, request: WebhookRequest) -> list[RelayEvent]:
        """The events of an authentic call; those that say nothing of a mail are left out. Raises ValueError for nonsense."""
        raise ValueError("not read")


# --- for plug-ins --------------------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """A key for an event whose vendor gives none."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def objects(body: bytes) -> list[dict[str, Any]]:
    """A body that is a JSON object, or a list of them. Raises ValueError."""
    found = msgspec.json.decode(body)
    rows = found if isinstance(found, list) else [found]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("the body is no JSON object and no list of them")
    return rows


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that has something, as text without NUL; else empty."""
    for name in names:
        value = row.get(name)
        if value not in (None, "", [], {}):
            return str(value).replace("\0", "")[:2_000]
    return ""


def check_basic(request: WebhookRequest, username: str, password: SecretStr) -> None:
    """HTTP Basic (RFC 7617)."""
    expected = b"Basic " + base64.b64encode(f"{username}:{password.get_secret_value()}".encode())
    _check(request.headers.get("authorization", "").encode(), expected, "username and password")


def check_bearer(request: WebhookRequest, token: SecretStr) -> None:
    """A bearer token (RFC 6750)."""
    expected = b"Bearer " + token.get_secret_value().encode()
    _check(request.headers.get("authorization", "").encode(), expected, "token")


def check_hex_hmac(given: str, secret: SecretStr, *parts: bytes) -> None:
    """HMAC-SHA-256 in lower-case hexadecimal over the parts, one after the other."""
    made = hmac.new(secret.get_secret_value().encode(), digestmod=hashlib.sha256)
    for part in parts:
        made.update(part)
    _check(given.encode(), made.hexdigest().encode(), "secret")


def _check(given: bytes, expected: bytes, what: str) -> None:
    if not hmac.compare_digest(given, expected):
        raise SignatureError(
            "the call is not authentic", f"check that the {what} under `events` is what the vendor has"
        )
