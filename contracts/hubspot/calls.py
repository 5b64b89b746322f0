"""From an HTTP request to a handler: who calls, may they, are they too fast, what did they send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from contracts.hubspot.answers import Answer, Refusal, bad_request
from contracts.hubspot.limits import Counter, TooMany
from contracts.hubspot.records import Author

if TYPE_CHECKING:
    from contracts.hubspot.account import Account
    from contracts.hubspot.auth import App, Tokens

MAX_URL = 16_000  # beyond it HubSpot's edge answers 414 with an HTML page
Scopes = tuple[str, ...]


@dataclass(slots=True)
class Call:
    """One request, read and admitted."""

    path: dict[str, str]
    query: QueryParams
    body: Any
    app: App

    @property
    def author(self) -> Author:
        return Author("INTEGRATION", str(self.app.app_id))

    def limit(self, default: int, most: int) -> int:
        """The page size asked for, refused beyond `most`."""
        text = self.query.get("limit", str(default))
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise bad_request(f"limit must be between 1 and {most}, not {text}")
        return int(text)

    def flag(self, key: str) -> bool:
        """A yes or no in the query; the official Python client writes `True`."""
        return self.query.get(key, "").lower() == "true"

    def names(self, key: str) -> list[str]:
        """A list in the query, given as repeated keys or with commas."""
        return [n.strip() for text in self.query.getlist(key) for n in text.split(",") if n.strip()]


Handler = Callable[[Call], Response]


class Gate:
    """Turns handlers into routes. `search` routes have their own bucket; `public` ones need no token."""

    def __init__(self, account: Account, tokens: Tokens, counter: Counter) -> None:
        self.account, self.tokens, self.counter = account, tokens, counter

    def route(
        self,
        method: str,
        path: str,
        handler: Handler,
        scopes: Scopes | Callable[[Call], Scopes] = (),
        *,
        search: bool = False,
        key: bool = False,
    ) -> Route:
        """`key` routes take the developer key (`hapikey`) instead of a token."""

        async def answer(request: Request) -> Response:
            if len(str(request.url)) > MAX_URL:
                return HTMLResponse("<html><head><title>414 Request-URI Too Large</title></head></html>", 414)
            raw = await request.body()
            with self.account.lock:
                return self._answer(request, raw, handler, scopes, search, key)

        endpoint: Callable[[Request], Awaitable[Response]] = answer
        return Route(path, endpoint, methods=[method], name=f"{method} {path}")

    def _answer(
        self,
        request: Request,
        raw: bytes,
        handler: Handler,
        scopes: Scopes | Callable[[Call], Scopes],
        search: bool,
        key: bool,
    ) -> Response:
        headers: dict[str, str] = {}
        try:
            app = (
                self.tokens.developer(request)
                if key
                else self.tokens.admit(request.headers.get("authorization", ""))
            )
            headers = self.counter.searched() if search else self.counter.burst(app.bucket, oauth=app.oauth)
            call = Call(dict(request.path_params), request.query_params, _json(raw), app)
            self.tokens.require(app, scopes(call) if callable(scopes) else scopes)
            response = handler(call)
        except Refusal as refusal:
            response = Answer(refusal.body(), refusal.status)
            if isinstance(refusal, TooMany):
                headers = refusal.headers
        for name, value in headers.items():
            response.headers[name] = value
        return response


def _json(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as e:
        raise bad_request(f"Invalid input JSON on line 1, column 1: {e}") from None
