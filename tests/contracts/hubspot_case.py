"""A HubSpot sandbox for one test: served, held against the contract, with the vendor's SDK and a bare client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import hubspot
import msgspec

from contracts.hubspot.limits import Limits
from contracts.hubspot.sandbox import HubSpotSandbox
from hub.clock import ManualClock
from tests.contracts.conftest import Serve, contract_of
from tests.contracts.spec_check import Conformance

CONTRACT = contract_of("hubspot")


@dataclass
class Case:
    """What a test needs: the sandbox from inside, the official SDK and plain HTTP from outside."""

    sandbox: HubSpotSandbox
    clock: ManualClock
    url: str
    sdk: Any  # hubspot.HubSpot, which has no types
    http: httpx.Client
    conformance: Conformance

    def contact(self, email: str, **values: str) -> str:
        """A new contact by the SDK; gives its id."""
        made = self.sdk.crm.contacts.basic_api.create(
            {"properties": {"email": email, **values}, "associations": []}
        )
        return str(made.id)


def sdk_for(url: str, token: str) -> Any:
    """The official client, pointed at a sandbox: any key but its own few is set on its Configuration."""
    return hubspot.HubSpot(access_token=token, host=url)


@contextmanager
def hubspot_case(serve: Serve, **settings: Any) -> Iterator[Case]:
    """Serve a sandbox with a manual clock and lifted limits (unless `limits` says otherwise)."""
    clock = ManualClock()
    sandbox = HubSpotSandbox(clock=clock, **({"limits": Limits.generous()} | settings))
    conformance = Conformance(CONTRACT)
    with serve(sandbox, conformance) as url:
        headers = {"Authorization": f"Bearer {sandbox.token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=10) as http:
            yield Case(sandbox, clock, url, sdk_for(url, sandbox.token), http, conformance)


def problems_of(refused: Exception) -> dict[str, Any]:
    """The JSON body of an SDK's ApiException."""
    body: dict[str, Any] = msgspec.json.decode(refused.body)  # type: ignore[attr-defined]
    return body
