"""SendGrid: events of a relay."""

from connectors.sendgrid.events import SendGridEvents

events = SendGridEvents

__all__ = ["SendGridEvents", "events"]
