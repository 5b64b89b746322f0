"""Lists: rules evaluated in PostgreSQL, differences written, and why somebody is on one."""

from hub.lists.definition import compiled, in_order, told
from hub.lists.doubts import doubts
from hub.lists.preview import preview
from hub.lists.refresh import Refreshed, refresh_all
from hub.lists.why import why

__all__ = ["Refreshed", "compiled", "doubts", "in_order", "preview", "refresh_all", "told", "why"]
