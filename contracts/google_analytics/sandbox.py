"""Google Analytics on loopback: takes every event with a 204, keeps the good ones, and reports them by the Data API.

`python -m contracts.google_analytics.sandbox --port 0` prints its URL and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from contracts.google_analytics import hits, reports
from hub.clock import Clock, SteppedClock
from hub.sdk.sandbox import Sandbox

Json = dict[str, Any]
READ_SCOPES = ("analytics", "analytics.readonly")
TOKENS_PER_DAY, TOKENS_PER_HOUR = 200_000, 40_000
STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
}


class GoogleAnalyticsSandbox(Sandbox):
    """One property with one web stream.

    `registered_dimensions` are event parameters, `user_dimensions` user properties, all registered from the start;
    `register` adds one later, which does not reach back. `processing_hours` is how long events take to show in
    reports (24 to 48 at Google). `scope` is what the access token was granted.
    """

    vendor = "google_analytics"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        measurement_id: str = "G-SANDBOX01",
        api_secret: str = "sandbox-api-secret",  # noqa: S107 - opens nothing but this sandbox
        property_id: str = "123456",
        access_token: str = "sandbox-access-token",  # noqa: S107
        registered_dimensions: Sequence[str] = ("message", "relay", "event_id"),
        user_dimensions: Sequence[str] = (),
        processing_hours: float = 0.0,
        scope: str = "analytics.readonly",
        time_zone: str = "UTC",
    ) -> None:
        super().__init__(clock=clock)
        self.measurement_id, self.api_secret = measurement_id, api_secret
        self.property_id, self.access_token, self.scope = property_id, access_token, scope
        self.processing, self.zone = timedelta(hours=processing_hours), ZoneInfo(time_zone)
        self.events: list[hits.Event] = []
        self.dropped: Counter[str] = Counter()
        self.custom: list[reports.Registered] = []
        self._spent: list[tuple[datetime, int]] = []
        self._lock = threading.Lock()
        for name in registered_dimensions:
            self.register(name)
        for name in user_dimensions:
            self.register(name, "user")

    def register(self, name: str, scope: str = "event") -> None:
        """Make a parameter reportable as `customEvent:name`, or a user property as `customUser:name`, from now on."""
        with self._lock:
            self.custom.append(reports.Registered(name, scope, self.clock.now()))

    def routes(self) -> Sequence[BaseRoute]:
        root = "/v1beta/properties/{property}"
        return [
            Route("/mp/collect", self._collect, methods=["POST"]),
            Route("/debug/mp/collect", self._debug, methods=["POST"]),
            Route(f"{root}:runReport", self._reporting(reports.run_report), methods=["POST"]),
            Route(f"{root}:runRealtimeReport", self._reporting(reports.run_realtime), methods=["POST"]),
        ]

    def control_routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/_sandbox/dropped", self._tell_dropped, methods=["GET"]),
            Route("/_sandbox/events", self._tell_events, methods=["GET"]),
        ]

    # -- Measurement Protocol -------------------------------------------------------------------------------------

    async def _collect(self, request: Request) -> Response:
        body = await request.body()
        with self._lock:
            self._keep(request, body)
        return Response(status_code=204)

    def _keep(self, request: Request, body: bytes) -> None:
        if request.query_params.get("measurement_id") != self.measurement_id:
            self.dropped["request: unknown measurement_id"] += 1
        elif request.query_params.get("api_secret") != self.api_secret:
            self.dropped["request: api_secret of another stream"] += 1
        else:
            hit = hits.read(body, self.clock.now())
            self.events += hit.events
            self.dropped.update(f"{p.loses}: {p.field_path or 'body'} {p.code}" for p in hit.problems)

    async def _debug(self, request: Request) -> Response:
        hit = hits.read(await request.body(), self.clock.now())
        return JSONResponse({"validationMessages": hit.messages()})

    async def _tell_dropped(self, request: Request) -> Response:
        with self._lock:
            return JSONResponse({"total": self.dropped.total(), "reasons": dict(self.dropped)})

    async def _tell_events(self, request: Request) -> Response:
        """Counts by name, and how many events repeat the `event_id` of another."""
        with self._lock:
            ids = Counter(str(e.params["event_id"]) for e in self.events if "event_id" in e.params)
            by_name = Counter(e.name for e in self.events)
        doubles = sum(n - 1 for n in ids.values())
        return JSONResponse({"total": by_name.total(), "by_name": dict(by_name), "doubles": doubles})

    # -- Data API -------------------------------------------------------------------------------------------------

    def _reporting(
        self, run: Callable[[reports.Property, Sequence[hits.Event], Json, datetime], Json]
    ) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            if (refused := self._refused_access(request)) is not None:
                return refused
            try:
                query = json.loads(await request.body() or b"{}")
            except ValueError:
                return refusal("INVALID_ARGUMENT", "Invalid JSON payload received.")
            if not isinstance(query, dict):
                return refusal("INVALID_ARGUMENT", "Invalid JSON payload received. It is no object.")
            with self._lock:
                return self._run(run, query)

        return answer

    def _run(self, run: Callable[..., Json], query: Json) -> Response:
        now = self.clock.now()
        hour, day = self._spent_since(now - timedelta(hours=1)), self._spent_since(now - timedelta(days=1))
        if day >= TOKENS_PER_DAY:
            return refusal("RESOURCE_EXHAUSTED", "Exhausted property tokens per day.")
        if hour >= TOKENS_PER_HOUR:
            return refusal("RESOURCE_EXHAUSTED", "Exhausted property tokens for a project per hour.")
        try:
            table = run(reports.Property(self.custom, self.zone, self.processing), self.events, query, now)
        except reports.BadQuery as bad:
            return refusal("INVALID_ARGUMENT", str(bad))
        except reports.NotRebuilt as unknown:
            return refusal("UNIMPLEMENTED", f"This sandbox does not know {unknown}.")
        except (AttributeError, TypeError):
            return refusal("INVALID_ARGUMENT", "Invalid JSON payload received. A value has the wrong type.")
        cost = 1 + len(query.get("dimensions") or []) + len(table.get("rows", [])) // 1_000
        self._spent.append((now, cost))
        if query.get("returnPropertyQuota"):
            table["propertyQuota"] = {
                "tokensPerDay": {"consumed": cost, "remaining": TOKENS_PER_DAY - day - cost},
                "tokensPerHour": {"consumed": cost, "remaining": TOKENS_PER_HOUR - hour - cost},
            }
        return JSONResponse(table)

    def spend(self, tokens: int) -> None:
        """Use up tokens of the property's pools, as other people's reports do."""
        with self._lock:
            self._spent.append((self.clock.now(), tokens))

    def _spent_since(self, instant: datetime) -> int:
        return sum(cost for at, cost in self._spent if at > instant)

    def _refused_access(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return self.unauthorised(request)
        if self.scope not in READ_SCOPES:
            return refusal(
                "PERMISSION_DENIED",
                "Request had insufficient authentication scopes.",
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            )
        if request.path_params["property"] != self.property_id:
            return refusal(
                "PERMISSION_DENIED", "User does not have sufficient permissions for this property."
            )
        return None

    def unauthorised(self, request: Request) -> Response:
        return refusal("UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def too_many(self, request: Request) -> Response:
        return refusal("RESOURCE_EXHAUSTED", "Exhausted concurrent requests quota.")


def refusal(status: str, message: str, reason: str = "") -> Response:
    """An error in the form of Google's APIs."""
    error: Json = {"code": STATUS[status], "message": message, "status": status}
    if reason:
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
            }
        ]
    return JSONResponse({"error": error}, STATUS[status])


def main() -> None:
    """Serve one sandbox until SIGTERM or SIGINT; the first line of output is its URL."""
    parser = argparse.ArgumentParser(description="Google Analytics' stand-in on loopback")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--clock", default="", help="stepped:/path/to/offset")
    parser.add_argument("--measurement-id", default="G-SANDBOX01")
    parser.add_argument("--api-secret", default="sandbox-api-secret")
    parser.add_argument("--property-id", default="123456")
    parser.add_argument("--access-token", default="sandbox-access-token")
    parser.add_argument("--processing-hours", type=float, default=0.0)
    wish = parser.parse_args()
    stepped = wish.clock.startswith("stepped:")
    sandbox = GoogleAnalyticsSandbox(
        clock=SteppedClock(Path(wish.clock.removeprefix("stepped:"))) if stepped else None,
        measurement_id=wish.measurement_id,
        api_secret=wish.api_secret,
        property_id=wish.property_id,
        access_token=wish.access_token,
        processing_hours=wish.processing_hours,
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with sandbox.serve(wish.port) as url:
        print(url, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
