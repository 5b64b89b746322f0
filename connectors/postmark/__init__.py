"""Postmark: events of a relay."""

from connectors.postmark.events import PostmarkEvents

events = PostmarkEvents

__all__ = ["PostmarkEvents", "events"]
