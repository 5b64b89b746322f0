"""The language of list rules and funnel conditions: SQL conditions, checked, written as PostgreSQL."""

from hub.rules.catalog import Catalog
from hub.rules.language import parse, problems
from hub.rules.rule import Condition, Flip, Rule, excluding, imported, of_list

__all__ = ["Catalog", "Condition", "Flip", "Rule", "excluding", "imported", "of_list", "parse", "problems"]
