"""What a rule may name: the fields, lists, messages, purposes and segments that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.model import COMPANY_FIELDS, CONTACT_FIELDS, DEAL_FIELDS, HubField


@dataclass(frozen=True)
class Catalog:
    """`segments` and `connections` are None where they are not known (segments: offline): then any name passes."""

    contact_fields: Mapping[str, HubField] = field(default_factory=lambda: CONTACT_FIELDS)
    lists: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()
    segments: frozenset[str] | None = None
    connections: frozenset[str] | None = None
    deal_fields: Mapping[str, HubField] = field(default_factory=lambda: DEAL_FIELDS)
    company_fields: Mapping[str, HubField] = field(default_factory=lambda: COMPANY_FIELDS)
    parsed: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Rules by their text, so that a refresh need not parse them again."""

    @property
    def template_fields(self) -> frozenset[str]:
        """What templates may name of a contact: `city` stands for `contact.city`, `company.name` for itself."""
        return frozenset(self.contact_fields) | {f"company.{name}" for name in self.company_fields}
