"""What a relay is: something that takes finished messages, one recipient each, and answers for each.

A session is given a `Source` and pulls from it: so a fast relay is fed as fast as it takes, and what is not yet
offered stays with the hub. Every stage is told apart, for it decides what may happen next: before the end of a
message nothing was accepted; after it, until the answer, nobody knows.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from hub.errors import HubError

if TYPE_CHECKING:
    from hub.sdk.connector import Context

Pipelining = Literal["off", "envelope", "full"]
"""How much goes out before an answer: nothing, one envelope (MAIL, RCPT, DATA: RFC 2920), or an envelope right behind
the end of the message before it."""


class RelaySettings(BaseModel):
    """Base of a relay's own keys under `relays.<name>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(NamedTuple):
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
    """The relay cannot be used now and nothing was accepted: connect, TLS, login, or lost before the end of DATA.

    `login`: it refused who we are, and will again until somebody mends that.
    """

    def __init__(self, what: str, fix: str = "", where: str = "", *, login: bool = False) -> None:
        super().__init__(what, fix, where)
        self.login = login


class UnknownOutcome(HubError):
    """The connection was lost after the end of DATA and before the answer: the relay may have taken the message."""


class Offer(NamedTuple):
    """One finished message for one recipient. `content` has CRLF lines only; `id` and `note` are the giver's own.

    `plain` is the giver's word that the content was looked at in pieces and need not be again: all of it is ASCII, it has no
    NUL and no bare CR or LF, none of its lines begins with a dot, and it ends with CRLF.
    """

    id: int
    return_path: str
    recipient: str
    content: bytes
    plain: bool = False
    note: Any = None


class Source(Protocol):
    """Where a session takes messages from and tells their fate. The plain methods never wait.

    Each offer that was taken is told of exactly once: `answered`, `unsent` or `unknown`.
    """

    def next(self) -> Offer | None:
        """The next message, or None when there is none at the moment."""
        ...

    async def more(self) -> bool:
        """Wait until `next` may have something. False: there will be no more; the session ends."""
        ...

    def begun(self, offer: Offer) -> None:
        """The end of this message is written next: from here on its outcome is unknown until it is answered."""
        ...

    def answered(self, offer: Offer, reply: Reply) -> None:
        """The relay's final word on this message."""
        ...

    def unsent(self, offer: Offer, reason: str) -> None:
        """The session is over and nothing of this message was accepted: another session may have it."""
        ...

    def unknown(self, offer: Offer, reason: str) -> None:
        """The session is over and this message was begun: nobody knows whether it was accepted."""
        ...


class RelaySession:
    """One open, secured and authenticated session. Override `send`; override `run` where a relay can do better than
    one message after the other."""

    async def send(self, return_path: str, recipient: str, message: bytes) -> Reply:
        """Offer one message (CRLF lines). A refusal is a reply. Raises `NotSent` or `UnknownOutcome`: the session is over."""
        raise LookupError(f"{type(self).__name__} sends nothing")

    async def run(self, source: Source) -> None:
        """Offer all that `source` gives until it has no more. Raises `NotSent` when the session ends before that."""
        while True:
            while (offer := source.next()) is not None:
                await self._one(source, offer)
            if not await source.more():
                return

    async def _one(self, source: Source, offer: Offer) -> None:
        source.begun(offer)  # `send` does not say when the end of the message goes out
        try:
            reply = await self.send(offer.return_path, offer.recipient, offer.content)
        except UnknownOutcome as error:
            source.unknown(offer, error.what)
            raise NotSent(error.what) from None
        except NotSent as error:
            source.unsent(offer, error.what)
            raise
        source.answered(offer, reply)


class Relay(Protocol):
    """A configured relay. `session()` raises `NotSent` when it cannot be opened."""

    Settings: ClassVar[type[RelaySettings]]
    name: str
    pipelining: Pipelining | None
    """What was found to work; None until it is known. The hub remembers it between starts."""

    def __init__(self, name: str, settings: Any) -> None:
        """`settings` is an instance of the class's `Settings`."""

    def session(self) -> AbstractAsyncContextManager[RelaySession]: ...


@runtime_checkable
class Equipped(Protocol):
    """A relay that needs more than its settings, e.g. to get access tokens: it has this method beside `Relay`'s."""

    def equip(self, context: Context) -> None:
        """Called once, before the first session, with what connectors get: HTTP (`context.http.configured(...)`), the
        clock, and a token store in which this relay's names meet no other's."""
        ...


def made(kind: type[Relay], name: str, settings: RelaySettings, context: Context) -> Relay:
    """A relay as the hub makes it."""
    relay = kind(name, settings)
    if isinstance(relay, Equipped):
        relay.equip(context)
    return relay
