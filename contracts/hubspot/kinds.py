"""The object types that the sandbox knows: their names, type ids, standard properties and association types.

Sources: HubSpot developer docs "Understanding the CRM", "Contacts", "Deals", "Emails", "Associations v4".
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.hubspot.properties import Property, option

LIFECYCLE = (
    ("subscriber", "Subscriber"),
    ("lead", "Lead"),
    ("marketingqualifiedlead", "Marketing Qualified Lead"),
    ("salesqualifiedlead", "Sales Qualified Lead"),
    ("opportunity", "Opportunity"),
    ("customer", "Customer"),
    ("evangelist", "Evangelist"),
    ("other", "Other"),
)

INDUSTRIES = (
    "COMPUTER_SOFTWARE",
    "INTERNET",
    "RETAIL",
    "AUTOMOTIVE",
    "BANKING",
    "MACHINERY",
    "HOSPITAL_HEALTH_CARE",
)
"""Some of HubSpot's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An object type. `modified` and `created` name the properties that hold its two instants."""

    name: str
    singular: str
    type_id: str
    modified: str
    created: str
    defaults: tuple[str, ...]
    required: tuple[str, ...] = ()
    archivable: bool = True  # False: a delete is for good
    write_scope: str = ""
    read_scope: str = ""


def _kind(
    name: str, singular: str, type_id: str, defaults: str, *, engagement: bool = False, required: str = ""
) -> Kind:
    modified = "lastmodifieddate" if name == "contacts" else "hs_lastmodifieddate"
    created = "hs_createdate" if engagement else "createdate"
    scope = "contacts" if engagement else name
    shown = (*defaults.split(), created, modified, "hs_object_id")
    return Kind(
        name, singular, type_id, modified, created, shown, tuple(required.split()), not engagement,
        f"crm.objects.{scope}.write", f"crm.objects.{scope}.read",
    )  # fmt: skip


KINDS = {
    kind.name: kind
    for kind in (
        _kind("contacts", "contact", "0-1", "email firstname lastname"),
        _kind("companies", "company", "0-2", "domain name"),
        _kind("deals", "deal", "0-3", "amount closedate dealname dealstage pipeline"),
        _kind("emails", "email", "0-49", "", engagement=True, required="hs_timestamp hs_email_direction"),
        _kind("notes", "note", "0-46", "", engagement=True, required="hs_timestamp"),
    )
}
ALIASES = {alias: kind for kind in KINDS.values() for alias in (kind.name, kind.singular, kind.type_id)}

ASSOCIATIONS: dict[tuple[str, str], tuple[int, ...]] = {
    ("contacts", "companies"): (279, 1),
    ("companies", "contacts"): (280, 2),
    ("contacts", "deals"): (4,),
    ("deals", "contacts"): (3,),
    ("deals", "companies"): (341, 5),
    ("companies", "deals"): (342, 6),
    ("emails", "contacts"): (198,),
    ("contacts", "emails"): (197,),
    ("emails", "companies"): (186,),
    ("companies", "emails"): (185,),
    ("emails", "deals"): (210,),
    ("deals", "emails"): (209,),
    ("notes", "contacts"): (202,),
    ("contacts", "notes"): (201,),
    ("notes", "companies"): (190,),
    ("companies", "notes"): (189,),
    ("notes", "deals"): (214,),
    ("deals", "notes"): (213,),
}
"""HUBSPOT_DEFINED type ids by direction; the first is the plain one, a second is the primary one."""


def _texts(group: str, names: str) -> list[Property]:
    return [Property(n, n.replace("_", " ").capitalize(), group=group) for n in names.split()]


def _select(
    group: str, name: str, options: tuple[tuple[str, str], ...], field_type: str = "select"
) -> Property:
    listed = [option(value, label, order) for order, (value, label) in enumerate(options)]
    return Property(name, name.capitalize(), "enumeration", field_type, group, options=listed)


