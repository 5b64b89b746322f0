"""Delivery status notifications (RFC 3464 in RFC 6522; RFC 6533 for addresses beyond ASCII), dropped into a Maildir."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path

from contracts.smtp.server import HOSTNAME

_sequence = itertools.count(1)

_EXPLANATION = {
    "failed": "could not be delivered and will not be tried again",
    "delayed": "could not be delivered yet; it will be tried again, you need not send it again",
}


def report(
    *,
    return_path: str,
    recipient: str,
    original: bytes,
    arrived: datetime,
    now: datetime,
    action: str = "failed",
    status: str = "5.1.1",
    text: str = "No such user here",
) -> bytes:
    """One DSN with CRLF lines, as the final delivery agent puts it into the mailbox behind `return_path`.

    `action` is `failed` or `delayed`; `original` the message that it is about, of which the headers go back.
    """
    beyond_ascii = not f"{recipient}{return_path}".isascii()
    kind = "global-" if beyond_ascii else ""
    headers = original.partition(b"\r\n\r\n")[0]
    boundary = f"=_{uuid.uuid4().hex}"
    code = "550" if action == "failed" else "452"
    wire = "8bit" if beyond_ascii or not headers.isascii() else "7bit"
    top = [
        "Return-Path: <>",
        f"Delivered-To: {return_path}",
        f"Date: {format_datetime(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{HOSTNAME}>",
        f"To: {return_path}",
        f"Subject: {'Undelivered Mail Returned to Sender' if action == 'failed' else 'Delayed Mail (still being retried)'}",
        f"Message-ID: <{uuid.uuid4().hex}@{HOSTNAME}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={kind}delivery-status; boundary="{boundary}"',
        f"Content-Transfer-Encoding: {wire}",
    ]
    human = [
        f"This is the mail system at host {HOSTNAME}.",
        "",
        f"Your message to <{recipient}> {_EXPLANATION[action]}.",
        "",
        f"<{recipient}>: host mx.{recipient.rpartition('@')[2]} said:",
        f"    {code} {status} {text} (in reply to RCPT TO command)",
    ]
    fields = [
        f"Reporting-MTA: dns; {HOSTNAME}",
        f"Arrival-Date: {format_datetime(arrived)}",
        "",
        f"Final-Recipient: {'utf-8' if beyond_ascii else 'rfc822'}; {recipient}",
        f"Original-Recipient: {'utf-8' if beyond_ascii else 'rfc822'}; {recipient}",
        f"Action: {action}",
        f"Status: {status}",
        f"Remote-MTA: dns; mx.{recipient.rpartition('@')[2]}",
        f"Diagnostic-Code: smtp; {code} {status} {text}",
        f"Last-Attempt-Date: {format_datetime(now)}",
    ]
    returned = "message/global-headers" if beyond_ascii else "text/rfc822-headers"
    parts = [
        (f"text/plain; charset={'utf-8' if beyond_ascii else 'us-ascii'}", _encoded(human)),
        (f"message/{kind}delivery-status", _encoded(fields)),
        (returned, headers + b"\r\n"),
    ]
    body = b"".join(
        f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Transfer-Encoding: {wire}\r\n\r\n".encode()
        + content
        for content_type, content in parts
    )
    return _encoded(top) + body + f"\r\n--{boundary}--\r\n".encode()


def _encoded(lines: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape")


class Maildir:
    """A mailbox folder that others read while it is written: a file appears in `new/` whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def add(self, message: bytes) -> Path:
        """Write one message, with the line ends of this machine as delivery agents do; returns its file."""
        now = time.time()
        name = f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_sequence)}.sandbox"
        partial, final = self.folder / "tmp" / name, self.folder / "new" / name
        partial.write_bytes(message.replace(b"\r\n", b"\n"))
        partial.rename(final)
        return final
