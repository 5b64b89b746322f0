"""Results as Google Analytics events, by the Measurement Protocol.

Collect answers 2xx for everything, also for what it drops, and has no key against repetition. So what is sent
keeps the documented limits, an event too old to count is refused here, and a call whose answer was lost is
reported as uncertain instead of being sent twice. Sources: "Measurement Protocol reference", "Sending events",
"Validating events", "Event naming rules".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field, SecretStr

from hub.errors import QuotaExhausted, Retry, Unclear, VendorError
from hub.model import Outcome, OutcomeStatus, Push, Result
from hub.sdk.connector import Connector, ConnectorSettings, Finding, Limit, Manifest
from hub.sdk.http import Http

EVENTS = {
    "sent": "email_sent", "delivered": "email_delivered", "bounced": "email_bounce", "complained": "email_complaint",
    "opened": "email_open", "clicked": "email_click", "replied": "email_reply", "unsubscribed": "email_unsubscribe",
}  # fmt: skip
MAX_EVENTS, MAX_VALUE = 25, 100
MAX_AGE = timedelta(hours=72)
AT_ONCE = 8


class AnalyticsSettings(ConnectorSettings):
    measurement_id: str = Field(description="of a web stream: G-...", pattern=r"^G-[A-Z0-9]+$")
    api_secret: SecretStr = Field(
        description="of the same stream; a secret of another one is taken and the events lost"
    )
    base_url: str = Field("https://www.google-analytics.com", description="another host, e.g. of a sandbox")


class GoogleAnalytics(Connector[AnalyticsSettings]):
    """A web stream of a Google Analytics property."""

    Settings = AnalyticsSettings
    manifest = Manifest(
        name="google_analytics",
        title="Google Analytics 4",
        pushes=("results",),
        auth=("API secret of the stream",),
        limits=(Limit("collect", 200, 1),),  # our own restraint: Google names none for collect
        docs="docs/connectors/google_analytics.md",
        needs_contact=False,
        repeatable=False,
        batch=100,
    )

    def connect(self, http: Http) -> Http:
        return http.configured(self.settings.base_url, limits=self.manifest.limits)

    async def push(self, batch: Sequence[Push]) -> list[Outcome]:
        """One request a person (client_id is theirs) with up to 25 events."""
        outcomes: list[Outcome] = []
        people: dict[str, list[Result]] = {}
        for each in batch:
            if not isinstance(each, Result) or each.kind.value not in EVENTS:
                outcomes.append(
                    Outcome(
                        id=each.id,
                        status=OutcomeStatus.DROPPED,
                        code="NO_EVENT",
                        message="Google Analytics has no event for this",
                        fix="nothing: it stays in the hub; push only results to this connection",
                    )
                )
            elif self.clock.now() - each.occurred_at > MAX_AGE:
                outcomes.append(
                    Outcome(id=each.id, status=OutcomeStatus.DROPPED, code="TOO_OLD",
                            message="Google Analytics takes no event older than 72 hours", fix="nothing: it is too old")
                )  # fmt: skip
            else:
                people.setdefault(each.contact_key, []).append(each)
        calls = [
            (key, results[start : start + MAX_EVENTS])
            for key, results in people.items()
            for start in range(0, len(results), MAX_EVENTS)
        ]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(key: str, results: Sequence[Result]) -> list[Outcome]:
            async with gate:
                return await self._collect(key, results)

        for answered in await asyncio.gather(*(one(key, results) for key, results in calls)):
            outcomes += answered
        return outcomes

    async def _collect(self, key: str, results: Sequence[Result]) -> list[Outcome]:
        try:
            await self._post("/mp/collect", key, results)
        except Unclear as error:
            return [_failed(r, OutcomeStatus.UNCERTAIN, error) for r in results]
        except (Retry, QuotaExhausted) as error:
            return [_failed(r, OutcomeStatus.RETRY, error) for r in results]
        except VendorError as error:
            return [_failed(r, OutcomeStatus.FIX_NEEDED, error) for r in results]
        return [Outcome(id=r.id, object="event") for r in results]

    async def _post(self, path: str, key: str, results: Sequence[Result]) -> Any:
        params = {
            "measurement_id": self.settings.measurement_id,
            "api_secret": self.settings.api_secret.get_secret_value(),
        }
        body = {
            "client_id": _client_id(key),
            "non_personalized_ads": True,
            "events": [_event(r) for r in results],
        }
        return await self.http.request(
            "POST", path, params=params, json=body, repeatable=False, expect_json=False
        )

    async def test(self) -> list[Finding]:
        """The debug endpoint checks the shape; it checks neither the secret nor the measurement id."""
        body = {"client_id": "1.1", "events": [{"name": "email_sent", "params": {"engagement_time_msec": 1}}]}
        params = {
            "measurement_id": self.settings.measurement_id,
            "api_secret": self.settings.api_secret.get_secret_value(),
        }
        try:
            answer = (
                await self.http.request(
                    "POST", "/debug/mp/collect", params=params, json=body, repeatable=True
                )
            ).json()
        except VendorError as error:
            return [Finding(False, f"cannot reach Google Analytics: {error.message}", error.fix)]
        wrong = [m.get("description", "") for m in answer.get("validationMessages", [])]
        if wrong:
            return [Finding(False, "; ".join(wrong), "report this: our events should be valid")]
        return [Finding(True, "events are well formed; only the Realtime report proves the secret")]


def _event(result: Result) -> dict[str, Any]:
    params = {
        "event_id": result.id, "message": result.message, "campaign": result.message, "source": "mailyard", "medium": "email",
        "funnel": result.funnel, "relay": str(result.detail.get("relay") or ""),
        "bounce_class": str(result.detail.get("class") or ""),
    }  # fmt: skip
    return {
        "name": EVENTS[result.kind.value],
        "timestamp_micros": int(result.occurred_at.timestamp() * 1_000_000),
        "params": {**{k: v[:MAX_VALUE] for k, v in params.items() if v}, "engagement_time_msec": 1},
    }


def _client_id(key: str) -> str:
    """Two numbers as in the _ga cookie, out of the person's opaque key: one client a person, nothing personal."""
    number = (
        int.from_bytes(key.encode()[:20].ljust(20, b"0")[:8], "big")
        if not _is_hex(key)
        else int(key[:16], 16)
    )
    return f"{number % 2**31}.{number >> 32 & 0x7FFFFFFF}"


def _is_hex(key: str) -> bool:
    try:
        int(key, 16)
    except ValueError:
        return False
    return len(key) >= 16


def _failed(result: Result, status: OutcomeStatus, error: VendorError) -> Outcome:
    return Outcome(id=result.id, status=status, code=error.code, message=error.message, fix=error.fix,
                   retry_after_seconds=error.retry_after_seconds)  # fmt: skip
