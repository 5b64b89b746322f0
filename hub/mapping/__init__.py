"""The language of mappings: a vendor's fields in the hub's terms, and back."""

from hub.mapping.language import BadValue, Hint, Mapped, Mapping, Standing
from hub.mapping.precedence import conflicts, together
from hub.mapping.reading import build, problems, shipped

__all__ = [
    "BadValue",
    "Hint",
    "Mapped",
    "Mapping",
    "Standing",
    "build",
    "conflicts",
    "problems",
    "shipped",
    "together",
]
