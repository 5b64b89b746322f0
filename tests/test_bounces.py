"""Failures classed by text, then code. Texts are paraphrased keys of the providers' published replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.bounces import KnownReply, classify, enhanced_code, known_replies, signature
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


@pytest.mark.parametrize("row", known_replies(), ids=lambda row: f"{row.receiver}: {row.example[:40]}")
def test_each_row_of_the_table_decides_its_own_example(row: KnownReply) -> None:
    stage = row.stage or "rcpt"
    first = next(r for r in known_replies() if r.stage in ("", stage) and r.pattern.search(row.example))
    assert first is row
    basic = int(row.example[:3]) if row.example[:3].isdigit() else 0
    expected = B.TRANSIENT if 400 <= basic < 500 and row.kind in (B.ADDRESS, B.ADDRESS_WEAK) else row.kind
    assert (
        classify(code=basic, enhanced=enhanced_code(row.example), text=row.example, stage=stage) is expected
    )


def test_each_row_names_its_source() -> None:
    assert all(row.source.strip() and row.receiver.strip() for row in known_replies())


@given(
    st.integers(400, 599),
    st.sampled_from([2, 4, 5]),
    st.integers(0, 99),
    st.integers(0, 999),
    st.text(max_size=60),
)
def test_what_is_not_understood_never_suppresses(
    code: int, of: int, subject: int, detail: int, text: str
) -> None:
    enhanced = f"{of}.{subject}.{detail}"
    found = classify(code=code, enhanced=enhanced, text=text)
    if not any(row.pattern.search(text) for row in known_replies()) and not enhanced_code(text):
        assert found is not B.ADDRESS or (code >= 500 and enhanced in {"5.1.1", "5.1.3", "5.1.6", "5.1.10"})


RECEIVERS = ("Gmail", "Yahoo", "Microsoft", "iCloud", "GMX and Web.de", "Proofpoint", "Mimecast", "Barracuda")


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_receivers_words_about_us_are_no_word_about_the_address(receiver: str) -> None:
    rows = [row for row in known_replies() if row.receiver == receiver]
    assert rows
    for row in rows:
        if row.kind in (B.REPUTATION, B.POLICY, B.CONTENT):
            # The trap of the field: a text about the sender under the code of a dead mailbox.
            assert classify(code=550, enhanced="5.1.1", text=f"550 5.1.1 {row.example[4:]}") is row.kind


def test_a_signature_holds_nothing_personal() -> None:
    one = signature(
        "550 5.1.1 <ann@example.net>: user unknown (mx1.example.net[192.0.2.7]) https://x.example/a1"
    )
    two = signature(
        "550 5.1.1 <bob.b@example.net>: User unknown (mx22.example.net[192.0.2.99]) https://x.example/b9"
    )
    assert one == two == "user unknown"
