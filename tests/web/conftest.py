"""The hub's web application without a network between, and a mail that was sent to somebody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from hub.web.app import application
from tests.support.rig import Rig


@pytest.fixture
async def web(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application(rig.runtime))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub.example") as client:
        yield client


@pytest.fixture
async def mail(rig: Rig) -> int:
    """The ledger's row of a mail to Ann."""
    async with rig.runtime.db.transaction() as conn:
        cursor = await conn.execute(
            """WITH c AS (INSERT INTO contact (email, first_name, changed_at) VALUES ('ann@example.com', 'Ann', now())
                          RETURNING id)
               INSERT INTO delivery (message, contact_id, occurrence, purpose, email, state, queued_at, sent_at)
               SELECT 'hello', id, 'x', 'news', 'ann@example.com', 'accepted', now(), now() FROM c RETURNING id"""
        )
        row = await cursor.fetchone()
    assert row
    return int(row[0])
