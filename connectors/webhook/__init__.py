"""Systems of one's own: they send contacts and deals by signed webhooks (Standard Webhooks), and nothing is read again."""

from connectors.webhook.connector import Webhook

connector = Webhook

__all__ = ["Webhook", "connector"]
