"""The bulk transaction against a server that answers what a test tells it to: every stage, every disorder, every end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from connectors.smtp.learning import CLEAN
from hub.sdk.relay import NotSent, Offer, Reply, UnknownOutcome
from tests.connectors.smtp.case import (
    LEVELS,
    LOOPS,
    SENDER,
    Book,
    Server,
    offers,
    relay,
    run,
    sent,
    serving,
)


async def talk(server: Server, book: Book, **settings: Any) -> NotSent | None:
    async with serving(server):
        return await sent(relay(server, **settings), book)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what arrives ---------------------------------------------------------------------------------------------------


def test_what_is_given_arrives_byte_for_byte(loop: str, level: str) -> None:
    bodies = [
        b".\r\n", b"..\r\n.\r\n\r\n.", b"no end of line", b"", b"\r\n", b".x\r\n..y\r\n", b"x\r\n.\r\n" * 3, "Grüße\r\n".encode(),
    ]  # fmt: skip
    server = Server()
    book = Book([Offer(n, SENDER, f"p{n}@x.example", body) for n, body in enumerate(bodies)])
    assert run(loop, talk(server, book, pipelining=level)) is None
    assert book.told == ["250"] * len(bodies)
    assert server.contents == [b if b.endswith(b"\r\n") else b + b"\r\n" for b in bodies]
    assert not server.strange
    assert server.commands[-1] == "QUIT"


@pytest.mark.parametrize(
    ("level", "packets"), [("off", 4 * 30 + 1), ("envelope", 2 * 30 + 1), ("full", 30 + 2)]
)
def test_how_often_one_waits_for_an_answer(loop: str, level: str, packets: int) -> None:
    server, book = Server(), Book(offers(30))
    assert run(loop, talk(server, book, pipelining=level)) is None
    assert book.told == ["250"] * 30
    assert server.packets == packets


def test_mails_larger_than_every_buffer(loop: str, level: str) -> None:
    server = Server(ehlo=("PIPELINING",))
    line = b"x" * 97 + b".\r\n"
    book = Book([Offer(n, SENDER, f"p{n}@x.example", b"%d\r\n" % n + line * 30_000) for n in range(4)])
    assert run(loop, talk(server, book, pipelining=level)) is None
    assert server.contents == [b"%d\r\n" % n + line * 30_000 for n in range(4)]


def test_what_the_envelope_says(loop: str, level: str) -> None:
    server = Server()
    book = Book(
        [
            Offer(0, SENDER, "p0@x.example", b"abc"),
            Offer(1, "", "p1@x.example", "ü\r\n".encode()),
            Offer(2, SENDER, "käthe@exämple.example", b"x\r\n"),
        ]
    )
    assert run(loop, talk(server, book, pipelining=level)) is None
    assert [c for c in server.commands if c[:4] in ("MAIL", "RCPT")] == [
        f"MAIL FROM:<{SENDER}> SIZE=5",
        "RCPT TO:<p0@x.example>",
        "MAIL FROM:<> SIZE=4 BODY=8BITMIME",
        "RCPT TO:<p1@x.example>",
        f"MAIL FROM:<{SENDER}> SIZE=3 SMTPUTF8",
        "RCPT TO:<käthe@exämple.example>",
    ]


# -- what is refused here -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "fate", "status"),
    [
        ((SENDER, "a@x.example", b"a\nb\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\rb\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\r\n\r"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\r\n.\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\n\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\n\r.\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\r\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example", b"a\0b\r\n"), "554 data", "5.6.0"),
        ((SENDER, "a@x.example>\r\nDATA", b"x\r\n"), "553 rcpt", "5.1.3"),
        ((SENDER, "a@x.example\n", b"x\r\n"), "553 rcpt", "5.1.3"),
        ((SENDER, "a b@x.example", b"x\r\n"), "553 rcpt", "5.1.3"),
        ((SENDER, "<a@x.example", b"x\r\n"), "553 rcpt", "5.1.3"),
        ((SENDER, "a\ud800@x.example", b"x\r\n"), "553 rcpt", "5.1.3"),
        ((SENDER, "", b"x\r\n"), "553 rcpt", "5.1.3"),
        (("s@x.example> SIZE=1", "a@x.example", b"x\r\n"), "553 mail", "5.1.7"),
        ((SENDER, "a@x.example", b"x" * 100_000 + b"\r\n"), "552 mail", "5.3.4"),
    ],
)  # fmt: skip
def test_what_may_not_leave_is_refused_here_and_the_others_go(
    level: str, offer: tuple[str, str, bytes], fate: str, status: str
) -> None:
    server, first, last = Server(), *offers(2)
    book = Book([first, Offer(7, *offer), last])
    assert run("uvloop", talk(server, book, pipelining=level)) is None
    assert book.told == ["250", fate, "250"]
    assert book.replies[7].enhanced == status
    assert not book.replies[7].temporary
    assert server.asked["mail"] == 2
    book.agrees_with(server)


@pytest.mark.parametrize(
    ("offer", "code", "status"),
    [
        ((SENDER, "a@x.example", "ü\r\n".encode()), 554, "5.6.3"),
        ((SENDER, "ü@x.example", b"x\r\n"), 553, "5.6.7"),
        (("ü@x.example", "a@x.example", b"x\r\n"), 553, "5.6.7"),
    ],
)
def test_what_the_relay_does_not_offer_is_not_asked_of_it(
    offer: tuple[str, str, bytes], code: int, status: str
) -> None:
    server, book = Server(ehlo=("PIPELINING",)), Book([Offer(0, *offer)])
    assert run("uvloop", talk(server, book)) is None
    assert (book.replies[0].code, book.replies[0].enhanced) == (code, status)
    assert server.asked["mail"] == 0


# -- what the relay refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "end"])
@pytest.mark.parametrize("code", [450, 550])
@pytest.mark.parametrize("which", [(0,), (1,), (1, 2), (2,), (0, 1, 2)])
def test_a_refusal_is_an_answer_and_the_others_go(
    level: str, stage: str, code: int, which: tuple[int, ...]
) -> None:
    text = f"{code} {code // 100}.2.1 because\r\n".encode()
    server, book = Server(script={(stage, n): text for n in which}), Book(offers(3))
    assert run("uvloop", talk(server, book, pipelining=level)) is None
    kept = str(code) if stage == "end" else f"{code} {stage}"
    assert book.told == [kept if n in which else "250" for n in range(3)]
    for n in which:
        wanted = Reply(
            code, f"{code // 100}.2.1 because", "data" if stage == "end" else stage, f"{code // 100}.2.1"
        )
        assert book.replies[n] == wanted
    book.agrees_with(server)


@pytest.mark.parametrize("after", [b"554 5.5.1 nobody\r\n", b"250 2.0.0 ok\r\n", b"450 4.0.0 later\r\n"])
@pytest.mark.parametrize("level", ["envelope", "full"])
def test_a_server_that_wants_the_mail_of_a_refused_recipient_gets_a_lone_dot(
    loop: str, level: str, after: bytes
) -> None:
    server = Server(
        script={("rcpt", 1): b"550 5.1.1 no\r\n", ("data", 1): b"354 go on\r\n", ("end", 1): after}
    )
    book = Book(offers(3))
    assert run(loop, talk(server, book, pipelining=level)) is None
    assert book.told == ["250", "550 rcpt", "250"]
    assert [c[:4] for c in server.contents] == [c for c in (b"N: 0", b"", b"N: 2") if c or after[:1] == b"2"]
    book.agrees_with(server)


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_421_before_the_mail_ends_the_session_and_nothing_of_it_was_accepted(
    loop: str, level: str, stage: str
) -> None:
    server = Server(script={(stage, 1): b"421 4.3.2 closing <ann@x.example>\r\n"})
    book = Book(offers(3))
    error = run(loop, talk(server, book, pipelining=level))
    assert book.told == ["250", "unsent"]
    assert str(error) == "relay main: the relay closes the session: 4.3.2 closing"
    book.agrees_with(server)


def test_421_at_the_end_of_the_mail_is_an_answer(loop: str, level: str) -> None:
    server, book = Server(script={("end", 1): b"421 4.3.2 full\r\n"}), Book(offers(3))
    assert run(loop, talk(server, book, pipelining=level)) is not None
    assert book.told == ["250", "421"] + ["unsent"] * (level == "full")
    assert book.replies[1].temporary


def test_a_refusal_stands_though_the_session_ends_with_it(loop: str) -> None:
    script = {("rcpt", 0): b"550 5.1.1 no\r\n", ("data", 0): b"421 4.7.0 too many unknown users\r\n"}
    server, book = Server(script=dict(script)), Book(offers(2))
    assert run(loop, talk(server, book, pipelining="envelope")) is not None
    assert book.told == ["550 rcpt"]


# -- out of step ----------------------------------------------------------------------------------------------------

DISORDERS: dict[str, tuple[tuple[str, int], bytes]] = {
    "two answers to MAIL": (("mail", 1), b"250 ok\r\n250 ok\r\n"),
    "two answers to RCPT": (("rcpt", 1), b"250 ok\r\n250 ok\r\n"),
    "250 in place of 354": (("data", 1), b"250 ok\r\n"),
    "354 and more": (("data", 1), b"354 go on\r\n250 ok\r\n"),
    "354 and a part": (("data", 1), b"354 go on\r\n25"),
    "354 in answer to MAIL": (("mail", 1), b"354 go on\r\n"),
    "354 in answer to RCPT": (("rcpt", 1), b"354 go on\r\n"),
    "354 in answer to the mail": (("end", 1), b"354 go on\r\n"),
    "221 in answer to the mail": (("end", 1), b"221 2.0.0 bye\r\n"),
    "two answers to the mail": (("end", 1), b"250 ok\r\n250 ok\r\n"),
    "words": (("rcpt", 1), b"hello\r\n"),
    "no code": (("end", 1), b"25 ok\r\n"),
    "code 999": (("end", 1), b"999 ok\r\n"),
    "no mark": (("end", 1), b"250_ok\r\n"),
    "a long line": (("end", 1), b"250 " + b"x" * 9_000 + b"\r\n"),
    "a line without an end": (("end", 1), b"250 " + b"x" * 9_000),
    "lines without an end": (("end", 1), b"250-ok\r\n" * 70),
    "two codes in a reply": (("end", 1), b"250-ok\r\n550 no\r\n"),
    "two codes in a refusal": (("rcpt", 1), b"550-no\r\n250 ok\r\n"),
    "RSET refused": (("rset", 0), b"502 what\r\n"),
    "a refusal of pipelining": (("rcpt", 1), b"503 5.5.0 improper use of command pipelining\r\n"),
    "a refusal of order": (("mail", 1), b"554 SMTP synchronization error\r\n"),
    "no recipients, after one": (("data", 1), b"503 5.5.1 need RCPT\r\n"),
}  # fmt: skip
UNKNOWN = {name for name, ((stage, _), _) in DISORDERS.items() if stage == "end"} - {
    "two answers to the mail"
}
LEGAL_WHEN_OFF = {"a refusal of pipelining", "a refusal of order", "no recipients, after one"}


@pytest.mark.parametrize("disorder", DISORDERS)
def test_out_of_step(loop: str, level: str, disorder: str) -> None:
    place, words = DISORDERS[disorder]
    script: dict[tuple[str, int], bytes | None] = {place: words}
    if disorder == "RSET refused":
        script["rcpt", 0] = b"550 5.1.1 no\r\n"
    if disorder == "354 and a part":
        script["data", 1] = words
    server, book = Server(script=script), Book(offers(4))

    async def go() -> tuple[NotSent | None, str | None]:
        async with serving(server):
            smtp = relay(server, pipelining=level, timeout_seconds=0.3)
            return await sent(smtp, book), smtp.pipelining

    error, found = run(loop, go())
    if level == "off" and disorder in LEGAL_WHEN_OFF:
        assert error is None
        return
    assert error is not None
    book.agrees_with(server)
    fates = set(book.told)
    if disorder in UNKNOWN:
        assert book.told[1] == "unknown"
    else:
        assert "unknown" not in fates
    if disorder != "354 and a part":  # silence: one cannot know why
        assert found == {"off": None, "envelope": "off", "full": "envelope"}[level]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_an_answer_that_is_left_out_condemns_nobody(loop: str, level: str, stage: str) -> None:
    """The answers behind it are then taken for those before them; a refusal among them is nobody's."""
    server, book = Server(script={(stage, 1): b""}), Book(offers(3))
    assert run(loop, talk(server, book, pipelining=level, timeout_seconds=0.2)) is not None
    assert book.told[:2] == ["250", "unsent"]
    book.agrees_with(server)


