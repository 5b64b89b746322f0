"""Delivery reports as the field writes them: RFC 3464 in several shapes, qmail's prose, auto-replies, nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.results.dsn import Verdict, parse

REPORT = """\
Return-Path: <>
Delivered-To: bounce+abc234@mailyard.example
From: MAILER-DAEMON@mx.example.net
To: bounce+abc234@mailyard.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: {outer}; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

I am sorry to inform you that your message could not be delivered.

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
Arrival-Date: Tue, 24 Nov 2026 09:00:00 +0000

Final-Recipient: rfc822; ann@example.net
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {diagnostic}

--B
Content-Type: text/rfc822-headers

From: Ann <ann@mailyard.example>
Message-ID: <41.k3@mailyard.example>
Subject: Hello

--B--
"""


def report(
    *,
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "550 5.1.1 user unknown",
    outer: str = "multipart/report",
) -> bytes:
    text = REPORT.format(outer=outer, action=action, status=status, diagnostic=diagnostic)
    return text.replace("\n", "\r\n").encode()


def test_a_failure() -> None:
    found = parse(report())
    assert found.verdict is Verdict.BOUNCED
    assert found.sent_to[0] == "bounce+abc234@mailyard.example"
    assert (found.code, found.enhanced, found.text) == (550, "5.1.1", "550 5.1.1 user unknown")
    assert found.message_ids == ("<41.k3@mailyard.example>",)


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("Delayed", Verdict.DELAYED), ("delivered", Verdict.DELIVERED), ("relayed", Verdict.DELIVERED)],
)
def test_other_actions_are_no_failures(action: str, verdict: Verdict) -> None:
    assert parse(report(action=action)).verdict is verdict


def test_the_status_block_is_found_in_a_mixed_message() -> None:
    assert parse(report(outer="multipart/mixed")).verdict is Verdict.BOUNCED


def test_the_receivers_code_is_believed_before_the_reporters() -> None:
    found = parse(report(status="5.0.0", diagnostic="550 5.2.2 mailbox full"))
    assert found.enhanced == "5.2.2"


def test_a_folded_diagnostic_is_one_line() -> None:
    found = parse(report(diagnostic="550 5.1.1 user\n    unknown (in reply to\n    end of DATA command)"))
    assert found.text == "550 5.1.1 user unknown (in reply to end of DATA command)"
    assert found.stage == "data"


def test_qmails_prose() -> None:
    raw = (
        "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.net\nTo: bounce+abc234@mailyard.example\nSubject: failure notice\n\n"
        "Hi. This is the qmail-send program at mx.example.net.\nI'm afraid I wasn't able to deliver your message "
        "to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n<ann@example.net>:\n"
        "192.0.2.1 does not like recipient.\nRemote host said: 550 5.1.1 user unknown\nGiving up on 192.0.2.1.\n\n"
        "--- Below this line is a copy of the message.\n\nReturn-Path: <bounce+abc234@mailyard.example>\nMessage-ID: <41.k3@x>\n"
    )
    found = parse(raw.encode())
    assert found.verdict is Verdict.BOUNCED
    assert (found.code, found.enhanced) == (550, "5.1.1")


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: auto-replied\nSubject: Out of office\nFrom: Ann <ann@example.net>\nReturn-Path: <ann@example.net>",
        "Subject: Re: Hello\nFrom: Ann <ann@example.net>\nReturn-Path: <ann@example.net>",
        'Subject: Read: Hello\nContent-Type: multipart/report; report-type=disposition-notification; boundary="B"\nFrom: a@x.net',
    ],
)
def test_people_and_their_machines_are_no_bounces(headers: str) -> None:
    assert parse(f"{headers}\n\nI am away, user unknown to nobody.\n".encode()).verdict in (
        Verdict.IGNORED,
        Verdict.AUTO_REPLY,
    )


@given(st.binary(max_size=2_000))
@settings(max_examples=200)
def test_nonsense_never_raises(raw: bytes) -> None:
    assert parse(raw).verdict in set(Verdict)


@given(st.integers(0, 1_300), st.binary(max_size=8))
@settings(max_examples=200)
def test_a_damaged_report_never_raises(at: int, junk: bytes) -> None:
    whole = report()
    assert parse(whole[:at] + junk + whole[at + 4 :]).verdict in set(Verdict)
