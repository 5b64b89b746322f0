"""Brevo: events of a relay."""

from connectors.brevo.events import BrevoEvents

events = BrevoEvents

__all__ = ["BrevoEvents", "events"]