def test_a_relay_that_loses_step_is_asked_less_until_it_does_not(loop: str) -> None:
    """It answers each DATA with one reply too many whenever it reads more than one command at once."""

    async def go() -> None:
        server = Server(script={("data", n): b"250 ok\r\n354 go on\r\n" for n in (1, 2)})
        smtp_levels, book = [], Book(offers(6))
        async with serving(server):
            smtp = relay(server, pipelining="full")
            for _ in range(3):
                await sent(smtp, book)
                smtp_levels.append(smtp.pipelining)
        assert smtp_levels == ["envelope", "off", "off"]
        assert book.told == ["250", "unsent", "unsent", "250", "250", "250"]
        book.agrees_with(server)

    run(loop, go())


def test_words_that_nobody_asked_for_end_an_idle_session(loop: str) -> None:
    async def go(words: bytes) -> tuple[str, list[str], str | None]:
        server, book = Server(), Book(offers(2), held=True)
        async with serving(server):
            smtp = relay(server, pipelining="envelope")
            task = asyncio.ensure_future(sent(smtp, book))
            while len(book.fates) < 2:
                await asyncio.sleep(0.001)
            server.peers[0].transport.write(words)
            if not words:
                server.peers[0].transport.close()
            error = await task
        assert error is not None
        return error.what, book.told, smtp.pipelining

    assert run(loop, go(b"421 4.4.2 idle\r\n")) == (
        "relay main: the relay closes the session: 4.4.2 idle", ["250", "250"], None
    )  # fmt: skip
    assert run(loop, go(b"250 ok\r\n")) == (
        "relay main: out of step: 250 in answer to nothing", ["250", "250"], "off"
    )  # fmt: skip
    assert run(loop, go(b"")) == ("relay main: connection lost", ["250", "250"], None)


