"""hub.yaml: typed settings, secrets by reference, and every mistake with its place."""

from hub.config.loading import Config, load, read
from hub.config.settings import Settings

__all__ = ["Config", "Settings", "load", "read"]
