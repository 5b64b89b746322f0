"""What a relay is: something that takes one finished message for one recipient and answers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from hub.errors import HubError


class RelaySettings(BaseModel):
    """Base of a relay's own keys under `relays.<name>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Reply:
    """A relay's last answer. `stage` is `mail`, `rcpt` or `data`; `code` the SMTP code, `enhanced` RFC 3463's or empty."""

    code: int
    text: str
    stage: str
    enhanced: str = ""

    @property
    def accepted(self) -> bool:
        return self.stage == "data" and 200 <= self.code < 300

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500


class NotSent(HubError):
    """The relay cannot be used now and nothing was accepted: connect, TLS, login, or lost before the end of DATA."""


class UnknownOutcome(HubError):
    """The connection was lost after the end of DATA and before the answer: the relay may have taken the message."""


class RelaySession(Protocol):
    """One open, secured and authenticated session."""

    async def send(self, return_path: str, recipient: str, message: bytes) -> Reply:
        """Offer one message (CRLF lines). Raises `NotSent` or `UnknownOutcome`."""
        ...


class Relay(Protocol):
    """A configured relay. `session()` raises `NotSent` when it cannot be opened."""

    Settings: ClassVar[type[RelaySettings]]
    name: str

    def __init__(self, name: str, settings: Any) -> None:
        """`settings` is an instance of the class's `Settings`."""

    def session(self) -> AbstractAsyncContextManager[RelaySession]: ...
