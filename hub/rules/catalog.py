"""What a rule may name: the fields, lists, messages, purposes and segments that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.model import CONTACT_FIELDS, HubField


@dataclass(frozen=True)
class Catalog:
    """`segments` is None where they are not known (offline): then any segment name passes."""

    contact_fields: Mapping[str, HubField] = field(default_factory=lambda: CONTACT_FIELDS)
    lists: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()
    segments: frozenset[str] | None = None
