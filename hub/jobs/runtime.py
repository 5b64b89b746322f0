"""Everything a running hub holds: its configuration, database, connectors, mappings, composer and relays, wired once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from hub import mapping as mappings
from hub.clock import Clock, from_environment
from hub.config import Config, load
from hub.document import load as load_document
from hub.errors import HubError, SecretError
from hub.jobs.wake import Bell
from hub.results.engagement import Watch
from hub.results.plan import Target
from hub.rules import Catalog
from hub.sdk import registry
from hub.sdk.connector import Connector, Context
from hub.sdk.events import RelayEvents
from hub.sdk.http import Http
from hub.sdk.quota import PULL_SHARE
from hub.sdk.relay import Marking, Relay, made
from hub.signing import Signer
from hub.store import address_key, obligations
from hub.store.database import Database
from hub.store.obligations import Told
from hub.store.quotas import PostgresQuota
from hub.store.tokens import PostgresTokens
from hub.sync.pull import Progress

if TYPE_CHECKING:
    from hub.config.settings import Settings
    from hub.mail.compose import Composer
    from hub.mail.dkim import Signer as DkimSigner
    from hub.mail.gates import Gates
    from hub.mail.traffic import Traffic


@dataclass
class Runtime:
    """Built by `opened`. A connection's connector and mapping are made when first asked for and kept."""

    config: Config
    db: Database
    clock: Clock
    bell: Bell
    keys: list[bytes]
    progress: Progress | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    worker: str = field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    )
    _connectors: dict[tuple[str, bool], Connector[Any]] = field(default_factory=dict)
    _mappings: dict[str, mappings.Mapping] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return self.config.settings

    @cached_property
    def signer(self) -> Signer:
        """Signs links and return paths; its key is derived, so that it differs from the one that seals tokens."""
        return Signer(hashlib.sha256(b"mailyard links" + self.keys[-1]).digest())

    @cached_property
    def maildir(self) -> Path | None:
        """Where delivery reports come in."""
        given = self.settings.bounces.maildir
        return self.config.base_dir / given if given else None

    @cached_property
    def watch(self) -> Watch:
        """How machines are told from people who open and click."""
        given = self.settings.tracking.machines
        return Watch(given.soon, tuple(ip_network(each) for each in given.networks))

    @cached_property
    def composer(self) -> Composer:
        from hub.mail.compose import Composer

        return Composer(
            self.settings,
            self.config.base_dir,
            self.signer,
            contact_fields=self.catalog.template_fields,
        )

    @cached_property
    def dkim(self) -> DkimSigner:
        """Signs mails with the configured keys."""
        from hub.mail.dkim import Signer, keys

        return Signer(keys(self.settings.dkim), self.clock)

    @cached_property
    def gates(self) -> Gates:
        """What must hold before a message's first mail goes out by a relay."""
        from hub.mail.gates import Gates

        return Gates(self.config, self.dkim, self.clock)

    @cached_property
    def relays(self) -> dict[str, Relay]:
        """The configured relays in their order."""
        kinds = registry.relays()
        found: dict[str, Relay] = {}
        for name, section in self.settings.relays.items():
            kind = kinds.get(section.connector)
            if kind is None:
                raise HubError(
                    f"relay {name}: unknown connector {section.connector!r}", "see `hub connectors`"
                )
            own = kind.Settings.model_validate(self.config.own(section.own))
            relay = found[name] = made(kind, name, own, self._relay_context(name))
            if name in self.events and isinstance(relay, Marking):
                relay.marks = self.events[name].marks
        return found

    @cached_property
    def events(self) -> dict[str, RelayEvents]:
        """relay -> what reads its events, of those that tell any."""
        kinds = registry.events()
        found: dict[str, RelayEvents] = {}
        for name, section in self.settings.relays.items():
            if section.events is None:
                continue
            kind = kinds.get(section.events.from_)
            if kind is None:
                raise HubError(
                    f"relay {name}: nothing reads events of {section.events.from_!r}", "see `hub connectors`"
                )
            own = kind.Settings.model_validate(self.config.own(section.events.own))
            found[name] = kind(name, own, self._relay_context(name))
        return found

    def _relay_context(self, name: str) -> Context:
        return Context(
            http=Http(quota=PostgresQuota(self.db), account=f"relay {name}"),
            clock=self.clock,
            tokens=PostgresTokens(self.db, self.keys, prefix="relay "),
        )

    @cached_property
    def traffic(self) -> Traffic:
        """How each relay is, as this worker knows it; kept from one round of sending to the next."""
        from hub.mail.traffic import Traffic

        return Traffic(self.db, self.clock, self.settings.relays, worker=self.worker)

    @cached_property
    def catalog(self) -> Catalog:
        """What rules and templates may name."""
        return catalog_of(self.settings, self.mapping)

    @property
    def purposes(self) -> dict[str, bool]:
        """purpose -> whether it needs an opt-in."""
        return {name: section.basis == "opt_in" for name, section in self.settings.purposes.items()}

    @property
    def pulled(self) -> dict[str, list[str]]:
        """connection -> the streams that are pulled of it."""
        return {name: list(section.pull) for name, section in self.settings.sync.items()}

    @cached_property
    def mirrored(self) -> dict[tuple[str, str], str]:
        """(list, connection) -> the segment that the list is kept as there."""
        return {
            (name, connection): segment
            for name, section in self.settings.lists.items()
            for connection, segment in section.mirror.items()
        }

    @cached_property
    def copied(self) -> dict[str, mappings.Mapping]:
        """The connections into whose records fields of people are copied, where there are several to copy between."""
        if len(self.settings.sync) < 2:
            return {}
        return {
            name: self.mapping(name)
            for name, section in self.settings.sync.items()
            if "fields" in section.push
        }

    @cached_property
    def targets(self) -> list[Target]:
        """Who is told of results."""
        return [
            Target(name, "results" in section.push, kind.manifest.needs_contact)
            for name, section in self.settings.sync.items()
            for kind in [registry.connectors()[self.settings.connections[name].connector]]
        ]

    @property
    def told(self) -> list[Told]:
        """Who is told of opt-outs of which purpose."""
        kinds = registry.connectors()
        return [
            Told(
                name, purpose, section.subscriptions[name], kinds[connection.connector].manifest.needs_contact
            )
            for name, sync in self.settings.sync.items()
            if "consent" in sync.push
            for connection in [self.settings.connections.get(name)]
            if connection is not None and connection.connector in kinds
            for purpose, section in self.settings.purposes.items()
            if name in section.subscriptions
        ]

    async def connector(self, name: str, *, pulling: bool = False) -> Connector[Any]:
        """A connection's connector. One that pulls leaves room in long quotas for pushes and webhooks."""
        if (name, pulling) not in self._connectors:
            section = self.settings.connections.get(name)
            if section is None:
                raise HubError(
                    f"there is no connection {name!r}",
                    f"hub.yaml has {', '.join(self.settings.connections) or 'none'}",
                )
            kind = registry.connectors().get(section.connector)
            if kind is None:
                raise HubError(
                    f"connection {name}: unknown connector {section.connector!r}", "see `hub connectors`"
                )
            http = Http(
                quota=PostgresQuota(self.db, ahead=16 if pulling else 1),
                account=section.account or name,
                share=PULL_SHARE if pulling else 1.0,
            )
            mapped = self.mapping(name)
            context = Context(
                http=http,
                clock=self.clock,
                tokens=PostgresTokens(self.db, self.keys),
                fields={
                    object: mapped.vendor_fields(object)
                    for object in ("lead", "contact", "company", "deal")
                    if mapped.entries[object]
                },
            )
            settings = kind.Settings.model_validate(self.config.own(section.own))
            self._connectors[name, pulling] = kind(name, settings, context)
        return self._connectors[name, pulling]

    def mapping(self, name: str) -> mappings.Mapping:
        """A connection's mapping: the shipped one, extended by the admin's own file, in the company of all others."""
        if not self._mappings:
            names = self.settings.connections
            self._mappings = mappings.together({each: mapping_of(self.config, each) for each in names})
        return self._mappings[name]

    async def close(self) -> None:
        if "dkim" in self.__dict__:
            self.dkim.close()
        for connector in self._connectors.values():
            await connector.http.close()
        await self.bell.close()


