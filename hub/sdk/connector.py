"""What a connector is: its settings, its manifest, the streams it pulls, the records it pushes, its webhooks.

A connector says only what is special about its vendor. Paging loops, retries, quotas, token refresh, cursors,
diffing and persistence belong to this SDK and to the sync engine.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec
from pydantic import BaseModel, ConfigDict

from hub.clock import Clock
from hub.model import Outcome, Push, Record, Rejected, VendorField

if TYPE_CHECKING:
    from hub.sdk.http import Http
    from hub.sdk.oauth import TokenStore

Cursor = dict[str, Any]
"""Where a stream resumes: JSON values only. An empty cursor means from the beginning."""


class ConnectorSettings(BaseModel):
    """Base of a connector's own keys under `connections.<name>` in hub.yaml; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=ConnectorSettings)


@dataclass(frozen=True)
class Limit:
    """One quota of an account: `calls` per `seconds`. `scope` picks the calls it counts, e.g. `search`."""

    name: str
    calls: int
    seconds: float
    scope: str = ""


@dataclass(frozen=True)
class Manifest:
    """What `hub connectors` and the documentation tell about a connector."""

    name: str
    title: str
    streams: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()  # of: results, consent, fields, erasure
    auth: tuple[str, ...] = ()
    webhooks: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    scopes: tuple[str, ...] = ()
    docs: str = ""
    mirrors: bool = False  # lists can be kept as static segments
    needs_contact: bool = True  # results go only to people whom this system knows; analytics take all
    repeatable: bool = True  # a push with an unknown outcome may be sent again without a second effect
    batch: int = 100  # how many pushes `push` takes at once
    whole_events: bool = False  # webhooks tell the whole record, so nothing is read again


class Page(msgspec.Struct, kw_only=True):
    """A page of a stream and the cursor that is saved with it in one transaction."""

    records: list[Record]
    cursor: Cursor
    rejected: list[Rejected] = []
    done: bool = False  # the stream is read to its present end


@dataclass(frozen=True)
class WebhookRequest:
    """A webhook as it arrived. `url` is the public URL that the vendor called; header names are lower case; `body` is what
    the vendor signed (a compression for the way is undone)."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime  # wall time

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the URL; of a repeated one the last."""
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))


@dataclass(frozen=True)
class WebhookAnswer:
    """What a vendor wants to hear, where that is not a plain 200."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


class WebhookEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a webhook call.

    `key` is unique for the event and the same when the vendor repeats it. `action` is `changed`, `deleted`,
    `merged`, `restored` or `none`; `merged_ids` are the ids that `id` absorbed. The record is read again when the event is
    worked, unless the event tells it whole (`record`, with `changed_at`; the manifest says `whole_events`).
    """

    key: str
    object: str
    id: str
    action: str = "changed"
    occurred_at: datetime | None = None
    merged_ids: tuple[str, ...] = ()
    payload: dict[str, Any] = {}
    record: Record | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """A part of a webhook call that the connector does not understand: what is wrong with it, without personal values.
    The rest of the call is taken; the whole call is kept, to be read again when the connector knows more."""

    reason: str


def each_event(items: Iterable[Any], read: Callable[[Any], WebhookEvent]) -> list[WebhookEvent | Unreadable]:
    """`read` on every item of a call; where it stumbles over one, that one alone is `Unreadable`."""
    found: list[WebhookEvent | Unreadable] = []
    for item in items:
        try:
            event = read(item)
        # What a value of a wrong kind makes of reading it; `datetime.fromtimestamp` alone raises three of these.
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, OSError) as error:
            found.append(Unreadable(f"an event is not as it should be: {type(error).__name__}"))
        else:
            found.append(event if is_whole(event) else Unreadable("an event lacks its key, object or id"))
    return found


def is_whole(event: WebhookEvent) -> bool:
    """Whether it says which event it is, and of which record."""
    key, object, id = event.key, event.object, event.id
    return bool(key and object and id) and type(key) is type(object) is type(id) is str


@dataclass(frozen=True)
class Finding:
    """One line of `hub connections test`: what is right or wrong, and what to do."""

    ok: bool
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Context:
    """What the hub hands to a connector: HTTP with the account's quota (`http.configured(...)` adds the vendor's
    host and credentials), the time, where tokens are kept, and which of the vendor's fields the mapping needs."""

    http: Http
    clock: Clock
    tokens: TokenStore
    fields: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # object -> the vendor fields that are mapped


