"""Mailyard: CRM contacts to dynamic lists to funnels to SMTP, and every result back to the CRM."""

__version__ = "0.1.0"
