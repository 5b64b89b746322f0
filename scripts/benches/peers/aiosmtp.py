"""aiosmtplib, in two ways: as most Python programs send (Jinja2, email.message), and with bytes made beforehand.

python -m scripts.benches.peers.aiosmtp PEOPLE.json HOST PORT COUNT CONNECTIONS [--prebuilt]
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiosmtplib
import jinja2

from scripts.benches.common import measured


class Writer:
    """Composes the mail for one person after the other."""

    def __init__(self, file: Path) -> None:
        told = json.loads(file.read_text(encoding="utf-8"))
        self.mail, self.people = told["mail"], told["people"]
        plain, html = jinja2.Environment(autoescape=False), jinja2.Environment(autoescape=True)  # noqa: S701  # text
        jinja = self.mail["jinja"]
        self.subject, self.text = plain.from_string(jinja["subject"]), plain.from_string(jinja["text"])
        self.html = html.from_string(jinja["html"])

    def envelope(self, n: int) -> tuple[str, str]:
        """Return path and recipient."""
        local, _, domain = self.mail["return_path"].partition("@")
        return f"{local}+{_token(n, 'b')}@{domain}", self.people[n % len(self.people)]["email"]

    def message(self, n: int) -> EmailMessage:
        mail, person = self.mail, self.people[n % len(self.people)]
        unsubscribe_url = f"{mail['public_url']}/u/{_token(n, 'u')}"
        values: dict[str, Any] = {
            "contact": person, "postal_address": mail["postal_address"], "unsubscribe_url": unsubscribe_url,
            **{f"token{link}": _token(n, str(link)) for link in range(6)},
        }  # fmt: skip
        made = EmailMessage(policy=SMTP)
        made["From"], made["To"], made["Subject"] = mail["from"], person["email"], self.subject.render(values)
        made["Date"] = formatdate()
        made["Message-ID"] = f"<{n}.{_token(n, 'm')}@mailyard.example>"
        made["Feedback-ID"], made["List-Id"] = mail["feedback_id"], f"<{mail['list_id']}>"
        made["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        made["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        made.set_content(self.text.render(values), cte="quoted-printable")
        made.add_alternative(self.html.render(values), subtype="html", cte="quoted-printable")
        return made


def _token(n: int, kind: str) -> str:
    return f"AAGGoAZ{n:07}{kind}k3vQ1Zp_xw"  # as long as the hub's own


async def _session(
    host: str, port: int, writer: Writer, numbers: Iterator[int], ready: list[bytes] | None
) -> None:
    async with aiosmtplib.SMTP(
        hostname=host, port=port, start_tls=False, use_tls=False, timeout=60
    ) as client:
        for n in numbers:
            sender, recipient = writer.envelope(n)
            content = ready[n % len(ready)] if ready else writer.message(n).as_bytes()
            await client.sendmail(sender, recipient, content)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("people", type=Path)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("--prebuilt", action="store_true")
    given = parser.parse_args()
    writer = Writer(given.people)
    ready = [writer.message(n).as_bytes() for n in range(100)] if given.prebuilt else None
    measured.begin()
    numbers = iter(range(given.count))
    await asyncio.gather(
        *(_session(given.host, given.port, writer, numbers, ready) for _ in range(given.connections))
    )
    measured.end()


if __name__ == "__main__":
    asyncio.run(main())
