"""The connector for systems of one's own through the suite."""

from __future__ import annotations

from hub.sdk.conformance import Grade, suite_for
from tests.conformance.cases import WebhookCase

TestWebhook = suite_for(WebhookCase, Grade.GOLD)
