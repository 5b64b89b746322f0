"""Mailgun: events of a relay."""

from connectors.mailgun.events import MailgunEvents

events = MailgunEvents

__all__ = ["MailgunEvents", "events"]
