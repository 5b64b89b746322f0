"""Messages looked at before they are sent: as one contact would get them, or over a whole list. Keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from hub.config import Config
from hub.config.loading import nearest
from hub.errors import HubError
from hub.jobs.runtime import Runtime, catalog_of, mapping_of
from hub.mail import coverage
from hub.mail.compose import Composer, Message, Recipient
from hub.mail.preview import preview
from hub.signing import Unsigned
from hub.store import audience, campaigns, contacts, ledger

COMPOSED = 1_000
"""Of so many recipients the mails are composed where nobody says otherwise."""

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hub.store.database import Connection


def compiled(config: Config, name: str, contact_fields: Collection[str]) -> Message:
    """A message for looking at: no link of it counts or unsubscribes. Raises ConfigError as `Composer.message` does."""
    composer = Composer(
        config.settings, config.base_dir, Unsigned(), contact_fields=frozenset(contact_fields)
    )
    return composer.message(name)


async def for_contact(runtime: Runtime, name: str, email: str) -> dict[str, Any]:
    """The mail that a contact would get now. Of several with the address the oldest that is live, as in a campaign.

    `excluded` says why it would get none; `others` are the further contacts with the address."""
    message = compiled(runtime.config, name, runtime.catalog.template_fields)
    async with runtime.db.connection() as conn:
        people = await contacts.by_email(conn, email)
        if not people:
            raise HubError(f"no contact has the address {email}", "check the spelling, or `hub sync` first")
        person = min(people, key=lambda each: (each["state"] != "live", each["id"]))
        wanted = None if message.fields is None else message.fields | {"country"}
        values = await ledger.people(conn, [person["id"]], wanted, deals=message.needs_deals)
        excluded = await audience.excluded(conn, person["id"], message.section.purpose, runtime.purposes)
    to = Recipient(0, person["email"], *values[person["id"]])
    return {
        "contact_id": person["id"],
        "others": [each["id"] for each in people if each is not person],
        "excluded": excluded,
        **preview(message, to, now=runtime.clock.now()),
    }


async def for_list(runtime: Runtime, name: str, list_name: str, *, compose: int = COMPOSED) -> dict[str, Any]:
    """What the members of a list lack for a message, who of them would not get it, and why; as the list stands."""
    message = compiled(runtime.config, name, runtime.catalog.template_fields)
    async with runtime.db.rehearsal() as db, db.connection() as conn:
        await _gather(runtime, conn, message, list_name)
        excluded = await campaigns.reasons(conn)
        found = await coverage.coverage(conn, message, now=runtime.clock.now(), compose=compose)
    return {"message": name, "list": list_name, "excluded": excluded, **found}


async def lacking(
    runtime: Runtime, name: str, list_name: str, field: str, each: Callable[[dict[str, Any]], None]
) -> None:
    """Call `each` with every member of a list who would get the message and lacks a field of it, see `audience.lacking`."""
    message = compiled(runtime.config, name, runtime.catalog.template_fields)
    fields = coverage.used(message)
    if field not in fields:
        raise HubError(f"message {name} does not use the field {field!r}", nearest(field, fields))
    async with runtime.db.rehearsal() as db, db.connection() as conn:
        await _gather(runtime, conn, message, list_name)
        languages = coverage.tags(message, await audience.patterns(conn, []))
        its = {tag for key, tags in languages.items() if coverage.uses(message, key, field) for tag in tags}
        async for row in audience.lacking(conn, field, its):
            each(row)


async def _gather(runtime: Runtime, conn: Connection, message: Message, list_name: str) -> None:
    if list_name not in runtime.settings.lists:
        raise HubError(f"there is no list {list_name!r}", nearest(list_name, runtime.settings.lists))
    await campaigns.gather(conn, list_name, (), message.section.purpose, runtime.purposes)


def for_sample(config: Config, name: str, sample: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """The mail that a made-up contact would get. `sample` is field -> value, with `email` and, if wished, `deals`.

    Raises HubError for what is no field."""
    known = catalog_of(config.settings, partial(mapping_of, config)).template_fields
    deals, contact = sample.get("deals", []), {k: v for k, v in sample.items() if k != "deals"}
    for field in contact:
        if field not in known:
            raise HubError(
                f"the sample's {field!r} is no field of contacts", nearest(field, [*known, "deals"])
            )
    if not isinstance(deals, list) or not all(isinstance(deal, dict) for deal in deals):
        raise HubError("the sample's deals are no list of objects", 'write [{"name": "...", "amount": 5}]')
    if not isinstance(contact.get("email"), str):
        raise HubError("the sample has no address", 'add "email": "ann@example.com"')
    message = compiled(config, name, known)
    to = Recipient(0, contact["email"], contact, deals)
    return {"contact_id": None, "others": [], "excluded": None, **preview(message, to, now=now)}
