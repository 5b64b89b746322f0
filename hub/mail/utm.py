"""UTM parameters: what web analytics reads of a link, so that a visit counts for the mail it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import TemplateError

from hub.config.settings import Send, Settings, Step, UtmSection, When
from hub.errors import ConfigError
from hub.mail import template

NAMES = ("source", "medium", "campaign", "term", "content")


class Utm:
    """The parameters of one message's links."""

    def __init__(self, parameters: Mapping[str, str], hosts: Iterable[str] | None) -> None:
        self.added = "&".join(f"utm_{name}={quote(value, safe='')}" for name, value in parameters.items())
        self._hosts = None if hosts is None else tuple(host.lower().lstrip(".") for host in hosts)

    def __call__(self, url: str) -> str:
        """The link with its parameters. One that has such of its own, or leads to other hosts, stays as it is."""
        if not (url[:8].lower().startswith(("http://", "https://")) and self._is_ours(url)):
            return url
        head, hash_, fragment = url.partition("#")
        path, _, query = head.partition("?")
        if any(part.lower().startswith("utm_") for part in query.replace(";", "&").split("&")):
            return url
        query = f"{query.rstrip('&')}&{self.added}" if query.strip("&") else self.added
        return f"{path}?{query}{hash_}{fragment}"

    def _is_ours(self, url: str) -> bool:
        try:
            host = (urlsplit(url).hostname or "").lower()
        except ValueError:
            return False
        if self._hosts is None:
            return bool(host)
        return any(host == ours or host.endswith(f".{ours}") for ours in self._hosts)


def of_message(settings: Settings, name: str) -> Utm | None:
    """The message's own keys over those of the whole hub.yaml; None where nothing is to be added.

    Raises ConfigError for a value that names what there is not.
    """
    section = settings.messages[name]
    if section.utm is False:
        return None
    found: dict[str, Any] = {}
    for each in (settings.utm, section.utm):
        assert isinstance(each, UtmSection)
        found |= {key: getattr(each, key) for key in each.model_fields_set}
    known = {"message": name, "purpose": section.purpose}
    if (funnel := _funnel(settings, name)) is not None:
        known["funnel"] = funnel
    parameters = {key: _filled(found[key], known, name) for key in NAMES if found.get(key)}
    parameters = {key: value for key, value in parameters.items() if value}
    return Utm(parameters, found.get("hosts")) if parameters else None


def _filled(source: str, known: Mapping[str, str], message: str) -> str:
    try:
        return template.compiled(source, html=False)(dict(known)).strip()
    except TemplateError as error:
        raise ConfigError(
            f"utm of message {message}: {error.message}",
            "a value may name message, purpose, and funnel where just one funnel sends the message",
        ) from None


def _funnel(settings: Settings, message: str) -> str | None:
    """The one funnel that sends the message."""
    found = [name for name, funnel in settings.funnels.items() if _sends(funnel.steps, message)]
    return found[0] if len(found) == 1 else None


def _sends(steps: Iterable[Step], message: str) -> bool:
    return any(
        (isinstance(step, Send) and step.send == message)
        or (isinstance(step, When) and (_sends(step.then, message) or _sends(step.else_, message)))
        for step in steps
    )
