"""A smarthost on loopback with the world behind it: real SMTP, real bounces, people who read.

`python -m contracts.smtp.relay --maildir DIR` prints one JSON line (`smtp`, `status`, `ca_file`, `maildir`) and serves
until SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from contracts.smtp.audience import Audience, Fate, Person, Reaction
from contracts.smtp.bounce import Maildir
from contracts.smtp.certificate import issue
from contracts.smtp.faults import SmtpFaults
from contracts.smtp.postoffice import PostOffice
from contracts.smtp.readers import LOOPBACK, Browser, Readers
from contracts.smtp.server import Handler, Rules, serving
from hub.clock import Clock, SteppedClock, SystemClock
from hub.sdk.sandbox import serve_app


class RelaySandbox:
    """A relay that takes mail, and an audience that answers it.

    `with RelaySandbox(maildir=folder).serve() as relay:` then `relay.host`, `relay.port`, `relay.ca_file` for a
    client, `relay.status_url` for other processes, `relay.office` for what was accepted, `relay.faults.plan(...)`.
    """

    def __init__(
        self,
        *,
        maildir: Path,
        audience: Audience | None = None,
        rules: Rules | None = None,
        clock: Clock | None = None,
        keep_content: bool = True,
        patience_seconds: float = 60.0,
        reach: frozenset[str] = LOOPBACK,
    ) -> None:
        self.audience = audience or Audience()
        self.rules = rules or Rules()
        self.faults = SmtpFaults()
        self.maildir = Maildir(maildir)
        browser = Browser(patience_seconds, reach)
        self.office = PostOffice(
            self.audience, Readers(self.audience, browser), self.maildir, clock or SystemClock(), keep_content
        )
        self.handler = Handler(self.audience, self.faults, self.rules, self.office.take, self.office.refuse)
        self.host, self.port = "127.0.0.1", 0
        self.status_url = ""
        self.ca_file = Path()

    @contextmanager
    def serve(self, port: int = 0, status_port: int = 0) -> Iterator[RelaySandbox]:
        """Serve SMTP and the status API on loopback from threads until the block ends. Once per sandbox."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-")))
            context, self.ca_file = issue(folder)
            stack.callback(self.office.close)
            self.status_url = stack.enter_context(serve_app(self.app(), status_port))
            self.port = stack.enter_context(
                serving(self.handler, context if self.rules.tls != "none" else None, port)
            )
            yield self

    def app(self) -> Starlette:
        """The status API: what the relay and its readers saw, and what they shall do."""
        return Starlette(
            routes=[
                Route("/status", self._status),
                Route("/messages", self._messages),
                Route("/messages/{number:int}", self._message),
                Route("/fault", _answering(self._fault), methods=["POST"]),
                Route("/person", _answering(self._person), methods=["POST"]),
            ]
        )

    def status(self) -> dict[str, Any]:
        """As `/status`: the counts of the post office, the connections, and which faults struck."""
        return {
            **self.office.status(),
            "connections": self.handler.connections,
            "faults_struck": dict(self.faults.struck),
        }

    async def _status(self, request: Request) -> Response:
        return JSONResponse(self.status())

    async def _messages(self, request: Request) -> Response:
        query = request.query_params
        found = self.office.find(query.get("recipient", ""), int(query.get("limit", "100")))
        return JSONResponse({"messages": [delivery.as_dict() for delivery in found]})

    async def _message(self, request: Request) -> Response:
        number = request.path_params["number"]
        known = self.office.deliveries
        if not 1 <= number <= len(known) or not known[number - 1].content:
            return PlainTextResponse("no such message, or its content was not kept\n", 404)
        return Response(known[number - 1].content, media_type="message/rfc822")

    def _fault(self, wish: dict[str, Any]) -> dict[str, Any]:
        self.faults.plan(**wish)
        return {"planned": len(self.faults.planned)}

    def _person(self, wish: dict[str, Any]) -> dict[str, Any]:
        """{address, fate, opens, clicks, unsubscribes, status, text}; all but the address may be left out."""
        reaction = Reaction(*(bool(wish.get(name, False)) for name in ("opens", "clicks", "unsubscribes")))
        fate = Fate(wish.get("fate", Fate.DELIVERED))
        person = Person(fate, reaction, str(wish.get("status", "")), str(wish.get("text", "")))
        self.audience.put(str(wish["address"]), person)
        return {"people": len(self.audience.people)}


def _answering(
    act: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(act(await request.json()))
        except (KeyError, TypeError, ValueError) as e:
            return JSONResponse({"message": f"{type(e).__name__}: {e}"}, status_code=400)

    return answer


def main() -> None:
    """Serve one relay until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A relay on loopback with readers behind it")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--status-port", type=int, default=0)
    parser.add_argument("--maildir", type=Path, required=True, help="where failure reports are delivered")
    parser.add_argument("--seed", type=int, default=7)
    for share in ("bounce", "refuse", "delay", "open", "click", "unsubscribe"):
        parser.add_argument(f"--{share}", type=float, default=getattr(Audience, share))
    parser.add_argument("--tls", choices=("starttls", "implicit", "none"), default="starttls")
    parser.add_argument("--require-tls", action="store_true")
    parser.add_argument("--login", default="", metavar="USER:PASSWORD", help="demand AUTH")
    parser.add_argument("--messages-per-connection", type=int, default=0)
    parser.add_argument("--greylist", action="store_true")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds that readers retry")
    parser.add_argument("--keep-content", action="store_true")
    parser.add_argument("--clock", default="", help="stepped:/path/to/offset, for the dates in reports")
    wish = parser.parse_args()
    user, _, password = wish.login.partition(":")
    stepped = wish.clock.startswith("stepped:")
    sandbox = RelaySandbox(
        maildir=wish.maildir,
        audience=Audience(
            wish.seed, wish.bounce, wish.refuse, wish.delay, wish.open, wish.click, wish.unsubscribe
        ),
        rules=Rules(
            tls=wish.tls,
            require_tls=wish.require_tls,
            login=(user, password) if user else None,
            messages_per_connection=wish.messages_per_connection,
            greylist=wish.greylist,
        ),
        clock=SteppedClock(Path(wish.clock.removeprefix("stepped:"))) if stepped else None,
        keep_content=wish.keep_content,
        patience_seconds=wish.patience,
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with sandbox.serve(wish.port, wish.status_port):
        line = {
            "smtp": f"{sandbox.host}:{sandbox.port}",
            "status": sandbox.status_url,
            "ca_file": str(sandbox.ca_file),
            "maildir": str(wish.maildir),
        }
        print(json.dumps(line), flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
