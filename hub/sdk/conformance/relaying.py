"""The suite for relays: who takes one mail says what became of it, and a lost answer is never taken for a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from hub.errors import HubError
from hub.sdk.conformance.case import looks_secret, secrets_of
from hub.sdk.conformance.verdict import Checks, Grade, NotApplicable, NotGiven
from hub.sdk.conformance.watch import listening
from hub.sdk.relay import NotSent, Relay, RelaySession, RelaySettings, Reply, UnknownOutcome

FROM = "bounce+7f3a@mailyard.example"


class RelayCase:
    """A relay and the mail server to try it on. Every check makes a new case."""

    relay: ClassVar[type[Relay]]
    recipient: ClassVar[str] = "ann@example.com"
    refused_recipient: ClassVar[str] = "nobody@example.com"

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


@asynccontextmanager
async def session(case: RelayCase, settings: dict[str, Any] | None = None) -> AsyncIterator[RelaySession]:
    kind = case.relay
    relay = kind("conformance", kind.Settings.model_validate(settings or case.settings()))
    async with relay.session() as opened:
        yield opened


async def _sent(case: RelayCase, *, recipient: str = "", number: int = 1) -> Reply:
    async with session(case) as opened:
        return await opened.send(FROM, recipient or case.recipient, message(number))


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
        (arrived,) = world.received() or [b""]
        assert message().rstrip() in arrived, (
            "the message was altered on its way (dots, line ends or 8-bit bytes)"
        )


@checks("mail.refused", Grade.BRONZE)
async def refused(case: type[RelayCase]) -> None:
    """A refused recipient is a reply with the server's code and words, for good, and the session goes on."""
    with (world := case()).serve():
        async with session(world) as opened:
            reply = await opened.send(FROM, world.refused_recipient, message(1))
            assert not reply.accepted, f"a refused recipient is told as accepted: {reply}"
            assert 500 <= reply.code < 600, f"a recipient refused for good is told with the code {reply.code}"
            assert reply.stage == "rcpt", f"a refused recipient is told at the stage {reply.stage!r}"
            assert reply.text.strip(), "the server's words are lost"
            after = await opened.send(FROM, world.recipient, message(2))
            assert after.accepted, f"after a refusal the session takes no other mail: {after}"
        assert len(world.received()) == 1, f"{len(world.received())} mails arrived instead of one"


@checks("mail.temporary", Grade.BRONZE)
async def temporary(case: type[RelayCase]) -> None:
    """A recipient that is refused for now is a temporary reply, and can be offered again."""
    with (world := case()).serve():
        world.fault("temporary")
        async with session(world) as opened:
            reply = await opened.send(FROM, world.recipient, message())
            assert not reply.accepted, f"a refused recipient is told as accepted: {reply}"
            assert reply.temporary, f"a recipient refused for now is told with the code {reply.code}"
            again = await opened.send(FROM, world.recipient, message())
            assert again.accepted, f"offered again, it is not taken: {again}"


@checks("mail.dropped", Grade.BRONZE)
async def dropped(case: type[RelayCase]) -> None:
    """A connection that ends before the message raises NotSent: the hub may try elsewhere."""
    with (world := case()).serve():
        world.fault("drop")
        await _raises(world, NotSent, "the connection ended before the message")
        assert not world.received(), "the case's fault let a mail through"


@checks("mail.unknown", Grade.BRONZE)
async def unknown(case: type[RelayCase]) -> None:
    """An answer that is lost after the end of the message raises UnknownOutcome: the hub never sends it blindly again."""
    with (world := case()).serve():
        world.fault("lost")
        await _raises(world, UnknownOutcome, "the answer to the whole message was lost")
        arrived = len(world.received())
        assert arrived <= 1, f"the relay offered the message again by itself: it arrived {arrived} times"


@checks("mail.closing", Grade.SILVER)
async def closing(case: type[RelayCase]) -> None:
    """A server that closes the session (421) raises NotSent, and a new session works."""
    with (world := case()).serve():
        world.fault("closing")
        await _raises(world, NotSent, "the server closed the session with 421")
        reply = await _sent(world)
        assert reply.accepted, f"a new session takes no mail: {reply}"


async def _raises(world: RelayCase, kind: type[HubError], when: str) -> None:
    try:
        reply = await _sent(world)
    except (NotSent, UnknownOutcome) as error:
        told = f"{type(error).__name__}: {error}"
        assert isinstance(error, kind), f"{when}, and it is told as {told} instead of {kind.__name__}"
    else:
        raise AssertionError(f"{when}, and it is told as {reply} instead of {kind.__name__}")


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
    """Several mails go through one session, each arriving once."""
    with (world := case()).serve():
        async with session(world) as opened:
            for number in range(5):
                reply = await opened.send(FROM, world.recipient, message(number))
                assert reply.accepted, f"mail {number + 1} of a session is told as {reply}"
        subjects = Counter(
            line for mail in world.received() for line in mail.splitlines() if line.startswith(b"Subject:")
        )
        wanted = {f"Subject: conformance {number}".encode() for number in range(5)}
        assert set(subjects) == wanted, f"of five mails of a session, {len(set(subjects) & wanted)} arrived"
        assert max(subjects.values()) == 1, "a mail of a session arrived more than once"


@checks("session.many", Grade.GOLD)
async def many(case: type[RelayCase]) -> None:
    """Many sessions beside each other do not get in each other's way."""
    import asyncio

    with (world := case()).serve():
        replies = await asyncio.gather(*(_sent(world, number=n) for n in range(8)))
        wrong = [reply for reply in replies if not reply.accepted]
        assert not wrong, f"beside others, a mail is told as {wrong[0]}"
        assert len(world.received()) == 8, f"of eight sessions' mails {len(world.received())} arrived"


@checks("privacy.quiet", Grade.BRONZE)
async def quiet(case: type[RelayCase]) -> None:
    """No secret and no address stands in a log line, in what is printed, and no secret in an error's words."""
    with (world := case()).serve():
        secrets, words = secrets_of(world.relay.Settings, world.settings()), []
        with listening() as heard:
            for kind in ("", "temporary", "drop", "lost", "closing"):
                try:
                    if kind:
                        world.fault(kind)
                    words.append(repr(await _sent(world)))
                except (NotSent, UnknownOutcome) as error:
                    words += [str(error), repr(error)]
        said = str(heard)
        assert not any(s in said or s in "\n".join(words) for s in secrets), "a secret is told"
        named = [a for a in (world.recipient, FROM) if a in said]
        assert not named, f"an address is logged: {named[0] if named else ''}"
        if not secrets:
            raise NotApplicable("the case has no secret; nothing else was logged")