class Connector(Generic[SettingsT]):
    """Base of every connector. Override what the vendor can do; the manifest says which that is."""

    manifest: ClassVar[Manifest]
    Settings: ClassVar[type[ConnectorSettings]]
    known_fields: ClassVar[Mapping[str, Mapping[str, VendorField]]] = {}
    """object -> vendor field name -> its description; what an offline check of a mapping knows."""

    def __init__(self, name: str, settings: SettingsT, context: Context) -> None:
        self.name, self.settings, self.context = name, settings, context
        self.clock = context.clock
        self.http = self.connect(context.http)
        self._schemas: dict[str, tuple[datetime, dict[str, VendorField]]] = {}

    def connect(self, http: Http) -> Http:
        """The client for this vendor: override to give it host, credentials, limits and the reading of errors."""
        return http

    async def test(self) -> list[Finding]:
        """Ask the vendor whether credentials, scopes and fields suffice."""
        return []

    async def schema(self, object: str) -> list[VendorField]:
        """The live fields of an object."""
        return list(self.known_fields.get(object, {}).values())

    async def live_fields(
        self, object: str, *, max_age: timedelta = timedelta()
    ) -> dict[str, VendorField] | None:
        """`schema` by name, asked for when what is known is older than `max_age`. None where the connector has none."""
        if type(self).schema is Connector.schema:
            return None
        asked = self._schemas.get(object)
        if asked is None or self.clock.now() - asked[0] >= max_age:
            asked = (self.clock.now(), {found.name: found for found in await self.schema(object)})
            self._schemas[object] = asked
        return asked[1]

    def asking_for(self, object: str, fields: Sequence[str]) -> Self:
        """A copy of this connector that asks for these fields of an object only."""
        other = copy.copy(self)
        other.context = replace(self.context, fields={**self.context.fields, object: fields})
        return other

    async def prepare(self, *, dry: bool = False) -> list[str]:
        """Create what results need over there (custom fields). Returns a line for each thing made or to be made."""
        return []

    def pull(self, stream: str, cursor: Cursor) -> AsyncIterator[Page]:
        """Pages of a stream from `cursor` on. Raises `QuotaExhausted` or `Retry` where it must stop."""
        raise LookupError(f"{self.manifest.name} has no stream {stream!r}")

    async def read(self, object: str, ids: Sequence[str]) -> list[Record]:
        """The named records as they are now; a record that is gone comes back with its state, not missing, and a lead that was
        converted with what it `became`."""
        raise LookupError(f"{self.manifest.name} cannot read {object!r} by id")

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        """Write a batch; one outcome for each push, in any order. A raised `VendorError` is the whole batch's outcome."""
        raise LookupError(f"{self.manifest.name} takes no pushes")

    async def static_segment(self, name: str) -> str:
        """The id of the segment of this name that people fill by hand; empty where there is none. Raises FixNeeded where the
        name belongs to one that fills itself."""
        raise LookupError(f"{self.manifest.name} mirrors no lists")

    async def make_segment(self, name: str) -> str:
        """Make an empty static segment of contacts. Returns its id."""
        raise LookupError(f"{self.manifest.name} mirrors no lists")

    async def members(self, segment: str) -> set[str]:
        """The ids of all contacts in a segment."""
        raise LookupError(f"{self.manifest.name} mirrors no lists")

    async def change_members(self, segment: str, add: Sequence[str], remove: Sequence[str]) -> set[str]:
        """Put contacts into a static segment and take others out; doing it again changes nothing. Returns those whom the vendor
        does not know. At most 10,000 of each come at once."""
        raise LookupError(f"{self.manifest.name} mirrors no lists")

    def verify(self, request: WebhookRequest) -> None:
        """Raise `SignatureError` unless the webhook is authentic and fresh."""
        raise LookupError(f"{self.manifest.name} receives no webhooks")

    def handshake(self, request: WebhookRequest) -> WebhookAnswer | None:
        """The answer to a call that only asks whether we are there (see `hub.sdk.handshakes`), or None: it brings events.
        Asked before `verify`, so it must tell by itself whether the vendor asks."""
        return None

    def events(self, request: WebhookRequest) -> Sequence[WebhookEvent | Unreadable]:
        """The events inside a verified webhook. Raises ValueError when nothing of it is understood."""
        raise LookupError(f"{self.manifest.name} receives no webhooks")

    def acknowledgement(self, request: WebhookRequest) -> WebhookAnswer | None:
        """How the vendor wants to hear that its events are stored; None: any 2xx will do."""
        return None
