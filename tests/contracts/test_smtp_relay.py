"""The relay's SMTP side, driven by two client libraries: what it offers, takes, refuses, and how it fails."""

from __future__ import annotations

import smtplib
import socket
import ssl
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest

from contracts.smtp.faults import SmtpFault
from tests.contracts.smtp_case import ANN, BOB, REFUSED, client, mail, people, relay, verifying

SENDER = "bounce+1@mailyard.example"


def test_a_mail_arrives_byte_for_byte_over_verified_tls(tmp_path: Path) -> None:
    content = mail(body="<p>x</p>").replace(b"Hello in plain", b".Hello\r\n..\r\n.\r\nin plain")
    with relay(tmp_path) as sandbox:
        with client(sandbox) as smtp:
            assert smtp.sendmail(SENDER, [ANN], content) == {}
        sandbox.office.wait_drained()
        (delivery,) = sandbox.office.find(ANN)
        assert delivery.content == content
        assert (delivery.return_path, delivery.recipient, delivery.secure) == (SENDER, ANN, True)
        assert (delivery.message_id, delivery.fate) == ("<1@mailyard.example>", "delivered")
        assert sandbox.status()["accepted"] == sandbox.status()["distinct"] == 1


def test_what_it_offers(tmp_path: Path) -> None:
    with relay(tmp_path, login=("user", "secret")) as sandbox:
        with client(sandbox, tls=False) as smtp:
            assert {"size", "8bitmime", "smtputf8", "starttls", "pipelining"} <= set(smtp.esmtp_features)
            assert "auth" not in smtp.esmtp_features
        with client(sandbox) as smtp:
            assert set(smtp.esmtp_features["auth"].split()) == {"LOGIN", "PLAIN"}
            assert "starttls" not in smtp.esmtp_features
        assert sandbox.status()["connections"] == 2