# -- learning -------------------------------------------------------------------------------------------------------


def test_full_is_tried_after_clean_messages_and_remembered_when_it_went_well(loop: str) -> None:
    server, book = Server(), Book(offers(2 * CLEAN + 10))

    async def go() -> list[str | None]:
        async with serving(server):
            smtp = relay(server)
            found: list[str | None] = [smtp.pipelining]
            assert await sent(smtp, book) is None
            found.append(smtp.pipelining)
            before = server.packets
            assert await sent(smtp, Book(offers(10))) is None
            assert server.packets - before == 12
            return found

    assert run(loop, go()) == [None, "full"]
    assert server.asked["end"] == 2 * CLEAN + 20


def test_what_fails_while_it_is_tried_is_never_tried_again(loop: str) -> None:
    script: dict[tuple[str, int], bytes | None] = {("mail", CLEAN + 2): None}
    server, book = Server(script=script), Book(offers(100))

    async def go() -> None:
        async with serving(server):
            smtp = relay(server, timeout_seconds=0.3)
            assert await sent(smtp, book) is not None
            assert smtp.pipelining == "envelope"
            server.silent, packets, rest = False, server.packets, Book(book.waiting)
            assert await sent(smtp, rest) is None
            assert server.packets - packets == 2 * len(rest.taken) + 1

    run(loop, go())
    assert Counter(book.told) == {"250": CLEAN + 2, "unsent": 1}


