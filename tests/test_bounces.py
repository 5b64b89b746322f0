"""Failures classed by text, then code. Texts are paraphrased keys of the providers' published replies."""

from __future__ import annotations

import pytest

from hub.bounces import classify, enhanced_code
from hub.model import BounceClass as B


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "stage", "expected"),
    [
        (
            550,
            "5.1.1",
            "550 5.1.1 The email account that you tried to reach does not exist",
            "rcpt",
            B.ADDRESS,
        ),
        (550, "", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", "rcpt", B.ADDRESS),
        (
            550,
            "5.7.1",
            "550 5.7.1 No such user!",
            "rcpt",
            B.ADDRESS,
        ),  # a policy code, an address text: the text wins
        (554, "", "554 delivery error: dd This user doesn't have a yahoo.com account", "data", B.ADDRESS),
        (552, "5.2.2", "552 5.2.2 The email account is over quota", "rcpt", B.MAILBOX_FULL),
        (452, "4.2.2", "452 4.2.2 mailbox full", "rcpt", B.MAILBOX_FULL),
        (
            550,
            "5.2.1",
            "550 5.2.1 The user is receiving mail too quickly",
            "rcpt",
            B.TRANSIENT,
        ),  # permanent in form only
        (550, "5.2.1", "550 5.2.1 The email account is disabled", "rcpt", B.ADDRESS_WEAK),
        (
            550,
            "5.7.1",
            "550 5.7.1 Service unavailable; client host blocked using Spamhaus",
            "mail",
            B.REPUTATION,
        ),
        (421, "4.7.0", "421 4.7.0 [TSS04] Messages temporarily deferred", "mail", B.REPUTATION),
        (
            550,
            "5.7.26",
            "550 5.7.26 unauthenticated email is not accepted due to domain's DMARC policy",
            "data",
            B.POLICY,
        ),
        (550, "5.7.515", "550 5.7.515 does not meet the required level", "data", B.POLICY),
        (552, "5.3.4", "552 5.3.4 message too large", "data", B.CONTENT),
        (450, "", "450 4.7.1 greylisted, try again later", "rcpt", B.TRANSIENT),
        (451, "", "451 internal error", "rcpt", B.TRANSIENT),
        (450, "5.1.1", "450 5.1.1 user unknown", "rcpt", B.TRANSIENT),  # 4xx with 5.x.x is temporary
        (550, "5.1.8", "550 5.1.8 sender address has null MX", "mail", B.RELAY),  # about us, not them
        (550, "5.1.1", "550 5.1.1 user unknown", "mail", B.RELAY),
        (550, "5.0.0", "550 5.1.1 inside", "rcpt", B.ADDRESS),  # the inner code is the receiver's
        (550, "", "550 no", "rcpt", B.UNKNOWN),
        (0, "", "", "rcpt", B.UNKNOWN),
    ],
)
def test_class(code: int, enhanced: str, text: str, stage: str, expected: B) -> None:
    assert classify(code=code, enhanced=enhanced, text=text, stage=stage) is expected


def test_enhanced_code() -> None:
    assert enhanced_code("550 5.1.10 gone") == "5.1.10"
    assert enhanced_code("version 10.5.1.1.2 of 250") == ""
    assert enhanced_code("250 ok") == ""