def test_without_its_authority_the_certificate_is_refused(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox, smtplib.SMTP(sandbox.host, sandbox.port) as smtp:
        with pytest.raises(ssl.SSLCertVerificationError):
            smtp.starttls(context=ssl.create_default_context())
        smtp.close()


def test_the_certificate_passes_the_strict_checks(tmp_path: Path) -> None:
    with relay(tmp_path, tls="implicit") as sandbox:
        context = verifying(sandbox)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with smtplib.SMTP_SSL("localhost", sandbox.port, context=context) as smtp:
            smtp.sendmail(SENDER, [ANN], mail())
        sandbox.office.wait_drained()
        assert sandbox.office.find()[0].secure


async def test_aiosmtplib_over_verified_tls(tmp_path: Path) -> None:
    with relay(tmp_path, people(bob=REFUSED), login=("user", "secret"), require_tls=True) as sandbox:
        async with aiosmtplib.SMTP(
            hostname=sandbox.host,
            port=sandbox.port,
            start_tls=True,
            tls_context=verifying(sandbox),
            username="user",
            password="secret",
        ) as smtp:
            for number in range(20):
                errors, _ = await smtp.sendmail(SENDER, [ANN, BOB], mail(number=number))
                assert errors[BOB].code == 550
        sandbox.office.wait_drained()
        status = sandbox.status()
        assert (status["accepted"], status["distinct"], status["refused"], status["refusals"]) == (
            20,
            20,
            1,
            20,
        )


def test_mail_needs_the_login_and_tls_that_were_demanded(tmp_path: Path) -> None:
    with relay(tmp_path, login=("user", "secret"), require_tls=True) as sandbox:
        with client(sandbox, tls=False) as smtp, pytest.raises(smtplib.SMTPSenderRefused) as error:
            smtp.sendmail(SENDER, [ANN], mail())
        assert error.value.smtp_code == 530
        with client(sandbox) as smtp:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                smtp.login("user", "wrong")
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.sendmail(SENDER, [ANN], mail())
            smtp.login("user", "secret")
            smtp.sendmail(SENDER, [ANN], mail())


def test_an_unknown_address_is_refused_at_rcpt(tmp_path: Path) -> None:
    with relay(tmp_path, people(bob=REFUSED)) as sandbox, client(sandbox) as smtp:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as error:
            smtp.sendmail(SENDER, [BOB], mail(BOB))
        code, text = error.value.recipients[BOB]
        assert code == 550
        assert text.startswith(b"5.1.1 ")
        assert sandbox.status()["refused"] == 1
        assert sandbox.status()["accepted"] == 0


def test_pipelined_commands_are_served_in_order(tmp_path: Path) -> None:
    with relay(tmp_path, people(bob=REFUSED)) as sandbox:
        with socket.create_connection((sandbox.host, sandbox.port), timeout=10) as raw:
            stream = raw.makefile("rwb")
            stream.readline()
            stream.write(b"EHLO me\r\n")
            stream.flush()
            while stream.readline()[3:4] == b"-":
                continue
            for number in range(3):
                stream.write(
                    b"MAIL FROM:<a@x.example>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n"
                )
                stream.flush()
                assert [stream.readline()[:3] for _ in range(4)] == [b"250", b"550", b"250", b"354"]
                stream.write(mail(number=number) + b"\r\n.\r\n")
                stream.flush()
                assert stream.readline()[:3] == b"250"
        sandbox.office.wait_drained()
        assert sandbox.status()["distinct"] == 3


def test_a_repeated_message_is_a_duplicate_and_two_people_are_none(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox:
        with client(sandbox) as smtp:
            smtp.sendmail(SENDER, [ANN, BOB], mail(number=1))
            smtp.sendmail(SENDER, ["Ann@Example.com"], mail(number=1))
            smtp.sendmail(SENDER, [ANN], mail(number=2))
        sandbox.office.wait_drained()
        status = sandbox.status()
        assert (status["accepted"], status["distinct"], status["duplicates"]) == (4, 3, 1)


def test_enough_messages_on_one_connection_end_it_with_421(tmp_path: Path) -> None:
    with relay(tmp_path, messages_per_connection=2) as sandbox:
        with client(sandbox) as smtp:
            for number in range(2):
                smtp.sendmail(SENDER, [ANN], mail(number=number))
            assert smtp.mail(SENDER)[0] == 421
            with pytest.raises(smtplib.SMTPServerDisconnected):
                smtp.noop()
        with client(sandbox) as smtp:
            smtp.sendmail(SENDER, [ANN], mail(number=3))
        assert sandbox.status()["accepted"] == 3


def test_greylisting_takes_the_second_try(tmp_path: Path) -> None:
    with relay(tmp_path, greylist=True) as sandbox, client(sandbox) as smtp:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as error:
            smtp.sendmail(SENDER, [ANN], mail())
        assert error.value.recipients[ANN][0] == 450
        assert smtp.sendmail(SENDER, [ANN], mail()) == {}


def test_too_large_is_said_before_and_after(tmp_path: Path) -> None:
    with relay(tmp_path, max_bytes=20_000) as sandbox, client(sandbox) as smtp:
        large = mail(body="<p>some words</p>\n" * 2_000)
        with pytest.raises(smtplib.SMTPSenderRefused) as before:
            smtp.sendmail(SENDER, [ANN], large)
        assert before.value.smtp_code == 552
        smtp.esmtp_features.pop("size")
        with pytest.raises(smtplib.SMTPDataError) as after:
            smtp.sendmail(SENDER, [ANN], large)
        assert after.value.smtp_code == 552


def test_addresses_beyond_ascii(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox:
        with client(sandbox) as smtp:
            smtp.sendmail(SENDER, ["käthe@exämple.com"], mail(), mail_options=["SMTPUTF8", "BODY=8BITMIME"])
        sandbox.office.wait_drained()
        assert [d.recipient for d in sandbox.office.find()] == ["käthe@exämple.com"]


# -- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "text", "refused"),
    [
        ("mail", "451 4.3.0 Busy", smtplib.SMTPSenderRefused),
        ("rcpt", "450 4.2.1 Mailbox busy", smtplib.SMTPRecipientsRefused),
        ("data", "451 4.7.0 Try later", smtplib.SMTPDataError),
        ("data", "554 5.7.1 Content refused", smtplib.SMTPDataError),
    ],
)
def test_a_planned_reply_is_given_once(tmp_path: Path, stage: str, text: str, refused: Any) -> None:
    with relay(tmp_path) as sandbox, client(sandbox) as smtp:
        sandbox.faults.plan("reply", stage=stage, text=text, skip=1)
        smtp.sendmail(SENDER, [ANN], mail(number=1))
        with pytest.raises(refused):
            smtp.sendmail(SENDER, [ANN], mail(number=2))
        smtp.sendmail(SENDER, [ANN], mail(number=2))
        sandbox.office.wait_drained()
        assert (sandbox.status()["accepted"], sandbox.status()["duplicates"]) == (2, 0)
        assert sandbox.status()["faults_struck"] == {"reply": 1}


@pytest.mark.parametrize(
    ("kind", "taken"), [("drop_after_data", 1), ("lose_after_data", 0), ("drop_in_data", 0), ("drop", 0)]
)
@pytest.mark.parametrize("tls", [True, False])
def test_the_answer_to_the_data_is_lost(tmp_path: Path, kind: str, taken: int, tls: bool) -> None:
    with relay(tmp_path) as sandbox:
        sandbox.faults.plan(kind, recipient="^ann@")
        with client(sandbox, tls=tls) as smtp:
            smtp.sendmail(SENDER, [BOB], mail(BOB, number=1))
            with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
                smtp.sendmail(SENDER, [ANN], mail(number=2, body="<p>some words</p>\n" * 5_000))
            smtp.close()
        sandbox.office.wait_drained()
        assert [d.recipient for d in sandbox.office.find(ANN)] == [ANN] * taken
        assert sandbox.status()["accepted"] == 1 + taken


@pytest.mark.parametrize("stage", ["mail", "rcpt"])
def test_hanging_up_before_the_data(tmp_path: Path, stage: str) -> None:
    with relay(tmp_path) as sandbox:
        sandbox.faults.plan("drop", stage=stage)
        with client(sandbox) as smtp:
            with pytest.raises(smtplib.SMTPServerDisconnected):
                smtp.sendmail(SENDER, [ANN], mail())
            smtp.close()
        assert sandbox.status()["accepted"] == 0


def test_a_relay_that_takes_nobody_now(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox:
        sandbox.faults.plan("reply", stage="connect", text="421 4.3.2 Down for maintenance")
        with pytest.raises(smtplib.SMTPConnectError) as error:
            smtplib.SMTP(sandbox.host, sandbox.port, timeout=10)
        assert error.value.smtp_code == 421
        sandbox.faults.plan("drop", stage="connect")
        with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
            smtplib.SMTP(sandbox.host, sandbox.port, timeout=10)
        with client(sandbox) as smtp:
            smtp.sendmail(SENDER, [ANN], mail())


def test_a_slow_answer_outlasts_a_clients_patience(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox:
        sandbox.faults.plan("slow", stage="data", seconds=30)
        with smtplib.SMTP(sandbox.host, sandbox.port, timeout=0.3) as smtp:
            smtp.ehlo()
            with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
                smtp.sendmail(SENDER, [ANN], mail())
            smtp.close()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"kind": "explode"}, "unknown fault"),
        ({"kind": "reply", "stage": "helo"}, "unknown stage"),
        ({"kind": "reply", "text": "no"}, "no SMTP reply"),
    ],
)
def test_an_impossible_fault_is_refused(fault: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SmtpFault(**fault)
