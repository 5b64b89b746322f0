"""`/metrics` for Prometheus: the numbers of the status page, and how old each stream and each wait is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from hub.jobs.runtime import Runtime
from hub.store import status

BELIEVED_SECONDS = 10.0
"""Counting is work for PostgreSQL; whoever asks more often gets the same numbers again."""
_PLAIN = {
    "contacts": "Live contacts", "deals": "Live deals", "segments": "Live segments",
}  # fmt: skip
_BY = {
    "lists": ("list_members", "Contacts on a list", ("list",)),
    "funnels": ("funnel_entries", "People in a funnel", ("funnel", "state")),
    "deliveries": ("deliveries", "Mails in the ledger", ("state",)),
    "results": ("results", "What came back of mails", ("kind",)),
    "outbox": ("outbox", "Writes to a system", ("connection", "state")),
    "inbox": ("inbox", "Events of webhooks", ("connection", "state")),
    "stream_age_seconds": ("stream_age_seconds", "Since a stream was last read to its end", ("connection", "stream")),
    "waiting_seconds": ("waiting_seconds", "How long the oldest waits", ("what",)),
}  # fmt: skip


class _Numbers(Collector):
    """Numbers that were asked for already, in Prometheus' shape."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, text in _PLAIN.items():
            yield GaugeMetricFamily(f"mailyard_{name}", text, value=self.found[name])
        for key, (name, text, labels) in _BY.items():
            family = GaugeMetricFamily(f"mailyard_{name}", text, labels=labels)
            for values, number in _leaves(self.found[key], len(labels)):
                family.add_metric(values, number)
            yield family


def _leaves(found: Mapping[str, Any], depth: int) -> Iterable[tuple[tuple[str, ...], float]]:
    for name, inner in found.items():
        if depth == 1:
            yield (name,), float(inner)
        else:
            for values, number in _leaves(inner, depth - 1):
                yield (name, *values), number


async def scrape(request: Request) -> Response:
    """The text format. It names lists, funnels and connections, and nobody."""
    state = request.app.state
    if time.monotonic() - getattr(state, "metrics_at", float("-inf")) > BELIEVED_SECONDS:
        runtime: Runtime = state.runtime
        async with runtime.db.connection() as conn:
            found = {
                **await status.numbers(conn, now=runtime.clock.now()),
                **await status.ages(conn, now=runtime.clock.now()),
            }
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Numbers(found))
        state.metrics, state.metrics_at = generate_latest(registry), time.monotonic()
    return Response(state.metrics, headers={"Content-Type": CONTENT_TYPE_LATEST})