def test_only_one_session_tries_at_a_time(loop: str) -> None:
    async def go() -> None:
        server = Server()
        async with serving(server):
            smtp = relay(server)
            first, second = Book(offers(CLEAN), held=True), Book(offers(CLEAN), held=True)
            tasks = [asyncio.ensure_future(sent(smtp, b)) for b in (first, second)]
            while len(first.fates) + len(second.fates) < 2 * CLEAN:
                await asyncio.sleep(0.001)
            assert smtp.learning.tried_by is not None
            packets = server.packets
            for book in (first, second):
                book.add(offers(10), last=True)
                book.fates.clear()
                book.started.clear()
                book.taken.clear()
            await asyncio.gather(*tasks)
            assert server.packets - packets == (10 + 2) + (20 + 1)
            assert (smtp.pipelining, smtp.learning.tried_by) == (None, None)

    run(loop, go())


@pytest.mark.parametrize("found", ["off", "envelope", "full"])
def test_what_was_found_can_be_forgotten_while_mails_go(loop: str, found: Any) -> None:
    async def go() -> None:
        server, book = Server(), Book(offers(10), held=True)
        async with serving(server):
            smtp = relay(server)
            smtp.pipelining = found
            async with smtp.session() as session:
                task = asyncio.ensure_future(session.run(book))
                while len(book.fates) < 5:
                    await asyncio.sleep(0)
                assert session.wire.level == found
                smtp.pipelining = None
                while len(book.fates) < 10:
                    await asyncio.sleep(0.001)
                assert session.wire.level == "envelope"
                book.add(offers(2 * CLEAN + 20)[10:], last=True)
                await task
        assert smtp.pipelining == "full"
        assert set(book.told) == {"250"}
        book.agrees_with(server)

    run(loop, go())


