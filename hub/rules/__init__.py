"""The language of list rules and funnel conditions: SQL conditions, checked, written as PostgreSQL."""

from hub.rules.catalog import Catalog
from hub.rules.language import Condition, Rule, parse, problems

__all__ = ["Catalog", "Condition", "Rule", "parse", "problems"]
