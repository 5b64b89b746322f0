"""Against Postfix, the mail server that most relays are or behave like: what it took is what it delivers, and its own
reports of failure are read. Postfix is started privately, on loopback, with a queue of its own."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

from connectors.smtp.relay import Smtp, SmtpSettings
from contracts.smtp.certificate import issue
from hub.results import dsn
from hub.sdk.relay import Offer
from tests.connectors.smtp.case import Book, run, sent

MAIN = """
compatibility_level = 3.6
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.mailyard.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
in_flow_delay = 0
default_process_limit = 12
initial_destination_concurrency = 12
enable_long_queue_ids = yes
smtpd_tls_cert_file = {folder}/tls/relay.pem
smtpd_tls_key_file = {folder}/tls/relay.pem
smtpd_tls_security_level = may
smtpd_sasl_auth_enable = no
smtpd_reject_unlisted_recipient = no
smtpd_hard_error_limit = 1000
smtpd_soft_error_limit = 1000
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/refused, permit_mynetworks, reject
virtual_mailbox_domains = example.com, mailyard.example
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = regexp:{folder}/boxes
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
BOXES = r"""
/^p1[0-9]{4}@example\.com$/ others/
/^p[0-9]+@example\.com$/ people/
/^bounce\+[0-9]+@mailyard\.example$/ bounces/
"""
REFUSED = "/^nobody/ 550 5.1.1 No such user here\n"


@dataclass(frozen=True)
class Postfix:
    """A running one, and the folder with everything of it."""

    folder: Path
    port: int
    ca_file: Path

    def mails(self, box: str, count: int) -> list[bytes]:
        """The mails of a Maildir, once there are so many and nothing is queued any more."""
        folder = self.folder / "mail" / box / "new"
        deadline = time.monotonic() + 60
        while len(files := list(folder.glob("*"))) < count or self.queued():
            assert time.monotonic() < deadline, f"{len(files)} of {count} mails, {self.queued()} queued"
            time.sleep(0.05)
        return [each.read_bytes() for each in files]

    def queued(self) -> int:
        parts = (self.folder / "queue" / part for part in ("maildrop", "incoming", "active", "deferred"))
        return sum(1 for part in parts for _ in part.rglob("*") if _.is_file())

    def relay(self, pipelining: str) -> Smtp:
        about = {
            "host": "127.0.0.1",
            "port": self.port,
            "ca_file": str(self.ca_file),
            "helo": "hub.mailyard.example",
        }
        return Smtp("postfix", SmtpSettings.model_validate({**about, "pipelining": pipelining}))


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    if shutil.which("postfix", path="/usr/sbin:/usr/bin") is None:
        pytest.skip(
            "Postfix is not installed: what it takes and delivers was not tried (apt install postfix)"
        )
    if os.geteuid() != 0:
        pytest.skip("Postfix can be started by root only: what it takes and delivers was not tried")
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))  # pytest's own folders are closed to its user
    try:
        folder.chmod(0o755)
        _, ca_file = issue(folder / "tls")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        owner = pwd.getpwnam("postfix")
        os.chown(folder / "data", owner.pw_uid, owner.pw_gid)
        os.chown(folder / "mail", 65534, 65534)
        for name, text in {
            "etc/main.cf": MAIN, "etc/master.cf": MASTER, "boxes": BOXES, "refused": REFUSED
        }.items():  # fmt: skip
            filled = text.format(folder=folder, port=port) if name.startswith("etc") else text
            (folder / name).write_text(filled)
        command = ["/usr/sbin/postfix", "-c", str(folder / "etc"), "start"]
        started = subprocess.run(command, capture_output=True, text=True, timeout=60)
        log = folder / "log"
        assert started.returncode == 0, started.stderr + (log.read_text() if log.exists() else "")
        try:
            yield Postfix(folder, port, ca_file)
        finally:
            os.kill(
                int((folder / "queue/pid/master.pid").read_text()), signal.SIGTERM
            )  # and so all of its group
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def offers(first: int, count: int, who: str = "p{}@example.com") -> list[Offer]:
    """One mail each, with lines that begin with dots and bytes beyond ASCII."""
    return [
        Offer(
            n,
            f"bounce+{n}@mailyard.example",
            who.format(n),
            f"From: Mailyard <news@mailyard.example>\r\nTo: {who.format(n)}\r\nSubject: Mail {n}\r\n"
            f"Message-ID: <{n}@mailyard.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..\r\nGrüße, {n}\r\n".encode()
            + b"some words in a line\r\n" * 200,
        )
        for n in range(first, first + count)
    ]


@pytest.mark.parametrize(
    ("loop", "pipelining", "each", "first", "box"),
    [("uvloop", "full", 500, 0, "people"), ("asyncio", "auto", 60, 10_000, "others")],
)
def test_what_it_took_is_what_it_delivers(
    postfix: Postfix, loop: str, pipelining: str, each: int, first: int, box: str
) -> None:
    books = [Book(offers(first + n * each, each)) for n in range(4)]
    relay = postfix.relay(pipelining)

    async def all_sessions() -> list[object]:
        return list(await asyncio.gather(*(sent(relay, book) for book in books)))

    assert run(loop, all_sessions(), 120) == [None] * 4
    assert Counter(fate for book in books for fate in book.told) == {"250": 4 * each}
    assert all(book.replies[n].enhanced == "2.0.0" for book in books for n in book.taken)
    assert relay.pipelining == "full"
    mails = postfix.mails(box, 4 * each)
    assert sorted(int(_number(m)) for m in mails) == list(range(first, first + 4 * each))
    by_number = {int(_number(m)): m for m in mails}
    for offer in (o for book in books for o in offers(book.taken[0], each)):
        body = offer.content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
        assert by_number[offer.id].endswith(b"\n\n" + body)


@pytest.mark.parametrize("pipelining", ["off", "envelope", "full"])
def test_who_is_refused_at_once_does_not_stop_the_others(postfix: Postfix, pipelining: str) -> None:
    first = {"off": 20_000, "envelope": 21_000, "full": 22_000}[pipelining]
    known, unknown = offers(first, 20), offers(first + 100, 20, "nobody{}@example.com")
    book = Book([each for pair in zip(known, unknown, strict=True) for each in pair])
    assert run("uvloop", sent(postfix.relay(pipelining), book)) is None
    assert book.told == ["250", "550 rcpt"] * 20
    refusal = book.replies[first + 100]
    assert (refusal.code, refusal.enhanced, refusal.stage) == (550, "5.1.1", "rcpt")


def test_its_reports_of_failure_are_read(postfix: Postfix) -> None:
    book = Book(offers(30_000, 25, "gone{}@example.com"))
    assert run("uvloop", sent(postfix.relay("full"), book)) is None
    assert book.told == ["250"] * 25
    reports = [dsn.parse(raw) for raw in postfix.mails("bounces", 25)]
    assert Counter(report.verdict for report in reports) == {dsn.Verdict.BOUNCED: 25}
    assert {report.enhanced for report in reports} == {"5.1.1"}
    assert {report.message_ids for report in reports} == {(f"<{n}@mailyard.example>",) for n in book.taken}
    for report in reports:
        number = report.message_ids[0].strip("<>").partition("@")[0]
        assert f"bounce+{number}@mailyard.example" in report.sent_to
        assert "unknown user" in report.text


def _number(raw: bytes) -> str:
    return str(message_from_bytes(raw)["Subject"]).removeprefix("Mail ")