def mapping_of(config: Config, name: str) -> mappings.Mapping:
    """A connection's mapping, offline."""
    section = config.settings.connections[name]
    documents = [mappings.shipped(section.connector, registry.module(section.connector))]
    if section.mapping:
        documents.append(load_document(config.base_dir / section.mapping))
    return mappings.build([d for d in documents if d is not None])


def catalog_of(settings: Settings, mapping: Callable[[str], mappings.Mapping]) -> Catalog:
    """What rules and templates may name. Fields are those of all mappings together."""
    fields, deal_fields = dict(Catalog().contact_fields), dict(Catalog().deal_fields)
    company_fields = dict(Catalog().company_fields)
    for name in settings.connections:
        fields.update(mapping(name).contact_fields)
        deal_fields.update(mapping(name).deal_fields)
        company_fields.update(mapping(name).company_fields)
    lists, messages, purposes = (
        frozenset(section) for section in (settings.lists, settings.messages, settings.purposes)
    )
    connections = frozenset(settings.connections)
    return Catalog(
        fields, lists, messages, purposes, connections=connections, deal_fields=deal_fields, company_fields=company_fields
    )  # fmt: skip


@asynccontextmanager
async def opened(
    config_file: Path,
    environ: Mapping[str, str],
    *,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Runtime]:
    """A hub ready to work. `environ` names the servers and keys, and holds what hub.yaml refers to."""
    config = load(config_file, environ)
    async with AsyncExitStack() as stack:
        keys, url = _keys(environ), environ["HUB_DATABASE_URL"]
        db = await stack.enter_async_context(Database(url, address_key=await _address_key(url, keys)))
        runtime = Runtime(
            config,
            db,
            clock or from_environment(),
            Bell(environ["HUB_REDIS_URL"]),
            keys,
            progress=progress,
        )
        stack.push_async_callback(runtime.close)
        async with db.transaction() as conn:
            await obligations.know(conn, runtime.told)
        yield runtime


async def _address_key(url: str, keys: list[bytes]) -> str | None:
    """Of a server that is away none: whoever asks it next says so."""
    try:
        return await asyncio.to_thread(address_key.ready, url, keys)
    except psycopg.OperationalError:
        async with Database(url):  # waits for it, or tells that it is not reached
            return await asyncio.to_thread(address_key.ready, url, keys)


def _keys(environ: Mapping[str, str]) -> list[bytes]:
    """Fernet keys: the first seals, all open; the last signs links, so that a new first key breaks no link in the post."""
    keys = [key.strip().encode() for key in environ.get("HUB_SECRET_KEY", "").split(",") if key.strip()]
    if not keys:
        raise SecretError("HUB_SECRET_KEY is not set", "set it to one or more Fernet keys, comma-separated")
    for number, key in enumerate(keys, 1):
        try:
            valid = len(base64.urlsafe_b64decode(key)) == 32
        except ValueError:
            valid = False
        if not valid:
            raise SecretError(
                f"key {number} in HUB_SECRET_KEY is no Fernet key", "use 32 bytes in URL-safe base64"
            )
    return keys
