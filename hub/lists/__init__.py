"""Dynamic lists: rules evaluated in PostgreSQL, differences written, and why somebody is on one."""

from hub.lists.refresh import Refreshed, in_order, refresh_all, why

__all__ = ["Refreshed", "in_order", "refresh_all", "why"]