@pytest.mark.parametrize(
    ("wish", "remembered", "offered", "begins"),
    [
        ("auto", None, True, "envelope"),
        ("auto", None, False, "off"),
        ("auto", "full", True, "full"),
        ("auto", "off", True, "off"),
        ("full", None, True, "full"),
        ("full", "envelope", True, "envelope"),
        ("full", None, False, "off"),
        ("off", "full", True, "off"),
    ],
)
def test_what_a_session_begins_with(wish: str, remembered: Any, offered: bool, begins: str) -> None:
    async def go() -> str:
        server = Server(ehlo=("PIPELINING",) if offered else ())
        async with serving(server):
            smtp = relay(server, pipelining=wish)
            smtp.pipelining = remembered
            async with smtp.session() as session:
                return session.wire.level

    assert run("asyncio", go()) == begins


# -- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "end"])
def test_silence_ends_a_session(loop: str, level: str, stage: str) -> None:
    server, book = Server(script={(stage, 1): None}), Book(offers(3))
    error = run(loop, talk(server, book, pipelining=level, timeout_seconds=0.2))
    assert error is not None
    assert "within 0.2 s" in error.what
    assert book.told[:2] == ["250", "unknown" if stage == "end" else "unsent"]
    book.agrees_with(server)


@pytest.mark.parametrize("stage", ["rcpt", "end"])
def test_a_session_that_is_cancelled_tells_the_fates(loop: str, level: str, stage: str) -> None:
    async def go() -> Book:
        server, book = Server(script={(stage, 1): None}), Book(offers(3))
        async with serving(server):
            task = asyncio.ensure_future(sent(relay(server, pipelining=level), book))
            while server.asked[stage] < 2:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        book.agrees_with(server)
        return book

    assert run(loop, go()).told[:2] == ["250", "unknown" if stage == "end" else "unsent"]


@pytest.mark.parametrize("method", ["next", "more", "begun", "answered"])
def test_a_source_that_raises_ends_the_session_with_its_own_error(loop: str, level: str, method: str) -> None:
    async def go() -> None:
        server, book = Server(), Book(offers(3))
        async with serving(server), relay(server, pipelining=level).session() as session:
            book.raises = method
            with pytest.raises(LookupError, match=method):
                await session.run(book)
            with pytest.raises(NotSent):
                await session.run(book)
        book.agrees_with(server)

    run(loop, go())


@pytest.mark.parametrize("method", ["unsent", "unknown"])
def test_a_source_that_raises_at_the_end_still_hears_of_the_others(loop: str, method: str) -> None:
    async def go() -> None:
        server, book = Server(script={("end", 1): b"354 what\r\n"}), Book(offers(3))
        async with serving(server), relay(server, pipelining="full").session() as session:
            book.raises = method
            with pytest.raises(LookupError, match=method):
                await session.run(book)
        assert book.told == ["250", "unknown", "unsent"]

    run(loop, go())


