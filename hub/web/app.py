"""The hub's web application: webhooks, tracking, unsubscription and preferences, a health check and a status page."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hub.jobs.runtime import Runtime
from hub.web import metrics, preferences, status, subscribe, tracking, webhooks
from hub.web.intake import Intake


def application(runtime: Runtime) -> Starlette:
    """The ASGI application for an opened runtime."""
    app = Starlette(
        routes=[
            Route("/", status.page),
            Route("/status.json", status.numbers),
            Route("/healthz", health),
            Route("/webhooks/relays/{relay}", webhooks.receive_events, methods=["POST"]),
            Route("/metrics", metrics.scrape),
            Route("/webhooks/{connection}", webhooks.receive, methods=["POST", "GET", "HEAD"]),
            Route("/webhooks/{connection}/{rest:path}", webhooks.receive, methods=["POST", "GET", "HEAD"]),
            Route("/o/{token}", tracking.open_pixel, methods=["GET", "HEAD"]),
            Route("/c/{token}", tracking.click, methods=["GET", "HEAD"]),
            Route("/t/{token}", tracking.trap, methods=["GET", "HEAD"]),
            Route("/u/{token}", tracking.unsubscribe_page, methods=["GET", "HEAD"]),
            Route("/u/{token}", tracking.unsubscribe, methods=["POST"]),
            Route("/p/{token}", preferences.look, methods=["GET", "HEAD"]),
            Route("/p/{token}", preferences.choose, methods=["POST"]),
            Route("/subscribe/{purpose}", subscribe.form_page, methods=["GET", "HEAD"]),
            Route("/subscribe/{purpose}", subscribe.subscribe, methods=["POST"]),
            Route("/confirm/{token}", subscribe.confirm_page, methods=["GET", "HEAD"]),
            Route("/confirm/{token}", subscribe.confirm, methods=["POST"]),
        ]
    )
    app.state.runtime = runtime
    app.state.intake = Intake(runtime.db, runtime.bell)
    return app


async def health(request: Request) -> JSONResponse:
    """200 while the database answers, 503 otherwise. Redis is not asked: without it work is late, not lost."""
    runtime: Runtime = request.app.state.runtime
    alive = await runtime.db.alive()
    return JSONResponse({"database": alive}, status_code=200 if alive else 503)
