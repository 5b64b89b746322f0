"""Events of any relay, signed with a shared secret."""

from connectors.signed.events import SignedEvents

events = SignedEvents

__all__ = ["SignedEvents", "events"]
