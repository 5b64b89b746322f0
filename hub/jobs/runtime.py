"""Everything a running hub holds: its configuration, database, connectors, mappings, composer and relays, wired once."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hub import mapping as mappings
from hub import rules
from hub.clock import Clock, from_environment
from hub.config import Config
from hub.config.settings import Settings
from hub.errors import ConfigError
from hub.jobs.wake import Bell
from hub.mail.compose import Composer
from hub.mail.relays import RelayPool
from hub.model import DEAL_FIELDS, HubField
from hub.results.plan import Target
from hub.sdk import registry
from hub.sdk.connector import Connector, Context
from hub.sdk.http import Http
from hub.signing import Signer
from hub.store.database import Database
from hub.store.quotas import PostgresQuota
from hub.store.tokens import PostgresTokens
from hub.sync.pull import Progress


@dataclass
class Runtime:
    """Built by `opened`; `connector` and `mapping` open a connection's parts when first asked for."""

    config: Config
    db: Database
    clock: Clock
    bell: Bell
    signer: Signer
    token_keys: list[bytes]
    progress: Progress | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}")
    _connectors: dict[str, Connector[Any]] = field(default_factory=dict)
    _mappings: dict[str, mappings.Mapping | None] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
