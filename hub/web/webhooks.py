"""Webhooks in: verified over the raw body, stored, then acknowledged. The work comes later."""

from __future__ import annotations

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.errors import SignatureError, VendorError
from hub.jobs.runtime import Runtime
from hub.jobs.wake import Wake
from hub.results import feedback
from hub.sdk.connector import WebhookRequest
from hub.store import inbox

log = structlog.get_logger()

MAX_BODY_BYTES = 1_000_000


async def receive(request: Request) -> Response:
    """`POST /webhooks/{connection}`: 200 once stored, 401 for a bad signature, 404, 413, 400 for nonsense.

    A repeated event is acknowledged and changes nothing. Nothing of the body is logged.
    """
    runtime: Runtime = request.app.state.runtime
    connection = request.path_params["connection"]
    section = runtime.settings.connections.get(connection)
    if section is None:
        return JSONResponse({"error": "no such connection"}, status_code=404)
    try:
        body = await _limited_body(request)
    except ClientDisconnect:
        return Response(status_code=400)
    if body is None:
        return JSONResponse({"error": f"the body is larger than {MAX_BODY_BYTES} bytes"}, status_code=413)
    connector = await runtime.connector(connection)
    incoming = _incoming(runtime, request, body)
    try:
        connector.verify(incoming)
    except SignatureError as error:
        log.warning("webhook refused", connection=connection, reason=str(error))
        return JSONResponse({"error": str(error)}, status_code=401)
    except LookupError:
        return JSONResponse({"error": f"{section.connector} receives no webhooks"}, status_code=404)
    try:
        events = connector.events(incoming)
    except ValueError as error:
        log.warning("webhook not understood", connection=connection, reason=type(error).__name__)
        return JSONResponse({"error": "the body is not understood"}, status_code=400)
    async with runtime.db.transaction() as conn:
        new = await inbox.store(conn, connection, events, received_at=runtime.clock.now())
    if new:
        await runtime.bell.ring([Wake("inbox", connection)])
    return JSONResponse({"stored": new, "repeated": len(events) - new})


async def receive_events(request: Request) -> Response:
    """`POST /webhooks/relays/{relay}`: what a relay tells of its mails; answers as `receive` does."""
    runtime: Runtime = request.app.state.runtime
    relay = request.path_params["relay"]
    reader = runtime.events.get(relay)
    if reader is None:
        return JSONResponse({"error": "no such relay, or it has no `events`"}, status_code=404)
    try:
        body = await _limited_body(request)
    except ClientDisconnect:
        return Response(status_code=400)
    if body is None:
        return JSONResponse({"error": f"the body is larger than {MAX_BODY_BYTES} bytes"}, status_code=413)
    incoming = _incoming(runtime, request, body)
    try:
        await reader.verify(incoming)
    except SignatureError as error:
        log.warning("a relay's events refused", relay=relay, reason=str(error))
        return JSONResponse({"error": str(error)}, status_code=401)
    try:
        told = [] if await reader.greet(incoming) else reader.events(incoming)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        log.warning("a relay's events not understood", relay=relay, reason=type(error).__name__)
        return JSONResponse({"error": "the body is not understood"}, status_code=400)
    except VendorError as error:
        log.warning("a relay's webhook could not be confirmed", relay=relay, reason=str(error))
        return JSONResponse({"error": "the subscription could not be confirmed"}, status_code=503)
    async with runtime.db.transaction() as conn:
        new = await feedback.store(conn, runtime.clock, relay, told)
    if new:
        await runtime.bell.ring([Wake("inbox", feedback.inbox_of(relay))])
    return JSONResponse({"stored": new, "repeated": len(told) - new})


def _incoming(runtime: Runtime, request: Request, body: bytes) -> WebhookRequest:
    return WebhookRequest(
        method=request.method,
        url=_public_url(runtime, request),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        received_at=runtime.clock.wall(),
    )


async def _limited_body(request: Request) -> bytes | None:
    """The raw body, or None when it is too large."""
    parts = bytearray()
    async for chunk in request.stream():
        parts.extend(chunk)
        if len(parts) > MAX_BODY_BYTES:
            return None
    return bytes(parts)


def _public_url(runtime: Runtime, request: Request) -> str:
    """The URL that the vendor called and signed: the configured public base, whatever a proxy made of the host."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{runtime.settings.web.public_url.rstrip('/')}{request.scope['raw_path'].decode('ascii').split('?')[0]}{query}"
