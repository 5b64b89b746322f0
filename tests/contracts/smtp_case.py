"""A relay sandbox under test, and a sender's web that its readers call."""

from __future__ import annotations

import smtplib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from contracts.smtp.audience import Audience, Fate, Person, Reaction
from contracts.smtp.relay import RelaySandbox
from contracts.smtp.server import Rules
from hub.sdk.sandbox import serve_app

ANN, BOB = "ann@example.com", "bob@example.com"


def people(**wishes: Person) -> Audience:
    """Nobody does anything but these, by the local part of their address at example.com."""
    audience = Audience(bounce=0, refuse=0, open=0, click=0, unsubscribe=0)
    for name, person in wishes.items():
        audience.put(f"{name}@example.com", person)
    return audience


REFUSED, BOUNCED, DELAYED = Person(Fate.REFUSED), Person(Fate.BOUNCED), Person(Fate.DELAYED)
OPENER = Person(reaction=Reaction(opens=True))
CLICKER = Person(reaction=Reaction(opens=True, clicks=True))
LEAVER = Person(reaction=Reaction(unsubscribes=True))


@contextmanager
def relay(folder: Path, audience: Audience | None = None, **settings: Any) -> Iterator[RelaySandbox]:
    """A served relay whose failure reports land in `folder/bounces`."""
    rules = Rules(**{k: settings.pop(k) for k in list(settings) if k in Rules.__dataclass_fields__})
    sandbox = RelaySandbox(maildir=folder / "bounces", audience=audience or people(), rules=rules, **settings)
    with sandbox.serve():
        yield sandbox


def verifying(sandbox: RelaySandbox) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(sandbox.ca_file))


@contextmanager
def client(sandbox: RelaySandbox, *, tls: bool = True) -> Iterator[smtplib.SMTP]:
    """A greeted client, over verified TLS unless told otherwise."""
    with smtplib.SMTP(sandbox.host, sandbox.port, timeout=10) as smtp:
        if tls:
            smtp.starttls(context=verifying(sandbox))
        smtp.ehlo()
        yield smtp


def mail(
    to: str = ANN,
    *,
    number: int = 1,
    web: str = "",
    subject: str = "Hello",
    body: str = "",
    post: bool = True,
) -> bytes:
    """A finished message; with `web` its pixel, link and unsubscription are there under `number`."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Mailyard <news@mailyard.example>", to, subject
    message["Message-ID"] = f"<{number}@mailyard.example>"
    if web:
        message["List-Unsubscribe"] = f"<mailto:leave@mailyard.example>, <{web}/u/{number}>"
    if web and post:
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content("Hello in plain text.")
    page = body or (
        f'<p>Grüße</p><img src="https://cdn.example/logo.png"><a href="{web}/u/{number}">Unsubscribe</a>'
        f'<a href="https://elsewhere.example/">Elsewhere</a><a href="{web}/c/{number}?l=1&amp;s=2">Start</a>'
        f'<!--[if mso]><a href="{web}/c/mso">Start</a><![endif]--><img src="{web}/o/{number}.gif" width="1">'
    )
    message.add_alternative(f"<html><body>{page}</body></html>", subtype="html")
    return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))


@dataclass
class Web:
    """A sender's web: what was asked of it, and how it answers."""

    url: str = ""
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)  # (method, path?query, body)
    broken: int = 0  # answer this many requests with 503 first
    link_status: int = 302
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        with self.lock:
            if self.broken > 0:
                self.broken -= 1
                return Response("restarting", 503)
            query = f"?{request.url.query}" if request.url.query else ""
            self.asked.append((request.method, request.url.path + query, body))
        if request.url.path.startswith("/c/") and self.link_status in (302, 303):
            return RedirectResponse("https://www.mailyard.example/", self.link_status)
        return Response("ok", self.link_status if request.url.path.startswith("/c/") else 200)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{rest:path}", self.answer, methods=["GET", "POST"])])


@contextmanager
def serving_web(port: int = 0, **settings: Any) -> Iterator[Web]:
    web = Web(**settings)
    with serve_app(web.app(), port) as url:
        web.url = url
        yield web
