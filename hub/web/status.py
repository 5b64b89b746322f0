"""A page of numbers: what the hub holds and does. It names nobody."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from hub.jobs.runtime import Runtime
from hub.store import runs
from hub.store import status as store
from hub.web import pages


async def page(request: Request) -> HTMLResponse:
    """The numbers as a page that refreshes itself."""
    found, recent = await _ask(request)
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Pulled", {name: found[name] for name in ("contacts", "companies", "deals", "segments")}),
        ("Lists", found["lists"]),
        (
            "Funnels",
            {
                f"{name} {state}": n
                for name, states in found["funnels"].items()
                for state, n in states.items()
            },
        ),
        ("Deliveries", found["deliveries"]),
        ("Results", found["results"]),
        (
            "Pushed",
            {f"{name} {state}": n for name, states in found["outbox"].items() for state, n in states.items()},
        ),
    ]
    if found["opt_outs"]["confirmed"] or found["opt_outs"]["open"]:
        groups.append(("Opt-outs told to other systems", found["opt_outs"]))
    return pages.page("status.html", groups=groups, runs=recent, overdue=found["opt_outs"]["overdue"])


async def numbers(request: Request) -> JSONResponse:
    """The same numbers for programs."""
    found, _ = await _ask(request)
    return JSONResponse(found)


async def _ask(request: Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    runtime: Runtime = request.app.state.runtime
    async with runtime.db.connection() as conn:
        return await store.numbers(conn, now=runtime.clock.now()), await runs.recent(conn, 15)
