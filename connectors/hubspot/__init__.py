"""HubSpot: contacts, companies, deals and lists in; results, consent and fields out; webhooks with signature v3."""

from connectors.hubspot.connector import HubSpot

connector = HubSpot

__all__ = ["HubSpot", "connector"]
