"""A page of numbers: what the hub holds and does. It names nobody."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse

from hub.jobs.runtime import Runtime
from hub.store import runs
from hub.store import status as store

_PAGE = Environment(autoescape=True).from_string(
    """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Mailyard</title>
<meta http-equiv="refresh" content="2"><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1c2530;background:#f7f8fa}
h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .4rem}.cards{display:flex;flex-wrap:wrap;gap:.8rem}
.card{background:#fff;border:1px solid #dde2e8;border-radius:8px;padding:.7rem 1rem;min-width:8rem}
.card b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}table{border-collapse:collapse;width:100%;background:#fff}
td,th{border:1px solid #dde2e8;padding:.3rem .6rem;text-align:left;font-size:.9rem}.partial,.failed{color:#a33a1f}
</style></head><body><h1>Mailyard</h1>
{% for title, cards in groups %}<h2>{{ title }}</h2><div class="cards">
{% for name, value in cards.items() %}<div class="card">{{ name }}<b>{{ value }}</b></div>{% else %}<div class="card">none yet</div>
{% endfor %}</div>{% endfor %}
<h2>Runs</h2><table><tr><th>#<th>kind<th>connection<th>stream<th>state<th>counts<th>reason</tr>
{% for r in runs %}<tr><td>{{ r.id }}<td>{{ r.kind }}<td>{{ r.connection }}<td>{{ r.stream }}<td class="{{ r.state }}">{{ r.state }}
<td>{% for k, v in r.counts.items() if k != 'calls' %}{{ k }} {{ v }} {% endfor %}<td>{{ r.reason }}</tr>{% endfor %}</table>
</body></html>"""
)


async def page(request: Request) -> HTMLResponse:
    """The numbers as a page that refreshes itself."""
    found, recent = await _ask(request)
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Pulled", {name: found[name] for name in ("contacts", "deals", "segments")}),
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
    return HTMLResponse(_PAGE.render(groups=groups, runs=recent))


async def numbers(request: Request) -> JSONResponse:
    """The same numbers for programs."""
    found, _ = await _ask(request)
    return JSONResponse(found)


async def _ask(request: Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    runtime: Runtime = request.app.state.runtime
    async with runtime.db.connection() as conn:
        return await store.numbers(conn), await runs.recent(conn, 15)
