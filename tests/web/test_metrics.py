"""The numbers for Prometheus are those of the status page."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.clock import ManualClock
from tests.support.rig import Rig


async def scraped(web: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await web.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_what_is_scraped_is_what_the_status_page_says(
    rig: Rig, web: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        rig.hubspot.create("contacts", {"email": f"p{n}@example.com", "city": "Berlin"})
    await rig.run("pull:contacts", "pull:deals", "pull:segments", "lists", "funnels")
    clock.advance(hours=2)
    found = await scraped(web)

    def value(name: str, **labels: str) -> float:
        return found[f"mailyard_{name}", frozenset(labels.items())]

    told = (await web.get("/status.json")).json()
    assert value("contacts") == told["contacts"] == 3
    assert value("list_members", list="berlin") == told["lists"]["berlin"] == 3
    assert value("funnel_entries", funnel="greeting", state="active") == 3
    assert value("deliveries", state="queued") == told["deliveries"]["queued"] == 3
    assert (
        value("stream_age_seconds", connection="crm", stream="contacts") == timedelta(hours=2).total_seconds()
    )
    assert value("waiting_seconds", what="mail") == timedelta(hours=2).total_seconds()
    assert value("waiting_seconds", what="inbox") == 0
    assert not any("@" in text for _, labels in found for pair in labels for text in pair)

    rig.hubspot.create("contacts", {"email": "new@example.com"})
    await rig.run("pull:contacts")
    assert ("mailyard_contacts", frozenset()) in found
    assert (await scraped(web))["mailyard_contacts", frozenset()] == 3  # counted a moment ago
    monkeypatch.setattr("hub.web.metrics.BELIEVED_SECONDS", 0.0)
    assert (await scraped(web))["mailyard_contacts", frozenset()] == 4
