"""The vocabulary that every room shares: what comes from a vendor, what is kept, what goes back.

Vendor-side values are `Record` (pulled), `Push` (`Result`, `FieldWrite`, `ConsentWrite`, `Erase`: to be written) and
`Outcome` (what the vendor said of one push). Everything else names a state or a kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

# --- what a contact is -------------------------------------------------------------------------------


class FieldType(StrEnum):
    """Types of hub fields, of vendor fields, and of values in rules."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"  # a point in time, UTC
    ENUM = "enum"  # a text out of a closed set
    LIST = "list"  # several texts


@dataclass(frozen=True)
class HubField:
    """A field of the hub's contact or deal. `column` is its SQL column, or empty when it lives in `fields` (JSONB)."""

    name: str
    type: FieldType
    column: str = ""
    description: str = ""


def _columns(*fields: tuple[str, FieldType, str]) -> dict[str, HubField]:
    return {name: HubField(name, type_, name, description) for name, type_, description in fields}


CONTACT_FIELDS: dict[str, HubField] = _columns(
    ("email", FieldType.TEXT, "primary e-mail address, lower case"),
    ("first_name", FieldType.TEXT, "given name"),
    ("last_name", FieldType.TEXT, "family name"),
    ("company", FieldType.TEXT, "company name as the contact carries it"),
    ("job_title", FieldType.TEXT, "job title"),
    ("phone", FieldType.TEXT, "phone number as given"),
    ("country", FieldType.TEXT, "ISO 3166-1 alpha-2 code where the mapping knows it"),
    ("city", FieldType.TEXT, "city"),
    ("language", FieldType.TEXT, "BCP 47 tag, e.g. de or pt-BR"),
    ("time_zone", FieldType.TEXT, "IANA zone, e.g. Europe/Vienna"),
    ("lifecycle", FieldType.TEXT, "lifecycle stage, the vendor's internal value"),
    ("owner", FieldType.TEXT, "owner's id in the CRM"),
    ("created_at", FieldType.TIME, "when the CRM created the contact"),
)
"""Fields that have a typed column of their own; any other mapped name lives in `contact.fields`."""

DEAL_FIELDS: dict[str, HubField] = _columns(
    ("name", FieldType.TEXT, "deal name"),
    ("pipeline", FieldType.TEXT, "pipeline, the vendor's internal id"),
    (
        "stage",
        FieldType.TEXT,
        "stage: the label in lower case where the mapping knows it, else the internal id",
    ),
    ("amount", FieldType.NUMBER, "amount in the deal's currency"),
    ("currency", FieldType.TEXT, "ISO 4217 code"),
    ("close_at", FieldType.TIME, "expected or real close"),
    ("created_at", FieldType.TIME, "when the CRM created the deal"),
    ("owner", FieldType.TEXT, "owner's id in the CRM"),
)

COMPANY_FIELDS: dict[str, HubField] = _columns(
    ("name", FieldType.TEXT, "company name"),
    ("domain", FieldType.TEXT, "web domain, lower case"),
    (
        "industry",
        FieldType.TEXT,
        "industry, the vendor's internal value where the mapping does not say otherwise",
    ),
    ("country", FieldType.TEXT, "ISO 3166-1 alpha-2 code where the mapping knows it"),
    ("city", FieldType.TEXT, "city"),
    ("phone", FieldType.TEXT, "phone number as given"),
    ("employees", FieldType.NUMBER, "how many people work there"),
    ("revenue", FieldType.NUMBER, "revenue a year, in the CRM's currency"),
    ("lifecycle", FieldType.TEXT, "lifecycle stage, the vendor's internal value"),
    ("owner", FieldType.TEXT, "owner's id in the CRM"),
    ("created_at", FieldType.TIME, "when the CRM created the company"),
)


# --- what a vendor gives -------------------------------------------------------------------------------


OBJECTS = {
    "leads": "lead", "contacts": "contact", "companies": "company", "deals": "deal", "segments": "segment",
}  # fmt: skip
"""stream -> the object that its records are."""


class RecordState(StrEnum):
    LIVE = "live"
    ARCHIVED = "archived"  # hidden, may come back
    DELETED = "deleted"  # gone, or erased for privacy
    MERGED = "merged"  # lives on under another id
    CONVERTED = "converted"  # a lead that became a contact


class Link(msgspec.Struct, frozen=True):
    """A record's tie to another record of the same connection, e.g. a deal to a contact. One tie a role.

    `primary`, of a company's link: the company is the main one of that contact or deal.
    """

    object: str
    id: str
    role: str = ""
    primary: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One object as a vendor gave it. `fields` holds the vendor's own names and values.

    `object` is `lead`, `contact`, `company`, `deal` or `segment`. A segment's `links` are all its members. `merged_ids` are
    other ids that now mean this record. A lead whose state is `converted` names in `became` the contact that it is now, and
    the company and the deal that came of it.
    """

    object: str
    id: str
    fields: dict[str, Any] = {}
    changed_at: datetime | None = None
    state: RecordState = RecordState.LIVE
    merged_ids: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    became: tuple[Link, ...] = ()


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A row that could not be taken or written, kept with the reason and a proposed fix."""

    object: str
    id: str
    code: str
    message: str
    fix: str = ""
    row: dict[str, Any] = {}


