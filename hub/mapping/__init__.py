"""The language of mappings: a vendor's fields in the hub's terms, and back."""

from hub.mapping.language import BadValue, Mapped, Mapping
from hub.mapping.reading import build, problems, shipped

__all__ = ["BadValue", "Mapped", "Mapping", "build", "problems", "shipped"]
