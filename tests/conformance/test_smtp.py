"""The SMTP relay through the relays' suite."""

from __future__ import annotations

from hub.sdk.conformance import Grade, suite_for
from tests.conformance.cases import SmtpCase

TestSmtp = suite_for(SmtpCase, Grade.GOLD)
