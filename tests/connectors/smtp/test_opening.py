"""Opening a session: TLS that is checked, logins that go nowhere else, and words that give nothing away."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.smtp.relay import Smtp, SmtpSettings
from contracts.smtp.certificate import issue
from hub.sdk.relay import NotSent
from tests.connectors.smtp.case import LOOPS, Book, Server, offers, relay, run, sent, serving
from tests.contracts import smtp_case

SECRET = "s3cret-of-the-relay"
OAUTH = {"token_url": "https://login.example/token", "client_id": "app", "refresh_token": SECRET}
LOGINS = {
    "PLAIN": {"password": SECRET},
    "LOGIN": {"password": SECRET},
    "CRAM-MD5": {"password": SECRET},
    "XOAUTH2": {"token": SECRET},
}


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return issue(tmp_path_factory.mktemp("certificate"))


async def attempt(server: Server, implicit: ssl.SSLContext | None = None, **settings: Any) -> NotSent | Book:
    book = Book(offers(2))
    async with serving(server, implicit=implicit):
        return await sent(relay(server, **settings), book) or book


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("level", ["off", "envelope", "full"])
def test_over_tls(loop: str, tls: str, level: str, certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, ca_file = certificate
    server = Server(tls=context if tls == "starttls" else None)
    implicit = context if tls == "tls" else None
    book = run(loop, attempt(server, implicit, tls=tls, ca_file=str(ca_file), pipelining=level))
    assert isinstance(book, Book)
    assert book.told == ["250", "250"]
    assert all(peer.secure for peer in server.peers)
    assert server.commands.count("EHLO me") == (2 if tls == "starttls" else 1)


def test_large_mails_over_tls(loop: str, certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, ca_file = certificate

    async def go() -> None:
        server = Server(ehlo=("PIPELINING",), tls=context)
        book = Book(offers(4, b"Subject: m\r\n\r\n" + b"x" * 900 * 2000 + b"\r\n"))
        async with serving(server):
            assert (
                await sent(relay(server, tls="starttls", ca_file=str(ca_file), pipelining="full"), book)
                is None
            )
        assert [len(c) for c in server.contents] == [
            len(o.content) for o in offers(4, b"Subject: m\r\n\r\n" + b"x" * 900 * 2000 + b"\r\n")
        ]

    run(loop, go())


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for(
    loop: str, tls: str, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    context, _ = certificate
    server = Server(tls=context if tls == "starttls" else None, login={"PLAIN": f"me:{SECRET}"})
    implicit = context if tls == "tls" else None
    error = run(loop, attempt(server, implicit, tls=tls, username="me", password=SECRET))
    assert isinstance(error, NotSent)
    assert "certificate that is not trusted" in error.what
    assert not any(c.startswith(("AUTH", "MAIL")) for c in server.commands)


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_the_name_in_the_certificate(loop: str, tls: str, certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, ca_file = certificate
    about: dict[str, Any] = {"tls": tls, "ca_file": str(ca_file)}

    def server() -> Server:
        return Server(tls=context if tls == "starttls" else None)

    implicit = context if tls == "tls" else None
    right = run(loop, attempt(server(), implicit, **about, server_name="localhost"))
    assert isinstance(right, Book)
    wrong = run(loop, attempt(server(), implicit, **about, server_name="relay.example"))
    assert isinstance(wrong, NotSent)
    assert "relay.example" in wrong.what
    assert "server_name" in wrong.fix


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(certificate: tuple[ssl.SSLContext, Path], tmp_path: Path) -> None:
    old, ca_file = issue(tmp_path / "old")
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    error = run("asyncio", attempt(Server(tls=old), tls="starttls", ca_file=str(ca_file)))
    assert isinstance(error, NotSent)
    assert "cannot be reached" in error.what


def test_a_relay_that_offers_no_starttls_gets_nothing(loop: str) -> None:
    server = Server(login={"PLAIN": f"me:{SECRET}"})
    error = run(loop, attempt(server, tls="starttls", username="me", password=SECRET))
    assert isinstance(error, NotSent)
    assert "offers no STARTTLS" in error.what
    assert [c.split()[0] for c in server.commands] == ["EHLO"]


def test_what_stands_behind_starttls_in_plain_text_counts_for_nothing(
    loop: str, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    context, ca_file = certificate
    server = Server(tls=context, ehlo=(), behind_starttls=b"250-here\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n")
    error = run(loop, attempt(server, tls="starttls", ca_file=str(ca_file), username="me", password=SECRET))
    assert isinstance(error, NotSent)
    assert not any(c.startswith("AUTH") for c in server.commands)


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    error = run("asyncio", attempt(Server(), tls="starttls", ca_file=str(tmp_path / "none.pem")))
    assert isinstance(error, NotSent)
    assert "ca_file" in str(error)


# -- login ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", LOGINS)
@pytest.mark.parametrize("wish", ["auto", "by name"])
def test_logins(loop: str, mechanism: str, wish: str, certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, ca_file = certificate
    server = Server(tls=context, login={mechanism: f"me:{SECRET}"})
    about = {"tls": "starttls", "ca_file": str(ca_file), "username": "me", **LOGINS[mechanism]}
    auth = "auto" if wish == "auto" else mechanism.lower()
    book = run(loop, attempt(server, **about, auth=auth))
    assert isinstance(book, Book), str(book)
    assert book.told == ["250", "250"]
    (login,) = [c for c in server.commands if c.startswith("AUTH")]
    assert login.split()[1] == mechanism


@pytest.mark.parametrize("mechanism", LOGINS)
def test_a_refused_login_is_tried_once_and_its_words_hold_no_secret(loop: str, mechanism: str) -> None:
    echo = f"535 5.7.8 {SECRET}x is wrong\r\n".encode()
    login = {mechanism: f"me:{SECRET}", **({"LOGIN": "me:x"} if mechanism == "PLAIN" else {})}
    server = Server(login=login, login_reply=echo)
    wrong = {key: f"{value}x" for key, value in LOGINS[mechanism].items()}
    error = run(loop, attempt(server, username="me", **wrong))
    assert isinstance(error, NotSent)
    assert "refuses the login (535)" in error.what
    assert SECRET not in f"{error} {error!r}"
    assert len([c for c in server.commands if c.startswith("AUTH")]) == 1
    assert error.__cause__ is None


def test_another_way_is_taken_when_the_first_is_not_for_us(loop: str) -> None:
    server = Server(ehlo=("AUTH PLAIN LOGIN CRAM-MD5",), login={})
    server.login = {"LOGIN": f"me:{SECRET}"}
    server.ehlo = ("PIPELINING", "AUTH=PLAIN")
    book = run(loop, attempt(server, username="me", password=SECRET))
    assert isinstance(book, Book), str(book)
    assert [c.split()[1] for c in server.commands if c.startswith("AUTH")] == ["PLAIN", "LOGIN"]


def test_a_login_that_the_relay_does_not_offer(loop: str) -> None:
    server = Server(login={"PLAIN": f"me:{SECRET}"})
    error = run(loop, attempt(server, username="me", token=SECRET))
    assert isinstance(error, NotSent)
    assert "xoauth2" in error.what
    assert "plain" in error.fix
    assert not any(c.startswith("AUTH") for c in server.commands)


def test_a_relay_that_takes_no_login_now(loop: str) -> None:
    server = Server(login={"PLAIN": "me:other"}, login_reply=b"454 4.7.0 later\r\n")
    error = run(loop, attempt(server, username="me", password=SECRET))
    assert isinstance(error, NotSent)
    assert "takes no login now (454)" in error.what


@pytest.mark.parametrize(
    "settings",
    [
        {"tls": "none"},
        {"username": "me"},
        {"password": "x"},
        {"token": "x"},
        {"username": "me", "password": "x", "token": "x"},
        {"username": "me", "password": "x", "auth": "none"},
        {"username": "me", "password": "x", "auth": "xoauth2"},
        {"username": "me", "token": "x", "auth": "plain"},
        {"auth": "login"},
        {"auth": "xoauth2"},
        {"username": "me", "token": "x", "oauth": OAUTH},
        {"username": "me", "oauth": OAUTH, "auth": "plain"},
        {"oauth": OAUTH},
        {"helo": "me\r\nMAIL FROM:<x>"},
        {"pipelining": "fast"},
        {"messages_per_connection": -1},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SmtpSettings.model_validate({"host": "relay.example", **settings})


def test_settings_show_no_secret() -> None:
    for login in ({"password": SECRET}, {"token": SECRET}, {"oauth": OAUTH}):
        settings = SmtpSettings.model_validate({"host": "relay.example", "username": "me", **login})
        assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()} {Smtp('x', settings)!r}"


# -- other ends -----------------------------------------------------------------------------------------------------


def test_nobody_listens(loop: str) -> None:
    async def go() -> NotSent | None:
        server = Server()
        async with serving(server):
            pass
        return await sent(relay(server), Book(offers(1)))

    error = run(loop, go())
    assert error is not None
    assert error.fix


@pytest.mark.parametrize(
    "greeting", [b"554 5.7.1 go away\r\n", b"hello\r\n", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_a_greeting_that_is_none(loop: str, greeting: bytes) -> None:
    async def go() -> NotSent | None:
        server = Server(greeting=greeting)
        async with serving(server):
            return await sent(relay(server, timeout_seconds=0.2), Book(offers(1)))

    error = run(loop, go())
    assert error is not None
    assert "cannot be reached" in error.what


# -- the sandbox relay, which is another's server (aiosmtpd) ---------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize(
    ("tls", "level"),
    [("starttls", "off"), ("starttls", "auto"), ("implicit", "envelope"), ("implicit", "full")],
)
def test_the_sandbox_takes_what_is_pipelined(loop: str, tls: str, level: str, tmp_path: Path) -> None:
    audience = smtp_case.people(p5=smtp_case.REFUSED)
    with smtp_case.relay(tmp_path, audience, tls=tls, login=("user", "secret")) as sandbox:
        settings = SmtpSettings.model_validate(
            {
                "host": sandbox.host, "port": sandbox.port, "tls": "tls" if tls == "implicit" else tls, "pipelining": level,
                "ca_file": str(sandbox.ca_file), "username": "user", "password": "secret", "helo": "me",
            }
        )  # fmt: skip
        waiting = [
            o._replace(recipient=f"p{o.id}@example.com", content=smtp_case.mail(number=o.id))
            for o in offers(60)
        ]
        smtp, book = Smtp("main", settings), Book(waiting)
        assert run(loop, sent(smtp, book)) is None
        sandbox.office.wait_drained()
        taken = [d.recipient for d in sandbox.office.deliveries]
    assert book.told == ["550 rcpt" if n == 5 else "250" for n in range(60)]
    assert taken == [f"p{n}@example.com" for n in range(60) if n != 5]
    assert smtp.pipelining == ("full" if level in ("auto", "full") else None)


@pytest.mark.parametrize("kind", ["drop_in_data", "drop_after_data", "lose_after_data", "drop"])
def test_the_sandbox_hangs_up(loop: str, kind: str, tmp_path: Path) -> None:
    with smtp_case.relay(tmp_path, tls="none") as sandbox:
        sandbox.faults.plan(kind, stage="rcpt", skip=2)
        settings = SmtpSettings.model_validate(
            {"host": sandbox.host, "port": sandbox.port, "tls": "none", "pipelining": "full", "helo": "me"}
        )
        waiting = [o._replace(recipient=f"p{o.id}@example.com") for o in offers(5)]
        book = Book(waiting)
        assert run(loop, sent(Smtp("main", settings), book)) is not None
        sandbox.office.wait_drained()
        taken = {d.recipient for d in sandbox.office.deliveries}
    assert book.told[:2] == ["250", "250"]
    assert book.told[2] == ("unsent" if kind == "drop" else "unknown")
    for number, fate in zip(book.taken, book.told, strict=True):
        assert fate == "unknown" or (f"p{number}@example.com" in taken) == (fate == "250")
