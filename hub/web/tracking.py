"""What mails lead to: the open pixel, links, and unsubscription. Tokens are signed; a GET never unsubscribes anybody."""

from __future__ import annotations

import base64

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hub.errors import SignatureError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.results import engagement
from hub.web import recipient, wording

PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
NO_STORE = {"Cache-Control": "no-store, private", "Referrer-Policy": "no-referrer"}


async def open_pixel(request: Request) -> Response:
    """`GET /o/{token}`: always the pixel; a valid token is recorded as an open."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("open", request.path_params["token"])
    except SignatureError:
        delivery_id = None
    if (
        delivery_id is not None
        and request.method == "GET"
        and await engagement.opened(runtime.db, runtime.clock, delivery_id, _visit(request), runtime.watch)
    ):
        await runtime.bell.ring([Wake("results")])
    return Response(PIXEL, media_type="image/gif", headers=NO_STORE)


async def click(request: Request) -> Response:
    """`GET /c/{token}.{signature}?u=URL`: on to the link, which is signed, so this redirects nowhere else."""
    runtime: Runtime = request.app.state.runtime
    link = request.query_params.get("u", "")
    try:
        delivery_id = runtime.signer.read_click(request.path_params["token"], link)
    except SignatureError:
        return recipient.no_token(request)
    if request.method == "GET":
        visit = _visit(request)
        if await engagement.clicked(runtime.db, runtime.clock, delivery_id, link, visit, runtime.watch):
            await runtime.bell.ring([Wake("results")])
    return RedirectResponse(link, status_code=302, headers=NO_STORE)


async def trap(request: Request) -> Response:
    """`GET /t/{token}`: the link that no person sees. Whoever follows it is a machine, and is led nowhere."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("click", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    if request.method == "GET":
        visit = _visit(request, trap=True)
        if await engagement.clicked(runtime.db, runtime.clock, delivery_id, "", visit, runtime.watch):
            await runtime.bell.ring([Wake("results")])
    return recipient.shown(request, "trap", "trap_help")


def _visit(request: Request, *, trap: bool = False) -> engagement.Visit:
    address = request.client.host if request.client else ""
    return engagement.Visit(request.headers.get("user-agent", ""), address, trap)


async def unsubscribe_page(request: Request) -> Response:
    """`GET /u/{token}`: asks; scanners follow links, so nothing is done here."""
    runtime: Runtime = request.app.state.runtime
    try:
        runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    return _asked(request, "unsubscribe", "unsubscribe_ask", ask=True)


async def unsubscribe(request: Request) -> Response:
    """`POST /u/{token}`: done at once, without login (RFC 8058 and the page's own button)."""
    runtime: Runtime = request.app.state.runtime
    try:
        delivery_id = runtime.signer.read("unsubscribe", request.path_params["token"])
    except SignatureError:
        return recipient.no_token(request)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > recipient.MAX_BODY:
            return Response(status_code=413)
    how = "one-click" if b"One-Click" in body else "page"
    if await engagement.unsubscribed(runtime.db, runtime.clock, delivery_id, how=how):
        await runtime.bell.ring([Wake("results")])
    return _asked(request, "unsubscribed", "unsubscribed_help")


def _asked(request: Request, title: str, words: str, *, ask: bool = False) -> HTMLResponse:
    language = wording.language_of(None, request.headers.get("accept-language", ""))
    button = wording.WORDS[language]["unsubscribe"] if ask else ""
    return recipient.shown(request, title, words, button=button, more=f"../p/{request.path_params['token']}")