class VendorField(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a vendor's object, as its schema describes it."""

    name: str
    type: FieldType = FieldType.TEXT
    label: str = ""
    read_only: bool = False
    required: bool = False
    custom: bool = False  # the account's own, not one that every account has
    options: tuple[str, ...] = ()


# --- what happens to a mail ----------------------------------------------------------------------------


class DeliveryState(StrEnum):
    """Where a row of the send ledger stands."""

    QUEUED = "queued"
    CLAIMED = "claimed"  # leased by a worker: composed, offered, or soon to be
    ACCEPTED = "accepted"  # the relay took it
    REJECTED = "rejected"  # the relay refused it for good
    UNCERTAIN = "uncertain"  # nobody knows; never resent blindly
    EXCLUDED = "excluded"  # decided at claim time not to send; `reason` says why
    HELD = "held"  # waits for a person


class ResultKind(StrEnum):
    """What came back of a delivery."""

    SENT = "sent"  # the relay accepted it
    DELIVERED = "delivered"  # the relay said so, or no failure report came within the grace time
    DELAYED = "delayed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    OPENED = "opened"
    CLICKED = "clicked"
    REPLIED = "replied"  # a person wrote back
    UNSUBSCRIBED = "unsubscribed"


RESULTS: dict[ResultKind, tuple[str, str]] = {
    ResultKind.SENT: ("the relay accepted the mail", "the relay's answer, or its events"),
    ResultKind.DELIVERED: (
        "the receiver took it, or no failure came within `results.delivered_after`",
        "the relay's events, a report, or the hub's clock",
    ),
    ResultKind.DELAYED: ("it is still being tried; told to nobody", "the relay's events, or a report"),
    ResultKind.BOUNCED: (
        "refused for good; the class says why",
        "the relay's answer or events, or a report",
    ),
    ResultKind.COMPLAINED: ("the reader called it spam", "the relay's events, or a report (ARF)"),
    ResultKind.OPENED: (
        "the images were loaded, by a person or a machine",
        "the hub's web, or the relay's events",
    ),
    ResultKind.CLICKED: (
        "a link was followed, by a person or a machine",
        "the hub's web, or the relay's events",
    ),
    ResultKind.REPLIED: ("a person wrote back", "a mail"),
    ResultKind.UNSUBSCRIBED: ("the purpose is stopped", "the hub's web, or the relay's events"),
}
"""What each result means, and where it comes from."""


class BounceClass(StrEnum):
    """Why a mail failed; only `address` suppresses at once."""

    ADDRESS = "address"
    ADDRESS_WEAK = "address-weak"
    MAILBOX_FULL = "mailbox-full"
    REPUTATION = "reputation"
    CONTENT = "content"
    POLICY = "policy"
    TRANSIENT = "transient"
    RELAY = "relay"
    UNKNOWN = "unknown"


# --- what people allow ----------------------------------------------------------------------------------


class Channel(StrEnum):
    """By what people are reached: consent is given for each channel by itself."""

    EMAIL = "email"


class ConsentSource(StrEnum):
    """Who told the hub a word on consent."""

    SYSTEM = "system"  # the hub itself
    CONNECTION = "connection"
    PAGE = "page"  # the person, on a page of the hub
    IMPORT = "import"
    ADMIN = "admin"


class ConsentHow(StrEnum):
    """How a word on consent came about."""

    DOUBLE_OPT_IN = "double_opt_in"  # asked for, and confirmed by the link of a mail
    SINGLE = "single"
    IMPORTED = "imported"
    BY_HAND = "by_hand"
    TOLD = "told"  # as another system keeps it
    CARRIED = "carried"  # said under another address of the same person


# --- what goes back to a vendor ------------------------------------------------------------------------


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """One result of one delivery, to be shown where a marketer looks.

    `id` is unique and stable: the vendor's idempotency key where it has one. `contact_ref` is the contact's
    id in the target system, empty where it has none. `detail` may hold `link`, `reason`, `code`, `class`, `relay`.
    """

    id: str
    kind: ResultKind
    delivery_id: str
    occurred_at: datetime
    message: str
    subject: str = ""
    funnel: str = ""
    email: str = ""
    contact_ref: str = ""
    contact_key: str = (
        ""  # the hub's own opaque, stable key of the person; for analytics, holds nothing personal
    )
    sent_at: datetime | None = None
    detail: dict[str, Any] = {}


class FieldWrite(msgspec.Struct, frozen=True, kw_only=True, tag="field"):
    """Set fields of one contact. `fields` has the vendor's own names and values."""

    id: str
    contact_ref: str
    email: str = ""
    fields: dict[str, Any] = {}


class ConsentWrite(msgspec.Struct, frozen=True, kw_only=True, tag="consent"):
    """An opt-out (or a proven opt-in) of one address for one purpose."""

    id: str
    email: str
    purpose: str
    subscription: str = ""  # the vendor's own id for the purpose, from `purposes.<name>.subscriptions`
    opted_in: bool = False
    at: datetime
    proof: str = ""
    contact_ref: str = ""


class Erase(msgspec.Struct, frozen=True, kw_only=True, tag="erase"):
    """Erase a person's record for good. One that is gone already is done."""

    id: str
    contact_ref: str


Push = Result | FieldWrite | ConsentWrite | Erase


class OutcomeStatus(StrEnum):
    DONE = "done"
    RETRY = "retry"
    FIX_NEEDED = "fix_needed"
    DROPPED = "dropped"
    UNCERTAIN = "uncertain"  # the vendor may have taken it; never repeated blindly


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor said of one push. `wrote` are the vendor's fields that were written, with
    their values; empty where the vendor does not say."""

    id: str
    status: OutcomeStatus = OutcomeStatus.DONE
    remote_id: str = ""
    code: str = ""
    message: str = ""
    fix: str = ""
    retry_after_seconds: float = 0.0
    object: str = ""
    wrote: dict[str, str] = {}
