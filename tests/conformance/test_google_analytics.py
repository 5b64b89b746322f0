"""Google Analytics through the suite."""

from __future__ import annotations

from hub.sdk.conformance import Grade, suite_for
from tests.conformance.cases import GoogleAnalyticsCase

TestGoogleAnalytics = suite_for(GoogleAnalyticsCase, Grade.GOLD)
