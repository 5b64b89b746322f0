"""All that a connector's author tests."""

from acme_case import AcmeCase

from hub.sdk.conformance import suite_for

TestAcme = suite_for(AcmeCase, "gold")
