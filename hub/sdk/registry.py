"""Which connectors and relays are installed: the entry point group `hub.connectors`, found when first asked for.

An entry point names a module with `connector` (a `Connector` class) or `relay` (a `Relay` class). One that
cannot be loaded is reported by name and harms no other.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from hub.sdk.connector import Connector
from hub.sdk.relay import Relay

GROUP = "hub.connectors"
BUILT_IN = {name: f"connectors.{name}" for name in ("hubspot", "google_analytics", "smtp", "webhook")}


@cache
def _modules() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """(name -> module, name -> why it cannot be loaded)."""
    wanted = dict(BUILT_IN)
    wanted.update({point.name: point.value for point in entry_points(group=GROUP)})
    found: dict[str, ModuleType] = {}
    broken: dict[str, str] = {}
    for name, value in wanted.items():
        try:
            module = importlib.import_module(value)
        except (Exception, SystemExit) as error:
            # A stranger's plug-in may fail in any way; it is named, and the others go on.
            broken[name] = f"{type(error).__name__}: {error}"
            continue
        if not hasattr(module, "connector") and not hasattr(module, "relay"):
            broken[name] = f"{value} has neither `connector` nor `relay`"
            continue
        found[name] = module
    return found, broken


def connectors() -> dict[str, type[Connector[Any]]]:
    """name -> connector class."""
    return {name: module.connector for name, module in _modules()[0].items() if hasattr(module, "connector")}


def relays() -> dict[str, type[Relay]]:
    """name -> relay class."""
    return {name: module.relay for name, module in _modules()[0].items() if hasattr(module, "relay")}


def broken() -> dict[str, str]:
    """name -> why a plug-in cannot be loaded."""
    return dict(_modules()[1])


def module(name: str) -> ModuleType | None:
    """The module of an installed plug-in: a third party's mapping lies beside it."""
    return _modules()[0].get(name)
