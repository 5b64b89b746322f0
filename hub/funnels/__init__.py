"""Funnels: who enters, what happens step by step, and when a person leaves early."""

from hub.funnels.advance import Advanced, advance
from hub.funnels.definition import Definition, compiled

__all__ = ["Advanced", "Definition", "advance", "compiled"]
