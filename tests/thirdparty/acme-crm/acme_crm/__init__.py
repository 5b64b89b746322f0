"""Acme CRM: contacts and deals in; results and fields out; signed webhooks."""

from acme_crm.connector import AcmeCrm

connector = AcmeCrm

__all__ = ["AcmeCrm", "connector"]
