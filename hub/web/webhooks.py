"""Webhooks in: verified over the raw body, stored, then acknowledged. The work comes later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.errors import SignatureError
from hub.jobs.runtime import Runtime
from hub.sdk.connector import Connector, WebhookAnswer, WebhookEvent, WebhookRequest
from hub.store import inbox
from hub.web import bodies
from hub.web.intake import Busy, Intake

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 10
_PROOFS = ("authorization", "cookie", "signature", "secret", "token", "key")
"""Parts of the names of headers that are not kept with a call."""


async def receive(request: Request) -> Response:
    """`/webhooks/{connection}` and below: 200 once stored, 401 for a bad signature, 404, 405, 413, 415 and 400 for a body
    that is none, 503 when it could not be stored in time. A GET is answered only as a handshake of the vendor.

    A repeated event is acknowledged and changes nothing. What is verified and not understood is kept whole and set aside.
    Nothing of the body is logged.
    """
    runtime: Runtime = request.app.state.runtime
    connection = request.path_params["connection"]
    section = runtime.settings.connections.get(connection)
    if section is None:
        return _refusal(404, "no such connection")
    try:
        body = await bodies.read(request)
    except ClientDisconnect:
        return Response(status_code=400)
    except bodies.Refused as refused:
        return _refusal(refused.status, refused.why)
    connector = await runtime.connector(connection)
    incoming = WebhookRequest(
        method=request.method,
        url=_public_url(runtime, request),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        received_at=runtime.clock.wall(),
    )
    try:
        answer = connector.handshake(incoming)
        if answer is not None:
            return _answered(answer)
        if request.method != "POST":
            return Response(status_code=405, headers={"Allow": "POST"})
        connector.verify(incoming)
    except SignatureError as error:
        log.warning("webhook refused", connection=connection, reason=str(error))
        return _refusal(401, str(error))
    except LookupError:
        return _refusal(404, f"{section.connector} receives no webhooks")
    events, unread = _understood(connector, incoming)
    headers = {n: v for n, v in incoming.headers.items() if not any(proof in n for proof in _PROOFS)}
    post = inbox.Post(connection, events, runtime.clock.now(), body, headers, unread)
    intake: Intake = request.app.state.intake
    try:
        stored = await intake.store(post)
    except Busy:
        return _refusal(503, "not stored in time; call again", {"Retry-After": str(RETRY_AFTER_SECONDS)})
    answer = connector.acknowledgement(incoming)
    if answer is not None:
        return _answered(answer)
    told = {"stored": stored.new, "repeated": stored.repeated}
    return JSONResponse({**told, "kept_whole": True} if stored.whole else told)


def _understood(connector: Connector[Any], incoming: WebhookRequest) -> tuple[Sequence[WebhookEvent], str]:
    """The call's events, and what was not understood of it. A connector's own bug must lose nothing either."""
    try:
        found = connector.events(incoming)
    except ValueError as error:
        reason = str(error)
    except Exception as error:  # it is told, kept, and can be read again
        log.exception("a connector failed to read a webhook", connection=connector.name)
        reason = f"the connector failed: {type(error).__name__}"
    else:
        return inbox.understood(found)
    log.warning("webhook not understood", connection=connector.name)
    return [], reason


def _refusal(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": why}, status_code=status, headers=headers)


def _answered(answer: WebhookAnswer) -> Response:
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=answer.content_type,
        headers={"X-Content-Type-Options": "nosniff"},
    )


def _public_url(runtime: Runtime, request: Request) -> str:
    """The URL that the vendor called and signed: the configured public base, whatever a proxy made of the host."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{runtime.settings.web.public_url.rstrip('/')}{request.scope['raw_path'].decode('ascii').split('?')[0]}{query}"
