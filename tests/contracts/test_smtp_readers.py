"""The people behind the relay act over real HTTP; what they saw is told by the status API."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
import sys
from email.header import Header
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from contracts.smtp.audience import Audience, Person, Reaction
from contracts.smtp.letter import read_headers, read_traces
from contracts.smtp.relay import RelaySandbox
from tests.contracts.smtp_case import (
    ANN,
    BOB,
    BOUNCED,
    CLICKER,
    LEAVER,
    OPENER,
    client,
    mail,
    people,
    relay,
    serving_web,
    verifying,
)

SENDER = "bounce+1@mailyard.example"


def send(sandbox: RelaySandbox, *mails: tuple[str, bytes]) -> dict[str, Any]:
    """Send, wait until everybody has done what they do, and return the counts."""
    with client(sandbox) as smtp:
        for recipient, content in mails:
            smtp.sendmail(SENDER, [recipient], content)
    sandbox.office.wait_drained()
    return sandbox.status()


def ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data), timeout=10) as response:
        return json.load(response)


def test_each_does_what_their_nature_says(tmp_path: Path) -> None:
    audience = people(opener=OPENER, clicker=CLICKER, leaver=LEAVER, gone=BOUNCED)
    with serving_web() as web, relay(tmp_path, audience) as sandbox:
        names = ("opener", "clicker", "leaver", "gone", "quiet")
        status = send(
            sandbox,
            *[(f"{name}@example.com", mail(f"{name}@example.com", number=n, web=web.url)) for n, name in enumerate(names)],
        )  # fmt: skip
    assert sorted(web.asked) == [
        ("GET", "/c/1?l=1&s=2", b""),
        ("GET", "/o/0.gif", b""),
        ("GET", "/o/1.gif", b""),
        ("POST", "/u/2", b"List-Unsubscribe=One-Click"),
    ]
    assert {k: status[k] for k in ("opened", "clicked", "unsubscribed", "bounced_dsn", "failures", "pending")} == {
        "opened": 2, "clicked": 1, "unsubscribed": 1, "bounced_dsn": 1, "failures": 0, "pending": 0,
    }  # fmt: skip


def test_a_duplicate_is_not_read_again(tmp_path: Path) -> None:
    with serving_web() as web, relay(tmp_path, people(ann=CLICKER)) as sandbox:
        content = mail(web=web.url)
        status = send(sandbox, (ANN, content), (ANN, content))
    assert (status["duplicates"], status["opened"], status["clicked"]) == (1, 1, 1)
    assert len(web.asked) == 2


def test_readers_wait_for_a_web_that_is_restarting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with relay(tmp_path, people(ann=CLICKER)) as sandbox:
        with client(sandbox) as smtp:
            smtp.sendmail(SENDER, [ANN], mail(web=f"http://127.0.0.1:{port}"))
        assert sandbox.status()["pending"] == 1
        with serving_web(port, broken=2) as web:
            sandbox.office.wait_drained()
            assert [path for _, path, _ in web.asked] == ["/o/1.gif", "/c/1?l=1&s=2"]
        assert sandbox.status()["failures"] == 0


@pytest.mark.parametrize(
    ("settings", "content", "because"),
    [
        ({"link_status": 200}, {}, "not clicked: the link answers 200"),
        ({"link_status": 404}, {}, "not clicked: the link answers 404"),
        ({}, {"post": False}, "not unsubscribed: the mail offers no one-click unsubscription (RFC 8058)"),
        ({}, {"body": "<p>no traces</p>"}, "not opened: the mail has no image on its sender's host"),
    ],
)
def test_what_cannot_be_done_is_a_failure_that_says_why(
    tmp_path: Path, settings: dict[str, Any], content: dict[str, Any], because: str
) -> None:
    everything = Person(reaction=Reaction(opens=True, clicks=True, unsubscribes=True))
    with serving_web(**settings) as web, relay(tmp_path, people(ann=everything)) as sandbox:
        status = send(sandbox, (ANN, mail(web=web.url, **content)))
    assert because in status["failed_because"]
    assert status["pending"] == 0


def test_a_web_that_stays_away_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with relay(tmp_path, people(ann=OPENER), patience_seconds=0.3) as sandbox:
        status = send(sandbox, (ANN, mail(web=f"http://127.0.0.1:{port}")))
    (because,) = status["failed_because"]
    assert because.startswith("not opened: GET: ConnectionRefusedError after")
    assert status["opened"] == 0


def test_the_world_outside_is_never_touched(tmp_path: Path) -> None:
    with relay(tmp_path, people(ann=CLICKER)) as sandbox:
        status = send(sandbox, (ANN, mail(web="https://hub.mailyard.example")))
    assert status["failures"] == 2
    assert all("may be reached" in because for because in status["failed_because"])


def test_a_mail_that_is_no_mail_does_not_stay_pending(tmp_path: Path) -> None:
    with relay(tmp_path, people(ann=CLICKER)) as sandbox:
        status = send(
            sandbox,
            (ANN, b"\x00\xff no header\r\n\r\n=?x?q?="),
            (ANN, b"Subject: =?no-such?q?=C3?=\r\n\r\nx"),
        )
    assert status["pending"] == 0
    assert status["accepted"] == 2
    assert status["failures"] > 0


def test_headers_are_unfolded_and_decoded() -> None:
    subject = Header("Grüße aus Wien, " * 8, "utf-8").encode(linesep="\r\n")
    content = (
        f"Subject: {subject}\r\nMessage-ID:\r\n <1@x.example>\r\nList-Unsubscribe: <mailto:a@x.example>,\r\n"
        "\t<http://127.0.0.1/u/1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nbody\r\n"
    ).encode()
    envelope = read_headers(content)
    assert envelope.subject == ("Grüße aus Wien, " * 8)
    assert envelope.message_id == "<1@x.example>"
    assert (envelope.unsubscribe_url, envelope.one_click) == ("http://127.0.0.1/u/1", True)
    assert read_traces(content, envelope).links == ()


def test_only_what_a_mail_program_shows_counts_and_only_on_the_senders_host() -> None:
    web = "http://127.0.0.1:8000"
    page = f"""
      <!--[if mso]><a href="{web}/c/outlook">x</a><img src="{web}/o/outlook"><![endif]-->
      <!--[if !mso]><!--><A CLASS="a > b" HREF='{web}/c/1?a=1&amp;b=2'>first</A><!--<![endif]-->
      <abbr title="{web}/c/no">no link</abbr><area href="{web}/c/area"><a name="top">anchor</a>
      <a href="{web}/u/7?really">leave</a><a href="{web}.evil.example/c/2">other host</a>
      <a href="https://127.0.0.1:8000/c/3">other scheme</a><img alt="1 > 0" src="{web}/o/1"/><img src="cid:logo">
    """
    content = mail(number=7, web=web, body=page)
    traces = read_traces(content, read_headers(content))
    assert traces.links == (f"{web}/c/1?a=1&b=2",)
    assert traces.images == (f"{web}/o/1",)


# -- the status API, as another process sees it ------------------------------------------------------------------------


def test_the_status_api_tells_and_takes_orders(tmp_path: Path) -> None:
    with relay(tmp_path) as sandbox:
        base, content = sandbox.status_url, mail(subject="Größe")
        assert ask(f"{base}/person", {"address": BOB, "fate": "refused", "text": "Moved away"})["people"] == 1
        assert (
            ask(f"{base}/fault", {"kind": "reply", "stage": "mail", "text": "451 4.3.0 Later"})["planned"]
            == 1
        )
        with client(sandbox) as smtp:
            assert smtp.mail(SENDER)[0] == 451
            smtp.rset()
            with pytest.raises(smtplib.SMTPRecipientsRefused, match="Moved away"):
                smtp.sendmail(SENDER, [BOB], mail(BOB))
            smtp.sendmail(SENDER, [ANN], content)
        sandbox.office.wait_drained()
        (told,) = ask(f"{base}/messages?recipient={ANN}&limit=5")["messages"]
        assert (told["mail_from"], told["subject"], told["message_id"]) == (
            SENDER,
            "Größe",
            "<1@mailyard.example>",
        )
        assert ["Message-ID", "<1@mailyard.example>"] in told["headers"]
        assert ask(f"{base}/messages?recipient={BOB}")["messages"] == []
        with urlopen(f"{base}/messages/{told['number']}", timeout=10) as raw:
            assert raw.read() == content
        assert ask(f"{base}/status") == sandbox.status()
        with pytest.raises(HTTPError) as error:
            ask(f"{base}/fault", {"kind": "explode"})
        assert "unknown fault" in json.load(error.value)["message"]


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    arguments = ["--maildir", str(tmp_path / "bounces"), "--seed", "3", "--bounce", "1", "--refuse", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "contracts.smtp.relay", "--port", "0", *arguments], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        host, _, port = told["smtp"].partition(":")
        with smtplib.SMTP(host, int(port), timeout=10) as smtp:
            smtp.starttls(context=verifying(_Named(Path(told["ca_file"]))))
            smtp.sendmail(SENDER, [ANN], mail())
        assert ask(f"{told['status']}/status")["accepted"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not Path(told["ca_file"]).exists()


class _Named(RelaySandbox):
    """Only a place for a CA file."""

    def __init__(self, ca_file: Path) -> None:
        self.ca_file = ca_file


def test_thousands_are_read_in_seconds(tmp_path: Path) -> None:
    """300 mails of 13 kB, most of them opened, well inside the time that the whole demo may take."""
    filler = "<tr><td style='color:#333;font-size:12px'>some words of a newsletter</td></tr>\n" * 150
    audience = Audience(bounce=0, refuse=0, open=0.6, click=0.2, unsubscribe=0)
    with serving_web() as web, relay(tmp_path, audience) as sandbox:
        page = f'<table>{filler}</table><a href="{web.url}/c/1">go</a><img src="{web.url}/o/1">'
        status = send(
            sandbox, *[(f"p{n}@example.com", mail(number=n, web=web.url, body=page)) for n in range(300)]
        )
    assert status["distinct"] == 300
    assert status["opened"] + status["clicked"] == len(web.asked)
    assert status["failures"] == 0
