"""The suite for relays: who takes one mail says what became of it, and a lost answer is never taken for a refusal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from hub.clock import SystemClock
from hub.sdk.conformance.case import looks_secret, secrets_of
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable, NotGiven
from hub.sdk.conformance.watch import listening
from hub.sdk.connector import Context
from hub.sdk.http import Http
from hub.sdk.oauth import MemoryTokens
from hub.sdk.relay import NotSent, Offer, Relay, RelaySession, RelaySettings, Reply, made

FROM = "bounce+7f3a@mailyard.example"


class RelayCase:
    """A relay and the mail server to try it on. Every check makes a new case."""

    relay: ClassVar[type[Relay]]
    recipient: ClassVar[str] = "ann@example.com"
    refused_recipient: ClassVar[str] = "nobody@example.com"
    stand_in_loggers: ClassVar[tuple[str, ...]] = ()
    """Loggers of the mail server, which may live in the same process; what they say is not held against the relay."""

    @cached_property
    def tokens(self) -> MemoryTokens:
        """Where the relay keeps tokens, for the time of a check."""
        return MemoryTokens()

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve the mail server for the time of a check."""
        raise NotGiven("override serve()")
        yield

    def settings(self) -> dict[str, Any]:
        """The relay's own keys as in hub.yaml, secrets filled in."""
        raise NotGiven("override settings()")

    def wrong_login(self) -> dict[str, Any]:
        """The same with a password that the server refuses."""
        raise NotGiven("override wrong_login()")

    def closed(self) -> dict[str, Any]:
        """The same for a place where nobody listens."""
        return {**self.settings(), "host": "127.0.0.1", "port": 9}

    def fault(self, kind: str) -> None:
        """What befalls the next mail: `temporary` (its recipient is refused for now), `drop` (the connection ends before
        the message), `lost` (it ends after the whole message was taken, before the answer), `closing` (421)."""
        raise NotGiven(f"override fault({kind!r})")

    def received(self) -> Collection[bytes]:
        """The messages that the server has taken, as they arrived."""
        raise NotGiven("override received()")


def message(number: int = 1, recipient: str = "ann@example.com") -> bytes:
    """A message with what breaks careless senders: lines of dots, bytes beyond ASCII, a long line, no end of line missing."""
    lines = [
        "From: Mailyard <news@mailyard.example>",
        f"To: {recipient}",
        f"Subject: conformance {number}",
        f"Message-ID: <conformance-{number}@mailyard.example>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        ".",
        "..two dots, and then a line of one",
        ".",
        "Grüße aus Wien",
        "x" * 900,
        "the end",
        "",
    ]
    return "\r\n".join(lines).encode()


checks: Checks[RelayCase] = Checks()


class Mailbag:
    """A `hub.sdk.relay.Source` with these recipients' messages, which writes down what became of each."""

    def __init__(self, recipients: Sequence[str]) -> None:
        self.offers = [Offer(n, FROM, to, message(n, to)) for n, to in enumerate(recipients, 1)]
        self.taken = 0
        self.fates: dict[int, tuple[str, Reply | str]] = {}

    def next(self) -> Offer | None:
        if self.taken == len(self.offers):
            return None
        self.taken += 1
        return self.offers[self.taken - 1]

    async def more(self) -> bool:
        return self.taken < len(self.offers)

    def begun(self, offer: Offer) -> None:
        """Only the hub's ledger needs it."""

    def answered(self, offer: Offer, reply: Reply) -> None:
        self._tell(offer, "answered", reply)

    def unsent(self, offer: Offer, reason: str) -> None:
        self._tell(offer, "unsent", reason)

    def unknown(self, offer: Offer, reason: str) -> None:
        self._tell(offer, "unknown", reason)

    def _tell(self, offer: Offer, fate: str, words: Reply | str) -> None:
        before = self.fates.get(offer.id)
        assert before is None, f"mail {offer.id} is told of twice: {before}, then {fate} ({words})"
        self.fates[offer.id] = (fate, words)

    def all_told(self) -> None:
        silent = [offer.id for offer in self.offers[: self.taken] if offer.id not in self.fates]
        assert not silent, f"of {self.taken} mails that were taken, {len(silent)} are never told of: {silent}"

    def reply(self, number: int = 1) -> Reply:
        """The relay's reply to a mail; AssertionError where it is none."""
        fate, words = self.fates[number]
        assert isinstance(words, Reply), f"mail {number} is told as {fate} ({words}); the server answered it"
        return words


@asynccontextmanager
async def session(case: RelayCase, settings: dict[str, Any] | None = None) -> AsyncIterator[RelaySession]:
    kind = case.relay
    own = kind.Settings.model_validate(settings or case.settings())
    relay = made(kind, "conformance", own, Context(Http(account="conformance"), SystemClock(), case.tokens))
    async with relay.session() as opened:
        yield opened


