"""Failure reports as the world writes them: well-formed RFC 3464, read by a parser that is not ours."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from contracts.smtp.audience import Audience, Fate, Person
from tests.contracts.smtp_case import ANN, BOB, BOUNCED, DELAYED, client, mail, people, relay

SENDER = "bounce+abc234@mailyard.example"


def reports(
    folder: Path, audience: Audience, *recipients: str, options: tuple[str, ...] = ()
) -> list[EmailMessage]:
    """Send one mail to each, and read the Maildir that the return path leads to."""
    with relay(folder, audience) as sandbox:
        with client(sandbox) as smtp:
            for number, recipient in enumerate(recipients):
                smtp.sendmail(SENDER, [recipient], mail(recipient, number=number), mail_options=options)
        sandbox.office.wait_drained()
        assert sandbox.status()["failures"] == 0
    assert list((folder / "bounces" / "tmp").iterdir()) == []
    files = sorted((folder / "bounces" / "new").iterdir())
    assert all(b"\r" not in file.read_bytes() for file in files)
    found = [email.message_from_bytes(f.read_bytes(), policy=email.policy.default) for f in files]
    assert all(isinstance(message, EmailMessage) and not message.defects for message in found)
    return found  # type: ignore[return-value]


def parts(report: EmailMessage) -> list[EmailMessage]:
    return list(report.iter_parts())  # type: ignore[arg-type]


def test_another_parser_finds_the_dead_address(tmp_path: Path) -> None:
    (report,) = reports(tmp_path, people(bob=BOUNCED), ANN, BOB)
    temporary, permanent = all_failures(email.message_from_bytes(report.as_bytes()))
    assert permanent == {BOB.encode()}
    assert temporary == set()


def test_the_report_has_the_three_parts_of_rfc_3464(tmp_path: Path) -> None:
    (report,) = reports(tmp_path, people(bob=BOUNCED), BOB)
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert [p.get_content_type() for p in parts(report)] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    per_message, per_recipient = parts(report)[1].get_payload()
    assert per_message["Reporting-MTA"] == "dns; relay.sandbox.example"
    assert per_recipient["Final-Recipient"] == f"rfc822; {BOB}"
    assert per_recipient["Action"] == "failed"
    assert per_recipient["Status"] == "5.1.1"
    assert per_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 ")
    returned = email.message_from_string(parts(report)[2].get_content())
    assert returned["Message-ID"] == "<0@mailyard.example>"
    assert returned["To"] == BOB
    assert returned.get_payload().strip() == ""


def test_it_goes_to_the_return_path_and_answers_to_nobody(tmp_path: Path) -> None:
    (report,) = reports(tmp_path, people(bob=BOUNCED), BOB)
    assert report["Return-Path"] == "<>"
    assert report["Delivered-To"] == report["To"] == SENDER
    assert report["Auto-Submitted"] == "auto-replied"


def test_a_full_mailbox_delays_and_is_no_failure(tmp_path: Path) -> None:
    with_delay = people(bob=DELAYED)
    (report,) = reports(tmp_path, with_delay, BOB)
    status = parts(report)[1].get_payload()[1]
    assert (status["Action"], status["Status"]) == ("delayed", "4.2.2")
    assert status["Diagnostic-Code"].startswith("smtp; 452 4.2.2")
    temporary, permanent = all_failures(email.message_from_bytes(report.as_bytes()))
    assert permanent == set()
    assert temporary == {BOB.encode()}


def test_a_test_words_its_own_bounce(tmp_path: Path) -> None:
    blocked = Person(Fate.BOUNCED, status="5.7.1", text="Listed by a blocklist")
    (report,) = reports(tmp_path, people(bob=blocked), BOB)
    assert parts(report)[1].get_payload()[1]["Diagnostic-Code"] == "smtp; 550 5.7.1 Listed by a blocklist"


def test_addresses_beyond_ascii_come_back_in_utf_8(tmp_path: Path) -> None:
    audience = Audience(bounce=1, refuse=0)
    (report,) = reports(tmp_path, audience, "käthe@exämple.com", options=("SMTPUTF8", "BODY=8BITMIME"))
    assert report.get_param("report-type") == "global-delivery-status"
    raw = report.as_bytes(policy=email.policy.SMTPUTF8)
    assert "Final-Recipient: utf-8; käthe@exämple.com".encode() in raw


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_shares_are_kept_and_hang_on_the_address_alone(share: float) -> None:
    audience, again = Audience(seed=3, bounce=share, refuse=0.1), Audience(seed=3, bounce=share, refuse=0.1)
    addresses = [f"p{n}@example.com" for n in range(4_000)]
    fates = [audience.fate(a) for a in addresses]
    assert fates == [again.fate(a.upper()) for a in reversed(addresses)][::-1]
    bounced = fates.count(Fate.BOUNCED) / len(fates)
    assert abs(bounced - min(share, 0.9)) < 0.025
    assert fates != [Audience(seed=4, bounce=share, refuse=0.1).fate(a) for a in addresses]


def test_readers_hang_on_address_and_subject_and_clickers_are_openers() -> None:
    audience = Audience(seed=3)
    one = [audience.reaction(f"p{n}@example.com", "One") for n in range(4_000)]
    two = [audience.reaction(f"p{n}@example.com", "Two") for n in range(4_000)]
    assert one == [Audience(seed=3).reaction(f"p{n}@example.com", "One") for n in range(4_000)]
    assert one != two
    assert all(r.opens for r in one if r.clicks)
    for name, share in (("opens", 0.45), ("clicks", 0.15), ("unsubscribes", 0.02)):
        assert abs(sum(getattr(r, name) for r in one) / len(one) - share) < 0.03
