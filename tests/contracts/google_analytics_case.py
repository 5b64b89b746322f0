"""A Google Analytics sandbox under test: served with every answer held against the contract, and Google's own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from google.analytics.data_v1beta import BetaAnalyticsDataClient
from google.oauth2.credentials import Credentials

from contracts.google_analytics.sandbox import GoogleAnalyticsSandbox
from hub.clock import ManualClock
from tests.contracts.conftest import Serve, contract_of
from tests.contracts.spec_check import Conformance

PROPERTY = "properties/123456"


@dataclass
class Case:
    sandbox: GoogleAnalyticsSandbox
    clock: ManualClock
    url: str
    conformance: Conformance

    def post(
        self,
        path: str,
        body: bytes,
        *,
        measurement_id: str = "G-SANDBOX01",
        secret: str = "sandbox-api-secret",
    ) -> tuple[int, Any]:
        """(status, decoded body or None)."""
        url = f"{self.url}{path}?measurement_id={measurement_id}&api_secret={secret}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
            return response.status, json.loads(text) if text else None

    def collect(self, *events: dict[str, Any], client: str = "1.1", **rest: Any) -> None:
        body = {"client_id": client, "events": list(events), **rest}
        assert self.post("/mp/collect", json.dumps(body).encode()) == (204, None)

    def client(self, token: str = "sandbox-access-token") -> BetaAnalyticsDataClient:
        """Google's own client, over REST."""
        return BetaAnalyticsDataClient(
            transport="rest", credentials=Credentials(token), client_options={"api_endpoint": self.url}
        )


def event(name: str = "email_sent", **params: Any) -> dict[str, Any]:
    return {"name": name, "params": {"engagement_time_msec": 1, **params}}


@contextmanager
def google_case(serve_recorded: Serve, **settings: Any) -> Iterator[Case]:
    clock = ManualClock()
    sandbox = GoogleAnalyticsSandbox(clock=clock, **settings)
    conformance = Conformance(contract_of("google_analytics"))
    with serve_recorded(sandbox, conformance) as url:
        yield Case(sandbox, clock, url, conformance)