async def _offered(case: RelayCase, *recipients: str) -> tuple[Mailbag, NotSent | None]:
    """Offer mails in one session, as the hub does; (what became of each, why the session ended early)."""
    bag, ended = Mailbag(recipients or [case.recipient]), None
    try:
        async with session(case) as opened:
            await opened.run(bag)
    except NotSent as error:
        ended = error
    bag.all_told()
    return bag, ended


async def _sent(case: RelayCase) -> Reply:
    """One mail that nothing should hinder."""
    bag, ended = await _offered(case)
    assert bag.fates, f"the session ended before a mail was offered: {ended}"
    return bag.reply()


@checks("settings.strict", Grade.BRONZE)
async def strict(case: type[RelayCase]) -> None:
    """The settings take what the case gives and refuse a key that they do not know."""
    model: type[BaseModel] = case.relay.Settings
    assert issubclass(model, RelaySettings), "Settings must descend from hub.sdk.relay.RelaySettings"
    with (world := case()).serve():
        given = world.settings()
    model.model_validate(given)
    try:
        model.model_validate({**given, "a_key_that_nobody_knows": 1})
    except ValidationError:
        return
    raise AssertionError("an unknown key is taken: keep RelaySettings' extra='forbid'")


@checks("settings.secret", Grade.BRONZE)
async def secret(case: type[RelayCase]) -> None:
    """No secret is shown by the settings, as text or as JSON, nor by the relay."""
    with (world := case()).serve():
        given = world.settings()
    settings = case.relay.Settings.model_validate(given)
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {case.relay('conformance', settings)!r}"
    wrong = [s for s in secrets_of(case.relay.Settings, given) if s in shown]
    named = [key for key in given if looks_secret(key) and str(given[key]) in shown]
    assert not wrong and not named, (
        f"a secret is shown, of {', '.join(named) or 'the settings'}: use SecretStr"
    )


@checks("mail.accepted", Grade.BRONZE)
async def accepted(case: type[RelayCase]) -> None:
    """A mail that the server takes is said to be accepted, and has arrived."""
    with (world := case()).serve():
        reply = await _sent(world)
        assert reply.accepted, f"a mail that the server took is told as {reply}"
        assert len(world.received()) == 1, f"{len(world.received())} mails arrived instead of one"


@checks("mail.intact", Grade.SILVER)
async def intact(case: type[RelayCase]) -> None:
    """A message arrives byte by byte as it was given: lines of dots, bytes beyond ASCII, long lines."""
    with (world := case()).serve():
        await _sent(world)
        arrived = b"".join(world.received())
        wanted = message(1, world.recipient).rstrip()
        assert wanted in arrived, "the message was altered on its way (dots, line ends or 8-bit bytes)"


@checks("mail.refused", Grade.BRONZE)
async def refused(case: type[RelayCase]) -> None:
    """A refused recipient is a reply with the server's code and words, for good, and the session goes on."""
    with (world := case()).serve():
        bag, ended = await _offered(world, world.refused_recipient, world.recipient)
        assert ended is None, f"a refused recipient ends the session: {ended}"
        reply = bag.reply(1)
        assert not reply.accepted, f"a refused recipient is told as accepted: {reply}"
        assert 500 <= reply.code < 600, f"a recipient refused for good is told with the code {reply.code}"
        assert reply.stage == "rcpt", f"a refused recipient is told at the stage {reply.stage!r}"
        assert reply.text.strip(), "the server's words are lost"
        assert bag.reply(2).accepted, f"after a refusal the session takes no other mail: {bag.reply(2)}"
        assert len(world.received()) == 1, f"{len(world.received())} mails arrived instead of one"


@checks("mail.temporary", Grade.BRONZE)
async def temporary(case: type[RelayCase]) -> None:
    """A recipient that is refused for now is a temporary reply, and can be offered again."""
    with (world := case()).serve():
        world.fault("temporary")
        bag, ended = await _offered(world, world.recipient, world.recipient)
        assert ended is None, f"a temporary refusal ends the session: {ended}"
        assert not bag.reply(1).accepted, f"a refused recipient is told as accepted: {bag.reply(1)}"
        assert bag.reply(1).temporary, (
            f"a recipient refused for now is told with the code {bag.reply(1).code}"
        )
        assert bag.reply(2).accepted, f"offered again, it is not taken: {bag.reply(2)}"


@checks("mail.dropped", Grade.BRONZE)
async def dropped(case: type[RelayCase]) -> None:
    """A connection that ends before the message means not sent: the hub may try elsewhere."""
    with (world := case()).serve():
        world.fault("drop")
        await _ends(world, "unsent", "the connection ended before the message")
        assert not world.received(), "the case's fault let a mail through"