def test_enough_messages_on_a_connection(loop: str, level: str) -> None:
    async def go() -> None:
        server, book = Server(), Book(offers(5))
        async with serving(server):
            smtp = relay(server, pipelining=level, messages_per_connection=2)
            error = await sent(smtp, book)
            assert error is not None
            assert error.what == "relay main: enough messages on this connection (2)"
            assert book.told == ["250", "250"]
            assert server.commands[-1] == "QUIT"
            assert await sent(smtp, book) is not None
            assert await sent(smtp, book) is None
            even = Book(offers(2))
            assert await sent(smtp, even) is None
        assert book.told == ["250"] * 5
        assert server.connections == 4

    run(loop, go())


def test_a_source_that_pauses(loop: str, level: str) -> None:
    async def go() -> None:
        server, book = Server(), Book([], held=True)
        async with serving(server):
            task = asyncio.ensure_future(sent(relay(server, pipelining=level, timeout_seconds=0.1), book))
            for number in range(3):
                await asyncio.sleep(0.15)  # longer than an answer may take: nothing is awaited
                book.add([offers(3)[number]])
                while len(book.fates) <= number:
                    await asyncio.sleep(0.001)
            book.add(last=True)
            assert await task is None
        assert book.told == ["250"] * 3

    run(loop, go())


def test_a_server_that_does_not_read_for_a_while(loop: str, level: str) -> None:
    """Writing stops and goes on; what is slow but moves is no silence."""

    async def go() -> None:
        server = Server(ehlo=("PIPELINING",))
        book = Book([Offer(n, SENDER, f"p{n}@x.example", b"x" * 998 + b"\r\n") for n in range(1)])
        big = (b"x" * 998 + b"\r\n") * 8_000
        book.waiting += [Offer(n, SENDER, f"p{n}@x.example", big) for n in (1, 2)]
        async with serving(server):
            task = asyncio.ensure_future(sent(relay(server, pipelining=level, timeout_seconds=2), book))
            while not server.peers or not server.peers[0].mailing:
                await asyncio.sleep(0.001)
            for _ in range(5):
                server.peers[0].transport.pause_reading()
                await asyncio.sleep(0.02)
                server.peers[0].transport.resume_reading()
                await asyncio.sleep(0.001)
            assert await task is None
        assert book.told == ["250"] * 3
        book.agrees_with(server)

    run(loop, go())


# -- one at a time --------------------------------------------------------------------------------------------------


def test_send_speaks_of_one_message(loop: str, level: str) -> None:
    async def go() -> None:
        server = Server(script={("rcpt", 1): b"550 5.1.1 no\r\n", ("end", 2): None})
        async with serving(server):
            async with relay(server, pipelining=level, timeout_seconds=0.2).session() as session:
                assert (await session.send(SENDER, "p0@x.example", b"x\r\n")).accepted
                refused = await session.send(SENDER, "p1@x.example", b"x\r\n")
                assert refused == Reply(550, "5.1.1 no", "rcpt", "5.1.1")
                assert (await session.send(SENDER, "p2@x.example", b"x\r\n")).accepted
                with pytest.raises(UnknownOutcome):
                    await session.send(SENDER, "p3@x.example", b"x\r\n")
                with pytest.raises(NotSent):
                    await session.send(SENDER, "p4@x.example", b"x\r\n")
            server.silent = False
            async with relay(server, pipelining=level).session() as session:
                server.script["mail", server.asked["mail"]] = b"421 4.7.0 no\r\n"
                with pytest.raises(NotSent):
                    await session.send(SENDER, "p5@x.example", b"x\r\n")
            async with relay(server, pipelining=level).session() as session:
                server.script["end", server.asked["end"]] = b"421 4.7.0 no\r\n"
                assert (await session.send(SENDER, "p6@x.example", b"x\r\n")).code == 421

    run(loop, go())