def _system(kind: Kind, group: str) -> list[Property]:
    instants = [
        Property(n, n, "datetime", "date", group, read_only=True) for n in (kind.created, kind.modified)
    ]
    return [
        *instants,
        Property("hs_object_id", "Record ID", "number", "number", group, read_only=True),
        Property(
            "hs_merged_object_ids",
            "Merged object IDs",
            "enumeration",
            "checkbox",
            group,
            read_only=True,
            external=True,
        ),
        Property("hubspot_owner_id", "Owner", "enumeration", "select", group, external=True),
    ]


def standard_properties(kind: Kind) -> list[Property]:
    """What a new account has before an admin adds properties of its own."""
    group = f"{kind.singular}information"
    return [*_system(kind, group), *_OWN[kind.name](group)]


def _contacts(group: str) -> list[Property]:
    return [
        Property("email", "Email", "string", "text", group, unique=True, form_field=True),
        Property("hs_additional_emails", "Additional email addresses", "enumeration", "checkbox", group, external=True),
        Property("hs_calculated_merged_vids", "Merged vids", "enumeration", "checkbox", group, read_only=True, external=True),
        Property("hs_email_optout", "Unsubscribed from all email", "bool", "booleancheckbox", group, read_only=True),
        Property("hs_lastmodifieddate", "Object last modified", "datetime", "date", group, read_only=True, hidden=True),
        _select(group, "lifecyclestage", LIFECYCLE, "radio"),
        Property("date_of_birth", "Date of birth", "date", "date", group),
        Property("annualrevenue", "Annual revenue", "number", "number", group),
        *_texts(
            group,
            "firstname lastname salutation phone mobilephone company jobtitle website address city state zip country "
            "hs_language hs_timezone industry message",
        ),
    ]  # fmt: skip


def _companies(group: str) -> list[Property]:
    return [
        Property("numberofemployees", "Employees", "number", "number", group),
        Property("annualrevenue", "Annual revenue", "number", "number", group),
        _select(group, "lifecyclestage", LIFECYCLE, "radio"),
        _select(group, "industry", tuple((name, name.replace("_", " ").title()) for name in INDUSTRIES)),
        *_texts(group, "name domain city country phone website"),
    ]


def _deals(group: str) -> list[Property]:
    return [
        Property("amount", "Amount", "number", "number", group),
        Property("closedate", "Close date", "datetime", "date", group),
        Property("pipeline", "Pipeline", "enumeration", "select", group, external=True),
        Property("dealstage", "Deal stage", "enumeration", "radio", group, external=True),
        Property("lastmodifieddate", "Last modified", "datetime", "date", group, read_only=True, hidden=True),
        _select(
            group,
            "dealtype",
            (("newbusiness", "New Business"), ("existingbusiness", "Existing Business")),
            "radio",
        ),
        *_texts(group, "dealname description deal_currency_code"),
    ]


def _emails(group: str) -> list[Property]:
    directions = tuple((d, d) for d in ("EMAIL", "INCOMING_EMAIL", "FORWARDED_EMAIL"))
    statuses = tuple((s, s) for s in ("BOUNCED", "FAILED", "SCHEDULED", "SENDING", "SENT"))
    computed = (
        "hs_email_from_email",
        "hs_email_from_firstname",
        "hs_email_from_lastname",
        "hs_email_to_email",
    )
    return [
        Property("hs_timestamp", "Activity date", "datetime", "date", group),
        _select(group, "hs_email_direction", directions),
        _select(group, "hs_email_status", statuses),
        *[Property(n, n, group=group, read_only=True) for n in computed],
        *_texts(group, "hs_email_subject hs_email_text hs_email_html hs_email_headers hs_attachment_ids"),
    ]


def _notes(group: str) -> list[Property]:
    return [
        Property("hs_timestamp", "Activity date", "datetime", "date", group),
        *_texts(group, "hs_note_body hs_attachment_ids"),
    ]


_OWN = {"contacts": _contacts, "companies": _companies, "deals": _deals, "emails": _emails, "notes": _notes}