@checks("mail.unknown", Grade.BRONZE)
async def unknown(case: type[RelayCase]) -> None:
    """An answer that is lost after the end of the message means unknown: the hub never sends it blindly again."""
    with (world := case()).serve():
        world.fault("lost")
        await _ends(world, "unknown", "the answer to the whole message was lost")
        arrived = len(world.received())
        assert arrived <= 1, f"the relay offered the message again by itself: it arrived {arrived} times"


@checks("mail.closing", Grade.SILVER)
async def closing(case: type[RelayCase]) -> None:
    """A server that closes the session (421) before the message means not sent, and a new session works."""
    with (world := case()).serve():
        world.fault("closing")
        await _ends(world, "unsent", "the server closed the session with 421")
        reply = await _sent(world)
        assert reply.accepted, f"a new session takes no mail: {reply}"


async def _ends(world: RelayCase, wanted: str, when: str) -> None:
    bag, ended = await _offered(world)
    fate, words = bag.fates.get(1, ("unsent", str(ended)))
    assert fate == wanted, f"{when}, and the mail is told as {fate} ({words}) instead of {wanted}"
    assert ended is not None, f"{when}, and run() does not raise NotSent"


@checks("login.refused", Grade.SILVER)
async def login(case: type[RelayCase]) -> None:
    """A refused login raises NotSent with what to do, and its words hold no secret."""
    with (world := case()).serve():
        await _not_opened(world, world.wrong_login(), "a wrong password")


@checks("connect.refused", Grade.SILVER)
async def unreachable(case: type[RelayCase]) -> None:
    """A server that is not there raises NotSent with what to do, and its words hold no secret."""
    with (world := case()).serve():
        await _not_opened(world, world.closed(), "nobody listens")


async def _not_opened(world: RelayCase, settings: dict[str, Any], when: str) -> None:
    try:
        async with session(world, settings):
            pass
    except NotSent as error:
        secrets = secrets_of(world.relay.Settings, settings)
        assert not any(s in f"{error} {error!r}" for s in secrets), f"{when}: the error's words hold a secret"
        assert error.fix.strip(), f"{when}: the error proposes no fix: {error}"
    else:
        raise AssertionError(f"{when}, and a session opens")


@checks("session.several", Grade.SILVER)
async def several(case: type[RelayCase]) -> None:
    """Many mails go through one session, each answered for itself and arriving once, a refused one among them."""
    with (world := case()).serve():
        recipients = [world.recipient] * 5 + [world.refused_recipient] + [world.recipient] * 5
        bag, ended = await _offered(world, *recipients)
        assert ended is None, f"the session ends early: {ended}"
        wrong = [n for n, to in enumerate(recipients, 1) if bag.reply(n).accepted != (to == world.recipient)]
        assert not wrong, (
            f"mail {wrong and wrong[0]} of a session is told as {bag.reply(wrong[0])}" if wrong else ""
        )
        arrived = Counter(
            line for mail in world.received() for line in mail.splitlines() if line.startswith(b"Subject:")
        )
        wanted = {
            f"Subject: conformance {n}".encode()
            for n, to in enumerate(recipients, 1)
            if to == world.recipient
        }
        assert set(arrived) == wanted, f"of ten mails of a session, {len(set(arrived) & wanted)} arrived"
        assert max(arrived.values()) == 1, "a mail of a session arrived more than once"


@checks("session.many", Grade.GOLD)
async def many(case: type[RelayCase]) -> None:
    """Many sessions beside each other do not get in each other's way."""
    with (world := case()).serve():
        replies = await asyncio.gather(*(_sent(world) for _ in range(8)))
        wrong = [reply for reply in replies if not reply.accepted]
        assert not wrong, f"beside others, a mail is told as {wrong[:1]}"
        assert len(world.received()) == 8, f"of eight sessions' mails {len(world.received())} arrived"


@checks("privacy.quiet", Grade.BRONZE)
async def quiet(case: type[RelayCase]) -> None:
    """No secret and no address stands in a log line, in what is printed, and no secret in an error's words."""
    with (world := case()).serve():
        secrets, words = secrets_of(world.relay.Settings, world.settings()), []
        with listening(case.stand_in_loggers) as heard:
            for kind in ("", "temporary", "drop", "lost", "closing"):
                if kind:
                    world.fault(kind)
                bag, ended = await _offered(world)
                words += [repr(bag.fates), str(ended), repr(ended)]
        said = str(heard)
        assert not any(s in said or s in "\n".join(words) for s in secrets), "a secret is told"
        named = [a for a in (world.recipient, FROM) if a in said]
        assert not named, f"an address is logged: {named[:1]}"
        if not secrets:
            raise NotApplicable("the case has no secret; nothing else was logged")
