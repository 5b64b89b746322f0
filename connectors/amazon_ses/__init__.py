"""Amazon SES: events of a relay."""

from connectors.amazon_ses.events import SesEvents

events = SesEvents

__all__ = ["SesEvents", "events"]
