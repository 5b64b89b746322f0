"""The hub's own pages: templates that escape by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse

_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def page(
    name: str, status: int = 200, headers: Mapping[str, str] | None = None, /, **values: object
) -> HTMLResponse:
    """The template `name` of this folder, filled."""
    return HTMLResponse(_TEMPLATES.get_template(name).render(**values), status, headers)
