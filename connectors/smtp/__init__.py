"""Any SMTP relay."""

from connectors.smtp.relay import Smtp

relay = Smtp

__all__ = ["Smtp", "relay"]
