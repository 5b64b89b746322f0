"""Acme's own tests are run where it is installed, not from here."""

collect_ignore = ["acme-crm"]
